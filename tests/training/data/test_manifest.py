# SPDX-License-Identifier: GPL-3.0-or-later
"""The data format: strict, and never leading out of its folder."""

from __future__ import annotations

import copy
import hashlib
import json
import re

import pytest
from comfyui_anydressing.training.data.manifest import file_stem, plain_caption, read_manifest, safe_relative_path
from hypothesis import given, settings
from hypothesis import strategies as st

GOOD = {
    "id": "a1",
    "image": "people/a1.png",
    "caption": "a woman waving in a park",
    "split": "train",
    "garments": [
        {"slot": "upper", "image": "garments/a1_upper.png", "kind": "inshop", "mask": "masks/a1_upper.png"},
        {"slot": "lower", "image": None, "kind": "crop", "mask": "masks/a1_lower.png"},
    ],
}


def write(folder, *lines):
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def changed(**changes):
    return {**copy.deepcopy(GOOD), **changes}


def with_garment(**changes):
    line = copy.deepcopy(GOOD)
    line["garments"][0].update(changes)
    return line


def test_a_good_manifest_reads(tmp_path):
    manifest = read_manifest(write(tmp_path, GOOD, "", changed(id="a2", split="held_out")))
    assert [item.id for item in manifest.of_split("train")] == ["a1"]
    assert manifest.items[0].garments[1].image is None
    assert manifest.path("people/a1.png") == tmp_path / "people/a1.png"


def test_the_digest_is_the_files(tmp_path):
    one = read_manifest(write(tmp_path, GOOD)).digest
    assert one != read_manifest(write(tmp_path, changed(caption="another"))).digest


# ---- files as editors write them ------------------------------------------------------------------------------------


def write_bytes(folder, content):
    (folder / "manifest.jsonl").write_bytes(content)
    return folder / "manifest.jsonl"


def lines(*captions):
    return "".join(
        json.dumps(changed(id=f"a{place}", caption=caption), ensure_ascii=False) + "\n"
        for place, caption in enumerate(captions)
    )


def test_a_byte_order_mark_is_passed_over_and_the_digest_is_of_all_bytes(tmp_path):
    content = b"\xef\xbb\xbf" + lines("a woman\u2019s portrait").encode()
    manifest = read_manifest(write_bytes(tmp_path, content))
    assert manifest.items[0].caption == "a woman\u2019s portrait"
    assert manifest.digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0b"])
def test_only_ends_of_lines_end_a_line(tmp_path, character):
    (item,) = read_manifest(write_bytes(tmp_path, lines(f"one{character}two").encode())).items
    assert item.caption == "one two"


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_lines_may_end_as_another_system_ends_them(tmp_path, ending):
    path = write_bytes(tmp_path, lines("one", "two").replace("\n", ending).encode())
    assert [item.caption for item in read_manifest(path).items] == ["one", "two"]


def test_another_eight_bit_encoding_is_named_with_its_line(tmp_path):
    path = write_bytes(tmp_path, lines("a man", "a woman\u2019s portrait").encode("cp1252"))
    with pytest.raises(ValueError, match=r"manifest: 'manifest\.jsonl' is not saved as UTF-8") as caught:
        read_manifest(path)
    _, why, remedy = str(caught.value).split("\n")
    assert why.startswith("Line 2 holds, after ")
    assert "a woman'" in why
    assert "the byte 0x92" in why
    assert "save it as UTF-8" in remedy


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_utf_16_is_named(tmp_path, encoding):
    with pytest.raises(ValueError, match=r"(saved as UTF-16|not a text file in UTF-8)(?s:.*)save it as UTF-8"):
        read_manifest(write_bytes(tmp_path, lines("a man").encode(encoding)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not one JSON object"),
        ("[]", r"it: it should be one JSON object.*got \[\]"),
        ("7", "it: it should be one JSON object"),
        (changed(id=7), "id: it should be text, got 7"),
        (changed(caption=None), "caption: it should be text, got None"),
        (changed(size=[1]), "size"),
        (changed(garments=["upper"]), r"garments\.0: it should be a garment, a JSON object, got 'upper'"),
        (with_garment(mask=None), r"garments\.0\.mask: it should be text"),
        ({"id": "a"}, "image: it is missing"),
        ("[" * 50_000, "not one JSON object"),
        (changed(id="../a"), "id: an id is 1 to 128 visible characters"),
        (changed(id="a\\b"), "id: an id is"),
        (changed(id=" a"), "id: an id is"),
        (changed(id=""), "id: an id is"),
        (changed(id="two\nlines"), "id: an id is"),
        (changed(id="x\ud800"), "id: an id is"),
        (changed(id="x" * 129), "id: an id is"),
        (changed(caption=" \n"), "caption: .*visible characters"),
        (changed(caption="x" * 3000), "caption: .*visible characters"),
        (changed(split="test"), "split: it should be train or held_out, got 'test'"),
        (changed(garments=[]), r"garments: it should be a list of 1 to 8 garments, got \[\]"),
        (changed(image="../secret.png"), "image: .*stays inside"),
        (changed(image="/etc/passwd"), "image: .*stays inside"),
        (changed(person_mask="../mask.png"), "person_mask: .*stays inside"),
        (changed(labels="a woman"), "labels"),
        (with_garment(mask="C:\\mask.png"), r"garments\.0\.mask: .*stays inside"),
        (with_garment(mask="a\\..\\b.png"), "stays inside"),
        (with_garment(image="x\0y.png"), "stays inside"),
        (with_garment(image="x\ud800y.png"), "stays inside"),
        (with_garment(slot="Upper"), r"garments\.0\.slot: it should be small letters, digits and _"),
        (with_garment(image=None), "crop"),
        (with_garment(kind="crop"), "crop"),
        (json.dumps(GOOD)[:-1] + ',"x":"' + "y" * 100_001 + '"}', "bytes long"),
    ],
    ids=range(33),
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, words):
    with pytest.raises(ValueError, match=f"(?s)line 2 of 'manifest.jsonl'.*{words}.*What to do") as caught:
        read_manifest(write(tmp_path, GOOD, line))
    assert not [raw for raw in ("Input should", "String should", "List should", "valid") if raw in str(caught.value)]


@pytest.mark.parametrize(
    "name", ["a 1", "Anna Müller", "person #7 (left)", "\u5973\u6027", "a:b", "a1", "..", "x" * 128]
)
def test_an_id_is_any_line_of_visible_text(tmp_path, name):
    (item,) = read_manifest(write(tmp_path, changed(id=name))).items
    assert item.id == name


def test_an_id_is_the_same_however_its_accents_were_typed(tmp_path):
    with pytest.raises(ValueError, match="stands there twice"):
        read_manifest(write(tmp_path, changed(id="M\u00fcller"), changed(id="Mu\u0308ller")))


def test_files_of_a_person_are_called_after_her_as_every_system_can_hold_it():
    assert file_stem("train-0000003") == "train-0000003"  # as it always was
    stems = [file_stem(name) for name in ("Anna Müller", "Anna Möller", "a:b", "\u5973" * 128, "a?b", ".. ")]
    assert stems[0].startswith("Anna_M_ller-")
    assert len(set(stems)) == len(stems)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,140}", stem) for stem in stems)


def test_an_id_twice_is_named(tmp_path):
    with pytest.raises(ValueError, match="'a1' stands there twice"):
        read_manifest(write(tmp_path, GOOD, GOOD))


def test_an_empty_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no person"):
        read_manifest(write(tmp_path, ""))


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(ValueError, match="anydressing data") as caught:
        read_manifest(tmp_path / "manifest.jsonl")
    assert f"Nothing is at {tmp_path / 'manifest.jsonl'}." in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    manifest = read_manifest(write(tmp_path / "data", changed(image="link.png")))
    with pytest.raises(ValueError, match="leads out of the data folder"):
        manifest.path("link.png")


def test_what_is_not_beside_the_manifest_is_looked_for_in_the_root(tmp_path):
    own, root = tmp_path / "own", tmp_path / "root"
    for folder in (own / "masks", root / "people"):
        folder.mkdir(parents=True)
    (own / "masks" / "a1_upper.png").touch()
    (root / "people" / "a1.png").touch()
    manifest = read_manifest(write(own, GOOD), root)
    assert manifest.path("masks/a1_upper.png") == own / "masks/a1_upper.png"
    assert manifest.path("people/a1.png") == root / "people/a1.png"
    assert manifest.path("people/a2.png") == root / "people/a2.png"  # and what is nowhere is missing there


def test_a_link_out_of_the_root_is_refused(tmp_path):
    own, root = tmp_path / "own", tmp_path / "root"
    for folder in (own, root):
        folder.mkdir()
    (root / "people").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"leads out of the data folder .*root"):
        read_manifest(write(own, GOOD), root).path("people/a1.png")


@pytest.mark.parametrize("lies", ["nowhere", "file"])
def test_a_root_that_is_no_folder_is_named(tmp_path, lies):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"The data's root '.*' is not a folder"):
        read_manifest(write(tmp_path, GOOD), tmp_path / lies)


def test_unknown_keys_are_told_once(tmp_path, caplog):
    read_manifest(write(tmp_path, changed(pose="T"), changed(id="a2", pose="A")))
    assert caplog.messages == ["manifest.jsonl: the key 'pose' is not read."]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=30))
def test_no_accepted_path_leaves_the_folder(path):
    try:
        safe_relative_path(path)
    except ValueError:
        return
    depth = 0
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        assert depth >= 0


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=60))
def test_an_accepted_caption_is_one_visible_line(caption):
    try:
        text = plain_caption(caption)
    except ValueError:
        return
    assert text.strip() == text
    assert text.isprintable()
    assert plain_caption(text) == text
