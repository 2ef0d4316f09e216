# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache: keyed by content, resumed after a kill, healed after damage, and bad pictures are named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from comfyui_anydressing.anydressing_core.canvas import garment_canvas, lay_out
from comfyui_anydressing.training.base.model import BaseModel
from comfyui_anydressing.training.data import entries as cache_entries
from comfyui_anydressing.training.data import pictures
from comfyui_anydressing.training.data.cache import CachePlan, build_cache
from comfyui_anydressing.training.data.edges import canny_edges
from comfyui_anydressing.training.data.encoders import BaseEncoders
from comfyui_anydressing.training.data.entries import Entries
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.hardware import CPU
from comfyui_anydressing.training.progress import Course, StoppedError
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

H, W = 64, 48
SLOTS = ("upper", "lower")


class FakeEncoders:
    """Latents are cell averages, embeddings follow from the text; counts what it is asked."""

    def __init__(self):
        self.latent_fingerprint, self.text_fingerprint = "vae", "clip"
        self.pictures, self.texts, self.batches = 0, [], []

    def encode_mode(self, images):
        self.pictures += len(images)
        self.batches.append(len(images))
        return functional.pad(functional.avg_pool2d(images, 8), (0, 0, 0, 0, 0, 1), value=0.5)

    def encode_text(self, texts):
        self.texts += texts
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        return torch.stack([torch.randn(77, 4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def paint(path, seed, size=(W + 12, H + 30), white_border=0):
    pixels = np.random.default_rng(seed).integers(0, 200, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)
    pixels = np.kron(pixels, np.ones((4, 4, 1), np.uint8))[: size[1], : size[0]]
    if white_border:
        inner = pixels[white_border:-white_border, white_border:-white_border].copy()
        pixels[:] = 255
        pixels[white_border:-white_border, white_border:-white_border] = inner
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def paint_mask(path, box, size=(W + 12, H + 30)):
    path.parent.mkdir(exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(255, box)
    mask.save(path)


def line(name, **changes):
    garments = [
        {"slot": "upper", "image": f"g/{name}.png", "kind": "inshop", "mask": f"m/{name}_upper.png"},
        {"slot": "lower", "image": None, "kind": "crop", "mask": f"m/{name}_lower.png"},
    ]
    return {"id": name, "image": f"p/{name}.png", "caption": f"person {name}", "garments": garments, **changes}


class Data:
    """A folder of people called a, b, c ..., each with a flat lay and a cut-out."""

    def __init__(self, folder, people=3):
        self.folder, self.cache, self.encoders = folder / "data", folder / "cache", FakeEncoders()
        self.folder.mkdir()
        self.lines = [line(chr(ord("a") + index)) for index in range(people)]
        for seed, one in enumerate(self.lines):
            paint(self.folder / "p" / f"{one['id']}.png", seed)
            paint(self.folder / "g" / f"{one['id']}.png", 100 + seed, (50, 40), white_border=10)
            paint_mask(self.folder / "m" / f"{one['id']}_upper.png", (20, 20, 40, 45))
            paint_mask(self.folder / "m" / f"{one['id']}_lower.png", (22, 45, 38, 80))

    def path(self, name):
        return self.folder / name

    def manifest(self):
        path = self.folder / "manifest.jsonl"
        path.write_text("\n".join(map(json.dumps, self.lines)))
        return read_manifest(path)

    def build(self, encoders=None, **changes):
        watched = {name: changes.pop(name) for name in ("progress", "stop") if name in changes}
        batch, wanted = changes.pop("batch", 8), CachePlan(**{"resolution": (H, W), "slots": SLOTS, **changes})
        course = Course(**watched)
        return build_cache(self.manifest(), encoders or self.encoders, self.cache, wanted, batch=batch, course=course)

    def counts(self, **changes):
        """How many pictures and texts another build encodes."""
        encoders = FakeEncoders()
        self.build(encoders, **changes)
        return encoders.pictures, len(encoders.texts)

    def entries(self):
        return sorted(self.cache.glob("??/*.safetensors"))


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path)


def rgb(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1


# --- what is read is what was encoded --------------------------------------------------------------------------------


def test_everything_loads_as_it_is_encoded_directly(data):
    cached = data.build()
    person = cached.load(1)
    picture, fake = cached.picture(1), FakeEncoders()
    assert (person.id, person.caption, cached.ids, len(cached)) == ("b", "person b", ("a", "b", "c"), 3)
    assert torch.equal(person.latent, fake.encode_mode(picture[None])[0])
    assert torch.equal(person.text, fake.encode_text(["person b"])[0])
    assert torch.equal(cached.no_text, fake.encode_text([""])[0])
    assert torch.equal(person.edges, canny_edges(picture[None])[0, 0] > 0)
    assert person.edges.any()
    upper, _ = person.garments
    canvas = lay_out(rgb(data.path("g/b.png"))[None], H, W)
    assert upper.slot == "upper"
    assert torch.equal(upper.latent, fake.encode_mode(canvas.picture)[0])
    assert torch.equal(upper.cells, canvas.cells)
    assert 0 < upper.cells.sum() < upper.cells.numel()
    assert upper.mask.dtype == torch.bool


def test_the_parts_load_alone(data):
    cached = data.build()
    person = cached.load(0)
    assert torch.equal(cached.latent(0), person.latent)
    assert torch.equal(cached.text(0), person.text)
    assert torch.equal(cached.edges(0), person.edges)
    for one, other in zip(cached.garment_latents(0), person.garments, strict=True):
        assert torch.equal(one, other.latent)


def test_a_crop_is_cut_out_by_its_mask_with_a_margin_and_never_stretched(data):
    # 16 x 35 pixels of flat red in a picture of noise; the margin is 5 % of 35, so 2 pixels.
    path = data.path("p/a.png")
    with Image.open(path) as image:
        image.paste((255, 0, 0), (22, 45, 38, 80))
        image.save(path)
    garment = data.build().load(0).garments[1]
    cut = torch.zeros(39, 20)
    cut[2:-2, 2:-2] = 1
    red = torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, 39, 20)
    canvas = garment_canvas(red, H, W, cut[None, None])
    assert torch.allclose(garment.latent, FakeEncoders().encode_mode(canvas)[0], atol=1e-6)
    redder_than_white = canvas.amin(dim=1)[0].unflatten(0, (-1, 8)).unflatten(2, (-1, 8)).amin(dim=(1, 3)) < 0
    assert torch.equal(garment.cells, redder_than_white)
    assert not garment.cells[:, 0].any()


def test_a_crop_at_the_pictures_border_is_filled_with_white(data):
    paint_mask(data.path("m/a_lower.png"), (0, 40, 30, 94))
    person, mask = (pictures.Source.find(name, data.path(name)) for name in ("p/a.png", "m/a_lower.png"))
    laid_out = pictures.cut_out(person, mask, (H, W))
    canvas = laid_out.picture[0]
    # 30 x 54 pixels and a margin of 3 around: 36 x 60, which becomes 38 x 64 in the canvas, so it begins at column 5.
    for border in (canvas[:, :2], canvas[:, -2:], canvas[:, :, :7], canvas[:, :, -7:]):
        assert (border > 0.99).all()
    assert (canvas[:, 8:-8, 12:-12] < 0.99).any(dim=0).all()
    assert laid_out.cells.any()


def test_jitter_bends_cut_outs_alone_and_is_kept_beside_what_is_not_bent(data):
    plain, bent = data.build().load(0), data.build(crop_jitter=1.0).load(0)
    for before, after in zip(plain.garments, bent.garments, strict=True):
        assert torch.equal(before.latent, after.latent) == (before.slot == "upper")  # which has a picture of its own
        assert torch.equal(before.mask, after.mask)
    assert data.counts() == (0, 0)
    assert data.counts(crop_jitter=1.0) == (0, 0)
    assert data.counts(crop_jitter=0.5) == (3, 0)


def test_a_transparent_garment_is_cut_out_as_by_a_mask(data):
    with Image.open(data.path("g/b.png")) as picture:
        size = picture.size
    alpha = Image.new("L", size)
    alpha.paste(255, (10, 20, 30, 50))
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    noise.putalpha(alpha)
    noise.save(data.path("g/b.png"))
    upper = data.build().load(1).garments[0]
    kept = torch.from_numpy(np.array(alpha)).float()[None, None] / 255
    canvas = lay_out(rgb_beneath(noise)[None], H, W, kept)
    assert torch.equal(upper.latent, FakeEncoders().encode_mode(canvas.picture)[0])
    assert torch.equal(upper.cells, canvas.cells)
    assert canvas.masked


def rgb_beneath(picture):
    return torch.from_numpy(np.array(picture)[..., :3]).permute(2, 0, 1).float() / 127.5 - 1


@pytest.mark.parametrize("beneath", ["black", "white", "garment"])
def test_a_mask_with_transparency_is_what_is_opaque(data, beneath):
    """White paint on nothing, and a garment cut out of its picture, say the same; how bright that is does not count."""
    path = data.path("m/a_upper.png")
    with Image.open(path) as image:
        mask = image.convert("L")
    right = data.build().load(0).garments[0].mask
    colours = {"black": (0, 0, 0), "white": (255, 255, 255), "garment": (90, 20, 30)}
    picture = Image.new("RGB", mask.size, colours[beneath])
    picture.putalpha(mask)
    picture.save(path)
    assert torch.equal(data.build().load(0).garments[0].mask, right)


def test_person_and_mask_are_cropped_alike(data):
    # A picture twice as wide as it is high: the sides go. The mask is white exactly where the person is.
    picture = np.zeros((H, 2 * H, 3), np.uint8)
    picture[10:50, 50:80] = 255
    Image.fromarray(picture).save(data.path("p/a.png"))
    for name in ("upper", "lower"):
        Image.fromarray(picture[..., 0]).save(data.path(f"m/a_{name}.png"))
    cached = data.build()
    mask = cached.load(0).garments[0].mask
    assert torch.equal(mask, cached.picture(0)[0] > 0)
    assert mask.sum() == 40 * 30
    assert mask[10:50, 10:40].all()


def test_threads_and_pickles_read_the_same(data):
    cached = pickle.loads(pickle.dumps(data.build()))
    with ThreadPoolExecutor(4) as pool:
        for person in pool.map(cached.load, [2] * 20):
            assert torch.equal(person.latent, cached.latent(2))


def test_the_real_base_model_fills_it(data):
    base = small_base()
    cached = data.build(BaseEncoders(base))
    person = cached.load(0)
    torch.testing.assert_close(person.latent, base.encode_mode(cached.picture(0)[None])[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(person.text, base.encode_text(["person a"])[0], atol=1e-5, rtol=0)
    assert person.text.shape == (77, 64)


def small_base():
    torch.manual_seed(0)
    types = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(**types, block_out_channels=(32,) * 4, layers_per_block=1, scaling_factor=0.18215).eval()
    sizes = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 64}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=128, **sizes)).eval()
    return BaseModel("small", "0" * 64, None, None, vae, text, Letters(), None, CPU)


class Letters:
    """A tokenizer whose words are ASCII letters."""

    def get_vocab(self):
        return {chr(code): code for code in range(128)}

    def __call__(self, texts, **_):
        return {"input_ids": torch.tensor([[*text.encode(), *[0] * 77][:77] for text in texts])}


@pytest.mark.parametrize("change", ["weights", "scale", "dtype"])
def test_another_autoencoder_has_another_fingerprint(change):
    base = small_base()
    before = BaseEncoders(base)
    if change == "weights":
        base.vae.state_dict()["quant_conv.bias"][0] += 1
    elif change == "scale":
        base.vae.register_to_config(scaling_factor=0.13)
    else:
        base.vae.to(torch.bfloat16)
    after = BaseEncoders(base)
    assert before.latent_fingerprint != after.latent_fingerprint
    assert before.text_fingerprint == after.text_fingerprint


def test_another_text_encoder_or_tokenizer_has_another_fingerprint(monkeypatch):
    base = small_base()
    before = BaseEncoders(base)
    monkeypatch.setattr(Letters, "get_vocab", lambda _: {"a": 1})
    other_words = BaseEncoders(base)
    monkeypatch.undo()
    base.text_encoder.final_layer_norm.weight.data[0] = 2
    other_weights = BaseEncoders(base)
    assert len({one.text_fingerprint for one in (before, other_words, other_weights)}) == 3
    assert before.latent_fingerprint == other_weights.latent_fingerprint


# --- which items -----------------------------------------------------------------------------------------------------


def test_only_the_wanted_slots_and_split_are_there_and_others_are_told_once(data, caplog):
    data.lines[0]["garments"] = data.lines[0]["garments"][1:]
    data.lines[2]["split"] = "held_out"
    cached = data.build(slots=("upper",))
    assert cached.ids == ("b",)
    assert [garment.slot for garment in cached.load(0).garments] == ["upper"]
    assert cached.left_out == 1
    assert not cached.quarantined
    assert caplog.messages == ["1 of 2 people wear none of upper: left out."]
    assert data.build(split="held_out").ids == ("c",)


def test_nobody_to_train_on_is_refused(data):
    with pytest.raises(ValueError, match=r"nobody to train on.\n.*\nWhat to do: name slots"):
        data.build(slots=("hat",))


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_second_build_encodes_nothing(data):
    first = data.build()
    assert (data.encoders.pictures, sorted(data.encoders.texts)) == (9, ["", "person a", "person b", "person c"])
    assert max(data.encoders.batches) == 8
    written = {path: path.stat().st_mtime_ns for path in data.entries()}
    assert data.counts() == (0, 0)
    assert data.build().digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in data.entries()} == written


def test_only_what_depends_on_a_change_is_built_again(data):
    before = data.build().digest
    paint(data.path("p/a.png"), 77)
    assert data.counts() == (2, 0)  # the person and the crop
    paint(data.path("g/a.png"), 78, (50, 40), white_border=10)
    assert data.counts() == (1, 0)
    paint_mask(data.path("m/a_lower.png"), (22, 45, 38, 79))
    assert data.counts() == (1, 0)
    data.lines[0]["caption"] = "somebody"
    assert data.counts() == (0, 1)
    assert data.counts(resolution=(H, 40)) == (9, 0)
    assert data.counts(edges=False) == (0, 0)
    other_vae, other_clip = FakeEncoders(), FakeEncoders()
    other_vae.latent_fingerprint, other_clip.text_fingerprint = "another", "another"
    data.build(other_vae)
    data.build(other_clip)
    assert (other_vae.pictures, other_vae.texts) == (9, [])
    assert (other_clip.pictures, len(other_clip.texts)) == (0, 4)
    assert data.build().digest != before


def test_equal_content_is_built_once(data):
    for name in "bc":
        data.path(f"g/{name}.png").write_bytes(data.path("g/a.png").read_bytes())
    for one in data.lines:
        one["caption"] = "the same words"
    assert data.counts() == (7, 2)


def test_the_digest_tells_people_order_keys_and_slots(data):
    found = [data.build().digest]
    data.lines.reverse()
    found.append(data.build().digest)
    data.lines[0]["id"] = "z"
    found.append(data.build().digest)
    data.lines[0]["garments"][0]["slot"] = "lower"
    found.append(data.build().digest)
    data.lines.pop()
    found.append(data.build().digest)
    paint(data.path("p/a.png"), 55)
    data.lines.append(line("a"))
    found.append(data.build().digest)
    assert len(set(found)) == 6


def test_a_moved_data_folder_finds_its_cache(data):
    before = data.build().digest
    data.folder = data.folder.rename(data.folder.with_name("moved"))
    assert data.counts() == (0, 0)
    assert data.build().digest == before


class SmallDevice(FakeEncoders):
    """Its memory holds so many pictures."""

    def __init__(self, holds):
        super().__init__()
        self.holds = holds

    def encode_mode(self, images):
        if len(images) > self.holds:
            raise torch.OutOfMemoryError("full")
        return super().encode_mode(images)


def test_a_small_device_encodes_fewer_pictures_at_once(data):
    small = SmallDevice(2)
    cached = data.build(small, batch=9)
    assert small.pictures == 9
    assert torch.equal(cached.latent(1), FakeEncoders().encode_mode(cached.picture(1)[None])[0])


def test_a_device_that_holds_no_picture_is_told_in_words(data):
    with pytest.raises(ValueError, match=rf"ran out of memory\.\nA single picture of {H} x {W} .*\nWhat to do: lower"):
        data.build(SmallDevice(0))


# --- stops, kills and damage -----------------------------------------------------------------------------------------


def test_progress_is_told_from_zero_to_all(data):
    told = []
    data.build(batch=4, progress=lambda *state: told.append(state))
    assert [state for state in told if state[0] == "pictures"] == [("pictures", done, 9) for done in (0, 4, 8, 9)]
    for what in ("reading files", "checking the cache", "masks and edges", "captions"):
        states = [(done, total) for name, done, total in told if name == what]
        assert states[0][0] == 0
        assert states[-1][0] == states[-1][1] > 0


def test_a_stop_finishes_the_batch_and_the_rest_is_built_later(data):
    with pytest.raises(StoppedError, match="pictures, 4 of 9"):
        data.build(batch=2, stop=lambda: data.encoders.pictures == 4)
    assert data.counts() == (5, 4)


KILLED = """
import os, signal, sys
from pathlib import Path

root, folder, cache, when = sys.argv[1:]
sys.path.append(f"{root}/tests/support")

from checkout import load_package

load_package("pack", Path(root))

from pack.training.data.cache import CachePlan, build_cache
from pack.training.data.manifest import read_manifest
from torch import zeros

renamed = []
original = Path.replace

def replace(path, target):
    renamed.append(target)
    if when == "writing" and len(renamed) == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path, target)

Path.replace = replace

class Encoders:
    latent_fingerprint, text_fingerprint = "vae", "clip"
    calls = 0

    def encode_mode(self, images):
        self.calls += 1
        if when == "encoding" and self.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return zeros(len(images), 4, images.shape[2] // 8, images.shape[3] // 8)

    def encode_text(self, texts):
        return zeros(len(texts), 77, 4)

wanted = CachePlan((64, 48), ("upper", "lower"))
build_cache(read_manifest(Path(folder) / "manifest.jsonl"), Encoders(), Path(cache), wanted, batch=2)
"""


@pytest.mark.parametrize("when", ["encoding", "writing"])
def test_a_killed_build_goes_on_where_it_was(data, root, when):
    data.manifest()
    command = [sys.executable, "-c", KILLED, str(root), str(data.folder), str(data.cache), when]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    kept = len(data.entries())
    assert kept == 9 + 4 if when == "encoding" else kept >= 12
    pictures_left, texts = data.counts()
    assert texts == 4
    assert pictures_left == 9 - (kept - 9)
    assert data.counts() == (0, 0)


def test_two_builders_at_once_do_no_harm(data):
    manifest = data.manifest()

    def build(encoders):
        return build_cache(manifest, encoders, data.cache, CachePlan((H, W), SLOTS), batch=1).digest

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(build, [FakeEncoders(), FakeEncoders()])
    assert one == other
    assert data.counts() == (0, 0)
    assert not list(data.cache.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap", "header"])
def test_a_damaged_entry_is_noticed_and_built_again(data, damage):
    cached = data.build()
    before = cached.load(0)
    latents = [Entries(data.cache).path(person.latent) for person in cached.people]
    content = bytearray(latents[0].read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    elif damage == "truncate":
        del content[-1]
    elif damage == "empty":
        content.clear()
    elif damage == "swap":
        content = latents[1].read_bytes()
    else:
        content = bytes(content).replace(b'"latent"', b'"lament"')
    latents[0].write_bytes(content)
    with pytest.raises(ValueError, match=r"changed while the run was going(?s:.)*resume the run"):
        cached.load(0)
    assert torch.equal(cached.load(1).latent, cached.latent(1))
    assert data.counts() == (1, 0)
    after = cached.load(0)
    assert torch.equal(before.latent, after.latent)


def test_any_flipped_byte_of_an_entry_is_noticed(tmp_path):
    entries = Entries(tmp_path)
    entries.write("k" * 64, {"a": torch.arange(3.0), "b": torch.tensor([True, False])})
    path = entries.path("k" * 64)
    good = path.read_bytes()
    values = {name: tensor.tolist() for name, tensor in entries.read("k" * 64).items()}
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x04]) + good[at + 1 :])
        if entries.is_sound("k" * 64):  # a byte that says nothing, such as a space
            assert {name: tensor.tolist() for name, tensor in entries.read("k" * 64).items()} == values
            assert good[at : at + 1].isspace(), (at, good[at : at + 1])


def test_a_picture_that_changes_during_the_run_is_an_error(data):
    cached = data.build()
    paint(data.path("p/a.png"), 99)
    with pytest.raises(ValueError, match=r"'p/a.png' changed while(?s:.)*What to do: put the file back"):
        cached.picture(0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_says_so_in_three_lines_with_its_errno(data, monkeypatch, number):
    def refuse(path, content):
        raise OSError(number, "no", str(path))

    monkeypatch.setattr(cache_entries, "write_atomically", refuse)
    with pytest.raises(OSError, match="cannot be written") as caught:
        data.build()
    assert caught.value.errno == number
    lines = str(caught.value).splitlines()
    assert lines[1:] == [f"{os.strerror(number)}.", lines[2]]
    assert lines[2].startswith("What to do: free some space")


# --- pictures of all kinds -------------------------------------------------------------------------------------------


def test_transparency_is_laid_on_white_for_pictures_and_on_black_for_masks(data):
    size = (W, H)
    person = Image.new("RGBA", size, (0, 0, 0, 0))
    person.paste((255, 0, 0, 255), (0, 0, W, 32))
    person.save(data.path("p/a.png"))
    mask = Image.new("LA", size, (255, 0))
    mask.paste((255, 255), (8, 8, 16, 16))
    for name in ("upper", "lower"):
        mask.save(data.path(f"m/a_{name}.png"))
    cached = data.build()
    picture = cached.picture(0)
    assert picture[:, 0, 0].tolist() == [1, -1, -1]
    assert picture[:, -1, 0].tolist() == [1, 1, 1]
    assert cached.load(0).garments[0].mask.sum() == 64


def test_a_picture_is_turned_upright(data):
    # Stored on its side: orientation 6 says that the row on top is the right-hand side.
    upright = np.zeros((H, W, 3), np.uint8)
    upright[:16] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright).copy()).save(data.path("p/a.png"), exif=exif)
    for name in ("upper", "lower"):
        paint_mask(data.path(f"m/a_{name}.png"), (8, 8, 24, 40), (W, H))
    picture = data.build().picture(0)
    expected = torch.from_numpy(upright).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(picture, expected)


@pytest.mark.parametrize(
    ("image", "suffix", "value"),
    [
        (Image.new("L", (W, H), 51), "png", 51),
        (Image.fromarray(np.full((H, W), 51 * 257, np.uint16)), "png", 51),
        (Image.fromarray(np.full((H, W), 51 * 257, np.uint16)), "tiff", 51),
        (Image.new("CMYK", (W, H), (0, 0, 0, 204)), "jpg", 51),
        (Image.new("RGB", (W, H), (51, 51, 51)).quantize(2), "png", 51),
        (Image.new("1", (W, H), 1), "png", 255),
        (Image.new("RGB", (W, H), (51, 51, 51)), "webp", 51),
    ],
    ids=["grey", "16-bit", "16-bit-tiff", "cmyk", "palette", "1-bit", "webp"],
)
def test_pictures_of_other_kinds_become_rgb(tmp_path, image, suffix, value):
    path = tmp_path / f"one.{suffix}"
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    picture = pictures.person_picture(pictures.Source.find(path.name, path), (H, W))
    assert picture.shape == (3, H, W)
    assert ((picture + 1) * 127.5 - value).abs().max() <= 1


# --- bad pictures ----------------------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def bomb(path):
    Image.new("1", (20_000, 5_000)).save(path)


def huge_bomb(path):
    Image.new("1", (20_000, 10_000)).save(path)


def folder(path):
    path.unlink()
    path.mkdir()


def outside(path):
    there = path.parents[2] / "outside.png"
    path.rename(there)
    path.symlink_to(there)


def labels(path):
    with Image.open(path) as mask:
        values = (np.array(mask.convert("L")) > 0).astype(np.uint8) * 5
    image = Image.fromarray(values, "P")
    image.putpalette([0, 0, 0] * 5 + [255, 85, 0])
    image.save(path)


BAD = {
    "missing": ("p/a.png", lambda path: path.unlink(), "there is no such file"),
    "folder": ("p/a.png", folder, "not a file"),
    "outside": ("p/a.png", outside, "out of the data folder"),
    "text": ("p/a.png", lambda path: path.write_text("hello"), "not a picture"),
    "postscript": ("g/a.png", lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "not a picture"),
    "empty": ("g/a.png", lambda path: path.write_bytes(b""), "not a picture"),
    "truncated": ("p/a.png", truncate, "damaged or incomplete"),
    "truncated garment": ("g/a.png", truncate, "damaged or incomplete"),
    "truncated mask": ("m/a_lower.png", truncate, "damaged or incomplete"),
    "bomb": ("g/a.png", bomb, "more than 89,478,485 pixels"),
    "huge bomb": ("p/a.png", huge_bomb, "more than 89,478,485 pixels"),
    "floats": ("p/a.png", lambda path: Image.new("F", (W, H)).save(path, "TIFF"), "floating-point"),
    "mask's size": ("m/a_upper.png", lambda path: paint_mask(path, (2, 2, 9, 9), (W, H)), "48 x 64.*person 60 x 94"),
    "empty mask": ("m/a_lower.png", lambda path: paint_mask(path, (0, 0, 0, 0)), "mask is empty"),
    "dark mask": ("m/a_upper.png", lambda path: Image.new("L", (W + 12, H + 30), 1).save(path), "mask is empty"),
    "mask cropped away": ("m/a_upper.png", lambda path: paint_mask(path, (2, 0, 20, 4)), "nothing of the mask is left"),
    "mask of ones": ("m/a_upper.png", lambda path: Image.new("L", (W + 12, H + 30), 1).save(path), "multiplied by 255"),
    "labels": ("m/a_upper.png", lambda path: Image.new("L", (W + 12, H + 30), 7).save(path), "7; if these are labels"),
    "palette": ("m/a_upper.png", lambda path: labels(path), "coloured by a palette"),
    "transparent garment": ("g/a.png", lambda path: Image.new("RGBA", (W, H)).save(path), "transparent all over"),
    "white garment": ("g/a.png", lambda path: Image.new("RGB", (W, H), "white").save(path), "no garment can be told"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_quarantines_its_person_and_is_named(data, name):
    file, spoil, reason = BAD[name]
    spoil(data.path(file))
    cached = data.build(most_bad=0.5)
    assert cached.ids == ("b", "c")
    assert list(cached.quarantined) == ["a"]
    (entry,) = map(json.loads, (data.cache / "quarantine-train.jsonl").read_text().splitlines())
    assert (entry["id"], entry["file"]) == ("a", file)
    assert cached.quarantined["a"] == f"{file}: {entry['reason']}"
    assert re.search(reason, entry["reason"])
    assert cached.load(0).id == "b"


def test_latents_that_are_no_numbers_are_bad(data):
    class Broken(FakeEncoders):
        def encode_mode(self, images):
            latents = super().encode_mode(images)
            latents[:1] = torch.nan
            return latents

    cached = data.build(Broken(), most_bad=0.5, batch=9)
    assert cached.quarantined == {"a": "p/a.png: the autoencoder makes no finite numbers of it"}
    assert data.counts() == (1, 0)


def test_an_autoencoder_that_makes_no_numbers_of_anything_is_to_blame_itself(data):
    class Broken(FakeEncoders):
        def encode_mode(self, images):
            return super().encode_mode(images) * torch.nan

    with pytest.raises(ValueError, match=r"^The base model's autoencoder makes no finite numbers\.\n.*not to blame"):
        data.build(Broken(), batch=4)


def test_the_quarantine_is_rewritten_by_each_build(data):
    good = data.path("p/a.png").read_bytes()
    data.path("p/a.png").write_bytes(good[:50])
    data.build(most_bad=0.5)
    data.path("p/a.png").write_bytes(good)
    assert data.build().ids == ("a", "b", "c")
    assert (data.cache / "quarantine-train.jsonl").read_text() == ""


def test_exactly_five_percent_may_be_bad_and_more_stop(tmp_path):
    data = Data(tmp_path, people=20)
    data.path("p/a.png").write_text("no picture")
    assert len(data.build()) == 19
    data.path("m/c_upper.png").unlink()
    with pytest.raises(ValueError, match="2 of 20 people have bad pictures; at most 5% may") as caught:
        data.build()
    _, why, remedy = str(caught.value).splitlines()
    assert "a: p/a.png: it is not a picture" in why
    assert "c: m/c_upper.png: there is no such file" in why
    assert remedy.startswith("What to do:")
    assert "quarantine-train.jsonl" in remedy


def test_nobody_left_stops_whatever_is_allowed(data):
    for name in "abc":
        data.path(f"p/{name}.png").unlink()
    with pytest.raises(ValueError, match="3 of 3 people"):
        data.build(most_bad=1.0)
