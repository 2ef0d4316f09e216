# SPDX-License-Identifier: GPL-3.0-or-later
"""The wardrobe: a garment that was saved is worn to the bit, by the checkpoint that read it and by no other."""

from __future__ import annotations

import importlib

import pytest
import torch

pytestmark = pytest.mark.comfyui

SAVE, LOAD = "AnyDressingSaveGarment", "AnyDressingLoadGarment"


@pytest.fixture
def wardrobe(studio, tmp_path, monkeypatch):
    """The folder in which garments lie, empty."""
    paths = studio.host.folder_paths
    monkeypatch.setattr(paths, "output_directory", str(tmp_path))
    folder = tmp_path / "anydressing_wardrobe"
    monkeypatch.setitem(paths.folder_names_and_paths, "anydressing_wardrobe", ([str(folder)], {".safetensors"}))
    paths.filename_list_cache.clear()
    return folder


@pytest.fixture
def save(studio, wardrobe):
    """`save(garment)` is its name in the list."""

    def save(garment, prefix="garment", **inputs):
        before = set(wardrobe.rglob("*.safetensors")) if wardrobe.exists() else set()
        studio.pack[SAVE].execute(garment, prefix, **inputs)
        (path,) = set(wardrobe.rglob("*.safetensors")) - before
        return path.relative_to(wardrobe).as_posix()

    return save


@pytest.fixture
def load(studio, wardrobe):
    def load(name, **inputs):
        inputs = {"model": studio.model, "anydressing": studio.file} | inputs
        return studio.run(studio.pack[LOAD], name, **inputs)

    return load


@pytest.mark.parametrize("kind", ["trained", "both"])
def test_a_saved_garment_is_worn_to_the_bit(studio, save, load, kind):
    read = studio.garment("upper", reference=kind == "both", clip=studio.clip if kind == "both" else None)
    lower = studio.garments[1]
    again = load(save(read))
    assert again.content == read.content
    pictures = [studio.sample(studio.dress(garments=[one, lower])) for one in (read, again)]
    assert torch.equal(*pictures)


def test_without_a_file_too(studio_without_file, save, load):
    studio = studio_without_file
    read = studio.garments[0]
    again = load(save(read), model=studio.model, anydressing=studio.no_file)
    assert torch.equal(*(studio.sample(studio.dress(garments=[one])) for one in (read, again)))


def test_a_lora_makes_no_other_checkpoint(studio, save, load, lora):
    name = save(studio.garments[0])
    with_lora, _ = studio.host.nodes.LoraLoader().load_lora(studio.model, None, lora, 1.0, 0.0)
    studio.sample(with_lora)  # now it is merged into the very weights
    assert load(name, model=with_lora).content == studio.garments[0].content
    assert load(name).content == studio.garments[0].content


@pytest.fixture
def lora(random_models):
    return next(path.name for path in sorted((random_models / "loras").iterdir()))


@pytest.fixture
def other(studio):
    """The same U-Net, but for one value of one weight."""
    model = studio.host.nodes.CheckpointLoaderSimple().load_checkpoint("anydressing_random_sd15.safetensors")[0]
    with torch.no_grad():
        weight = next(model.model.diffusion_model.parameters())
        weight.flatten()[0] += 1
    return model


def test_another_checkpoint_is_told_and_can_read_it_again(studio, save, load, other):
    image = torch.rand(1, 128, 64, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 128, 64)
    mask[:, 30:90, 10:50] = 1
    inputs = {"image": image, "mask": mask, "reference": True, "clip": studio.clip, "words": "a red shirt"}
    name = save(studio.garment("upper", **inputs))
    with pytest.raises(ValueError, match=r"does not fit: it was read with another checkpoint(?s:.)*read_again"):
        load(name, model=other)
    again = load(name, model=other, read_again=True, vae=studio.vae, clip=studio.clip)
    anew = studio.garment("upper", model=other, **inputs)
    assert again.origin.called == "a red shirt"
    assert [one.shape for one in again.tokens] == [one.shape for one in anew.tokens]
    assert torch.equal(again.words, anew.words)
    assert not torch.equal(again.tokens[-1], load(name).tokens[-1])
    torch.testing.assert_close(again.tokens[-1], anew.tokens[-1], atol=0.05, rtol=0.05)  # its picture has 8 bits
    with pytest.raises(ValueError, match="vae: must be a VAE"):
        load(name, model=other, read_again=True)


def test_a_file_that_reads_crops_reads_one_again(studio, save, load, other):
    file = studio.random_file("cropped", garment_tokens="cropped")
    image = torch.ones(1, 96, 64, 3)
    image[:, 40:70, 10:30] = studio.picture(0, 30, 20) * 0.8
    inputs = {"file": file, "image": image, "size": "custom", "width": 64, "height": 96}
    again = load(
        save(studio.garment("upper", **inputs)), model=other, anydressing=file, read_again=True, vae=studio.vae
    )
    anew = studio.garment("upper", model=other, **inputs)
    whole = studio.garment("upper", model=other, garment_tokens="foreground", **inputs)
    assert again.tokens[-1].shape == anew.tokens[-1].shape == whole.tokens[-1].shape
    torch.testing.assert_close(again.tokens[-1], anew.tokens[-1], atol=0.05, rtol=0.05)
    assert not torch.allclose(again.tokens[-1], whole.tokens[-1], atol=0.05, rtol=0.05)


def test_another_file_is_told(studio, save, load):
    name = save(studio.garments[0])
    with pytest.raises(
        ValueError, match=r"it was read for the file 'random\.safetensors', and other\.safetensors is loaded"
    ):
        load(name, anydressing=studio.random_file("other.safetensors", seed=1))
    with pytest.raises(ValueError, match="it was read for the file"):
        load(name, anydressing=studio.no_file)


def test_another_kind_of_checkpoint_is_told(studio, studio_without_file, save, load):
    name = save(studio_without_file.garments[0])
    with pytest.raises(ValueError, match="it was read with a checkpoint of another kind"):
        load(name, anydressing=studio.no_file)


def test_a_mixture_of_checkpoints_is_not_saved(studio, save, other):
    merged = studio.stock("nodes_model_merging", "ModelMergeSimple", studio.model, other, 0.5)
    with pytest.raises(ValueError, match="it was read with a merged MODEL"):
        save(studio.garment("upper", model=merged))


def test_names_count_on_and_stay_in_the_wardrobe(studio, save, wardrobe):
    names = [save(studio.garments[0]) for _ in range(2)]
    assert names == ["garment_00001_.safetensors", "garment_00002_.safetensors"]
    assert save(studio.garments[0], "shirts/blue") == "shirts/blue_00001_.safetensors"
    with pytest.raises(Exception, match="outside the output folder"):
        save(studio.garments[0], "../../escaped")
    assert len([*wardrobe.parent.rglob("*.safetensors")]) == 3


def test_settings_are_not_saved(studio, save, load):
    """What was read is kept; how it is worn belongs to the workflow."""
    again = load(save(studio.settings(studio.garments[0], weight=0.3)))
    assert again.weight == 1.0


@pytest.mark.parametrize("name", ["gone.safetensors", "../secret.safetensors", "/etc/passwd"])
def test_what_is_not_in_the_list_is_not_opened(load, name):
    with pytest.raises(ValueError, match="is not in the wardrobe"):
        load(name)


def test_a_damaged_file_is_refused(studio, save, load, wardrobe):
    path = wardrobe / save(studio.garments[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"garment: 'garment_00001_\.safetensors' is incomplete"):
        load(path.name)


def test_the_same_name_is_loaded_again_when_its_file_is_another(studio, save, wardrobe):
    node = importlib.import_module("comfyui_anydressing.nodes.wardrobe").AnyDressingLoadGarment
    name = save(studio.garments[0])
    before = node.fingerprint_inputs(name)
    assert before == node.fingerprint_inputs(name, read_again=True)
    (wardrobe / name).write_bytes(b"another one")
    assert node.fingerprint_inputs(name) != before
