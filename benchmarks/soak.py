# SPDX-License-Identifier: GPL-3.0-or-later
"""All shipped workflows on one real server for as long as an evening's work: the same pictures, no growing memory.

    python -m benchmarks.soak [--prompts 300] [--interrupts 40] [--cache classic|lru|none|ram]

Workflows are drawn at random, small (96 x 128, two steps) and at one of three seeds; some runs are interrupted at a random
moment. Every picture must be, to the bit, the one that its workflow and seed gave the first time.
"""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import requests
import typer
from comfyui_anydressing.dev.client import ComfyClient, Event, Prompt, Result
from comfyui_anydressing.dev.comfyui import find_or_fetch
from comfyui_anydressing.dev.export_workflows import STAND_INS
from comfyui_anydressing.dev.layouts import LAYOUTS, awake
from comfyui_anydressing.dev.prompts import RANDOM_MODELS, shipped
from comfyui_anydressing.dev.random_checkpoint import build_in_subprocess
from comfyui_anydressing.dev.server import ComfyServer
from PIL import Image
from rich.console import Console

CACHES = {
    "classic": ["--cache-classic"],
    "lru": ["--cache-lru", "20"],
    "none": ["--cache-none"],
    "ram": ["--cache-ram", "2"],
}
SEEDS = (1, 2, 3)
SMALL = RANDOM_MODELS | {
    "EmptyLatentImage": {"width": 96, "height": 128},
    "AnyDressingGarmentEncode": {"size": "custom", "width": 96, "height": 128},
    "KSampler": {"steps": 2},
}
KIB = 1024


@dataclass
class Soak:
    """What a soak has seen. rss: bytes of the server's process after each prompt. changed: workflows whose picture changed."""

    rss: list[int] = field(default_factory=list[int])
    first: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    changed: list[str] = field(default_factory=list[str])
    interrupted: int = 0

    @property
    def slope(self) -> float:
        """By how many KiB a prompt memory grows over the last third: the median over all pairs of its prompts (Theil-Sen).

        What Python has not collected yet makes single prompts stick out by some 80 MiB, which tilts least squares.
        """
        last = list(enumerate(self.rss[-max(2, len(self.rss) // 3) :]))
        return statistics.median((b - a) / (j - i) for (i, a), (j, b) in itertools.combinations(last, 2)) / KIB


def small_workflows() -> dict[str, Prompt]:
    """The shipped workflows, small; random models stand in for an artist's."""
    found: dict[str, Prompt] = {}
    for name, layout in LAYOUTS.items():
        found[name] = awake(shipped(name), layout)
        for node in found[name].values():
            node["inputs"] |= SMALL.get(node["class_type"], {})
    return found


def soak(
    server: ComfyClient, pid: int, prompts: int, interrupts: int, said: Callable[[int, Soak], None] = lambda *_: None
) -> Soak:
    """Run `prompts` prompts, of which `interrupts` are stopped at a random moment."""
    draw, seen, workflows = random.Random(0), Soak(), small_workflows()
    stopped = set(draw.sample(range(len(workflows), prompts), interrupts))  # not before every workflow may have run
    process = psutil.Process(pid)
    for number in range(prompts):
        name, seed = draw.choice(list(workflows)), draw.choice(SEEDS)
        prompt = at_seed(workflows[name], seed)
        if number in stopped:
            seen.interrupted += run_and_stop(server, prompt, draw).status == "interrupted"
        else:
            picture = digest_of(server.run(prompt).check(), prompt)
            if seen.first.setdefault((name, seed), picture) != picture:
                seen.changed.append(f"{name}, seed {seed}, prompt {number}")
        seen.rss.append(process.memory_info().rss)
        said(number, seen)
    return seen


def at_seed(prompt: Prompt, seed: int) -> Prompt:
    """The prompt with every sampler at a seed."""
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["seed"] = seed
    return prompt


def run_and_stop(server: ComfyClient, prompt: Prompt, draw: random.Random) -> Result:
    """Run a prompt and interrupt it at a random one of its messages, or somewhat later."""
    left, wait = draw.randrange(1, 20), draw.uniform(0, 0.5)

    def follow(event: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            time.sleep(wait)
            server.interrupt()

    return server.run(prompt, follow)


def digest_of(result: Result, prompt: Prompt) -> str:
    """Of every picture that was saved, in the order of nodes: its pixels, whatever else is in the file."""
    digest = hashlib.sha256()
    for key in sorted(key for key in result.images if prompt[key]["class_type"] == "SaveImage"):
        for png in result.images[key]:
            digest.update(Image.open(io.BytesIO(png)).tobytes())
    return digest.hexdigest()


def is_idle(server: ComfyClient) -> bool:
    """Whether nothing runs and nothing waits."""
    queue = requests.get(f"{server.url}/queue", timeout=60).json()
    return not queue["queue_running"] and not queue["queue_pending"]


def main(
    prompts: Annotated[int, typer.Option(min=60)] = 300,
    interrupts: Annotated[int, typer.Option(min=0)] = 40,
    cache: Annotated[list[str] | None, typer.Option(help="Which of ComfyUI's caches; all when left out.")] = None,
) -> None:
    """Soak a server in each cache mode; exit 1 when a picture changed, memory grew, or the queue did not empty."""
    screen, failed, comfyui = Console(), False, find_or_fetch()
    models = build_in_subprocess(comfyui)
    for mode in cache or CACHES:
        with tempfile.TemporaryDirectory() as base:
            flags = ["--use-pytorch-cross-attention", *CACHES[mode]]
            with ComfyServer(comfyui, Path(base), models=models, packs=STAND_INS, flags=flags) as server:
                server.upload_image(comfyui / "input" / "example.png")

                def said(number: int, seen: Soak, mode: str = mode) -> None:
                    if number % 20 == 19:
                        screen.print(f"{mode}: {number + 1} prompts, {seen.rss[-1] / KIB**2:.0f} MiB", highlight=False)

                seen = soak(server, server.pid, prompts, interrupts, said)
                good = not seen.changed and seen.slope <= 50 and is_idle(server) and server.log_problems() == []
                failed |= not good
                screen.print(
                    f"{mode}: {len(seen.rss)} prompts, {seen.interrupted} of {interrupts} interrupted in time; changed: "
                    f"{', '.join(seen.changed) or 'nothing'}; {seen.slope:+.1f} KiB a prompt over the last third; "
                    f"{'queue empty' if is_idle(server) else 'the queue is not empty'}; {'good' if good else 'BAD'}",
                    highlight=False,
                )
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
