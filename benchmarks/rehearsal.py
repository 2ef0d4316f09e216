# SPDX-License-Identifier: GPL-3.0-or-later
"""A training step on made-up data: what memory and FLOPs are counted on, and what a benchmark times.

It runs the trainer's own step (`DressingStep`). On PyTorch's fake tensors, which have shapes and lifetimes but no content,
SD1.5's step takes seconds on a CPU, and `LiveMemory` sees every tensor come and go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from comfyui_anydressing.anydressing_core.defaults import RESOLUTION
from comfyui_anydressing.anydressing_core.latents import latent_size
from comfyui_anydressing.anydressing_core.sites import SD15, UNetShape
from comfyui_anydressing.anydressing_core.word_table import POSITIONS
from comfyui_anydressing.training.base.model import BaseModel
from comfyui_anydressing.training.base.schedule import NoiseSchedule
from comfyui_anydressing.training.dressing.build import adapter_info
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.dressing.samples import DressingBatch
from comfyui_anydressing.training.dressing.step import DressingStep
from comfyui_anydressing.training.hardware import CPU, Hardware
from comfyui_anydressing.training.losses.dists import Dists, Vgg16Stages
from comfyui_anydressing.training.model.adapter import Adapter
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.run.config import parse_config, preset_names
from comfyui_anydressing.training.run.needs import GIB, StepMemory
from comfyui_anydressing.training.run.noise import Draw
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel

GARMENTS = 2


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
    hardware = hardware_for(precision)
    for network, kept in ((unet, hardware.dtype), (vae, hardware.vae_dtype)):
        nn.Module.to(network, kept)  # not diffusers' own, which warns of a list that is empty here
    return Networks(unet, vae, text_encoder.float(), Dists(features))


def hardware_for(wanted: str, device: torch.device = CPU.device) -> Hardware:
    """Where and in what frozen networks compute; `auto` is taken for bf16, which every card since Ampere computes."""
    precision: Any = "bf16" if wanted == "auto" else wanted
    return Hardware(device, precision)


# ---- the step -------------------------------------------------------------------------------------------------------


class Rehearsal:
    """One configuration's step, on a device or on fake tensors: the trainer's own, on a batch that is made up.

    The batch is real in both cases: the step decides by masks and timesteps, and only what it computes is fake. shown: the
    share of a garment's picture, from the top, that shows it; where only its own tokens take part, those are as many, and no more is
    read of a crop.
    """

    def __init__(self, config: TrainConfig, networks: Networks, shown: float = 1.0) -> None:
        self.config, self.networks, self.shown = config, networks, shown
        self.shape = UNetShape.from_diffusers(networks.unet.config)
        info = adapter_info(config, self.shape, "none", "fp32")
        with networks.unet.device:
            self.model = DressingModel(networks.unet, Adapter(info, networks.unet))
        for network in (networks.unet, networks.vae):
            if config.memory.checkpointing:
                network.enable_gradient_checkpointing()
            else:
                network.disable_gradient_checkpointing()
        self.step = DressingStep(
            self.model, self._base(), config.losses, networks.dists if config.losses.texture else None
        )

    def batch(self) -> DressingBatch:
        """A batch in which everybody wears two garments, and at t = 0, where the texture losses act."""
        count, resolution = self.config.data.batch, self.config.data.resolution
        device = self.networks.unet.device  # a fake network's is the CPU
        latents, slots = (4, *latent_size(resolution)), self.config.adapter.slots
        masks = torch.zeros(count, GARMENTS, *resolution, device=device)
        for garment, rows in enumerate(masks.chunk(GARMENTS, dim=2)):
            rows[:, garment] = 1.0
        kinds = [slots[index % len(slots)] for index in range(GARMENTS)]
        worn = torch.arange(count * GARMENTS, device=device).view(count, GARMENTS)
        cells = None
        if self.config.adapter.garment_tokens != "all":
            cells = torch.zeros(count * GARMENTS, *latents[1:], dtype=torch.bool, device=device)
            cells[:, : round(self.shown * latents[1])] = True
        return DressingBatch(
            latents=torch.randn(count, *latents, device=device),
            noise=torch.randn(count, *latents, device=device),
            timestep=torch.zeros(count, dtype=torch.long, device=device),
            text=torch.randn(count, POSITIONS, self.shape.cross_attention_dim, device=device),
            outfits=Outfits(torch.randn(count * GARMENTS, *latents, device=device), kinds * count, worn, cells),
            masks=masks,
            edges=torch.ones(count, 1, *resolution, device=device),
            pictures={row: torch.randn(3, *resolution, device=device) for row in range(count)},
            draw=Draw(seed=0, step=0, position=0, item=0),
        )

    def run(self) -> None:
        """Everything between two optimizer steps, for one micro-batch."""
        self.step.terms(self.batch(), measure=False).total.backward()

    def _base(self) -> BaseModel:
        networks, nobody = self.networks, Any  # no text is encoded here
        return BaseModel(
            name="rehearsal",
            sha256="",
            shape=self.shape,
            unet=networks.unet,
            vae=networks.vae,
            text_encoder=networks.text_encoder,  # pyright: ignore[reportArgumentType]
            tokenizer=nobody,  # pyright: ignore[reportArgumentType]
            schedule=NoiseSchedule.sd15(),
            hardware=hardware_for(self.config.memory.precision, networks.unet.device),
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


def fake_rehearsal(
    config: TrainConfig, networks: Callable[[str], Networks] = sd15_networks, shown: float = 1.0
) -> Rehearsal:
    """A step without content: it computes shapes alone. networks: makes them in a precision. shown: as of `Rehearsal`."""
    shapes = networks(config.memory.precision)
    with FakeTensorMode(allow_non_fake_inputs=True):
        return Rehearsal(config, shapes.fill("cpu"), shown)


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
        batch, step = rehearsal.batch(), rehearsal.step
        predicted = step.predict(batch)
        held, forward = live.now, live.take_peak()
        total = step.total(predicted, step.texture(batch, predicted))
        texture = live.take_peak()
        total.backward()
        backward = live.take_peak()
    return StepMemory(
        frozen=sum(tensor.nbytes for tensor in frozen) / GIB,
        trained=copies * sum(tensor.nbytes for tensor in trained) / GIB,
        held=held / GIB,
        working=(max(forward, backward) - held) / GIB,
        texture=0.0 if rehearsal.step.dists is None else (texture - held) / GIB,
    )


def preset_config(name: str, *overrides: str) -> TrainConfig:
    """A preset as a configuration, its paths made up. overrides: `section.key=value`."""
    text = f'preset = "{name}"\nfolder = "run"\nbase.checkpoint = "base"\n[data]\nmanifest = "manifest"'
    return parse_config(text, f"preset {name}", TrainConfig, overrides)


def sd15_presets() -> dict[str, TrainConfig]:
    """The presets that train SD1.5 at the paper's resolution."""
    presets: dict[str, TrainConfig] = {}
    for name in preset_names(TrainConfig):
        try:
            config = preset_config(name)
        except ValueError:  # it describes a run of another kind
            continue
        if config.data.resolution == RESOLUTION:
            presets[name] = config
    return presets
