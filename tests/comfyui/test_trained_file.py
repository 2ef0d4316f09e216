# SPDX-License-Identifier: GPL-3.0-or-later
"""A file made by `anydressing train` and `anydressing export`, in the real server: it predicts what the trainer predicts.

One euler step from sigma to 0 leaves x - sigma * eps (Eq. 10), so a saved latent tells the server's prediction eps.
Both sides begin with the same PNG files, words and seed; canvas, latents, embeddings and noise each side makes itself.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tomli_w
import torch
from comfyui_anydressing.anydressing_core.checkpoint import load_checkpoint
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.data.pictures import Source, flat_lay, person_picture
from comfyui_anydressing.training.dressing.export import START
from comfyui_anydressing.training.model.adapter import Adapter
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.paper_doll.world import write_dataset
from safetensors.torch import load_file

from dev.server import ComfyServer

pytestmark = pytest.mark.comfyui

PAINTED = (96, 80)
"""Height and width of the data set's pictures: another shape than smoke's 64 x 48, so that canvases are padded."""

POSITIVE, NEGATIVE, SEED = "a woman in a knitted jumper and a skirt, in a park", "blurry", 7
CHECKPOINT, LOADER, DRESSED, SAMPLER, SAVE = "checkpoint", "file", "dressed", "sampler", "save"

TOLERANCE = 3e-5
"""Some hundred layers, each off by fp32's 6e-8, and guidance 3 multiplies by up to 5; measured: 2e-6. The garments'
features in half precision would be 5e-5 off, a canvas rounded to bytes 1e-4, one moved by a pixel 6e-3."""

CLEARLY = 1000 * TOLERANCE


@dataclass(frozen=True)
class Step:
    """One euler step on the first person of the data set, as an artist sets it. denoise: 1 or 0.5."""

    cfg: float = 1.0
    strength: float = 0.7
    denoise: float = 1.0
    garment_tokens: str = "as trained"

    @property
    def timestep(self):
        """Where scheduler `simple` begins: at the last timestep, or in the middle of all 1000."""
        return torch.tensor([999 if self.denoise == 1 else 499])


STEPS = {
    "from noise": Step(),
    "undressed": Step(strength=0.0),
    "guided": Step(cfg=3.0),
    "half-way": Step(denoise=0.5),
    "all tokens": Step(garment_tokens="all"),
}


@pytest.fixture(scope="module")
def checkpoint(random_models):
    return random_models / "checkpoints" / "anydressing_random_sd15.safetensors"


@pytest.fixture(scope="module")
def tokenizer(comfyui_path):
    return comfyui_path / "comfy" / "sd1_tokenizer"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A data set of four, without hats."""
    return write_dataset(tmp_path_factory.mktemp("people"), 4, size=PAINTED, hats=0.0).parent


@pytest.fixture(scope="module")
def run(root, people, checkpoint, tokenizer, tmp_path_factory):
    """A short run of `smoke`, at a rate at which a few steps change every weight visibly."""
    folder = tmp_path_factory.mktemp("trained")
    config = {
        "preset": "smoke",
        "folder": str(folder / "run"),
        "steps": 3,
        "base": {"checkpoint": str(checkpoint), "tokenizer": str(tokenizer)},
        "data": {"manifest": str(people / "manifest.jsonl")},
        "optimizer": {"learning_rate": 0.01},
        "preview": {"every": 0},
    }
    (folder / "smoke.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    anydressing(root, "train", folder / "smoke.toml")
    return folder / "run"


@pytest.fixture(scope="module")
def file(root, run, tmp_path_factory):
    """The exported file, where a server finds it."""
    file = tmp_path_factory.mktemp("base") / "models" / "anydressing" / "smoke.safetensors"
    anydressing(root, "export", run, file)
    return file


@pytest.fixture(scope="module")
def server(file, people, comfyui_path, random_models):
    # On the CPU also where there is a GPU: there ComfyUI computes in half precision.
    flags = ["--cpu", "--use-pytorch-cross-attention", "--preview-method", "none"]
    with ComfyServer(comfyui_path, file.parents[2], models=random_models, flags=flags) as running:
        for picture in (PERSON, *GARMENTS.values()):
            running.upload_image(people / picture)
        yield running


@pytest.fixture(scope="module")
def trainer(people, checkpoint, tokenizer):
    return Trainer(people, load_base(checkpoint, tokenizer=tokenizer))


def anydressing(root, *arguments):
    """Run the command in a process of its own."""
    command = [sys.executable, root / "tests" / "support" / "command_entry.py", *arguments]
    result = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# ---- the two sides --------------------------------------------------------------------------------------------------

PERSON = "img/train-0000000.png"
GARMENTS = {slot: f"g/train-0000000_{slot}.png" for slot in ("upper", "lower")}


class Trainer:
    """What the trainer's own code says of a step; `people` is the data set's folder."""

    def __init__(self, people, base):
        self.people, self.base = people, base
        self.person = base.encode_mode(person_picture(self.source(PERSON), PAINTED)[None])
        self.text, self.other_text = base.encode_text([POSITIVE, NEGATIVE]).split(1)

    def source(self, name):
        return Source.find(name, self.people / name)

    def noisy(self, step):
        """z_t (1, 4, 12, 10): noise alone, or the person with noise up to the step's timestep."""
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn(self.person.shape, generator=generator)
        return noise if step.denoise == 1 else self.base.schedule.add_noise(self.person, noise, step.timestep)

    @torch.no_grad()
    def prediction(self, file, step, slots=("upper", "lower")):
        """eps (1, 4, 12, 10) of Eq. 16, with a finished file, the upper garment and the lower worn as `slots`."""
        checkpoint = load_checkpoint(file)
        tokens = checkpoint.info.garment_tokens if step.garment_tokens == "as trained" else step.garment_tokens
        adapter = Adapter(replace(checkpoint.info, garment_tokens=tokens), self.base.unet)
        adapter.load(checkpoint)
        flat_lays = [flat_lay(self.source(name), checkpoint.info.resolution) for name in GARMENTS.values()]
        canvases, cells = torch.cat([one.picture for one in flat_lays]), torch.stack([one.cells for one in flat_lays])
        outfits = Outfits(self.base.encode_mode(canvases), slots, torch.tensor([[0, 1]]), cells)
        noisy, model = self.noisy(step), DressingModel(self.base.unet, adapter)
        dressed = model(noisy, step.timestep, self.text, outfits, step.strength).noise
        if step.cfg == 1:
            return dressed
        plain = self.base.unet(noisy, step.timestep, encoder_hidden_states=self.other_text).sample
        return step.cfg * dressed + (1 - step.cfg) * plain

    def read(self, clean, step):
        """The prediction by which a step came to its clean latent, which is Eq. 10 solved for eps."""
        alpha = self.base.schedule.alphas_cumprod[step.timestep].float()
        return (self.noisy(step) - alpha.sqrt() * clean) / (1 - alpha).sqrt()


def latent_of(server, step, file):
    """The latent that the server saves after one step, as its U-Net counts: scaled."""
    result = server.run(graph(step, file.name)).check()
    place = result.outputs[SAVE]["latents"][0]
    saved = load_file(server.base / "output" / place["subfolder"] / place["filename"])
    return saved["latent_tensor"] * 0.18215


def graph(step, file):
    """The workflow of one step. A link names a node and which of its outputs."""
    model, clip, vae = ([CHECKPOINT, output] for output in range(3))
    return {
        CHECKPOINT: node("CheckpointLoaderSimple", ckpt_name="anydressing_random_sd15.safetensors"),
        LOADER: node("AnyDressingLoader", file=file),
        **{name: node("LoadImage", image=Path(name).name) for name in (PERSON, *GARMENTS.values())},
        **{
            slot: node(
                "AnyDressingGarmentEncode",
                **{"model": model, "vae": vae, "anydressing": [LOADER, 0], "image": [picture, 0], "slot": slot},
                **{"size": "full", "width": 512, "height": 512},  # the last two are for size "custom"
                **{"garment_tokens": step.garment_tokens, "keep_loras": False},
            )
            for slot, picture in GARMENTS.items()
        },
        DRESSED: node(
            "AnyDressingApply",
            **{"model": model, "strength": step.strength, "start_percent": 0.0, "end_percent": 1.0},
            **{f"garments.garment_{index}": [slot, 0] for index, slot in enumerate(GARMENTS)},
        ),
        **{text: node("CLIPTextEncode", clip=clip, text=text) for text in (POSITIVE, NEGATIVE)},
        "nothing": node("EmptyLatentImage", width=PAINTED[1], height=PAINTED[0], batch_size=1),
        "person": node("VAEEncode", pixels=[PERSON, 0], vae=vae),
        SAMPLER: node(
            "KSampler",
            **{"model": [DRESSED, 0], "positive": [POSITIVE, 0], "negative": [NEGATIVE, 0]},
            **{"latent_image": ["nothing" if step.denoise == 1 else "person", 0], "seed": SEED, "steps": 1},
            **{"cfg": step.cfg, "denoise": step.denoise, "sampler_name": "euler", "scheduler": "simple"},
        ),
        SAVE: node("SaveLatent", samples=[SAMPLER, 0], filename_prefix="step"),
    }


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def distance(ours, theirs):
    """Relative, in the l2 norm."""
    return float((ours - theirs).norm() / ours.norm())


# ---- the promise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_server_predicts_what_the_trainer_predicts(server, trainer, file, step):
    ours, theirs = trainer.prediction(file, step), trainer.read(latent_of(server, step, file), step)
    assert distance(ours, theirs) < TOLERANCE


def test_all_that_was_trained_shows_in_the_prediction(trainer, run, file):
    """Otherwise a server that overlooks some of it would agree as well."""
    step = STEPS["from noise"]
    ours = trainer.prediction(file, step)
    others = {
        "undressed": trainer.prediction(file, STEPS["undressed"]),
        "before training": trainer.prediction(run / START, step),
        "with each other's LoRA": trainer.prediction(file, step, slots=("lower", "upper")),
        "all tokens": trainer.prediction(file, STEPS["all tokens"]),
    }
    distances = {name: distance(ours, other) for name, other in others.items()}
    assert min(distances.values()) > CLEARLY, distances
