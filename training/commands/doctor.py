# SPDX-License-Identifier: GPL-3.0-or-later
"""What `anydressing doctor` says: whether this machine can train, with which preset, and what to do about the rest.

`examine` asks the machine, `judge` draws the conclusions. Nothing here raises because something is missing: that is a
finding. Hence only the standard library is imported before it is known to be there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..run.needs import GIB, HalfPrecision, Presets, StepMemory, best_preset, read_table, smallest_preset

Level = Literal["problem", "note"]

REQUIRED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "einops": "einops",
    "numpy": "numpy",
    "cv2": "opencv-python",
    "pydantic": "pydantic",
    "tomli_w": "tomli-w",
    "typer": "typer",
    "rich": "rich",
}
"""Module -> the package that brings it."""

OPTIONAL = {"tensorboard": ("tensorboard", "curves in TensorBoard, for tensorboard = true")}
"""Module -> the package that brings it, and what for."""

OLDEST_DIFFUSERS = (0, 42)
LEAST_DISK = 2.0  # GiB: three checkpoints of 0.4 GiB and the next one beside them
CPU_PRESETS = ("paper-doll-cpu", "smoke")
"""What a machine without a GPU can run, best first."""


@dataclass(frozen=True)
class Gpu:
    """memory: GiB. capability: CUDA's compute capability. bf16: whether it computes bfloat16 itself."""

    name: str
    memory: float
    capability: tuple[int, int]
    bf16: bool


@dataclass(frozen=True)
class Facts:
    """What there is. versions: module -> version, None when it is missing. ram, disk: GiB, None when unknown.

    folder: where runs go. tokenizer: CLIP's, None when it is in none of the usual places. presets: their names.
    """

    python: str
    versions: Mapping[str, str | None]
    gpus: tuple[Gpu, ...]
    cores: int
    ram: float | None
    folder: Path
    disk: float | None
    tokenizer: Path | None
    presets: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """problem: training cannot begin. note: it can, and this is worth knowing. remedy: what to do."""

    level: Level
    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """preset: the best one for this machine, None when none fits. why: the reason in one sentence."""

    facts: Facts
    preset: str | None
    why: str
    findings: tuple[Finding, ...]

    @property
    def status(self) -> int:
        """The exit status: 1 when something prevents training."""
        return int(any(finding.level == "problem" for finding in self.findings))

    def render(self) -> str:
        """The report as text, in a table where rich is installed."""
        rows = [*_described(self.facts), ("preset", f"{self.preset or 'none'}: {self.why}")]
        text = _columns(rows)
        for finding in self.findings:
            text += f"\n{finding.level.upper()}: {finding.what}\n  What to do: {finding.remedy}\n"
        verdict = "Something prevents training, see above." if self.status else "This machine can train."
        return f"{text}\n{verdict}\n"


def examine(folder: Path | None = None, tokenizer: Path | None = None) -> Diagnosis:
    """Look at this machine.

    folder: where runs will go, the working directory when None. tokenizer: the folder of CLIP's; None looks in the usual
    places.
    """
    return judge(gather(folder or Path.cwd(), tokenizer), read_table())


def judge(facts: Facts, table: Presets) -> Diagnosis:
    """Draw the conclusions. table: what the presets for SD1.5 need."""
    preset, why, about_gpu = _choice(facts, table)
    about_vgg16 = [_without_vgg16(preset)] if facts.gpus and preset else []
    findings = (*_about_packages(facts), *about_gpu, *about_vgg16, *_about_the_rest(facts))
    return Diagnosis(facts, preset, why, findings)


# ---- which preset ---------------------------------------------------------------------------------------------------


def _choice(facts: Facts, table: Presets) -> tuple[str | None, str, tuple[Finding, ...]]:
    if not facts.gpus:
        preset = next((name for name in CPU_PRESETS if name in facts.presets), None)
        remedy = "train the paper-doll world here, and SD1.5 on a machine with an NVIDIA card of 12 GB or more."
        finding = Finding("note", "PyTorch sees no GPU. SD1.5 would take months on a CPU.", remedy)
        return preset, "without a GPU only small worlds can be trained", (finding,)
    gpu = min(facts.gpus, key=lambda each: each.memory)
    if re.search(r"GTX 16\d\d", gpu.name):
        remedy = "train on another card; dressing and sampling work here."
        why = "in fp16, its only fast precision, SD1.5 gives NaN on GTX 16xx cards"
        return None, why, (Finding("problem", f"{gpu.name}: {why}, and fp32 does not fit.", remedy),)
    precision: HalfPrecision = "bf16" if gpu.bf16 else "fp16"
    needs = {name: by_precision[precision] for name, by_precision in table.items()}
    preset = best_preset(needs, gpu.memory)
    if preset is not None:
        why = f"it should have {needs[preset].needed:.1f} GiB in {precision}, {gpu.name} has {gpu.memory:.1f}"
        return preset, why, () if gpu.bf16 else (_without_bf16(gpu),)
    return None, *_too_small(gpu, needs)


def _too_small(gpu: Gpu, needs: Mapping[str, StepMemory]) -> tuple[str, tuple[Finding, ...]]:
    smallest = smallest_preset(needs)
    need, without = needs[smallest], needs[smallest].without_texture
    why = f"the smallest preset, {smallest}, should have {need.needed:.1f} GiB, {gpu.name} has {gpu.memory:.1f}"
    notes = () if gpu.bf16 else (_without_bf16(gpu),)
    if without.needed <= gpu.memory:
        remedy = (
            f'start from preset = "{smallest}" with losses.texture = 0, which should have {without.needed:.1f} GiB. '
            "Fine patterns will be less faithful."
        )
        return why, (Finding("note", f"No preset fits as it is: {why}.", remedy), *notes)
    remedy = "use a card with 12 GB or more."
    return why, (Finding("problem", f"No preset fits: {why}.", remedy),)


def _without_bf16(gpu: Gpu) -> Finding:
    major, minor = gpu.capability
    remedy = 'set memory.precision = "fp16"; the loss is scaled, and the autoencoder computes in fp32 by itself.'
    what = f"{gpu.name} (compute capability {major}.{minor}) has no bf16, which the presets ask for."
    return Finding("note", what, remedy)


def _without_vgg16(preset: str) -> Finding:
    what = f'preset = "{preset}" compares fabrics by VGG16, whose weights this pack neither holds nor downloads.'
    remedy = (
        "name a .safetensors file with them as losses.feature_network, or set losses.texture = 0, which trains without. "
        "A run that lacks the file says how to make it."
    )
    return Finding("note", what, remedy)


# ---- the rest -------------------------------------------------------------------------------------------------------


def _about_packages(facts: Facts) -> Iterator[Finding]:
    missing = [package for module, package in REQUIRED.items() if facts.versions.get(module) is None]
    if missing:
        remedy = 'run pip install ".[train]" in the folder of this pack, or install these by name.'
        yield Finding("problem", f"Training needs packages that are missing: {', '.join(missing)}.", remedy)
    diffusers = facts.versions.get("diffusers")
    if diffusers and _numbers(diffusers) < OLDEST_DIFFUSERS:
        oldest = ".".join(map(str, OLDEST_DIFFUSERS))
        what = f"diffusers {diffusers} is older than {oldest}, and checkpoints activations otherwise."
        yield Finding("problem", what, f'pip install "diffusers>={oldest}"')


def _about_the_rest(facts: Facts) -> Iterator[Finding]:
    if facts.disk is not None and facts.disk < LEAST_DISK:
        what = f"{facts.disk:.1f} GiB are free where runs go ({facts.folder}); a run's checkpoints take {LEAST_DISK:g}."
        yield Finding("problem", what, "free some space, or give runs another folder.")
    if facts.ram is not None and facts.ram < 8:
        what = f"{facts.ram:.1f} GiB of memory is little: a base model and the pictures pass through it."
        yield Finding("note", what, "set data.workers = 0 and close other programs.")
    if facts.tokenizer is None and facts.versions.get("transformers"):
        what = (
            "CLIP's tokenizer is missing: two files, vocab.json and merges.txt, by which captions are read, the paper "
            "doll's, too. They are not part of this pack, and nothing is downloaded."
        )
        remedy = (
            "set COMFYUI_PATH to a ComfyUI, which has them in comfy/sd1_tokenizer, or name their folder as "
            "base.tokenizer; `anydressing doctor --tokenizer FOLDER` looks at it. A diffusers folder brings its own."
        )
        yield Finding("problem", what, remedy)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


# ---- the facts ------------------------------------------------------------------------------------------------------


def gather(folder: Path, tokenizer: Path | None = None) -> Facts:
    """Ask the machine. What cannot be asked counts as missing. tokenizer: where it alone is looked for, if given."""
    modules = [*REQUIRED, *OPTIONAL]
    packages = {**REQUIRED, **{module: package for module, (package, _) in OPTIONAL.items()}}
    return Facts(
        python=platform.python_version(),
        versions={module: _version(module, packages[module]) for module in modules},
        gpus=_gpus(),
        cores=os.cpu_count() or 1,
        ram=_ram(),
        folder=folder,
        disk=_free_disk(folder),
        tokenizer=_tokenizer(folder, tokenizer),
        presets=tuple(sorted(path.stem for path in (Path(__file__).parents[1] / "presets").glob("*.toml"))),
    )


def _version(module: str, package: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"  # installed under another name, such as opencv-python-headless


def _gpus() -> tuple[Gpu, ...]:
    try:
        import torch

        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError, AssertionError):  # no PyTorch, or a driver that does not answer
        return ()
    return tuple(
        Gpu(card.name, card.total_memory / GIB, (card.major, card.minor), bf16=card.major >= 8) for card in cards
    )


def _ram() -> float | None:
    try:
        import psutil  # comes with accelerate
    except ImportError:
        return None
    return psutil.virtual_memory().total / GIB


def _free_disk(folder: Path) -> float | None:
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), None)
    try:
        return None if there is None else shutil.disk_usage(there).free / GIB
    except OSError:
        return None


def _tokenizer(folder: Path, given: Path | None) -> Path | None:
    try:
        from ..base.tokenizer import is_tokenizer, tokenizer_places
    except ImportError:  # without transformers it cannot be opened anyway
        return None
    places = tokenizer_places(folder) if given is None else [given]
    return next((place for place in places if is_tokenizer(place)), None)


# ---- as text --------------------------------------------------------------------------------------------------------


def _described(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "Python", facts.python
    for module, package in REQUIRED.items():
        yield package, facts.versions.get(module) or "missing"
    for module, (package, purpose) in OPTIONAL.items():
        yield package, f"{facts.versions.get(module) or 'not installed'} (optional: {purpose})"
    for gpu in facts.gpus:
        major, minor = gpu.capability
        bf16 = "bf16" if gpu.bf16 else "no bf16"
        yield "GPU", f"{gpu.name}, {gpu.memory:.1f} GiB, compute capability {major}.{minor}, {bf16}"
    if not facts.gpus:
        yield "GPU", "none that PyTorch can use"
    yield "CPU", f"{facts.cores} cores"
    yield "memory", "unknown" if facts.ram is None else f"{facts.ram:.1f} GiB"
    free = "unknown" if facts.disk is None else f"{facts.disk:.1f} GiB"
    yield "free disk", f"{free} in {facts.folder}"
    yield "tokenizer", str(facts.tokenizer or "not found")


def _columns(rows: list[tuple[str, str]]) -> str:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return "".join(f"{name:14}{value}\n" for name, value in rows)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    text = io.StringIO()
    Console(file=text, width=100, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
