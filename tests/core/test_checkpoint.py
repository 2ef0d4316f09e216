# SPDX-License-Identifier: GPL-3.0-or-later
"""The AnyDressing file: what is written is what is read, and nothing else is accepted.

Random checkpoints of a two-level U-Net with seven sites; the seed is 0 where none is stated.
"""

import dataclasses
import json
import os
import random
import stat

import pytest
import torch
from comfyui_anydressing.anydressing_core.atomic_write import write_atomically
from comfyui_anydressing.anydressing_core.checkpoint import (
    Checkpoint,
    expected_tensors,
    load_checkpoint,
    read_info,
    save_checkpoint,
)
from comfyui_anydressing.anydressing_core.checkpoint_info import CheckpointInfo, describe_unet
from comfyui_anydressing.anydressing_core.sites import SD15, UNetShape
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.infos import make_info
from support.random_file import random_checkpoint

UNET = UNetShape((16, 32), (1, 1), (True, True), True, heads=4, cross_attention_dim=24)
SITES = ("down_0_0", "down_1_0", "mid_0_0", "up_0_0", "up_0_1", "up_1_0", "up_1_1")
INFO = make_info(
    UNET,
    rank={"upper": 4, "lower": 2},
    alpha={"upper": 8.0, "lower": 2.0},
    resolution=(768, 576),
    loss_reading="l2",
    steps=100_000,
    dataset="paper-doll",
    training_config_hash="ab" * 32,
    title="Zweiteiler für Größe 38",
    author="Ada",
)


def saved(tmp_path, info=INFO, change=None, metadata=None, name="dress.safetensors"):
    """A file as another program may write it: `change` edits the tensors, `metadata` replaces the entries."""
    tensors = dict(random_checkpoint(info, seed=0).tensors)
    if change is not None:
        change(tensors)
    save_file(tensors, tmp_path / name, metadata=info.to_metadata() if metadata is None else metadata)
    return tmp_path / name


def refusal(path, read=load_checkpoint):
    """The text of the refusal; every one names the file first and ends with what to do."""
    with pytest.raises(ValueError, match="What to do: ") as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"'{path.name}' ")
    assert len(text.splitlines()) == 3
    assert text.splitlines()[2].startswith("What to do: ")
    assert len(text) <= 600
    return text


# ---- written = read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tap", ["attn_input", "attn_output"])
def test_what_is_written_is_what_is_read(tmp_path, dtype, tap):
    written = random_checkpoint(dataclasses.replace(INFO, feature_tap=tap), seed=0, dtype=dtype)
    save_checkpoint(tmp_path / "dress.safetensors", written)
    read = load_checkpoint(tmp_path / "dress.safetensors")
    assert read.info == written.info
    assert read.info.to_metadata() == written.info.to_metadata()
    assert read.tensors.keys() == written.tensors.keys()
    for name, tensor in written.tensors.items():
        assert read.tensors[name].dtype == dtype
        assert torch.equal(read.tensors[name], tensor), name


# ---- what was lost on the way ----------------------------------------------------------------------------------------


def test_a_file_states_its_identity_and_says_the_same_about_itself(tmp_path):
    written = random_checkpoint(INFO, seed=0)
    save_checkpoint(tmp_path / "dress.safetensors", written)
    with safe_open(tmp_path / "dress.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata.pop("identity") == written.identity
    assert metadata == INFO.to_metadata()


def test_every_bit_that_flips_in_the_tensors_is_found(tmp_path):
    path = tmp_path / "dress.safetensors"
    save_checkpoint(path, random_checkpoint(INFO, seed=0, dtype=torch.float16))
    whole, chance = path.read_bytes(), random.Random(0)
    start = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(81):
        place = chance.randrange(start, len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        assert "is damaged" in refusal(path) or "holds NaN" in refusal(path)


def changed_on_the_way(tmp_path, change, dtype=torch.float32):
    """A file that states its identity, whose tensors another program has changed since."""
    save_checkpoint(tmp_path / "dress.safetensors", random_checkpoint(INFO, seed=0, dtype=dtype))
    with safe_open(tmp_path / "dress.safetensors", "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "dress.safetensors")
    change(tensors, metadata)
    save_file(tensors, tmp_path / "dress.safetensors", metadata=metadata)
    return tmp_path / "dress.safetensors"


def swap(tensors, metadata):
    one, other = "dressing.mid_0_0.to_k.weight", "dressing.mid_0_0.to_v.weight"
    tensors[one], tensors[other] = tensors[other], tensors[one]


def read_as_bfloat16(tensors, metadata):
    tensors |= {name: tensor.view(torch.bfloat16) for name, tensor in tensors.items()}


def other_alpha(tensors, metadata):
    metadata["alpha"] = metadata["alpha"].replace("8.0", "9.0")


@pytest.mark.parametrize("change", [swap, read_as_bfloat16, other_alpha])
def test_what_was_changed_since_it_was_written_is_found(tmp_path, change):
    assert "is damaged" in refusal(changed_on_the_way(tmp_path, change, torch.float16))


def test_entries_of_other_programs_may_come_and_go(tmp_path):
    path = changed_on_the_way(tmp_path, lambda tensors, metadata: metadata.update({"modelspec.title": "A dress"}))
    assert load_checkpoint(path).info.extra == {"modelspec.title": "A dress"}


def test_a_file_from_before_identities_were_written_is_read(tmp_path):
    assert "identity" not in INFO.to_metadata()
    assert load_checkpoint(saved(tmp_path)).info == INFO


def test_the_file_follows_the_published_format(tmp_path):
    """The names, shapes and metadata that other programs rely on, written out by hand."""
    save_checkpoint(tmp_path / "dress.safetensors", random_checkpoint(INFO, seed=0))
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "dress.safetensors").items()}
    assert len(shapes) == 2 * 6 * 3 * 2 + 7 * 4
    assert shapes["garments.upper.down_0_0.q.down.weight"] == (4, 16)
    assert shapes["garments.lower.mid_0_0.v.up.weight"] == (32, 2)
    assert shapes["dressing.up_1_1.to_k.weight"] == (16, 16)
    assert shapes["dressing.mid_0_0.null_key"] == (32,)
    assert shapes["dressing.mid_0_0.null_bias"] == (1,)
    assert not any(name.startswith(("garments.upper.up_1_1", "garments.lower.up_1_1")) for name in shapes)
    assert json.loads(INFO.to_metadata()["unet_config"])["block_out_channels"] == [16, 32]
    assert {key: text for key, text in INFO.to_metadata().items() if key != "unet_config"} == {
        "format": "pt",
        "anydressing_format": "1",
        "slots": '["upper", "lower"]',
        "rank": '{"lower": 2, "upper": 4}',
        "alpha": '{"lower": 2.0, "upper": 8.0}',
        "lora_targets": "q,k,v",
        "feature_tap": "attn_input",
        "null_token": "true",
        "garment_tokens": "all",
        "resolution": "768x576",
        "loss_reading": "l2",
        "steps": "100000",
        "dataset": "paper-doll",
        "dataset_licence": "CC0-1.0",
        "training_config_hash": "ab" * 32,
        "title": "Zweiteiler für Größe 38",
        "author": "Ada",
    }


def test_sd15_has_every_tensor_of_its_sixteen_sites():
    info = dataclasses.replace(
        INFO, unet=SD15, unet_config="", slots=("upper",), rank={"upper": 64}, alpha={"upper": 64.0}
    )
    shapes = expected_tensors(info)
    assert len(shapes) == 15 * 3 * 2 + 16 * 4
    assert shapes["garments.upper.up_3_1.q.down.weight"] == (64, 320)
    assert "garments.upper.up_3_2.q.down.weight" not in shapes
    assert shapes["dressing.up_3_2.to_v.weight"] == (320, 320)
    assert shapes["dressing.mid_0_0.to_k.weight"] == (1280, 1280)


def test_unknown_metadata_is_kept_and_has_no_effect(tmp_path):
    metadata = {**INFO.to_metadata(), "ss_comment": "line one\nline two", "colour": "blau"}
    info = load_checkpoint(saved(tmp_path, metadata=metadata)).info
    assert info.extra == {"ss_comment": "line one\nline two", "colour": "blau"}
    assert info.to_metadata() == metadata
    assert dataclasses.replace(info, extra={}) == INFO


def test_the_unet_configuration_is_kept_as_it_came(tmp_path):
    config = json.dumps({**UNET.to_diffusers(), "sample_size": 64, "_diffusers_version": "0.30"}, indent=1)
    info = read_info(saved(tmp_path, metadata={**INFO.to_metadata(), "unet_config": config}))
    assert info.unet == UNET
    assert info.to_metadata()["unet_config"] == config


def test_read_info_needs_no_tensor(tmp_path, monkeypatch):
    path = saved(tmp_path)
    monkeypatch.delattr("safetensors.torch.load")
    assert read_info(path) == INFO


# ---- identity --------------------------------------------------------------------------------------------------------


def test_equal_content_has_equal_identity_in_any_order(tmp_path):
    checkpoint = random_checkpoint(INFO, seed=0)
    backwards = Checkpoint(INFO, dict(reversed(checkpoint.tensors.items())))
    save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    metadata = dict(reversed(INFO.to_metadata().items()))
    save_file(dict(backwards.tensors), tmp_path / "b.safetensors", metadata=metadata)
    loaded = [load_checkpoint(tmp_path / name).identity for name in ("a.safetensors", "b.safetensors")]
    assert {checkpoint.identity, backwards.identity, *loaded} == {checkpoint.identity}


def test_any_change_changes_the_identity():
    checkpoint = random_checkpoint(INFO, seed=0)
    nudged = dict(checkpoint.tensors)
    nudged["dressing.mid_0_0.null_bias"] = torch.nextafter(nudged["dressing.mid_0_0.null_bias"], torch.tensor(9.0))
    others = [
        Checkpoint(INFO, nudged),
        Checkpoint(dataclasses.replace(INFO, title="Other"), checkpoint.tensors),
        Checkpoint(dataclasses.replace(INFO, extra={"colour": "blau"}), checkpoint.tensors),
        random_checkpoint(INFO, seed=1),
        random_checkpoint(INFO, seed=0, dtype=torch.bfloat16),
    ]
    assert len({checkpoint.identity, *(other.identity for other in others)}) == 6


def test_one_seed_gives_one_random_checkpoint():
    assert random_checkpoint(INFO, seed=3).identity == random_checkpoint(INFO, seed=3).identity


# ---- access ----------------------------------------------------------------------------------------------------------


def test_each_slot_and_site_gives_its_own_lora():
    checkpoint = random_checkpoint(INFO, seed=0)
    for slot in INFO.slots:
        for site in SITES[:-1]:
            pairs = checkpoint.lora(slot, site)
            assert list(pairs) == ["q", "k", "v"]
            for target, (down, up) in pairs.items():
                assert down is checkpoint.tensors[f"garments.{slot}.{site}.{target}.down.weight"]
                assert up is checkpoint.tensors[f"garments.{slot}.{site}.{target}.up.weight"]


def test_the_last_site_has_a_lora_only_when_outputs_are_tapped():
    assert random_checkpoint(INFO, seed=0).lora("upper", "up_1_1") == {}
    tapped = dataclasses.replace(INFO, feature_tap="attn_output", lora_targets=("q", "k", "v", "out"))
    assert list(random_checkpoint(tapped, seed=0).lora("upper", "up_1_1")) == ["q", "k", "v", "out"]


def test_a_site_that_does_not_exist_is_an_error_not_an_empty_lora():
    with pytest.raises(KeyError):
        random_checkpoint(INFO, seed=0).lora("upper", "up_9_9")


def test_scale_is_alpha_over_rank():
    checkpoint = random_checkpoint(INFO, seed=0)
    assert (checkpoint.scale("upper"), checkpoint.scale("lower")) == (2.0, 1.0)


def test_an_untrained_slot_is_refused_with_the_trained_ones():
    checkpoint = random_checkpoint(INFO, seed=0)
    for use in (checkpoint.scale, lambda slot: checkpoint.lora(slot, "mid_0_0")):
        with pytest.raises(ValueError, match="Slot 'hat' is not in this AnyDressing file") as caught:
            use("hat")
        assert "upper, lower" in str(caught.value)
        assert "What to do: choose one of these slots." in str(caught.value)


def test_every_site_has_projections_and_a_null_token_when_it_was_trained():
    checkpoint = random_checkpoint(INFO, seed=0)
    without = random_checkpoint(dataclasses.replace(INFO, null_token=False), seed=0)
    for site in SITES:
        assert checkpoint.to_k(site) is checkpoint.tensors[f"dressing.{site}.to_k.weight"]
        assert checkpoint.to_v(site) is checkpoint.tensors[f"dressing.{site}.to_v.weight"]
        key, bias = checkpoint.null(site)
        assert key.shape == checkpoint.to_k(site).shape[:1]
        assert bias.shape == (1,)
        assert without.null(site) is None
    assert not any("null" in name for name in without.tensors)


# ---- metadata is strict ----------------------------------------------------------------------------------------------

FIELDS = tuple(INFO.to_metadata())
WRONG = {
    "format": ["", "np"],
    "anydressing_format": ["", "0", "2", "1.0"],
    "unet_config": [
        "",
        "[]",
        "{}",
        "x",
        "[" * 5000,
        json.dumps({**SD15.to_diffusers(), "use_linear_projection": True}),
        json.dumps({**SD15.to_diffusers(), "down_block_types": [[1]] * 4}),
        json.dumps(UNetShape((8,), (1,), (False,), False, heads=1, cross_attention_dim=8).to_diffusers()),
    ],
    "slots": [
        "",
        "upper",
        "[]",
        '["Upper"]',
        '["upper", "lower", "upper"]',
        "[1]",
        "{}",
        '["a.b"]',
        '["\\n"]',
        "[" * 5000,
    ],
    "rank": [
        "",
        "64",
        "{}",
        '{"upper": 4}',
        '{"upper": 4, "lower": 2, "hat": 2}',
        '{"upper": 4, "lower": 2.5}',
        '{"upper": 4, "lower": 0}',
        '{"upper": true, "lower": 2}',
        '{"upper": 4, "lower": 99999}',
    ],
    "alpha": [
        "",
        "8",
        '{"upper": 8}',
        '{"upper": 8, "lower": -1}',
        '{"upper": 8, "lower": NaN}',
        '{"upper": 8, "lower": Infinity}',
        '{"upper": 8, "lower": 1e999}',
        f'{{"upper": 8, "lower": 1{"0" * 400}}}',
        '{"upper": 8, "lower": 1e300}',
        '{"upper": 8, "lower": 2001}',
    ],
    "lora_targets": ["", "q", "q,k", "v,k,q", "q, k, v", "q,k,v,out,"],
    "feature_tap": ["", "attn", "ATTN_INPUT"],
    "null_token": ["", "True", "1", "yes"],
    "garment_tokens": ["", "half"],
    "resolution": [
        "",
        "768",
        "768x",
        "768*576",
        "0x8",
        "-8x8",
        "770x576",
        "768x576x3",
        "٨x٨",
        "8x8",
        "99992x99992",
        "2056x768",
    ],
    "loss_reading": ["", " ", "a\nb"],
    "steps": ["", "-1", "1.5", "1e5", "٣"],
    "dataset": ["", "\x1b[31m"],
    "dataset_licence": [""],
    "training_config_hash": ["", "ab", "AB" * 32, "zz" * 32],
    "title": ["", "\n"],
    "author": ["", "\u202eevil"],
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_metadata_field_is_required_and_checked(tmp_path, field):
    good = INFO.to_metadata()
    text = refusal(saved(tmp_path, metadata={key: value for key, value in good.items() if key != field}), read_info)
    assert repr(field) in text
    for value in WRONG[field]:
        with pytest.raises(ValueError, match=repr(field)) as caught:
            CheckpointInfo.from_metadata({**good, field: value}, "'a.safetensors'")
        text = str(caught.value)
        assert text.startswith("'a.safetensors' "), value
        assert text.splitlines()[-1].startswith("What to do: "), value
        assert text.replace("\n", "").isprintable(), value
        assert len(text) <= 600


def test_a_wrong_field_says_what_came_and_what_is_expected():
    with pytest.raises(ValueError, match="feature_tap") as caught:
        CheckpointInfo.from_metadata({**INFO.to_metadata(), "feature_tap": "middle"}, "'a.safetensors'")
    assert str(caught.value) == (
        "'a.safetensors' cannot be used: its description is damaged.\n"
        "Its metadata entry 'feature_tap' is 'middle', but should be attn_input or attn_output.\n"
        "What to do: ask its author to export it again with `anydressing export`."
    )


def test_another_kind_of_safetensors_file_is_told_apart(tmp_path):
    path = saved(tmp_path, metadata={"ss_network_module": "networks.lora"}, name="style lora.safetensors")
    assert "is not an AnyDressing file" in refusal(path)


def test_a_newer_format_asks_for_an_update(tmp_path):
    text = refusal(saved(tmp_path, metadata={**INFO.to_metadata(), "anydressing_format": "2"}))
    assert "What to do: update ComfyUI-AnyDressing" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slots", ("Upper",)),
        ("rank", {"upper": 4}),
        ("rank", {"upper": "4", "lower": 2}),
        ("alpha", {"upper": float("nan"), "lower": 1.0}),
        ("null_token", "false"),
        ("resolution", (768, 577)),
        ("steps", -1),
        ("steps", None),
        ("title", ""),
        ("author", None),
        ("extra", {"title": "again"}),
        ("extra", {"half": "\ud800"}),
        ("unet", SD15),
    ],
)
def test_what_could_not_be_read_back_cannot_be_made(field, value):
    with pytest.raises(ValueError, match=f"(?s){field}.*What to do: "):
        dataclasses.replace(INFO, **{field: value})


# ---- tensors are strict ----------------------------------------------------------------------------------------------


def test_missing_tensors_are_named_and_counted(tmp_path):
    def change(tensors):
        for name in [name for name in tensors if name.startswith("garments.upper.mid_0_0")]:
            del tensors[name]

    text = refusal(saved(tmp_path, change=change), read_info)
    assert "6 missing: 'garments.upper.mid_0_0.k.down.weight', 'garments.upper.mid_0_0.k.up.weight'" in text
    assert "and 3 more." in text


def test_unexpected_tensors_are_named_and_counted(tmp_path):
    text = refusal(
        saved(tmp_path, change=lambda tensors: tensors.update({"evil\n\x1b[31m": torch.zeros(1)})), read_info
    )
    assert "1 unexpected: 'evil\\n\\x1b[31m'." in text


def test_the_last_lora_is_unexpected_under_attn_input(tmp_path):
    name = "garments.upper.up_1_1.q.down.weight"
    assert name in refusal(saved(tmp_path, change=lambda tensors: tensors.update({name: torch.zeros(4, 16)})))


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path):
    change = {"dressing.mid_0_0.to_k.weight": torch.zeros(32, 31)}
    text = refusal(saved(tmp_path, change=lambda tensors: tensors.update(change)), read_info)
    assert "Tensor 'dressing.mid_0_0.to_k.weight' has the shape (32, 31); its metadata asks for (32, 32)." in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
def test_mixed_dtypes_are_refused(tmp_path, dtype):
    change = {"dressing.mid_0_0.null_key": torch.zeros(32, dtype=dtype)}
    text = refusal(saved(tmp_path, change=lambda tensors: tensors.update(change)), read_info)
    assert "F32" in text
    assert "all F16 or all BF16" in text


def test_one_dtype_that_is_not_ours_is_refused(tmp_path):
    text = refusal(saved(tmp_path, change=lambda tensors: tensors.update({k: v.double() for k, v in tensors.items()})))
    assert "Its tensors are F64;" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused_by_name_on_reading_and_writing(tmp_path, value):
    name = "dressing.up_0_1.to_v.weight"
    poisoned = dict(random_checkpoint(INFO, seed=0).tensors)
    poisoned[name] = poisoned[name].clone()
    poisoned[name][3, 5] = value
    assert f"Tensor '{name}' holds NaN or infinity" in refusal(saved(tmp_path, change=lambda t: t.update(poisoned)))
    with pytest.raises(ValueError, match=name):
        save_checkpoint(tmp_path / "new.safetensors", Checkpoint(INFO, poisoned))
    assert not (tmp_path / "new.safetensors").exists()


def test_inconsistent_tensors_make_no_checkpoint():
    tensors = dict(random_checkpoint(INFO, seed=0).tensors)
    del tensors["dressing.mid_0_0.to_k.weight"]
    with pytest.raises(ValueError, match=r"1 missing: 'dressing\.mid_0_0.to_k\.weight'"):
        Checkpoint(INFO, tensors)


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_tensors_that_share_memory_can_be_saved(tmp_path):
    tensors = dict(random_checkpoint(INFO, seed=0).tensors)
    shared = torch.arange(16 * 16, dtype=torch.float32).view(16, 16)
    tensors["dressing.up_1_1.to_k.weight"] = tensors["dressing.up_1_1.to_v.weight"] = shared
    tensors["dressing.up_1_0.to_k.weight"] = shared.T
    save_checkpoint(tmp_path / "dress.safetensors", Checkpoint(INFO, tensors))
    read = load_checkpoint(tmp_path / "dress.safetensors")
    assert torch.equal(read.to_k("up_1_1"), shared)
    assert torch.equal(read.to_v("up_1_1"), shared)
    assert torch.equal(read.to_k("up_1_0"), shared.T)


def test_tensors_stay_valid_when_the_file_is_cut_short_later(tmp_path):
    path = saved(tmp_path)
    read = load_checkpoint(path)
    os.truncate(path, 0)
    assert read.identity == random_checkpoint(INFO, seed=0).identity


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path)
    real = CheckpointInfo.from_metadata.__func__

    def cut_then_read(cls, metadata, source):
        os.truncate(path, path.stat().st_size - 4)
        return real(cls, metadata, source)

    monkeypatch.setattr(CheckpointInfo, "from_metadata", classmethod(cut_then_read))
    assert "changed while it was read" in refusal(path)


def test_saving_leaves_no_other_file_and_respects_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "dress.safetensors", random_checkpoint(INFO, seed=0))
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["dress.safetensors"]
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "dress.safetensors").stat().st_mode) == 0o640


def test_a_failed_write_keeps_the_old_file_and_says_where(tmp_path, monkeypatch):
    path = tmp_path / "dress.safetensors"
    path.write_bytes(b"old")

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match=r"(?s)'dress\.safetensors'.*No space left on device.*What to do: ") as caught:
        write_atomically(path, b"new")
    assert caught.value.errno == 28
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["dress.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no handle for folders.")
def test_the_content_is_on_disk_before_the_rename_and_the_rename_before_the_return(tmp_path, monkeypatch):
    path, synced = tmp_path / "dress.safetensors", []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((stat.S_ISDIR(os.fstat(fd).st_mode), path.exists())))
    write_atomically(path, b"new")
    assert synced == [(False, False), (True, True)]


def test_messages_can_name_a_unet():
    assert describe_unet(SD15) == "SD1.5 (320-640-1280-1280, context 768)"
    assert describe_unet(UNET) == "unknown type (16-32, context 24)"
    sdxl = UNetShape((320, 640, 1280), (2, 2, 2), (False, True, True), True, heads=8, cross_attention_dim=2048)
    assert describe_unet(sdxl) == "SDXL-type (320-640-1280, context 2048)"
