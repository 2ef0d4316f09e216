# SPDX-License-Identifier: GPL-3.0-or-later
"""A garment model of its own in the garment's pass, judged by the published formula written down once more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from einops import rearrange

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.holds_by_reference(
        "a `garment_model` (MagicClothing)",
        "reads the garment at t = 0 and joins at all sites, without places; the prediction of conditional "
        "rows is the published formula's within 1e-4, unconditional ones stay undressed (there they meet zero"
        " tokens); refused beside a file, or in one Apply with garments that your checkpoint read",
    ),
]


@pytest.fixture(scope="module")
def studio(studio_without_file):
    return studio_without_file


@pytest.fixture(scope="module")
def reader(studio):
    """A U-Net of the same shape with other weights, as a MODEL."""
    model = studio.host.nodes.CheckpointLoaderSimple().load_checkpoint("anydressing_random_min.safetensors")[0]
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in model.model.diffusion_model.parameters():
            weight += 0.3 * weight.std(unbiased=False) * torch.randn(weight.shape, generator=generator)
    return model


def self_attentions(model):
    return {
        name: module for name, module in model.model.diffusion_model.named_modules() if name.endswith("blocks.0.attn1")
    }


def joint(attention, own, garment):
    """softmax([Q K^T, Q K_g^T] / sqrt d) [V; V_g], head by head, then the output projection."""
    both = torch.cat([own, garment.expand(len(own), -1, -1)], dim=1)
    q, k, v = (
        rearrange(project(x), "b l (h d) -> b h l d", h=attention.heads)
        for project, x in ((attention.to_q, own), (attention.to_k, both), (attention.to_v, both))
    )
    out = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
    return attention.to_out(rearrange(out, "b h l d -> b l (h d)"))


@torch.inference_mode()
def published(studio, reader, picture, monkeypatch):
    """The conditional prediction of the first step, after arXiv 2404.09512 and the code that came with it."""
    latent = studio.vae.encode(picture) * 0.18215
    features = {}
    for name, attention in self_attentions(reader).items():
        attention.register_forward_pre_hook(lambda _, args, name=name: features.update({name: args[0]}))
    reader.model.diffusion_model(latent, torch.zeros(1), context=studio.prompts[""][0][0])
    for name, attention in self_attentions(studio.model).items():
        monkeypatch.setattr(
            attention, "forward", lambda x, *a, name=name, one=attention, **k: joint(one, x, features[name])
        )
    return studio.first_step(studio.model)


def test_it_is_the_published_formula(studio, reader, monkeypatch):
    picture = studio.picture(5)
    garment = studio.garment("upper", image=picture, garment_model=reader)
    dressed = dict(studio.first_step(studio.dress(garments=[garment])))
    plain = dict(studio.first_step(studio.model))
    restated = dict(published(studio, reader, picture, monkeypatch))
    torch.testing.assert_close(dressed["positive"], restated["positive"], atol=1e-4, rtol=1e-4)
    assert (restated["positive"] - plain["positive"]).abs().max() > 1e-2
    assert torch.equal(dressed["negative"], plain["negative"])  # theirs has zero tokens there: ours is Eq. 16's


def test_the_garment_is_stretched_on_grey(studio, reader, monkeypatch):
    pictures = []
    vae = SimpleNamespace(encode=lambda picture: pictures.append(picture) or studio.vae.encode(picture))
    image, mask = torch.ones(1, 40, 80, 3) * 0.9, torch.zeros(1, 40, 80)
    mask[:, :, :40] = 1
    node = studio.pack["AnyDressingGarmentEncode"]
    inputs = {"clip": studio.clip, "size": "custom", "width": 64, "height": 96, "mask": mask}
    studio.run(node, studio.model, vae, studio.no_file, image, "upper", garment_model=reader, **inputs)
    (picture,) = pictures
    assert picture.shape == (1, 96, 64, 3)
    torch.testing.assert_close(picture[:, :, :28], torch.full((1, 96, 28, 3), 0.9))
    torch.testing.assert_close(picture[:, :, 36:], torch.full((1, 96, 28, 3), 0.5))


def test_it_needs_no_words_and_has_no_places(studio, reader):
    garment = studio.garment("upper", garment_model=reader, words="polo shirt")
    assert garment.words is None
    assert garment.by_model
    assert len(garment.levels) == 1


def test_strength_changes_how_much_it_shows(studio, reader):
    garment = studio.garment("upper", garment_model=reader)
    weak, strong = (studio.dress(garments=[garment], strength=strength) for strength in (0.35, 1.4))
    assert not torch.equal(studio.sample(weak), studio.sample(strong))


def test_the_garment_alone_is_read_where_that_is_asked_for(studio, reader, caplog):
    caplog.set_level("INFO")
    picture = torch.full((1, 96, 64, 3), 0.2)
    picture[:, 24:72, 16:48] = studio.picture(1, 48, 32)
    whole, alone = (
        studio.garment("upper", image=picture, garment_model=reader, garment_tokens=tokens)
        for tokens in ("as trained", "foreground")
    )
    assert "the plain ground around it is turned grey" in caplog.text
    counts = [[key.shape[1] for key, _ in garment.levels[0].tokens] for garment in (alone, whole)]
    assert all(some < all_ for some, all_ in zip(*counts, strict=True))
    assert max(counts[1]) == 96
    assert not torch.equal(studio.sample(studio.dress(garments=[alone])), studio.sample(studio.model))


def test_a_mask_of_which_no_cell_is_left_is_refused(studio, reader):
    picture, mask = studio.picture(1, 512, 512), torch.zeros(1, 512, 512)
    mask[:, 40:42, 30:32] = 1
    inputs = {"mask": mask, "garment_model": reader, "garment_tokens": "foreground"}
    with pytest.raises(ValueError, match=r"(?s)image: no garment can be told from the ground.*What to do"):
        studio.garment("upper", image=picture, **inputs)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"garment_model": "model"}, r"garment_model: must be a MODEL"),
        ({"clip": None}, r"clip: none is connected"),
    ],
    ids=str,
)
def test_what_it_cannot_work_with_is_refused(studio, reader, inputs, said):
    with pytest.raises(ValueError, match=rf"(?s){said}.*What to do"):
        studio.garment("upper", **{"garment_model": reader, **inputs})


def test_a_file_beside_it_is_refused(studio, reader):
    with pytest.raises(
        ValueError, match=r"(?s)garment_model: it reads garments in place of an AnyDressing file.*What to do"
    ):
        studio.garment("upper", file=studio.random_file(), garment_model=reader)


def test_a_model_of_another_shape_is_refused(studio):
    other = studio.host.nodes.CheckpointLoaderSimple().load_checkpoint("anydressing_random_sd15.safetensors")[0]
    with pytest.raises(ValueError, match=r"(?s)garment_model: it is .*but the connected MODEL is.*What to do"):
        studio.garment("upper", garment_model=other)


def test_garments_that_were_read_two_ways_need_two_applies(studio, reader):
    by_model, by_reference = studio.garment("upper", garment_model=reader), studio.garment("lower")
    with pytest.raises(ValueError, match=r"(?s)garments: a garment_model has read some of them.*What to do"):
        studio.dress(garments=[by_model, by_reference])
    once = studio.dress(garments=[by_model])
    assert not torch.equal(studio.sample(studio.dress(once, garments=[by_reference])), studio.sample(once))
