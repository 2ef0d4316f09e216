# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor names the preset that fits, says why, and never fails because something is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comfyui_anydressing.training.commands import doctor
from comfyui_anydressing.training.commands.doctor import Facts, Gpu, examine, judge
from comfyui_anydressing.training.run.needs import StepMemory, read_table

FACTS = Facts(
    python="3.11.7",
    versions={**dict.fromkeys(doctor.REQUIRED, "1.0"), "diffusers": "0.42.1"},
    gpus=(),
    cores=8,
    ram=32.0,
    folder=Path("runs"),
    disk=100.0,
    tokenizer=Path("tokenizer"),
    presets=("12gb", "24gb", "paper-8xA100", "smoke"),
)


def with_gpu(memory, name="Card", capability=(8, 6), bf16=True, **changes):
    return judge(replace(FACTS, gpus=(Gpu(name, memory, capability, bf16),), **changes), read_table())


def texts(report):
    return " ".join(f"{finding.what} {finding.remedy}" for finding in report.findings)


@pytest.mark.parametrize(
    ("memory", "preset"),
    [
        (79.1, "1x-80gb"),
        (39.4, "paper-8xA100"),
        (23.6, "1x-24gb-evening"),
        (22.5, "1x-24gb-evening"),
        (15.8, "12gb"),
        (11.8, "12gb"),
        (10.7, "12gb"),
        (9.6, "12gb"),
    ],
)
def test_a_card_gets_the_preset_of_its_size(memory, preset):
    report = with_gpu(memory)
    assert report.preset == preset
    assert report.status == 0
    assert [finding.level for finding in report.findings] == ["note"]  # about VGG16
    assert f"{memory:.1f}" in report.why


def test_a_card_hears_of_vgg16_beforehand_and_of_both_ways_out():
    assert "VGG16" in texts(with_gpu(23.6))
    assert "losses.feature_network" in texts(with_gpu(23.6))
    assert "losses.texture = 0" in texts(with_gpu(23.6))
    assert "VGG16" not in texts(judge(FACTS, read_table()))  # the paper-doll world compares by a network of its own


def test_eight_gigabytes_get_no_preset_and_hear_what_still_fits():
    report = with_gpu(7.8)
    assert report.preset is None
    assert "12gb, should have" in report.why
    assert "losses.texture = 0" in texts(report)
    assert report.status == 0


def test_a_card_on_which_nothing_fits_prevents_training():
    report = with_gpu(3.9)
    assert report.preset is None
    assert report.status == 1


def test_the_smallest_of_several_cards_decides():
    cards = (Gpu("Large", 79.1, (8, 0), True), Gpu("Small", 11.8, (8, 6), True))
    assert judge(replace(FACTS, gpus=cards), read_table()).preset == "12gb"


def test_a_preset_must_fit_even_on_the_card_it_is_named_after():
    table = {"24gb": {"bf16": StepMemory(30.0, 1.0, 1.0, 0.0, 0.0)}}
    facts = replace(FACTS, gpus=(Gpu("Card", 24.0, (8, 9), True),))
    assert judge(facts, table).preset is None


def test_without_a_gpu_there_is_the_paper_doll_world():
    assert judge(FACTS, read_table()).preset == "smoke"
    report = judge(replace(FACTS, presets=("paper-doll-cpu", "smoke")), read_table())
    assert report.preset == "paper-doll-cpu"
    assert report.status == 0


def test_turing_hears_of_fp16_and_is_judged_by_it():
    report = with_gpu(23.6, "Quadro RTX 6000", (7, 5), bf16=False)
    assert "fp16" in report.why
    assert 'memory.precision = "fp16"' in texts(report)
    assert report.status == 0
    table = {"small": {"bf16": StepMemory(8.0, 0.0, 0.0, 0.0, 0.0), "fp16": StepMemory(12.0, 0.0, 0.0, 0.0, 0.0)}}
    turing, ampere = Gpu("RTX 2080 Ti", 11.0, (7, 5), False), Gpu("RTX 3060", 11.0, (8, 6), True)
    assert judge(replace(FACTS, gpus=(turing,)), table).preset is None
    assert judge(replace(FACTS, gpus=(ampere,)), table).preset == "small"


def test_gtx_16_cards_cannot_train():
    report = with_gpu(5.8, "NVIDIA GeForce GTX 1660 Ti", (7, 5), bf16=False)
    assert report.preset is None
    assert report.status == 1
    assert "NaN" in texts(report)


@pytest.mark.parametrize("module", ["torch", "diffusers", "cv2"])
def test_a_missing_package_prevents_training_and_is_named(module):
    report = judge(replace(FACTS, versions={**FACTS.versions, module: None}), read_table())
    assert report.status == 1
    assert doctor.REQUIRED[module] in texts(report)


def test_an_old_diffusers_prevents_training():
    report = judge(replace(FACTS, versions={**FACTS.versions, "diffusers": "0.31.0"}), read_table())
    assert report.status == 1
    assert "0.42" in texts(report)


def test_a_full_disk_prevents_training():
    assert with_gpu(23.6, disk=0.5).status == 1


def test_little_memory_is_worth_a_note():
    report = with_gpu(23.6, ram=4.0)
    assert report.status == 0
    assert "data.workers = 0" in texts(report)


@pytest.mark.parametrize("gpus", [(), (Gpu("Card", 23.6, (8, 6), True),)], ids=["no card", "a card"])
def test_a_missing_tokenizer_prevents_training_and_is_named(gpus):
    report = judge(replace(FACTS, gpus=gpus, tokenizer=None), read_table())
    assert report.status == 1
    assert "CLIP's tokenizer is missing" in texts(report)
    for remedy in ("COMFYUI_PATH", "base.tokenizer", "--tokenizer"):
        assert remedy in texts(report)
    assert "This machine can train." not in report.render()


def test_without_transformers_the_tokenizer_is_not_missed_too():
    report = judge(replace(FACTS, versions={**FACTS.versions, "transformers": None}, tokenizer=None), read_table())
    assert "tokenizer" not in texts(report)


def test_a_tokenizer_of_ones_own_is_looked_at(tmp_path):
    assert examine(tmp_path, tmp_path).facts.tokenizer is None
    (tmp_path / "vocab.json").write_text("{}")
    assert examine(tmp_path, tmp_path).facts.tokenizer is None
    (tmp_path / "merges.txt").write_text("")
    assert examine(tmp_path, tmp_path).facts.tokenizer == tmp_path


def test_what_is_unknown_is_no_finding():
    assert with_gpu(23.6, ram=None, disk=None).findings == with_gpu(23.6).findings


def test_the_text_says_everything_that_matters():
    text = with_gpu(7.8, "Small Card").render()
    for part in ("Small Card", "7.8 GiB", "compute capability 8.6", "0.42.1", "none:", "NOTE:", "What to do:"):
        assert part in text
    assert "This machine can train." in text
    assert "Something prevents training" in with_gpu(3.9).render()


def test_this_machine_can_be_examined(tmp_path):
    report = examine(tmp_path / "not" / "made" / "yet")
    assert report.facts.versions["torch"]
    assert report.facts.disk is not None
    assert report.render()
