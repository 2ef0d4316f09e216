# SPDX-License-Identifier: GPL-3.0-or-later
"""A training step on made-up data: what memory and FLOPs are counted on, and what a benchmark times.

It runs the trainer's own parts (DressingModel, losses, two-phase texture). On PyTorch's fake tensors, which have shapes
and lifetimes but no content, SD1.5's step takes seconds on a CPU, and `LiveMemory` sees every tensor come and go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from comfyui_anydressing.anydressing_core.checkpoint_info import CheckpointInfo
from comfyui_anydressing.anydressing_core.sites import SD15, UNetShape
from comfyui_anydressing.training.losses.dists import Dists, Vgg16Stages
from comfyui_anydressing.training.losses.terms import (
    LossReading,
    LossWeights,
    ldm_loss,
    localisation_loss,
    one_step_estimate,
    texture_loss,
    texture_of_rows,
    two_phase_texture,
    weighted_sum,
)
from comfyui_anydressing.training.model.adapter import Adapter
from comfyui_anydressing.training.model.dressing import DressingModel, Outfits, Prediction
from comfyui_anydressing.training.run.config import TrainConfig, parse_config, preset_names
from comfyui_anydressing.training.run.needs import GIB, StepMemory
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel

GARMENTS = 2
PAPER_RESOLUTION = (768, 576)
TEXT_TOKENS = 77


# ---- the networks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Networks:
    """The frozen networks of a run. text_encoder: only its size matters here."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: nn.Module
    dists: Dists

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.unet, self.vae, self.text_encoder, self.dists

    def fill(self, device: torch.device | str) -> Networks:
        """Give networks on the meta device random weights on a real one; they are then frozen, in eval mode."""
        for network in self.modules:
            for module in network.eval().modules():
                for name, old in module.named_parameters(recurse=False):
                    new = 0.02 * torch.randn(old.shape, dtype=old.dtype, device=device)
                    setattr(module, name, nn.Parameter(new, requires_grad=False))
                for name, old in module.named_buffers(recurse=False):
                    module._buffers[name] = torch.ones(old.shape, dtype=old.dtype, device=device)
        return self


def sd15_networks(precision: str) -> Networks:
    """SD1.5's networks and VGG16 on the meta device, in the dtypes in which the trainer loads them."""
    from torchvision.models import vgg16

    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    with torch.device("meta"):
        features = vgg16(weights=None, init_weights=False).features
        assert isinstance(features, nn.Sequential)
        unet = UNet2DConditionModel.from_config(SD15.to_diffusers())
        vae = _autoencoder((128, 256, 512, 512), layers_per_block=2)
        return _in_precision(unet, vae, CLIPTextModel(text), Vgg16Stages(features), precision)


def tiny_networks(precision: str) -> Networks:
    """Networks of the same kind, on the meta device, that a CPU runs in a moment."""
    shape = UNetShape((16, 32), (1, 1), (True, True), mid_attention=True, heads=4, cross_attention_dim=24)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config({**shape.to_diffusers(), "norm_num_groups": 8})
        vae = _autoencoder((8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)
        return _in_precision(unet, vae, nn.Linear(8, 8), _TinyFeatures(), precision)


class _TinyFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        first = self.first(image).relu()
        return [first, self.second(first).relu()]


def _autoencoder(channels: tuple[int, ...], **settings: int) -> AutoencoderKL:
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    network: Any = AutoencoderKL.from_config(
        {**blocks, "block_out_channels": channels, "latent_channels": 4, **settings}
    )
    return network


def _in_precision(unet: Any, vae: AutoencoderKL, text_encoder: nn.Module, features: Any, precision: str) -> Networks:
    dtype = _dtype(precision)
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype
    for network, kept in ((unet, dtype), (vae, vae_dtype)):
        nn.Module.to(network, kept)  # not diffusers' own, which warns of a list that is empty here
    return Networks(unet, vae, text_encoder.float(), Dists(features))


def _dtype(precision: str) -> torch.dtype:
    """The frozen networks' dtype; `auto` is taken for bf16, which every card since Ampere computes."""
    return {"fp32": torch.float32, "fp16": torch.float16}.get(precision, torch.bfloat16)


# ---- the step -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """B people in N garments each. The letters are those of `losses` and `DressingModel`."""

    noisy: Tensor
    noise: Tensor
    text: Tensor
    timestep: Tensor
    outfits: Outfits
    image: Tensor
    edges: Tensor
    masks: Tensor


class Rehearsal:
    """One configuration's step, on a device or on fake tensors.

    The batch is real in both cases: the step decides by masks and timesteps, and only what it computes is fake.
    """

    def __init__(self, config: TrainConfig, networks: Networks) -> None:
        self.config, self.networks = config, networks
        self.shape = UNetShape.from_diffusers(networks.unet.config)
        with networks.unet.device:
            self.model = DressingModel(networks.unet, Adapter(self._info(), networks.unet))
        for network in (networks.unet, networks.vae):
            if config.memory.checkpointing:
                network.enable_gradient_checkpointing()
            else:
                network.disable_gradient_checkpointing()
        losses = config.losses
        self._weights = LossWeights(losses.localisation, losses.texture, losses.eta)
        self._reading = LossReading(
            losses.localisation_reduction, losses.high_frequency_reduction, losses.perceptual_region
        )

    def batch(self) -> Batch:
        """A batch in which everybody wears two garments, and at t = 0, where the texture losses act."""
        count, (height, width) = self.config.data.batch, self.config.data.resolution
        device, dtype = self.networks.unet.device, self.networks.unet.dtype  # a fake network's is the CPU
        latents = (4, height // 8, width // 8)
        normal = {"device": device, "dtype": dtype}
        masks = torch.zeros(count, GARMENTS, height, width, device=device)
        for garment, rows in enumerate(masks.chunk(GARMENTS, dim=2)):
            rows[:, garment] = 1.0
        slots = [self.config.adapter.slots[index % len(self.config.adapter.slots)] for index in range(GARMENTS)]
        worn = torch.arange(count * GARMENTS, device=device).view(count, GARMENTS)
        return Batch(
            noisy=torch.randn(count, *latents, **normal),
            noise=torch.randn(count, *latents, device=device),
            text=torch.randn(count, TEXT_TOKENS, self.shape.cross_attention_dim, **normal),
            timestep=torch.zeros(count, dtype=torch.long, device=device),
            outfits=Outfits(torch.randn(count * GARMENTS, *latents, **normal), slots * count, worn),
            image=torch.randn(count, 3, height, width, device=device),
            edges=torch.ones(count, 1, height, width, device=device),
            masks=masks,
        )

    def predict(self, batch: Batch) -> tuple[Prediction, Tensor]:
        """Both passes of the U-Net, and L_LDM + lambda1 L_loc."""
        prediction = self.model(batch.noisy, batch.timestep, batch.text, batch.outfits, self.config.losses.strength)
        height, width = batch.noisy.shape[-2:]
        grids = {site.key: site.grid(height, width) for site in self.shape.sites}
        localisation = localisation_loss(prediction.maps, batch.masks, grids, reduction=self._reading.localisation)
        return prediction, weighted_sum(ldm_loss(prediction.noise, batch.noise), localisation, 0.0, self._weights)

    def texture(self, batch: Batch, prediction: Prediction) -> Tensor:
        """What lambda2 L_texture adds to the loss: the surrogate of its first phase, or with one phase itself."""
        alpha = torch.full((len(batch.noisy),), 0.99, device=batch.noisy.device)
        estimate = one_step_estimate(batch.noisy, prediction.noise, alpha)
        eta, most = self._weights.eta, self.config.losses.texture_samples or None
        if self.config.memory.two_phase_texture:
            chance = torch.Generator().manual_seed(0)
            term = two_phase_texture(
                estimate,
                batch.timestep,
                eta,
                lambda row, at: self.judge(batch, row, slice(at, at + 1))[:, 0],
                max_per_step=most,
                generator=chance,
            )
            return self._weights.lambda2 * term.surrogate
        rows = self.judge(batch, estimate, slice(None))
        return self._weights.lambda2 * texture_loss(rows.sum(dim=0), batch.timestep, eta)

    def judge(self, batch: Batch, latents: Tensor, rows: slice) -> Tensor:
        """Decode some rows' estimate and compare it with their pictures: L_perc and L_hf of each."""
        vae = self.networks.vae
        decoded: Any = vae.decode(latents.to(vae.dtype) / vae.config["scaling_factor"])
        image, edges, masks = batch.image[rows], batch.edges[rows], batch.masks[rows]
        return texture_of_rows(decoded.sample.float(), image, masks, edges, self.networks.dists, self._reading)

    def step(self) -> None:
        """Everything between two optimizer steps, for one micro-batch."""
        batch = self.batch()
        prediction, loss = self.predict(batch)
        if self.config.losses.texture:
            loss = loss + self.texture(batch, prediction)
        loss.backward()

    def _info(self) -> CheckpointInfo:
        settings, config = self.config.adapter, self.config
        targets: Any = tuple(settings.lora_targets.split(","))
        return CheckpointInfo(
            unet=self.shape,
            slots=settings.slots,
            rank=dict.fromkeys(settings.slots, settings.rank),
            alpha=dict.fromkeys(settings.slots, settings.chosen_alpha),
            lora_targets=targets,
            feature_tap=settings.feature_tap,
            null_token=settings.null_token,
            garment_tokens=settings.garment_tokens,
            resolution=config.data.resolution,
            loss_reading="rehearsal",
            steps=0,
            dataset="none",
            dataset_licence="none",
            training_config_hash="0" * 64,
            title="rehearsal",
            author="nobody",
        )


# ---- counting -------------------------------------------------------------------------------------------------------


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made under it and still alive; views count once.

    now, peak: bytes. outside: what was there before, such as weights, so that its views are not counted either.
    """

    def __init__(self, outside: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {tensor.untyped_storage()._cdata: tensor for tensor in outside}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, lambda _: self._free(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int) -> None:
        del self._alive[key]
        self.now -= size

    def take_peak(self) -> int:
        """The most bytes alive since the last call; the next peak begins from what is alive now."""
        peak, self.peak = self.peak, self.now
        return peak


def fake_rehearsal(config: TrainConfig, networks: Callable[[str], Networks] = sd15_networks) -> Rehearsal:
    """A step without content: it computes shapes alone. networks: makes them in a precision."""
    shapes = networks(config.memory.precision)
    with FakeTensorMode(allow_non_fake_inputs=True):
        return Rehearsal(config, shapes.fill("cpu"))


def step_memory(config: TrainConfig, networks: Callable[[str], Networks] = sd15_networks) -> StepMemory:
    """Compute what a step of this configuration needs, for SD1.5 or other networks."""
    rehearsal = fake_rehearsal(config, networks)
    frozen = [tensor for module in rehearsal.networks.modules for tensor in (*module.parameters(), *module.buffers())]
    trained = list(rehearsal.model.parameters())
    gradients = [torch.zeros_like(parameter) for parameter in trained]
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.grad = gradient
    copies = 4 + (config.optimizer.average > 0)  # the weights, their gradients, AdamW's two moments, the average
    with LiveMemory([*frozen, *trained, *gradients]) as live:
        batch = rehearsal.batch()
        prediction, loss = rehearsal.predict(batch)
        held, forward = live.now, live.take_peak()
        if config.losses.texture:
            loss = loss + rehearsal.texture(batch, prediction)
        texture = live.take_peak()
        loss.backward()
        backward = live.take_peak()
    return StepMemory(
        frozen=sum(tensor.nbytes for tensor in frozen) / GIB,
        trained=copies * sum(tensor.nbytes for tensor in trained) / GIB,
        held=held / GIB,
        working=(max(forward, backward) - held) / GIB,
        texture=(texture - held) / GIB,
    )


def preset_config(name: str, *overrides: str) -> TrainConfig:
    """A preset as a configuration, its paths made up. overrides: `section.key=value`."""
    text = f'preset = "{name}"\nfolder = "run"\nbase.checkpoint = "base"\n[data]\nmanifest = "manifest"'
    return parse_config(text, f"preset {name}", overrides)


def sd15_presets() -> dict[str, TrainConfig]:
    """The presets that train SD1.5 at the paper's resolution."""
    presets: dict[str, TrainConfig] = {}
    for name in preset_names():
        try:
            config = preset_config(name)
        except ValueError:  # it describes a run of another kind
            continue
        if config.data.resolution == PAPER_RESOLUTION:
            presets[name] = config
    return presets
