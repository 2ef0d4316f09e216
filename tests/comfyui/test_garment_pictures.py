# SPDX-License-Identifier: GPL-3.0-or-later
"""Which part of a picture is taken for the garment, however artists bring it: ComfyUI's own nodes load it here."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from PIL import Image
from support.drawn_garments import gradient, plain, shirt

pytestmark = pytest.mark.comfyui

PICTURE, SHAPE = shirt(255)
ALPHA = np.where(SHAPE, 255, 0).astype(np.uint8)


@pytest.fixture
def load(studio, tmp_path, monkeypatch):
    """`load(picture)` is what Load Image gives of it: IMAGE and MASK."""
    paths = studio.host.folder_paths
    monkeypatch.setattr(paths, "get_input_directory", lambda: str(tmp_path))
    monkeypatch.setattr(paths, "input_directory", str(tmp_path))

    def load(picture, name="garment.png"):
        picture.save(tmp_path / name)
        return studio.host.nodes.LoadImage().load_image(name)[:2]

    return load


@pytest.fixture
def said(monkeypatch):
    """What Garment Encode says to the artist."""
    lines = []
    module = importlib.import_module("comfyui_anydressing.nodes.garment_encode")
    monkeypatch.setattr(module, "tell", lambda node, text: lines.append(text))
    return lines


@pytest.fixture
def encode(studio):
    """`encode(image, ...)` is the digest of what was read."""

    def encode(image, **inputs):
        return studio.garment("upper", image=image, size="custom", height=128, width=96, **inputs).content

    return encode


def as_image(pixels):
    return torch.from_numpy(pixels).float()[None] / 255


@pytest.fixture
def right(encode):
    """The shirt cut out by a true mask that is white on it."""
    return encode(as_image(PICTURE), mask=torch.from_numpy(SHAPE).float()[None])


def transparent():
    """A shirt as shops cut it out: transparent around it, and black beneath that."""
    return Image.fromarray(np.dstack([np.where(SHAPE[..., None], PICTURE, 0), ALPHA]))


def with_palette():
    """The same with a palette, one of whose colours is transparent."""
    colours = transparent().convert("RGB").quantize(255)
    values = np.where(SHAPE, np.array(colours), 255).astype(np.uint8)
    indexed = Image.fromarray(values, "P")
    indexed.putpalette([*colours.getpalette()[:765], 0, 0, 0])
    indexed.info["transparency"] = 255
    return indexed


def test_a_transparent_picture_with_its_mask_inverted(load, encode, right, said):
    image, mask = load(transparent())
    assert encode(image, mask=mask, invert_mask=True) == right
    assert said[-1].endswith("of the picture, by the mask.")


def test_a_transparent_picture_whose_transparency_was_dropped(load, encode, right, said):
    image, _ = load(transparent())
    assert encode(image) == right
    assert "taken for the transparency" in said[-1]


def test_a_palette_with_a_transparent_colour(load, encode, said):
    image, mask = load(with_palette())
    assert encode(image, mask=mask, invert_mask=True) == encode(image)
    assert "taken for the transparency" in said[-1]


def test_what_was_painted_in_the_mask_editor(load, encode, right):
    """It saves the picture with alpha 0 where was painted; Load Image's MASK is white there."""
    on_green = np.where(SHAPE[..., None], PICTURE, (90, 120, 90)).astype(np.uint8)
    image, mask = load(Image.fromarray(np.dstack([on_green, 255 - ALPHA])))
    assert encode(image, mask=mask) == right


def test_a_picture_with_four_channels(encode, right, said):
    pixels = np.dstack([PICTURE, ALPHA])
    assert encode(as_image(pixels)) == right
    assert said[-1].endswith("by its transparency.")


def test_a_small_garment_in_a_large_transparent_canvas_is_cut_out(load, encode, right):
    large = Image.new("RGBA", (1000, 1400))
    large.paste(transparent(), (650, 20))
    image, mask = load(large)
    assert encode(image, mask=mask, invert_mask=True) == right
    assert encode(image) == right


def test_a_mask_that_hides_nothing_is_none_whatever_its_shape(studio, load, encode):
    image, mask = load(Image.fromarray(PICTURE))
    inverted = studio.stock("nodes_mask", "InvertMask", mask)
    assert tuple(mask.shape[-2:]) == (64, 64)
    whole = encode(image)
    assert encode(image, mask=mask) == whole
    assert encode(image, mask=mask, invert_mask=True) == whole
    assert encode(image, mask=inverted) == whole


@pytest.mark.parametrize("beneath", [0, 255], ids=["black beneath", "white beneath"])
def test_a_transparent_picture_with_its_mask_as_it_comes_is_refused(load, encode, beneath):
    image, mask = load(
        Image.fromarray(np.dstack([np.where(SHAPE[..., None], PICTURE, beneath).astype(np.uint8), ALPHA]))
    )
    with pytest.raises(ValueError, match=r"^mask: n.*\n.*\nWhat to do: switch invert_mask"):
        encode(image, mask=mask)


def test_a_mask_that_takes_the_border_is_doubted_aloud(encode, said):
    encode(as_image(shirt(gradient(200, 120))[0]), mask=1 - torch.from_numpy(SHAPE).float()[None])
    assert "if that piece is the garment, switch invert_mask" in said[-1]


def test_a_mask_that_hides_everything_is_refused(encode):
    for inputs in ({"mask": torch.ones(1, 64, 64), "invert_mask": True}, {"mask": torch.full((1, 384, 288), 0.2)}):
        with pytest.raises(ValueError, match=r"^mask: nothing of the garment is left"):
            encode(as_image(PICTURE), **inputs)


@pytest.mark.parametrize("ground", [255, 246, 220, 30])
def test_foreground_is_what_differs_from_the_ground(studio, encode, said, ground):
    picture, shape = shirt(ground)
    inputs = {"size": "custom", "height": 384, "width": 288, "garment_tokens": "foreground"}
    garment = studio.garment("upper", image=as_image(picture), **inputs)
    kept = garment.tokens[0].shape[1] / (48 * 36)
    assert shape.mean() < kept < shape.mean() + 0.09
    share = int(said[-1].split(" %")[0].split("%")[0].split()[-1])
    assert abs(share / 100 - kept) < 0.01
    assert said[-1].endswith("the plain ground around it is left out.")


@pytest.mark.parametrize("budget", ["all", "foreground"])
def test_a_ground_that_cannot_be_told_is_said(encode, said, budget):
    encode(as_image(shirt(gradient(246, 214))[0]), garment_tokens=budget)
    assert "could not be told apart" in said[-1]
    assert "Remove Background" in said[-1]


def test_a_black_garment_on_black_is_taken_whole(encode, said):
    picture = plain(0)
    picture[100:140, 100:102] = 60
    encode(as_image(picture))
    assert "taken for the transparency" not in said[-1]
