# SPDX-License-Identifier: GPL-3.0-or-later
"""The trained loss is Eq. 15, whatever saves memory on the way to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from comfyui_anydressing.training.dressing import build
from comfyui_anydressing.training.dressing.build import make_dressing_task
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.hardware import CPU
from comfyui_anydressing.training.losses.dists import Dists
from comfyui_anydressing.training.losses.terms import LossReading, localisation_loss
from comfyui_anydressing.training.losses.texture import drawn_rows, texture_of_rows
from comfyui_anydressing.training.run.config import load_config
from comfyui_anydressing.training.run.display import open_display
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.run.interrupts import Interrupts
from comfyui_anydressing.training.run.noise import Draw
from comfyui_anydressing.training.run.start import Workplace
from rich.console import Console
from support.texture import texture_loss

ETA = 350
TIMESTEPS = (20, 600, 340, 100)  # three of four are low
LAMBDA_1, LAMBDA_2 = 0.01, 0.5  # the paper's lambda2 would hide behind rounding


@pytest.fixture(scope="module", autouse=True)
def pictures_alone(one_thread):
    """DISTS without a feature network: it compares the pictures themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_dists", lambda path: Dists(lambda image: []))
        yield


@pytest.fixture(scope="module")
def make_task(small_base, small_data, tmp_path_factory):
    """A task whose adapter is not at its neutral start (seed 1)."""

    def make(*settings):
        folder = tmp_path_factory.mktemp("task")
        text = (
            f'preset = "smoke"\nfolder = "{folder / "run"}"\n[base]\ncheckpoint = "{small_base}"\n'
            f'[data]\nmanifest = "{small_data}"\n[adapter]\nslots = ["upper", "lower", "hat"]\n'
            f"[losses]\ntexture = {LAMBDA_2}\n[dropout]\ntext = 0.0\none_garment = 0.0\n"
        )
        (folder / "config.toml").write_text(text)
        config = load_config(folder / "config.toml", TrainConfig, settings)
        run = RunFolder.create(folder / "run", config.to_toml())
        display = open_display(Console(quiet=True))
        task = make_dressing_task(config, Workplace(run, Accelerator(cpu=True), CPU, display, Interrupts()))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in task.module.named_parameters():
                if name.endswith(("up.weight", "null_key", "null_bias")):
                    parameter.normal_(std=0.3)
        return task

    return make


@pytest.fixture(scope="module")
def task(make_task):
    return make_task()


@pytest.fixture(scope="module")
def without_texture(make_task):
    return make_task("losses.texture=0.0")


def samples_of(task, timesteps=TIMESTEPS):
    """People 0 to 3 at these timesteps; the third wears a hat."""
    samples = [task.data.sample(Draw(0, 0, item, item)) for item in range(len(timesteps))]
    if task.step.dists is not None:
        pictures = [task.data.cached.picture(item) for item in range(len(timesteps))]
    else:
        pictures = [None] * len(timesteps)
    return [
        replace(sample, timestep=timestep, picture=picture if timestep <= ETA else None)
        for sample, timestep, picture in zip(samples, timesteps, pictures, strict=True)
    ]


def batch_of(task, timesteps=TIMESTEPS):
    return task.data.collate(samples_of(task, timesteps))


def gradients(task, batch):
    """Of L, by name; the loss and its parts."""
    task.module.zero_grad()
    terms = task.losses(batch, measure=False)
    terms.total.backward()
    return {name: parameter.grad.clone() for name, parameter in task.module.named_parameters()}, terms


def assert_close(ours, theirs, tolerance=1e-5):
    """Equal up to a share of the largest gradient of each tensor."""
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max()) + 1e-8
        torch.testing.assert_close(
            ours[name], gradient, atol=tolerance * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


def eq_15(task, batch):
    """L, assembled by hand."""
    base = task.step.base
    alpha = base.schedule.alphas_cumprod[batch.timestep].float().view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise
    prediction = task.module(noisy, batch.timestep, batch.text, batch.outfits, 1.0)
    grids = {site.key: site.grid(*batch.latents.shape[-2:]) for site in base.shape.sites}
    ldm = (prediction.noise - batch.noise).square().mean()
    loc = localisation_loss(prediction.maps, batch.masks, grids, present=batch.present)
    clean = (noisy - (1 - alpha).sqrt() * prediction.noise) / alpha.sqrt()
    truth = torch.stack([task.data.cached.picture(item) for item in range(len(batch.timestep))])
    rows = texture_of_rows(
        base.decode(clean), truth, batch.masks, batch.edges, task.step.dists, LossReading(), present=batch.present
    )
    perceptual, high_frequency = (texture_loss(part, batch.timestep, ETA) for part in rows)
    total = ldm + LAMBDA_1 * loc + LAMBDA_2 * (perceptual + high_frequency)
    return {"ldm": ldm, "loc": loc, "perc": perceptual, "hf": high_frequency}, total


@pytest.mark.parametrize(
    ("tokens", "tolerance"), [("all", 1e-5), ("foreground", 1e-4), ("cropped", 1e-4)]
)  # of own tokens rounding is 3e-5 of the largest gradient
def test_the_loss_and_its_gradient_are_eq_15(make_task, tokens, tolerance):
    task = make_task(f"adapter.garment_tokens={tokens}")
    batch = batch_of(task)
    ours, terms = gradients(task, batch)
    task.module.zero_grad()
    parts, total = eq_15(task, batch)
    total.backward()
    theirs = {name: parameter.grad.clone() for name, parameter in task.module.named_parameters()}
    expected = {name: value.item() for name, value in parts.items()}
    expected["texture"] = expected["perc"] + expected["hf"]
    assert {name: value.item() for name, value in terms.parts.items()} == pytest.approx(expected, rel=1e-5)
    assert terms.total.item() == pytest.approx(total.item(), rel=1e-5)
    assert LAMBDA_2 * expected["texture"] > 0.01 * total.item()  # there is something to compare
    assert_close(ours, theirs, tolerance)


def test_a_few_drawn_rows_stand_for_all(task, make_task):
    one = make_task("losses.texture_samples=1")
    batch = batch_of(one)
    with torch.no_grad():
        parts, _ = eq_15(task, batch)
        texture = float(parts["perc"] + parts["hf"])
    draws: dict[int, Draw] = {}
    for step in range(40):
        draw = Draw(0, step, 0, 0)
        (row,), _ = drawn_rows(batch.timestep, ETA, 1, draw.generator("texture"))
        draws[row] = draw
    assert draws.keys() == {0, 2, 3}
    values = [float(one.losses(replace(batch, draw=draw), measure=False).parts["texture"]) for draw in draws.values()]
    assert max(values) > 1.01 * min(values)
    assert sum(values) / 3 == pytest.approx(texture, rel=1e-5)


def test_a_picture_that_is_lost_costs_its_texture_losses_alone(task):
    batch = batch_of(task)
    with torch.no_grad():
        whole = task.losses(batch, measure=False).parts
        left = {row: picture for row, picture in batch.pictures.items() if row != 2}
        without = task.losses(replace(batch, pictures=left), measure=False).parts
    assert torch.equal(without["ldm"], whole["ldm"])
    assert 0 < float(without["texture"]) < float(whole["texture"])


def test_texture_is_silent_above_eta_and_when_it_is_off(task, without_texture):
    assert float(task.losses(batch_of(task, (600, 900)), measure=False).parts["texture"]) == 0
    terms = without_texture.losses(batch_of(without_texture), measure=True)
    assert not [name for name in terms.parts if "texture" in name]


def test_measuring_reads_the_norm_of_each_weighted_gradient(task):
    batch = batch_of(task)
    assert set(task.losses(batch, measure=False).parts) == {"ldm", "loc", "texture", "perc", "hf"}
    terms = task.losses(batch, measure=True)
    sites = task.module.adapter.info.unet.sites
    probe = task.module.adapter.site(sites[len(sites) // 2].key).to_k.weight
    parts, _ = eq_15(task, batch)
    for name, weight in (("ldm", 1), ("loc", LAMBDA_1), ("perc", LAMBDA_2), ("hf", LAMBDA_2)):
        (gradient,) = torch.autograd.grad(weight * parts[name], probe, retain_graph=True)
        assert terms.parts[f"gradient of {name}"] == pytest.approx(float(gradient.norm()), rel=1e-3)
    assert probe.grad is None or terms.total.requires_grad
    terms.total.backward()  # the graph is still there


def test_bf16_is_close(task):
    batch = batch_of(task)
    exact = gradients(task, batch)[1]
    with torch.autocast("cpu", torch.bfloat16):
        terms = task.losses(batch, measure=False)
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    for name, value in exact.parts.items():
        assert float(terms.parts[name]) == pytest.approx(float(value), rel=0.05), name


def test_checkpointing_changes_no_gradient(task, make_task):
    recomputed = make_task("memory.checkpointing=true")
    assert recomputed.step.base.unet.is_gradient_checkpointing
    assert_close(gradients(recomputed, batch_of(recomputed))[0], gradients(task, batch_of(task))[0])


@pytest.mark.parametrize("tap", ["attn_input", "attn_output"])
@pytest.mark.parametrize("tokens", ["all", "foreground", "cropped"])
def test_a_mixed_batch_is_the_mean_of_its_people(make_task, tap, tokens):
    task = make_task("losses.texture=0.0", f"adapter.feature_tap={tap}", f"adapter.garment_tokens={tokens}")
    samples = samples_of(task)
    samples[0] = replace(samples[0], garments=samples[0].garments[1:])
    assert [len(sample.garments) for sample in samples] == [1, 2, 3, 3]
    batch = task.data.collate(samples)
    assert (batch.outfits.cells is not None) == (tokens != "all")
    with torch.no_grad():
        together = task.losses(batch, measure=False)
        alone = [task.losses(task.data.collate([sample]), measure=False) for sample in samples]
    for name in ("ldm", "loc"):
        mean = sum(float(terms.parts[name]) for terms in alone) / len(alone)
        assert float(together.parts[name]) == pytest.approx(mean, rel=1e-5)


def test_every_trained_tensor_learns(without_texture):
    found = gradients(without_texture, batch_of(without_texture))[0]
    assert not [name for name, gradient in found.items() if not gradient.any()]


def test_the_frozen_model_stays_frozen(task):
    gradients(task, batch_of(task))
    frozen = [
        *task.step.base.unet.parameters(),
        *task.step.base.vae.parameters(),
        *task.step.base.text_encoder.parameters(),
    ]
    assert not [parameter for parameter in frozen if parameter.requires_grad or parameter.grad is not None]


def test_the_dressed_of_a_held_out_split_sit_for_the_previews(make_task):
    assert [sitter.name for sitter in make_task("preview.people=4").sitters] == [
        "held_out-0000000",
        "held_out-0000001",
    ]
    only_hats = make_task('adapter.slots=["hat"]', "preview.people=4")
    assert [sitter.name for sitter in only_hats.sitters] == ["held_out-0000000"]
    assert len(only_hats.data) == 3


@pytest.mark.parametrize(
    ("step", "strength", "sheets"),
    [(0, 0.7, ["reference", "step-00000000"]), (0, 0, ["step-00000000"]), (5, 0.7, ["step-00000005"])],
)
def test_what_nobody_trained_is_shown_once_unless_nothing_may_show(make_task, step, strength, sheets):
    task = make_task("preview.people=1", "preview.steps=1", f"preview.strength={strength}")
    told = []
    task.preview(step, lambda what, done, total: told.append((done, total)))
    previews = task._folder / "previews"
    assert sorted(path.stem for path in previews.glob("*.png")) == sheets
    assert told[-1][0] == told[-1][1]
