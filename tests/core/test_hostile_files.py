# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile and damaged files: each is refused quickly, cheaply and with a message a person can act on.

A weights file comes from a stranger. The corpus is built here, byte by byte; no file in it can be told from its name.
"""

import ast
import io
import json
import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from comfyui_anydressing.anydressing_core.checkpoint import load_checkpoint, read_info, save_checkpoint
from comfyui_anydressing.anydressing_core.safetensors_header import HEADER_LIMIT, TENSOR_LIMIT, read_header
from comfyui_anydressing.anydressing_core.sites import UNetShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import save
from support.infos import make_info
from support.random_file import random_checkpoint

CORE = Path(__file__).parents[2] / "anydressing_core"
MEBIBYTE = 1 << 20


def packed(header, data=b""):
    """A file of this header, given as a dict or as raw bytes, and these tensor bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape=(4,), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = save({"a": torch.zeros(64, 64), "b": torch.ones(4)}, metadata={"x": "y"})


class Canary:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def pickled(path):
    return pickle.dumps({"weight": Canary(path.with_name("canary"))})


def torch_saved(path):
    content = io.BytesIO()
    torch.save({"weight": Canary(path.with_name("canary"))}, content)
    return content.getvalue()


def zipped(path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("data.pkl", pickled(path))
    return content.getvalue()


def sparse(path):
    """A header that claims 200 MB of spaces, and a file that has them, without a disk block behind most of it."""
    length = 200 * MEBIBYTE
    path.write_bytes(struct.pack("<Q", length) + b"{")
    os.truncate(path, 8 + length)


def shared_16_bytes(path):
    return packed({"a": tensor(), "b": tensor()}, bytes(16))


DEEP = 200_000
EXACTLY_TWICE = (
    b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
)
EMPTY_LISTS = b'{"a":[' + b",".join([b"[]"] * 1_300_000) + b"]}"
WIDE_TEXT = b'{"__metadata__":{"x":"' + "\U0001f455".encode() * 900_000 + b'"},"a":0}'

CORPUS = {
    # name: (what makes it: bytes, or a function of the path that returns or writes them; words of the message)
    "zero bytes": (b"", "is incomplete"),
    "two bytes": (b"\x01\x02", "is incomplete"),
    "cut inside the header": (GOOD[:40], "is incomplete"),
    "cut inside a tensor": (GOOD[:-1000], "is incomplete"),
    "trailing bytes": (GOOD + b"xxxx", "4 bytes follow after its last tensor"),
    "header of 2^62 bytes": (struct.pack("<Q", 2**62) + b"{}", "header claims 4,611,686,018,427,387,904 bytes"),
    "header of no bytes": (struct.pack("<Q", 0) + b"{}" + bytes(64), "header claims 0 bytes"),
    "header of 200 MB": (sparse, "header claims 209,715,200 bytes"),
    "header past the end": (struct.pack("<Q", 10_000) + b"{}", "is incomplete"),
    "overlap": (shared_16_bytes, "Tensor 'b' overlaps another tensor"),
    "hole": (packed({"a": tensor(offsets=(16, 32))}, bytes(32)), "Tensor 'a' is preceded by bytes"),
    "negative dimension": (packed({"a": tensor((-4,))}, bytes(16)), "Tensor 'a' has the impossible shape"),
    "minus zero": (packed(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'), "the impossible shape"),
    "true as a dimension": (packed({"a": tensor((True,), (0, 4))}, bytes(4)), "Tensor 'a' has the impossible shape"),
    "nine dimensions": (packed({"a": tensor([1] * 9, (0, 4))}, bytes(4)), "Tensor 'a' has the impossible shape"),
    "wrong shape": (packed({"a": tensor((5,))}, bytes(16)), "Tensor 'a' of shape [5] does not fill its 16 bytes"),
    "overflowing shape": (packed({"a": tensor((2**40, 2**40))}, bytes(16)), "does not fill its 16 bytes"),
    "overflow to zero": (packed({"a": tensor((2**32, 2**32), (0, 0))}), "does not fill its 0 bytes"),
    "huge empty tensor": (packed({"a": tensor((0, 2**40), (0, 0))}), "Tensor 'a' is empty, yet claims the shape"),
    "huge tensor of no bytes": (packed({"a": tensor((2**33,), (0, 0))}), "Tensor 'a' of shape"),
    "offsets backwards": (packed({"a": tensor((4,), (16, 0))}, bytes(16)), "Tensor 'a' has the impossible offsets"),
    "offsets of 4000 digits": (packed({"a": tensor((4,), (0, 10**4000))}, bytes(16)), "the impossible offsets"),
    "number of 10000 digits": (packed(b'{"a":' + b"9" * 10_000 + b"}"), "is not a valid safetensors file"),
    "unknown dtype": (packed({"a": tensor(dtype="ZZ")}, bytes(16)), "Tensor 'a' has the unknown dtype 'ZZ'"),
    "dtype that is a list": (packed({"a": tensor(dtype=["F32"])}, bytes(16)), "has the unknown dtype ['F32']"),
    "key twice": (packed(EXACTLY_TWICE, bytes(16)), "names 'a' twice"),
    "extra description": (packed({"a": {**tensor(), "code": "x"}}, bytes(16)), "Tensor 'a' is not described by"),
    "tensor without description": (packed({"a": 1}), "Tensor 'a' is not described by"),
    "half a character": (packed(b'{"\\ud800":0}'), "has a name that is not text"),
    "deep nesting": (packed(b'{"__metadata__":' + b"[" * DEEP + b"]" * DEEP + b"}"), "nested too deeply"),
    "100,000 entries": (packed({f"t{i}": 0 for i in range(100_000)}), "lists 100,000 tensors"),
    "50,000 whole tensors": (
        packed({f"t{i}": tensor((1,), (4 * i, 4 * i + 4)) for i in range(50_000)}, bytes(200_000)),
        "too many entries",
    ),
    "many empty objects": (packed({f"t{i}": {} for i in range(TENSOR_LIMIT + 1)}), "10,001 tensors"),
    "a million empty lists": (packed(EMPTY_LISTS), "too many entries"),
    "wide characters": (packed(WIDE_TEXT), "Tensor 'a' is not described by"),
    "metadata that is a number": (packed({"__metadata__": {"a": 1}}), "metadata entry 'a' is not text"),
    "metadata that is a list": (packed({"__metadata__": ["a"]}), "metadata is not a JSON object"),
    "header that is a list": (packed(b"[1,2,3]"), "does not begin with a brace"),
    "no JSON": (packed(b"{'a': 1}      "), "not readable JSON"),
    "two objects": (packed(b"{} {}"), "not readable JSON"),
    "no UTF-8": (packed(b'{"\xff\xfe":1}'), "not UTF-8 text"),
    "web page": (b"<!DOCTYPE html><html><body>404 not found</body></html>", "is a web page"),
    "git lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 213000000\n",
        "is a Git LFS pointer, which stands for the file",
    ),
    "pickle": (pickled, "For safety only .safetensors is loaded"),
    "torch.save": (torch_saved, "For safety only .safetensors is loaded"),
    "zip": (zipped, "For safety only .safetensors is loaded"),
    "old torch.save": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "only .safetensors is loaded"),
    "folder": (Path.mkdir, "not a file but a folder"),
    "pipe": (os.mkfifo, "not a file but a folder or a device"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "It does not exist, or it is a link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "no file": (lambda path: None, "It does not exist"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small checkpoint as it is published: one level, one slot, two sites with the null token."""
    unet = UNetShape((8,), (1,), (True,), False, heads=2, cross_attention_dim=8)
    info = make_info(unet, slots=("upper",), rank={"upper": 2}, alpha={"upper": 2.0}, title="Small")
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save_checkpoint(path, random_checkpoint(info, seed=0))
    return path


def refusal(path, read):
    with pytest.raises(ValueError, match="What to do: ") as caught:
        read(path)
    return str(caught.value)


def assert_actionable(text, path):
    first, _, last = text.splitlines()  # what and which file, why, what to do
    assert first.startswith(f"'{path.name}' ")
    assert last.startswith("What to do: ")
    assert len(text) <= 600
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_is_refused_in_a_second_and_50_megabytes(name, tmp_path):
    make, words = CORPUS[name]
    path = tmp_path / "gift.safetensors"
    content = make(path) if callable(make) else make
    if content is not None:
        path.write_bytes(content)
    for read in (load_checkpoint, read_info, read_header):
        start = time.perf_counter()
        text = refusal(path, read)
        assert time.perf_counter() - start < 1
        assert words in text
        assert_actionable(text, path)
    # A refusal reads with Python alone, so that tracemalloc sees every byte it takes.
    tracemalloc.start()
    try:
        refusal(path, load_checkpoint)
        assert tracemalloc.get_traced_memory()[1] < 50 * MEBIBYTE
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "canary").exists()


def test_the_canary_would_sing(tmp_path):
    """The corpus' pickles are armed: unpickled on purpose, they leave their mark."""
    pickle.loads(pickled(tmp_path / "gift.safetensors"))
    assert (tmp_path / "canary").exists()


def test_a_good_file_passes(good):
    assert load_checkpoint(good).info.title == "Small"
    assert read_header(io.BytesIO(GOOD)).metadata == {"x": "y"}


def test_a_linked_file_is_followed(good, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(good)
    assert read_info(tmp_path / "link.safetensors").title == "Small"


def test_the_longest_allowed_header_passes(tmp_path):
    header = b'{"__metadata__":{"x":"' + b"y" * (HEADER_LIMIT - 25) + b'"}}'
    assert len(read_header(io.BytesIO(packed(header.ljust(HEADER_LIMIT)))).prefix) == 8 + HEADER_LIMIT


def test_a_control_character_in_a_file_name_cannot_forge_a_line(tmp_path):
    path = tmp_path / "a\nWhat to do: run me\x1b[31m.safetensors"
    path.write_bytes(b"")
    text = refusal(path, load_checkpoint)
    assert len(text.splitlines()) == 3
    assert text.replace("\n", "").isprintable()


def test_a_file_cut_anywhere_is_refused(good, tmp_path):
    """50 random cuts (seed 0) and every boundary: length word, header, each tensor, and one byte around them."""
    content = good.read_bytes()
    header = read_header(good)
    start = len(header.prefix)
    ends = [start + offset for entry in header.tensors.values() for offset in entry.offsets]
    boundaries = {cut + step for cut in (0, 8, start, *ends) for step in (-1, 0, 1)}
    cuts = boundaries | set(random.Random(0).sample(range(len(content)), 50))
    path = tmp_path / "cut.safetensors"
    for cut in sorted(cut for cut in cuts if 0 <= cut < len(content)):
        path.write_bytes(content[:cut])
        for read in (load_checkpoint, read_info):
            text = refusal(path, read)
            assert "is incomplete" in text, cut
            assert_actionable(text, path)


# ---- never accept what safetensors refuses ---------------------------------------------------------------------------


def accepted_by_us(content):
    try:
        read_header(io.BytesIO(content))
    except ValueError:
        return False
    return True


def accepted_by_safetensors(content):
    try:
        deserialize(content)
    except SafetensorError:
        return False
    return True


@st.composite
def mutated_headers(draw):
    """A valid file of up to three tensors in which one value of the header is replaced by another."""
    header, position = {"__metadata__": {"x": "y"}}, 0
    for name in draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3)):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        length = 2 * torch.Size(shape).numel()
        header[name] = tensor(shape, (position, position + length), draw(st.sampled_from(["F16", "BF16", "I16"])))
        position += length
    data = bytes(position)
    for _ in range(draw(st.integers(0, 2))):
        place = header
        while isinstance(place, (dict, list)) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if draw(st.booleans()) or not isinstance(place[key], (dict, list)):
                place[key] = draw(REPLACEMENTS)
                break
            place = place[key]
    return packed(header, data + bytes(draw(st.sampled_from([0, 0, 0, 1, 2]))))


REPLACEMENTS = st.one_of(
    st.integers(-1, 9),
    st.sampled_from([2**31, 2**32, 2**63, 2**64, 2**64 + 1, 0.0, 1.0, 1e300, True, None, "F16", "F64", "Q", ""]),
    st.sampled_from([[], {}, [0, 0], [0, 2**63], [0, 2**40, 2**40], [4, 0], "\udc80", {"dtype": "F16"}]),
).map(lambda value: json.loads(json.dumps(value)))  # a copy: later mutations must not reach into the table


@st.composite
def damaged_bytes(draw):
    """A valid file in which a few bytes are overwritten, cut out or put in."""
    content = bytearray(
        packed({"__metadata__": {"x": "y"}, "a": tensor((2, 2)), "b": tensor((0,), (16, 16))}, bytes(16))
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content) - 1))
        new = draw(
            st.binary(max_size=2) | st.sampled_from([b" ", b"-", b"0", b",", b'"', b"{", b"\\", b"e", b".", b"\t"])
        )
        content[at : at + draw(st.integers(0, 2))] = new
    header = bytes(content[8 : content.find(b"}}") + 2])
    return packed(header, bytes(16)) if draw(st.booleans()) else bytes(content)


@settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(mutated_headers() | damaged_bytes() | st.binary(max_size=64))
def test_what_safetensors_refuses_we_refuse(content):
    if accepted_by_us(content):
        assert accepted_by_safetensors(content)


# ---- no pickle -------------------------------------------------------------------------------------------------------

PICKLE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLE_CALLS = {"torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "numpy.load", "np.load", "eval", "exec"}


def pickle_paths(source):
    """The imports and calls in this source through which a file could run code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, (ast.Attribute, ast.Name)):
            modules = [ast.unparse(node)]
        else:
            continue
        yield from (name for name in modules if name.split(".")[0] in PICKLE_MODULES or name in PICKLE_CALLS)


def test_core_has_no_path_to_pickle():
    files = sorted(CORE.rglob("*.py"))
    assert CORE / "checkpoint.py" in files
    assert {file.name: list(pickle_paths(file.read_text())) for file in files} == {file.name: [] for file in files}


@pytest.mark.parametrize(
    "line", ["import pickle", "from torch import load", "torch.load(x)", "f = torch.load", "eval(x)"]
)
def test_a_path_to_pickle_would_be_found(line):
    assert list(pickle_paths(line))
