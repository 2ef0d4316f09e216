# SPDX-License-Identifier: GPL-3.0-or-later
"""What `anydressing train` trains: the adapter on a frozen base model, by Eq. 15."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...anydressing_core.checkpoint import Checkpoint, load_checkpoint, read_info, save_checkpoint
from ...anydressing_core.checkpoint_info import CheckpointInfo
from ...anydressing_core.sites import UNetShape
from ..base.model import BaseModel, load_base
from ..base.plan import plan_base
from ..base.tokenizer import load_tokenizer
from ..data.cache import BaseEncoders, BuildStoppedError, CachedData, Progress, build_cache
from ..data.entries import tensor_digest
from ..data.manifest import Item, Manifest, read_manifest
from ..losses.dists import Dists, load_dists
from ..losses.terms import (
    TEXTURE_PARTS,
    LossReading,
    LossWeights,
    drawn_rows,
    gradient_norms,
    ldm_loss,
    localisation_loss,
    one_step_estimate,
    texture_of_rows,
    two_phase_texture,
    weighted_sum,
)
from ..model.adapter import Adapter
from ..model.dressing import DressingModel
from ..model.sampling import Garment, SamplingSettings, as_pixels
from ..run.config import UNKNOWN, UNTITLED, TrainConfig
from ..run.loop import Terms, Watch
from ..run.start import Workplace, frozen_dtype
from .export import START
from .previews import Sitter, draw_sheet, sample_rows, save_sheet
from .samples import DressingBatch, DressingData


@dataclass(frozen=True)
class _Texture:
    """L_texture: its term, with the graph; what is shown; and L_perc and L_hf by name, with graphs when measured."""

    term: Tensor
    values: Mapping[str, Tensor]
    graphs: Mapping[str, Tensor]


class DressingTask:
    """The adapter, its data and its losses. dists: None when texture is off. sitters: who sits for the previews."""

    def __init__(
        self,
        config: TrainConfig,
        base: BaseModel,
        model: DressingModel,
        data: DressingData,
        dists: Dists | None,
        sitters: list[Sitter],
        no_text: Tensor,
        folder: Path,
    ) -> None:
        self.module, self.data = model, data
        self._config, self._base, self._dists = config, base, dists
        self._sitters, self._no_text, self._folder = sitters, no_text, folder
        losses = config.losses
        self._weights = LossWeights(losses.localisation, losses.texture, losses.eta)
        self._reading = reading_of(config)

    def losses(self, batch: DressingBatch, *, measure: bool) -> Terms:
        """L of Eq. 15. measure: also the norm of each weighted term's gradient, see `_probe`.

        Without autocast: the frozen U-Net computes in its own precision, where autocast would keep every norm's result
        in fp32; the adapter's fp32 weights are rounded on the way in, and the losses are computed in fp32.
        """
        with torch.autocast(batch.latents.device.type, enabled=False):
            return self._losses(batch, measure)

    def _losses(self, batch: DressingBatch, measure: bool) -> Terms:
        settings = self._config.losses
        noisy = self._base.schedule.add_noise(batch.latents, batch.noise, batch.timestep)
        prediction = self.module(noisy, batch.timestep, batch.text, batch.outfits, settings.strength)
        ldm = ldm_loss(prediction.noise, batch.noise)
        grid = batch.latents.shape[-2:]
        sites = self.module.adapter.info.unet.sites
        localisation = localisation_loss(
            prediction.maps,
            batch.masks,
            {site.key: site.grid(*grid) for site in sites},
            reduction=settings.localisation_reduction,
            present=batch.present,
        )
        texture = self._texture(noisy, prediction.noise, batch, measure)
        total = weighted_sum(ldm, localisation, texture.term, self._weights)
        parts: dict[str, float | Tensor] = {"ldm": ldm, "loc": localisation, **texture.values}
        if measure:
            terms = {"ldm": ldm, "loc": self._weights.lambda1 * localisation}
            terms |= {name: self._weights.lambda2 * part for name, part in texture.graphs.items()}
            probe = self._probe()
            parts |= {f"gradient of {name}": norm for name, norm in gradient_norms(terms, probe).items()}
        return Terms(total, parts)

    def _probe(self) -> Tensor:
        """W_k' of the middle site, or where that is frozen a LoRA's matrix in the middle."""
        sites = self.module.adapter.info.unet.sites
        probe = self.module.adapter.site(sites[len(sites) // 2].key).to_k.weight
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return probe if probe.requires_grad else trained[len(trained) // 2]

    def _texture(self, noisy: Tensor, noise: Tensor, batch: DressingBatch, measure: bool) -> _Texture:
        if self._dists is None:
            return _Texture(torch.zeros(()), {}, {})
        settings, alphas = self._config.losses, self._base.schedule.alphas_cumprod
        estimate = one_step_estimate(noisy, noise, alphas.to(noisy.device)[batch.timestep])
        generator, of_row = batch.draw.generator("texture"), self._texture_of_row(batch)
        most = settings.texture_samples or None
        if self._config.memory.two_phase_texture:
            term = two_phase_texture(
                estimate,
                batch.timestep,
                settings.eta,
                of_row,
                max_per_step=most,
                generator=generator,
                separate=measure,
            )
            # The surrogate has the gradient alone; the loss that is shown needs the value, too.
            loss, parts = term.surrogate - term.surrogate.detach() + term.loss, term.parts
            graphs = parts if term.part_surrogates is None else term.part_surrogates
        else:
            rows, weight = drawn_rows(batch.timestep, settings.eta, most, generator)
            nothing = estimate[:0].sum().expand(1, len(TEXTURE_PARTS))
            graphs = torch.cat([nothing, *(of_row(estimate[row : row + 1], row)[None] for row in rows)]).sum(dim=0)
            graphs = graphs * (weight / len(batch.timestep))
            loss, parts = graphs.sum(), graphs.detach()
        values = dict(zip(TEXTURE_PARTS, parts, strict=True))
        return _Texture(loss, {"texture": loss.detach(), **values}, dict(zip(TEXTURE_PARTS, graphs, strict=True)))

    def _texture_of_row(self, batch: DressingBatch) -> Callable[[Tensor, int], Tensor]:
        assert batch.edges is not None
        edges, dists = batch.edges, self._dists
        assert dists is not None

        def texture(latent: Tensor, row: int) -> Tensor:
            only = slice(row, row + 1)
            if row not in batch.pictures:  # it was lost on the way, which its sample has said
                return 0 * latent.sum().expand(len(TEXTURE_PARTS))
            image = self._base.decode(latent)
            truth = batch.pictures[row][None]
            return texture_of_rows(
                image, truth, batch.masks[only], edges[only], dists, self._reading, present=batch.present[only]
            )[:, 0]

        return texture

    def preview(self, step: int, watch: Watch) -> None:
        """A sheet of the same few people at every preview."""
        if not self._sitters:
            return
        settings = sampling_settings(self._config)
        total, done = settings.steps * sum(len(sitter.outfits) for sitter in self._sitters), 0

        def progress(pictures: int) -> None:
            nonlocal done
            done += pictures
            watch(done, total)

        rows = sample_rows(
            self.module,
            self._base,
            self._sitters,
            self._no_text,
            settings,
            seed=self._config.preview.seed,
            size=self._config.data.resolution,
            progress=progress,
        )
        note = f"DDIM {settings.steps}, guidance {settings.guidance:g}, strength {settings.strength:g}"
        save_sheet(self._folder, step, draw_sheet(f"{self._config.adapter.title}, step {step}", note, rows))


def check_sources(config: TrainConfig) -> None:
    """Look at all that a run is made of, before it has a folder. Raises ValueError in the user's words."""
    if config.losses.texture > 0:
        load_dists(config.losses.feature_network)
    read_manifest(config.data.manifest)
    base = config.base
    load_tokenizer(base.checkpoint, base.tokenizer, plan_base(base.checkpoint).text.network.config.vocab_size)
    if config.adapter.init is not None:
        read_info(config.adapter.init)


def make_dressing_task(
    config: TrainConfig, place: Workplace, kind: type[DressingModel] = DressingModel
) -> DressingTask:
    """Load the base model, build the caches and lay out the adapter of a run.

    kind: another model around the adapter, for comparison. The main process builds the caches, the others find them built. A signal meanwhile ends the process.
    """
    losses, accelerator, folder = config.losses, place.accelerator, place.run.path
    dists = load_dists(losses.feature_network).to(accelerator.device) if losses.texture > 0 else None
    manifest = read_manifest(config.data.manifest)
    base = load_base(
        config.base.checkpoint, device=accelerator.device, dtype=place.frozen_dtype, tokenizer=config.base.tokenizer
    )
    if config.memory.checkpointing:
        base.unet.enable_gradient_checkpointing()
        base.vae.enable_gradient_checkpointing()
    init = None if config.adapter.init is None else load_checkpoint(config.adapter.init)
    torch.manual_seed(config.seed)  # for the LoRAs' first weights; all later chance comes from the draws
    model, new_slots = _start(config, base, init, manifest, place, kind)
    with accelerator.main_process_first():
        cached, shown = _caches(config, base, manifest, new_slots, place)
    foreground = config.adapter.garment_tokens == "foreground"
    origin = [base.sha256, *([] if init is None else [init.identity])]
    origin += [] if dists is None else [tensor_digest(dists.state_dict())]
    data = DressingData(
        cached,
        config.dropout,
        losses,
        foreground=foreground,
        new_slots=new_slots,
        origin=origin,
        most_bad=config.data.most_bad_items,
    )
    sitters = _sitters(shown, base, config.preview.people, new_slots, foreground) if config.preview.every else []
    return DressingTask(config, base, model, data, dists, sitters, cached.no_text, folder)


def adapter_info(config: TrainConfig, shape: UNetShape, dataset: str) -> CheckpointInfo:
    """What the file of this run says of itself before its first step."""
    adapter = config.adapter
    return CheckpointInfo(
        unet=shape,
        slots=adapter.slots,
        rank=dict.fromkeys(adapter.slots, adapter.rank),
        alpha=dict.fromkeys(adapter.slots, adapter.chosen_alpha),
        lora_targets=tuple(adapter.lora_targets.split(",")),  # type: ignore[arg-type]
        feature_tap=adapter.feature_tap,
        null_token=adapter.null_token,
        garment_tokens=adapter.garment_tokens,
        resolution=config.data.resolution,
        loss_reading=reading_of(config).text,
        steps=0,
        dataset=dataset,
        dataset_licence=config.data.licence,
        training_config_hash=config.digest,
        title=adapter.title,
        author=adapter.author,
    )


def reading_of(config: TrainConfig) -> LossReading:
    """How this run reads the paper's norms (D6)."""
    losses = config.losses
    return LossReading(losses.localisation_reduction, losses.high_frequency_reduction, losses.perceptual_region)


def sampling_settings(config: TrainConfig) -> SamplingSettings:
    """How this run samples its previews."""
    preview = config.preview
    return SamplingSettings(preview.steps, preview.guidance, preview.strength)


def cache_for(config: TrainConfig, progress: Progress, stop: Callable[[], bool]) -> CachedData:
    """Build the caches of a run beforehand and return the one that is trained on."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = frozen_dtype(config)  # latents of another precision are other latents
    base = load_base(config.base.checkpoint, device=device, dtype=dtype, tokenizer=config.base.tokenizer)
    manifest = read_manifest(config.data.manifest)
    return _cached(config, base, manifest, "train", progress, stop)


def _start(
    config: TrainConfig,
    base: BaseModel,
    init: Checkpoint | None,
    manifest: Manifest,
    place: Workplace,
    kind: type[DressingModel],
) -> tuple[DressingModel, list[str]]:
    """The adapter before step 0, and which garment kinds it alone trains; all of it when there are none."""
    info = adapter_info(config, base.shape, f"{manifest.folder.name} ({manifest.digest[:12]})")
    new_slots: list[str] = []
    if init is not None:
        before = init.info
        new_slots = [slot for slot in info.slots if slot not in before.slots]
        known = [slot for slot in info.slots if slot in before.slots]
        info = replace(
            info,
            rank={**info.rank, **{slot: before.rank[slot] for slot in known}},
            alpha={**info.alpha, **{slot: before.alpha[slot] for slot in known}},
            steps=before.steps,
            dataset=_both(before.dataset, info.dataset),
            dataset_licence=_both(before.dataset_licence, info.dataset_licence),
            title=before.title if info.title == UNTITLED else info.title,
            author=before.author if info.author == UNKNOWN else info.author,
        )
    adapter = Adapter(info, base.unet)
    if init is not None:
        adapter.load(init)
    if new_slots:
        adapter.train_only(new_slots)
    start = place.run.path / START
    if place.accelerator.is_main_process and not place.run.steps():
        save_checkpoint(start, adapter.checkpoint())
    return kind(base.unet, adapter).to(place.accelerator.device), new_slots


def _both(before: str, now: str) -> str:
    """What a file was trained on first, and then: both remain in it."""
    return before if now in before.split("; then ") else f"{before}; then {now}"


def _caches(
    config: TrainConfig, base: BaseModel, manifest: Manifest, new_slots: Sequence[str], place: Workplace
) -> tuple[CachedData, CachedData]:
    """The people who are trained on, and those who sit for the previews: held-out ones where the data has some."""
    watched = place.display.work, lambda: bool(place.wish)
    try:
        cached = _cached(config, base, manifest, "train", *watched)
        held_out = _wearing(manifest.of_split("held_out"), new_slots or config.adapter.slots)
        sitting = Manifest(manifest.folder, held_out[: config.preview.people], manifest.digest)
        if not (sitting.items and config.preview.every):
            return cached, cached
        try:
            return cached, _cached(config, base, sitting, "held_out", *watched, most_bad=1.0)
        except ValueError as error:  # no preview is worth a run
            place.display.say(f"Nobody who is held out can sit for the previews; others do. {error}")
            return cached, cached
    except BuildStoppedError as stopped:
        place.display.say(f"{stopped} What is built is kept. Go on with --resume.")
        raise SystemExit(place.wish.exit_status) from stopped


def _wearing(items: Sequence[Item], slots: Sequence[str]) -> list[Item]:
    return [item for item in items if any(garment.slot in slots for garment in item.garments)]


def _cached(
    config: TrainConfig,
    base: BaseModel,
    manifest: Manifest,
    split: str,
    progress: Progress,
    stop: Callable[[], bool],
    most_bad: float | None = None,
) -> CachedData:
    return build_cache(
        manifest,
        BaseEncoders(base),
        config.data.cache or manifest.folder / "cache",
        resolution=config.data.resolution,
        slots=config.adapter.slots,
        split=split,
        most_bad=config.data.most_bad_items if most_bad is None else most_bad,
        edges=config.losses.texture > 0,
        progress=progress,
        stop=stop,
    )


def _sitters(
    cached: CachedData, base: BaseModel, people: int, new_slots: Sequence[str], foreground: bool
) -> list[Sitter]:
    """The first people, or the first in a garment kind that is being added."""
    worn = [{garment.slot for garment in person.garments} for person in cached.people]
    chosen = [index for index, slots in enumerate(worn) if not new_slots or slots & set(new_slots)]
    sitters: list[Sitter] = []
    for index in chosen[:people]:
        person = cached.load(index)
        garments = [Garment(worn.slot, worn.latent, worn.cells if foreground else None) for worn in person.garments]
        decoded = base.decode(torch.stack([worn.latent for worn in person.garments]).to(base.unet.device))
        flat_lays = [as_pixels(picture) for picture in decoded]
        truth = as_pixels(cached.picture(index))
        sitters.append(Sitter(person.id, person.caption, person.text, garments, flat_lays, truth))
    return sitters
