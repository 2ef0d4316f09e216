# SPDX-License-Identifier: GPL-3.0-or-later
"""The count of a training step's memory is what PyTorch really keeps, and the shipped table is what the code counts."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache

import pytest
import torch
from comfyui_anydressing.benchmarks.rehearsal import (
    LiveMemory,
    Rehearsal,
    fake_rehearsal,
    preset_config,
    sd15_networks,
    sd15_presets,
    step_memory,
    tiny_networks,
)
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.run.config import preset_names
from comfyui_anydressing.training.run.needs import GIB, MARGIN, StepMemory, read_table, what_fits, write_table


def config(batch=1, checkpointing=False, texture=0.001, extra="adapter.rank=4", **memory):
    settings = {"checkpointing": str(checkpointing).lower(), "precision": '"fp32"', **memory}
    return preset_config(
        "12gb",
        "data.resolution=[64, 48]",
        f"data.batch={batch}",
        f"losses.texture={texture}",
        "adapter.rank=4",
        extra,
        *(f"memory.{name}={value}" for name, value in settings.items()),
    )


@cache
def tiny(**changes) -> StepMemory:
    return step_memory(config(**changes), tiny_networks)


def saved_by_autograd(rehearsal) -> int:
    """Bytes of the different storages that the graph of a real forward pass keeps, weights left out."""
    weights = [each for module in (*rehearsal.networks.modules, rehearsal.model) for each in module.parameters()]
    outside = {weight.untyped_storage().data_ptr() for weight in weights}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        rehearsal.kept = rehearsal.step.predict(rehearsal.batch())  # alive, so that no address is used twice
    return sum(size for pointer, size in saved.items() if pointer not in outside)


def test_views_and_weights_are_not_counted_and_freed_tensors_leave():
    weight = torch.ones(10)
    with LiveMemory([weight]) as live:
        kept = torch.ones(100)
        view, transposed = kept.view(10, 10), weight[:5]
        assert live.now == 400
        other = kept + 1
        assert live.now == live.peak == 800
        del other
        assert live.now == 400
        assert live.take_peak() == 800
        assert live.take_peak() == 400
    assert view.shape == (10, 10)
    assert len(transposed) == 5


def test_held_activations_are_what_autograd_really_saves():
    real = saved_by_autograd(Rehearsal(config(texture=0.0), tiny_networks("fp32").fill("cpu")))
    assert tiny(texture=0.0).held * GIB == pytest.approx(real, rel=0.05)


def test_fake_tensors_are_counted_as_real_ones():
    rehearsal = Rehearsal(config(), tiny_networks("fp32").fill("cpu"))
    weights = [each for module in (*rehearsal.networks.modules, rehearsal.model) for each in module.parameters()]
    for weight in rehearsal.model.parameters():
        weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in rehearsal.model.parameters()]
    with LiveMemory([*weights, *gradients]) as live:
        rehearsal.run()
    counted = tiny()
    assert (counted.held + max(counted.working, counted.texture)) * GIB == pytest.approx(live.peak, rel=0.02)


def test_checkpointing_holds_less_and_computes_again():
    plain, checkpointed = tiny(batch=4), tiny(batch=4, checkpointing=True)
    assert checkpointed.held < 0.6 * plain.held
    assert checkpointed.working > plain.working
    assert checkpointed.texture < plain.texture
    assert checkpointed.trained == plain.trained


def test_two_phase_texture_needs_one_decode_whatever_the_batch():
    one, four = tiny(), tiny(batch=4)
    assert four.held > 3 * one.held
    assert four.texture == pytest.approx(one.texture, rel=0.02)


@pytest.mark.parametrize(("most", "decoded"), [(0, 4), (1, 1), (3, 3)])
def test_the_rehearsal_decodes_the_people_whom_the_trainer_would(monkeypatch, most, decoded):
    rehearsal = Rehearsal(config(4, extra=f"losses.texture_samples={most}"), tiny_networks("fp32").fill("cpu"))
    decode, rows = rehearsal.networks.vae.decode, []
    monkeypatch.setattr(rehearsal.networks.vae, "decode", lambda latents: rows.append(len(latents)) or decode(latents))
    rehearsal.run()
    assert rows == [1] * decoded


def test_no_texture_no_decode():
    assert tiny(texture=0.0).texture == 0


def test_a_step_on_fake_tensors_has_no_content():
    rehearsal = fake_rehearsal(config(), tiny_networks)
    predicted = rehearsal.step.predict(rehearsal.batch())
    assert type(predicted.estimate).__name__ == type(predicted.ldm).__name__ == "FakeTensor"


def test_the_peak_is_the_sum_of_its_parts():
    memory = StepMemory(frozen=2.0, trained=0.5, held=1.0, working=0.25, texture=3.0)
    assert memory.peak == 6.5
    assert memory.needed == 6.5 * MARGIN


def test_the_table_comes_back(tmp_path):
    table = {"a": {"bf16": StepMemory(1.0, 2.0, 3.0, 4.0, 5.0)}}
    write_table(table, "torch", tmp_path / "memory.json")
    assert read_table(tmp_path / "memory.json") == table


STALE = "training/presets/memory.json is stale: run `python -m benchmarks.training --write`"


def test_the_table_has_every_preset_for_sd15():
    assert set(read_table()) == set(sd15_presets()) <= set(preset_names(TrainConfig)), STALE


def test_the_smallest_preset_needs_what_the_table_says():
    counted, stored = asdict(step_memory(preset_config("12gb"))), asdict(read_table()["12gb"]["bf16"])
    assert counted == pytest.approx(stored, rel=0.02, abs=0.002), STALE


def test_sd15_has_its_known_size():
    networks = sd15_networks("bf16")
    millions = [sum(each.numel() for each in module.parameters()) / 1e6 for module in networks.modules]
    assert millions == pytest.approx([859.5, 83.7, 123.1, 14.7], abs=0.1)


def test_one_person_with_texture_losses_fits_into_ten_gigabytes():
    assert read_table()["12gb"]["bf16"].peak * GIB <= 10e9


@pytest.mark.parametrize(
    ("gib", "words"),
    [
        (79.1, 'start from preset = "1x-80gb", which should have '),
        (23.6, 'start from preset = "1x-24gb-evening", which should have '),
        (11.8, 'start from preset = "12gb", which should have '),
        (7.0, 'start from preset = "12gb" with losses.texture = 0, which should have '),
        (2.0, "use a card with more than 2.0 GiB"),
    ],
)
def test_a_run_that_did_not_fit_hears_which_preset_does(gib, words):
    assert what_fits(read_table(), "bf16", gib).startswith(words)
