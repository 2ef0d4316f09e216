# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what a run trains: base model, caches, adapter and losses, from a configuration."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from ...anydressing_core.checkpoint import Checkpoint, load_checkpoint, read_info, save_checkpoint
from ...anydressing_core.checkpoint_info import CheckpointInfo, Precision
from ...anydressing_core.pixels import as_pixels
from ...anydressing_core.places import words_for
from ...anydressing_core.refusals import refusal
from ...anydressing_core.sites import UNetShape
from ..base.model import BaseModel, load_base
from ..base.plan import plan_base
from ..base.tokenizer import load_tokenizer
from ..data.cache import CachePlan, build_cache
from ..data.cached import CachedData
from ..data.encoders import BaseEncoders
from ..data.manifest import Item, Manifest, read_manifest
from ..hardware import Hardware, choose_device, training_precision
from ..losses.dists import load_dists
from ..model.adapter import Adapter
from ..model.dressing import DressingModel
from ..model.people import EncodedGarment
from ..model.shared_reference import SharedReference
from ..places import require_there
from ..progress import Course
from ..run.start import Workplace
from .config import UNKNOWN, UNTITLED, TrainConfig
from .export import START
from .previews import Sitter
from .samples import DressingData
from .step import DressingStep, reading_of
from .task import DressingTask


def check_sources(config: TrainConfig, *, resume: bool = False) -> None:
    """Look at all that a run is made of, before it has a folder. Raises ValueError in the user's words.

    resume: whether the run goes on; `make_dressing_task` then says what its data lacks.
    """
    if config.losses.texture > 0:
        load_dists(config.losses.feature_network)
    manifest = read_manifest(config.data.manifest, config.data.root)
    base = config.base
    load_tokenizer(base.checkpoint, base.tokenizer, plan_base(base.checkpoint).text.network.config.vocab_size)
    lack = lack_in_manifest(config, manifest)
    if lack and not resume:
        raise lack


def make_dressing_task(config: TrainConfig, place: Workplace, kind: type[DressingModel] | None = None) -> DressingTask:
    """Load the base model, build the caches and lay out the adapter of a run.

    kind: another model around the adapter than `adapter.gfe` says, for comparison. The main process builds the caches, the others find them
    built. A signal meanwhile ends the process.
    """
    losses, accelerator = config.losses, place.accelerator
    dists = load_dists(losses.feature_network).to(accelerator.device) if losses.texture > 0 else None
    manifest = read_manifest(config.data.manifest, config.data.root)
    base = load_base(config.base.checkpoint, place.hardware, tokenizer=config.base.tokenizer)
    if config.memory.checkpointing:
        base.unet.enable_gradient_checkpointing()
        base.vae.enable_gradient_checkpointing()
    init = None if config.adapter.init is None else load_checkpoint(config.adapter.init)
    torch.manual_seed(config.seed)  # for the LoRAs' first weights; all later chance comes from the draws
    kind = kind or (DressingModel if config.adapter.gfe else SharedReference)
    model, new_slots = _start(config, base, init, manifest, place, kind)
    with accelerator.main_process_first():
        cached, shown = _caches(config, base, manifest, new_slots, place)
    _require_wearers(config, () if init is None else init.info.slots, cached, place)
    foreground = config.adapter.garment_tokens != "all"
    origin = [base.sha256, *([] if init is None else [init.identity])]
    origin += [] if dists is None else [dists.fingerprint]
    data = DressingData(
        cached,
        config.dropout,
        losses,
        foreground=foreground,
        new_slots=new_slots,
        origin=origin,
        most_bad=config.data.most_bad_items,
    )
    sitters = _sitters(shown, base, config.preview.people, new_slots) if config.preview.every else []
    step = DressingStep(model, base, losses, dists)
    return DressingTask(config, step, data, sitters, cached.no_text, place.run.path)


def adapter_info(config: TrainConfig, shape: UNetShape, dataset: str, precision: Precision) -> CheckpointInfo:
    """What the file of this run says of itself before its first step. precision: of the frozen base model."""
    adapter = config.adapter
    return CheckpointInfo(
        unet=shape,
        slots=adapter.slots,
        rank=dict.fromkeys(adapter.slots, adapter.rank),
        alpha=dict.fromkeys(adapter.slots, adapter.chosen_alpha),
        lora_targets=("q", "k", "v"),
        feature_tap=adapter.feature_tap,
        null_token=adapter.null_token,
        garment_tokens=adapter.garment_tokens,
        resolution=config.data.resolution,
        loss_reading=reading_of(config.losses).text,
        steps=0,
        dataset=dataset,
        dataset_licence=config.data.licence,
        training_config_hash=config.digest,
        title=adapter.title,
        author=adapter.author,
        precision=precision,
    )


def cache_for(config: TrainConfig, device: str, course: Course) -> CachedData:
    """Build the caches of a run beforehand and return the one that is trained on. device: as `choose_device` takes it."""
    chosen = choose_device(device)
    # Latents of another precision are other latents.
    hardware = Hardware(chosen, training_precision(config.memory.precision, chosen))
    base = load_base(config.base.checkpoint, hardware, tokenizer=config.base.tokenizer)
    manifest = read_manifest(config.data.manifest, config.data.root)
    return _cached(config, base, manifest, "train", course)


def _start(
    config: TrainConfig,
    base: BaseModel,
    init: Checkpoint | None,
    manifest: Manifest,
    place: Workplace,
    kind: type[DressingModel],
) -> tuple[DressingModel, list[str]]:
    """The adapter before step 0, and which garment kinds it alone trains; all of it when there are none."""
    dataset = f"{manifest.folder.name} ({manifest.digest[:12]})"
    info = adapter_info(config, base.shape, dataset, place.hardware.precision)
    new_slots: list[str] = []
    if init is not None:
        before = init.info
        new_slots = [slot for slot in info.slots if slot not in before.slots]
        known = [slot for slot in info.slots if slot in before.slots]
        info = replace(
            info,
            lora_targets=before.lora_targets,
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
    cached = _cached(config, base, manifest, "train", place.course)
    held_out = _wearing(manifest.of_split("held_out"), new_slots or config.adapter.slots)
    sitting = Manifest(manifest.folder, held_out[: config.preview.people], manifest.digest)
    if not (sitting.items and config.preview.every):
        return cached, cached
    try:
        return cached, _cached(config, base, sitting, "held_out", place.course, most_bad=1.0)
    except ValueError as error:  # no preview is worth a run
        place.display.say(f"Nobody who is held out can sit for the previews; others do. {error}")
        return cached, cached


def lack_in_manifest(config: TrainConfig, manifest: Manifest) -> ValueError | None:
    """What is wrong with data in which nobody wears some of a run's slots. Raises ValueError for a bad adapter.init."""
    init = config.adapter.init
    before = () if init is None else read_info(require_there(init, "adapter.init")).slots
    worn = {garment.slot for item in manifest.of_split("train") for garment in item.garments}
    return lack_of_wearers(config.adapter.slots, before, worn)


def lack_of_wearers(slots: Sequence[str], before: Sequence[str], worn: Collection[str]) -> ValueError | None:
    """What is wrong when some of the slots would never be trained. before: those that a file to start from has learned."""
    lacking = [slot for slot in slots if slot not in before and slot not in worn]
    if not lacking:
        return None
    possible = [slot for slot in slots if slot not in lacking] or sorted(worn)
    why = "The file would claim to dress people in what it never saw."
    remedy = f"set adapter.slots = {json.dumps(possible)}, or add people of split train who wear it."
    return refusal("data:", f"nobody in it wears {' or '.join(lacking)}", why, remedy)


def _require_wearers(config: TrainConfig, before: Sequence[str], cached: CachedData, place: Workplace) -> None:
    """Refuse to begin a run some of whose slots would never be trained; one that has begun goes on, with a word."""
    worn = {garment.slot for person in cached.people for garment in person.garments}
    lack = lack_of_wearers(config.adapter.slots, before, worn)
    if lack and not place.run.steps():
        raise lack
    if lack:
        place.display.say(f"{lack} This run goes on as it began.")


def _wearing(items: Sequence[Item], slots: Sequence[str]) -> list[Item]:
    return [item for item in items if any(garment.slot in slots for garment in item.garments)]


def _cached(
    config: TrainConfig,
    base: BaseModel,
    manifest: Manifest,
    split: str,
    course: Course,
    most_bad: float | None = None,
) -> CachedData:
    most_bad = config.data.most_bad_items if most_bad is None else most_bad
    data = config.data
    jitter = data.crop_jitter if split == "train" else 0.0
    wanted = CachePlan(data.resolution, config.adapter.slots, split, most_bad, config.losses.texture > 0, jitter)
    return build_cache(
        manifest, BaseEncoders(base), config.data.cache or manifest.folder / "cache", wanted, course=course
    )


def _sitters(cached: CachedData, base: BaseModel, people: int, new_slots: Sequence[str]) -> list[Sitter]:
    """The first people, or the first in a garment kind that is being added."""
    worn = [{garment.slot for garment in person.garments} for person in cached.people]
    chosen = [index for index, slots in enumerate(worn) if not new_slots or slots & set(new_slots)]
    sitters: list[Sitter] = []
    for index in chosen[:people]:
        person = cached.load(index)
        garments = [
            EncodedGarment(worn.slot, worn.latent, worn.cells, base.encode_words(words_for(worn.slot)))
            for worn in person.garments
        ]
        decoded = base.decode(torch.stack([worn.latent for worn in person.garments]).to(base.unet.device))
        flat_lays = [as_pixels(picture) for picture in decoded]
        truth = as_pixels(cached.picture(index))
        sitters.append(Sitter(person.id, person.caption, person.text, garments, flat_lays, truth))
    return sitters
