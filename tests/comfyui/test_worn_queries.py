# SPDX-License-Identifier: GPL-3.0-or-later
"""On real ComfyUI garments are computed where they are worn; what a run knows of that ends with it."""

from __future__ import annotations

import gc
import importlib
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from comfyui_anydressing.anydressing_core.worn_queries import ALONE

pytestmark = pytest.mark.comfyui

STEPS = {"steps": 4}
THRESHOLD = 0.5  # of random numbers, some of which wear something


@pytest.fixture(params=["studio_with_file", "studio_without_file"], ids=["file", "reference"])
def studio(request):
    return request.getfixturevalue(request.param)


def with_file_alone():
    return pytest.mark.parametrize("studio", ["studio_with_file"], indirect=True, ids=["file"])


@pytest.fixture
def states():
    """Every `WornQueries` that was made, while anybody keeps it; and of each pair what one of them computed and met."""
    module = importlib.import_module("comfyui_anydressing.nodes.attention_patch")
    made, told, kind = [], [], module.WornStates

    class Remembered:
        @staticmethod
        def of(*args):
            states = kind.of(*args)
            made.extend(map(weakref.ref, states))
            told.append([(state.computed, state.met) for state in states])
            return states

    module.WornStates = Remembered
    yield SimpleNamespace(made=made, told=lambda: [next(one for one in pair if one[0]) for pair in told])
    module.WornStates = kind


def dressed(studio, threshold, every=1, alone=ALONE, **options):
    model, module = studio.dress(**options), importlib.import_module("comfyui_anydressing.nodes.attention_patch")
    for dressing in module.dressings_of(model):
        dressing.new_states = partial(module.WornStates.of, threshold, every, alone) if threshold else None
    return model


def test_where_everything_is_worn_no_bit_changes(studio):
    """Every garment everywhere, that is."""
    whole = studio.sample(dressed(studio, 0.0), **STEPS)
    assert torch.equal(whole, studio.sample(dressed(studio, 1e-9, alone=1e-9), **STEPS))


def test_the_first_two_steps_are_whole_and_later_ones_are_not(studio, states):
    whole = studio.first_step(dressed(studio, 0.0), **STEPS)
    some = studio.first_step(dressed(studio, THRESHOLD), **STEPS)
    same = [torch.equal(a, b) for (name, a), (_, b) in zip(whole, some, strict=True) if name == "positive"]
    assert same[:2] == [True, True]
    assert not all(same[2:])
    ((computed, _),) = states.told()
    assert all(shares[:2] == [1.0, 1.0] for shares in computed.values())
    assert min(share for shares in computed.values() for share in shares[2:]) < 1


@pytest.mark.holds(
    "garments only where they are worn, from run to run", "a run forgets at its end, also when it breaks off"
)
def test_a_run_forgets_at_its_end_and_a_broken_one_too(studio, states):
    model = dressed(studio, THRESHOLD)
    want = studio.sample(model, **STEPS)
    assert torch.equal(want, studio.sample(model, **STEPS))
    with pytest.raises(InterruptedError):
        studio.sample(studio.breaking(model, call=3), **STEPS)
    assert torch.equal(want, studio.sample(model, **STEPS))
    gc.collect()
    assert not any(state() for state in states.made)


def test_garments_that_are_worn_apart_are_met_apart(studio, states):
    studio.sample(dressed(studio, THRESHOLD, alone=0.35), **STEPS)
    ((computed, met),) = states.told()
    assert all(shares[:2] == [1.0, 1.0] for shares in met.values())
    assert any(fewer < more for site in met for fewer, more in zip(met[site], computed[site], strict=True))


def test_a_picture_of_a_batch_is_the_one_it_is_alone(studio):
    model = dressed(studio, THRESHOLD)
    both = studio.sample(model, latent={"samples": torch.zeros(2, 4, 12, 8)}, **STEPS)
    second = studio.sample(model, latent={"samples": torch.zeros(1, 4, 12, 8), "batch_index": [1]}, **STEPS)
    torch.testing.assert_close(both[1:], second, atol=1e-3, rtol=1e-3)


def test_a_second_pass_of_another_size_begins_anew(studio):
    model = dressed(studio, THRESHOLD)
    large = {"samples": torch.zeros(1, 4, 24, 16)}
    want = studio.sample(model, latent=large, denoise=0.6, **STEPS)
    studio.sample(model, **STEPS)
    assert torch.equal(want, studio.sample(model, latent=large, denoise=0.6, **STEPS))


def test_two_applies_know_their_own_garments(studio, states):
    one = dressed(studio, THRESHOLD, garments=studio.garments[:1])
    both = dressed(studio, THRESHOLD, model=one, garments=studio.garments[1:2])
    studio.sample(both, **STEPS)
    assert len(states.made) == 4


@pytest.mark.holds(
    "garments only where they are worn, under Deep Shrink or ToMe",
    "computed everywhere where tokens are not in their places",
)
@pytest.mark.parametrize("hooked", ["deep shrink", "tome"])
def test_a_unet_that_rearranges_its_tokens_computes_everywhere(studio, hooked):
    def arranged(model):
        if hooked == "deep shrink":
            return studio.deep_shrink(model)
        return studio.stock("nodes_tomesd", "TomePatchModel", model, 0.5)

    latent = {"samples": torch.zeros(1, 4, 24, 16)}
    whole, some = (
        studio.sample(arranged(dressed(studio, threshold)), latent=latent, **STEPS) for threshold in (0.0, THRESHOLD)
    )
    untouched = studio.sample(dressed(studio, 0.0), latent=latent, **STEPS)
    assert torch.isfinite(some).all()
    assert not torch.equal(whole, untouched)


@with_file_alone()
def test_attention_maps_see_every_query(studio):
    """Maps are read by a call of their own: what is not worn has a share, too, if a small one."""
    module = importlib.import_module("comfyui_anydressing.nodes.attention_patch")
    told = []
    model = module.record_maps(dressed(studio, THRESHOLD), lambda who, active, maps, size: told.append(maps))
    studio.sample(model, **STEPS)
    assert all((maps.sum(dim=-1) > 0).all() for maps in told)


@with_file_alone()
def test_a_file_without_a_null_token_is_computed_everywhere(studio, states):
    file = studio.random_file("no null", null_token=False)
    worn = [studio.garment(slot, file=file) for slot in ("upper", "lower")]
    whole, some = (studio.sample(dressed(studio, threshold, garments=worn), **STEPS) for threshold in (0.0, THRESHOLD))
    assert torch.equal(whole, some)
    assert all(set(shares) == {1.0} for computed, _ in states.told() for shares in computed.values())


@pytest.mark.holds(
    "garments only where they are worn", "off, the default, changes no bit; the first two steps never do"
)
def test_the_node_has_a_switch(studio, monkeypatch):
    monkeypatch.setattr("comfyui_anydressing.anydressing_core.worn_queries.THRESHOLD", 0.7)  # of random numbers
    off, on = studio.dress(), studio.dress(only_where_worn=True)
    assert torch.equal(studio.sample(studio.dress(only_where_worn=False), steps=6), studio.sample(off, steps=6))
    assert torch.equal(studio.sample(on, steps=2), studio.sample(off, steps=2))
    assert not torch.equal(studio.sample(on, steps=6), studio.sample(off, steps=6))


def test_a_sampler_that_asks_twice_a_step_takes_it_for_two(studio):
    """Heun's second look is as far from its first as a step of Euler's."""
    options = {"steps": 4, "sampler": "heun"}
    out = studio.sample(dressed(studio, THRESHOLD, every=2), **options)
    assert not torch.equal(out, studio.sample(dressed(studio, 0.0), **options))


@pytest.mark.parametrize(
    "guidance",
    [("nodes_pag", "PerturbedAttentionGuidance", 3.0), ("nodes_sag", "SelfAttentionGuidance", 0.5, 2.0)],
    ids=lambda guidance: guidance[0],
)
def test_guidance_by_attention_lives_with_it(studio, guidance):
    module, node, *how = guidance
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    outs = [
        studio.sample(studio.stock(module, node, dressed(studio, threshold, every), *how), latent=latent, **STEPS)
        for threshold, every in ((0.0, 1), (THRESHOLD, 2))
    ]
    assert not torch.equal(*outs)
