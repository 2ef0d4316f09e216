# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds dressed beside seconds undressed, in one process, turn by turn: the ratio is what a machine says.

    python -m benchmarks.clock step                      # SD1.5's U-Net with random weights, 384 x 288, two garments
    python -m benchmarks.clock step --size 768x576 --precision fp16 --write NAME     # on a GPU; into clock.json
    python -m benchmarks.clock doll                      # a whole sampling of the paper doll, as the nodes dress her

Of `step`, a step is one conditional and one unconditional row, each a call of its own; garments are of the picture's size. Rows "as run"
are the mean of two steps behind the whole ones: one that computes the recorded share of queries, and one that with a file takes its
term as it was. The others are the schemes of `schemes`.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.anydressing_core.defaults import STEPS, STRENGTH
from comfyui_anydressing.anydressing_core.latents import Size, latent_size
from comfyui_anydressing.anydressing_core.places import Places
from comfyui_anydressing.anydressing_core.reference_attention import reference_sites
from comfyui_anydressing.anydressing_core.sites import SD15, AttentionSite
from comfyui_anydressing.anydressing_core.word_table import POSITIONS
from comfyui_anydressing.anydressing_core.worn_queries import Chosen, WornQueries, WornStates
from comfyui_anydressing.training.arguments import Device, Precision, PrecisionName, hardware_of
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.dressing.finished import dressing_model, load_file
from comfyui_anydressing.training.hardware import Hardware
from comfyui_anydressing.training.model.people import Person, initial_noise, outfits_of_people
from comfyui_anydressing.training.model.processors import DressingRole, ReferenceStep, SiteProcessor, TextProcessor
from comfyui_anydressing.training.model.reference_dresser import ReferenceDresser
from comfyui_anydressing.training.model.sampling import Prompts, SamplingSettings, sample_latents
from comfyui_anydressing.training.paper_doll.bench.pictures import FIRST, encode_garment, outfit
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from rich.progress import track
from torch import Tensor

from . import schemes
from .flops import BY_REFERENCE, WITH_FILE, Recorded, Share
from .schemes import Garments, Layer, noise
from .worn import BASE, FILE, RESOLUTION, SLOTS

RESULT = Path(__file__).with_name("clock.json")
TIMES = 9
"""How often each step is taken; the median counts."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class LayerProcessor:
    """Self-attention as the scheme of the moment has it."""

    layer: Layer = staticmethod(schemes.plain)

    def __init__(self, site: AttentionSite) -> None:
        self._own = SiteProcessor(site)

    def __call__(self, attn: Any, hidden_states: Tensor, role: DressingRole | None = None, **_: Any) -> Tensor:
        return LayerProcessor.layer(self._own.site, _Own(attn, self._own, role), hidden_states)


class _Own:
    """An attention layer that is called as if our processor were its own. role: of a call that brings none."""

    def __init__(self, attn: Any, processor: SiteProcessor, role: DressingRole | None) -> None:
        self._attn, self._processor, self._role = attn, processor, role

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attn, name)

    def __call__(self, image: Tensor, role: DressingRole | None = None) -> Tensor:
        return self._processor(self._attn, image, role=role or self._role)


class FixedShare(WornQueries):
    """Computes a share of the queries that was recorded elsewhere, those in the middle of the picture, of which the first wear
    one garment and the next the other.
    """

    def __init__(self, shares: Mapping[str, Share], device: str, every: int = 1) -> None:
        super().__init__(every=every, whole=0)
        self._fixed, self._device = shares, device

    def _choose(self, sites: Sequence[AttentionSite]) -> dict[str, Chosen]:
        return {site.key: self._of(site) for site in sites if 0 < self._fixed[site.key].computed < 1}

    def _of(self, site: AttentionSite) -> Chosen:
        grid, share = site.grid(*self._size), self._fixed[site.key]
        length = grid[0] * grid[1]
        count = max(1, round(share.computed * length))
        alone = round((1 - share.of_tokens) * count)  # of either garment, which spares each of them half of all tokens
        first = (length - count) // 2
        order = torch.arange(length, device=self._device).roll(-first)[None]
        parts = [(0, alone), (1, alone), (None, count - 2 * alone)]
        return Chosen(order[:, :count], order[:, count:], tuple(part for part in parts if part[1]))


@dataclass(frozen=True)
class Timed:
    """Seconds of one step, each time it was taken; an undressed step was taken before each."""

    scheme: str
    seconds: list[float]
    plain: list[float]

    @property
    def ratio(self) -> float:
        """The median of the step over that of the undressed one."""
        return statistics.median(self.seconds) / statistics.median(self.plain)


def timed(scheme: str, plain: Callable[[], float], take: Callable[[], float]) -> Timed:
    """Take both turn by turn, once before it counts. plain, take: give seconds."""
    plain()
    take()
    seconds, before = list[float](), list[float]()
    for _ in track(range(TIMES), scheme):
        before.append(plain())
        seconds.append(take())
    return Timed(scheme, seconds, before)


class Clock:
    """SD1.5's U-Net with random weights. size: of picture and garments, in latent cells."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        with torch.device(device):
            self.unet = UNet2DConditionModel(**SD15.to_diffusers())
        self.unet.requires_grad_(False).to(dtype=dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
        self.size, self.device, self.dtype = size, str(device), dtype
        for site in SD15.sites:
            attention: Any = self.unet.get_submodule(site.diffusers_name)
            text: Any = self.unet.get_submodule(site.diffusers_name.removesuffix("1") + "2")
            attention.set_processor(LayerProcessor(site))
            text.set_processor(TextProcessor(site))

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """A noisy latent, a timestep and a prompt."""
        latent = noise((1, 4, *self.size), self.device, self.dtype)
        return latent, torch.tensor([500], device=self.device), noise((1, POSITIONS, 768), self.device, self.dtype)

    def garments(self, kept: float = 1.0, *, count: int = 2, half: bool = False) -> Garments:
        """Garments of the picture's size, or of half of it."""
        height, width = self.size
        return Garments(count, (height // 2, width // 2) if half else self.size, kept, self.device, self.dtype)

    @torch.inference_mode()
    def step(self, layers: Sequence[Layer], role: DressingRole | None = None) -> float:
        """The seconds of one step, a row for each layer. role: of the first row."""
        self._wait()
        began = time.perf_counter()
        for number, layer in enumerate(layers):
            LayerProcessor.layer = staticmethod(layer)
            told = None if number or role is None else {"role": role}
            latent, timestep, text = self.rows
            self.unet(latent, timestep, encoder_hidden_states=text, cross_attention_kwargs=told)
        self._wait()
        return time.perf_counter() - began

    def time(self, scheme: str, take: Callable[[], float]) -> Timed:
        """Take a scheme's step and an undressed one, turn by turn."""
        return timed(scheme, partial(self.step, [schemes.plain] * 2), take)

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def as_run(
    clock: Clock, arm: str, kept: float, *, half: bool = False, by_reference: bool = False
) -> Callable[[], float]:
    """Steps as artists have them: every call takes two, and gives their mean."""
    garments, shares = clock.garments(kept, half=half), Recorded.of(arm).of_later_steps
    worn = WornStates(FixedShare(shares, clock.device, every=2), FixedShare(shares, clock.device))
    if by_reference:
        read = {site.key: schemes.read(site, garments) for site in reference_sites(SD15)}
        places = noise((1, 2, *clock.size), clock.device, clock.dtype).abs()
        weights = torch.ones(2, device=clock.device)
        role = DressingRole({}, STRENGTH, ReferenceStep(read, weights, places, None, "", clock.size), worn)
    else:
        laid = {site.key: schemes.laid_out(site, garments, null_token=True, maps=True) for site in SD15.sites}
        role = DressingRole(laid, STRENGTH, worn=worn)

    def two_steps() -> float:
        seconds = 0.0
        for _ in range(2):
            for state in worn:
                state.begin(SD15.sites, clock.size)
            seconds += clock.step([schemes.plain] * 2, role)
        return seconds / 2

    return two_steps


def everything(clock: Clock, kept: float) -> Iterator[tuple[str, Callable[[], float]]]:
    """Every row of the table. kept: of a garment's tokens that are its own."""
    plain, two, half, own = schemes.plain, clock.garments(), clock.garments(half=True), clock.garments(kept)
    one = clock.garments(count=1)

    def ours(garments: Garments, *, null_token: bool) -> Layer:
        return partial(schemes.dressed, garments=garments, null_token=null_token)

    def reference(garments: Garments) -> Layer:
        return partial(schemes.by_reference, garments=garments, picture=clock.size)

    def rows(*layers: Layer) -> Callable[[], float]:
        return partial(clock.step, layers)

    yield "ours as run, two full-size garments", as_run(clock, WITH_FILE, kept)
    yield "ours as run, all tokens of two full-size garments", as_run(clock, WITH_FILE, 1.0)
    yield "ours as run, two half-size garments", as_run(clock, WITH_FILE, kept, half=True)
    yield "reference mode as run, two full-size garments", as_run(clock, BY_REFERENCE, kept, by_reference=True)
    yield (
        "reference mode as run, two half-size garments",
        as_run(clock, BY_REFERENCE, kept, half=True, by_reference=True),
    )
    yield "ours, full-size", rows(ours(two, null_token=False), plain)
    yield "ours, full-size, null token", rows(ours(two, null_token=True), plain)
    yield "ours, half-size, null token", rows(ours(half, null_token=True), plain)
    yield "reference mode, all tokens", rows(reference(two), plain)
    yield "reference mode, own tokens", rows(reference(own), plain)
    yield "one garment: ours, null token", rows(ours(one, null_token=True), plain)
    yield "one garment: MagicClothing-like", rows(*[partial(schemes.concatenated, garments=one)] * 2)
    yield "one garment: IMAGDressing-like", rows(partial(schemes.dressed_from_features, garments=one), plain)
    yield "one garment: StableGarment-like", rows(partial(schemes.called_twice, garments=one), plain, plain)
    yield "FastFit-like, two half-size, cached", rows(*[partial(schemes.extended, garments=half)] * 2)
    yield "reference-only: two garments pass in every step", rows(reference(two), plain, plain, plain)


Write = Annotated[str, typer.Option(help=f"Under this name into {RESULT.name}.")]


@app.command()
def step(
    size: Annotated[str, typer.Option(help="Of picture and garments, height x width in pixels.")] = "384x288",
    write: Write = "",
    only: Annotated[list[str] | None, typer.Option(help="Rows with these words in their names.")] = None,
    precision: Precision = PrecisionName.fp32,
    device: Device = "auto",
) -> None:
    """Time a step of every scheme beside the undressed U-Net's, SD1.5 with random weights."""
    hardware = hardware_of(precision, device).for_file("fp32")
    height, width = (int(part) for part in size.split("x"))
    clock = Clock(latent_size((height, width)), hardware.device, hardware.dtype)
    kept = Recorded.of(WITH_FILE).kept
    rows = [
        clock.time(name, take)
        for name, take in everything(clock, kept)
        if not only or any(word in name for word in only)
    ]
    _tell(f"a step of SD1.5 at {size}", hardware, rows, write)


@app.command()
def doll(write: Write = "", precision: Precision = PrecisionName.fp32, device: Device = "auto") -> None:
    """Time whole samplings of the paper doll in two garments, which were read before, beside undressed ones."""
    hardware = hardware_of(precision, device).for_file("fp32")
    base = load_base(BASE, hardware)
    file, reference = dressing_model(load_file(FILE), base), ReferenceDresser(base, RESOLUTION)
    truth = outfit(FIRST, SLOTS, RESOLUTION).truth
    garments = [encode_garment(slot, truth, truth, file.preparation, base, half=False) for slot in SLOTS]
    no_text = base.encode_text([""])[0]
    worn = outfits_of_people([Person("", no_text, garments)], base.unet)
    start = initial_noise(0, "", RESOLUTION)[None].to(base.unet.device)
    prompts = Prompts(base.encode_text([truth.caption]), no_text)
    settings = SamplingSettings(steps=STEPS, guidance=4.0)
    laid_out, read = file.garments(worn), reference.reference(worn, STRENGTH)
    assert read is not None

    def sampling(by: Literal["nobody", "file", "reference"], states: WornStates | None = None) -> float:
        of_file = laid_out if by == "file" else None
        of_reference = replace(read, places=Places()) if by == "reference" else None
        began = time.perf_counter()
        sampled = sample_latents(
            base.unet, base.schedule, prompts, start, settings, of_file, reference=of_reference, worn=states
        )
        sampled.latents.cpu()  # waits for the device
        return time.perf_counter() - began

    rows = [
        timed(title, partial(sampling, "nobody"), take)
        for title, take in (
            ("file, everywhere", partial(sampling, "file")),
            ("file, as run", lambda: sampling("file", WornStates.usual())),
            ("by reference, everywhere", partial(sampling, "reference")),
            ("by reference, as run", lambda: sampling("reference", WornStates.usual())),
        )
    ]
    _tell(f"{STEPS} steps of the doll at {RESOLUTION[0]}x{RESOLUTION[1]}", hardware, rows, write)


def _tell(what: str, hardware: Hardware, rows: Sequence[Timed], write: str) -> None:
    """Print the ratios, and keep them under a name."""
    cuda = hardware.device.type == "cuda"
    machine = torch.cuda.get_device_name(hardware.device) if cuda else f"{torch.get_num_threads()} CPU cores"
    print(f"{what}, {hardware.precision}, {machine}, torch {torch.__version__}, median of {TIMES}")
    for row in rows:
        print(f"{row.scheme:50} {row.ratio:6.3f}   {statistics.median(row.seconds):8.3f} s")
    if write:
        there = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
        there[write] = {
            "what": what,
            "machine": machine,
            "platform": platform.machine(),
            "precision": hardware.precision,
            "torch": torch.__version__,
            "ratios": {row.scheme: round(row.ratio, 3) for row in rows},
            "plain": round(statistics.median(second for row in rows for second in row.plain), 4),
        }
        write_atomically(RESULT, (json.dumps(there, indent=1) + "\n").encode())


if __name__ == "__main__":
    app()
