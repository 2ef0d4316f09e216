# SPDX-License-Identifier: GPL-3.0-or-later
"""The trained module: its state dict is the file; a batch of people is each person by herself; gradients go where they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_anydressing.anydressing_core.checkpoint import expected_tensors
from comfyui_anydressing.training.model.adapter import Adapter
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.outfits import Outfits


def people(count=2):
    torch.manual_seed(5)
    return torch.randn(count, 4, 8, 6), torch.tensor([10, 900, 300][:count]), torch.randn(count, 7, 24)


def outfits(worn, slots=("upper", "lower", "upper"), cells=None):
    torch.manual_seed(6)
    return Outfits(torch.randn(len(slots), 4, 8, 6), slots, torch.tensor(worn), cells)


def test_the_state_dict_is_the_file(make_model, make_info):
    adapter = make_model().adapter
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.state_dict().items()}
    assert shapes == expected_tensors(make_info())


def test_export_and_load_return_every_bit(make_model, unet):
    adapter = make_model().adapter
    other = Adapter(adapter.info, unet)
    other.load(adapter.checkpoint())
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), other.parameters(), strict=True))


def test_a_fresh_adapter_is_the_frozen_attention(unet, make_info):
    adapter = Adapter(make_info(), unet)
    for site in adapter.info.unet.sites:
        attention = unet.get_submodule(site.diffusers_name)
        assert torch.equal(adapter.site(site.key).to_k.weight, attention.to_k.weight)
        assert torch.equal(adapter.site(site.key).to_v.weight, attention.to_v.weight)
    assert all((p == 0).all() for name, p in adapter.named_parameters() if name.endswith("up.weight"))


@pytest.mark.parametrize("null_token", [True, False], ids=["null", "faithful"])
@torch.no_grad()
def test_a_batch_is_each_person_by_herself(make_model, null_token):
    """Two people, one in two garments, one in a single one."""
    model = make_model(null_token=null_token)
    noisy, timestep, text = people()
    together = model(noisy, timestep, text, outfits([[0, 1], [2, -1]]))
    for row, worn in enumerate([[0, 1], [2]]):
        alone = model(noisy[[row]], timestep[[row]], text[[row]], outfits([worn]))
        torch.testing.assert_close(together.noise[[row]], alone.noise, atol=1e-5, rtol=1e-5)
        for key, maps in alone.maps.items():
            torch.testing.assert_close(together.maps[key][[row], :, : len(worn)], maps, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_of_a_persons_garments_does_not_matter(make_model):
    model = make_model()
    noisy, timestep, text = people(1)
    one = model(noisy, timestep, text, outfits([[0, 1]])).noise
    torch.testing.assert_close(model(noisy, timestep, text, outfits([[1, 0]])).noise, one, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_background_tokens_can_be_left_out(make_model):
    model = make_model(garment_tokens="foreground")
    noisy, timestep, text = people(1)
    cells = torch.zeros(3, 8, 6, dtype=torch.bool)
    cells[:, 2:6, 1:5] = True
    all_tokens = model(noisy, timestep, text, outfits([[0, 1]]))
    foreground = model(noisy, timestep, text, outfits([[0, 1]], cells=cells))
    assert not torch.allclose(all_tokens.noise, foreground.noise, atol=1e-4)
    full = model(noisy, timestep, text, outfits([[0, 1]], cells=torch.ones_like(cells)))
    torch.testing.assert_close(full.noise, all_tokens.noise, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_cropped_garment_is_read_as_if_its_crop_were_all_of_it(make_model):
    model = make_model(garment_tokens="cropped")
    noisy, timestep, text = people(1)
    cells = torch.zeros(3, 8, 6, dtype=torch.bool)
    cells[0, 5:7, 1:3] = True  # the coarsest token is two cells wide, so it lies in rows 4 to 8 and columns 0 to 4
    worn = outfits([[0, -1]], cells=cells)
    part = replace(worn, latents=worn.latents[..., 4:8, 0:4], cells=cells[..., 4:8, 0:4])
    cropped = model(noisy, timestep, text, worn).noise
    torch.testing.assert_close(cropped, model(noisy, timestep, text, part).noise, atol=1e-5, rtol=1e-5)
    whole = make_model(garment_tokens="foreground")(noisy, timestep, text, worn).noise
    assert not torch.allclose(cropped, whole, atol=1e-4)


@pytest.mark.parametrize("feature_tap", ["attn_input", "attn_output"])
@pytest.mark.parametrize("targets", [("q", "k", "v"), ("q", "k", "v", "out")], ids=["qkv", "qkv+out"])
def test_every_trained_tensor_gets_a_gradient_and_the_unet_none(make_model, feature_tap, targets):
    model = make_model(feature_tap=feature_tap, lora_targets=targets)
    noisy, timestep, text = people()
    prediction = model(noisy, timestep, text, outfits([[0, 1], [2, -1]]))
    loss = prediction.noise.square().mean() + sum(maps.square().mean() for maps in prediction.maps.values())
    loss.backward()
    assert all(p.grad is not None for p in model.adapter.parameters())
    silent = [name for name, p in model.adapter.named_parameters() if not p.grad.abs().sum() > 0]
    last = model.adapter.info.unet.sites[-1].key
    if feature_tap == "attn_output" and "out" in targets:  # its output projection comes after the last tap
        silent = [name for name in silent if f".{last}.out." not in name]
    assert silent == []
    assert all(p.grad is None for p in model.unet.parameters())


def test_gradient_checkpointing_changes_no_gradient(make_model):
    def gradients(checkpointed):
        model = make_model()
        if checkpointed:
            model.unet.enable_gradient_checkpointing()
        noisy, timestep, text = people()
        prediction = model(noisy, timestep, text, outfits([[0, 1], [2, -1]]))
        (prediction.noise.square().mean() + sum(m.square().mean() for m in prediction.maps.values())).backward()
        model.unet.disable_gradient_checkpointing()
        return [p.grad for p in model.parameters()]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-7, rtol=1e-5)


def test_kinds_that_a_batch_lacks_still_receive_a_gradient(make_model):
    """In a distributed run a parameter without gradient on one process makes the others wait for ever."""
    model = make_model(slots=("upper", "lower", "hat"))
    noisy, timestep, text = people(1)
    model(noisy, timestep, text, outfits([[0, 1]])).noise.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad.abs().sum() == 0 for p in model.adapter.of_slots(["hat"]))


def test_a_new_kind_trains_its_lora_alone(make_model, make_info, unet):
    """Section 8: hats are added to a finished file; everything else keeps its bits."""
    finished = make_model().adapter.checkpoint()
    adapter = Adapter(make_info(slots=("upper", "lower", "hat")), unet)
    adapter.load(finished)
    adapter.train_only(["hat"])
    model = DressingModel(unet, adapter)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == len(list(adapter.of_slots(["hat"])))
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    noisy, timestep, text = people(1)
    for _ in range(2):  # the first step moves `up` from zero, the second `down`
        optimizer.zero_grad()
        model(noisy, timestep, text, outfits([[0, 1]], slots=("upper", "hat"))).noise.square().mean().backward()
        optimizer.step()
    after = adapter.checkpoint()
    assert all(torch.equal(finished.tensors[name], after.tensors[name]) for name in finished.tensors)
    assert any(tensor.abs().sum() > 0 for name, tensor in after.tensors.items() if ".hat." in name and ".up." in name)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"null_token": False}, "null_token"),
        ({"feature_tap": "attn_output"}, "feature_tap"),
        ({"slots": ("upper",)}, "lower"),
    ],
    ids=["null token", "tap", "lost kind"],
)
def test_a_file_that_does_not_fit_is_refused(make_model, make_info, unet, change, word):
    finished = make_model().adapter.checkpoint()
    with pytest.raises(ValueError, match=rf"(?s)init: .*{word}.*What to do"):
        Adapter(make_info(**change), unet).load(finished)


def test_without_a_role_the_unet_is_what_it_was(unet, make_info):
    noisy, timestep, text = people()
    with torch.no_grad():
        before = unet(noisy, timestep, encoder_hidden_states=text).sample
        DressingModel(unet, Adapter(make_info(), unet))
        torch.testing.assert_close(
            unet(noisy, timestep, encoder_hidden_states=text).sample, before, atol=1e-6, rtol=1e-6
        )


def test_half_precision_weights_take_an_fp32_adapter(make_model):
    model = make_model()
    model.unet.to(torch.bfloat16)
    noisy, timestep, text = people()
    worn = outfits([[0, 1], [2, -1]])
    worn = Outfits(worn.latents.bfloat16(), worn.slots, worn.worn)
    prediction = model(noisy.bfloat16(), timestep, text.bfloat16(), worn)
    prediction.noise.float().square().mean().backward()
    assert prediction.noise.dtype == torch.bfloat16
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
