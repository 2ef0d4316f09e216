# SPDX-License-Identifier: GPL-3.0-or-later
"""Every setting explains itself, in a configuration to begin with and on the page."""

from __future__ import annotations

import pytest
import tomllib
from comfyui_anydressing.benchmarks.pages import KINDS
from comfyui_anydressing.training.run.config import RunConfig, parse_config, preset_names
from comfyui_anydressing.training.run.explain import commented_toml, page, range_of, sections, settings, unit_of

EVERY = [
    pytest.param(section, name, field, id=f"{command}-{'.'.join((*path, name))}")
    for command, kind in KINDS.items()
    for path, section in sections(kind)
    for name, field in settings(section)
]
PRESETS = [(command, preset) for command, kind in KINDS.items() for preset in (None, *preset_names(kind))]


def every_kind(kind):
    """A kind of run's configuration and all that are derived from it."""
    return {kind}.union(*(every_kind(one) for one in kind.__subclasses__()))


def test_no_kind_of_run_is_forgotten():
    assert every_kind(RunConfig) - {RunConfig} == set(KINDS.values())


@pytest.mark.parametrize(("section", "name", "field"), EVERY)
def test_a_setting_says_what_it_means_its_unit_and_its_range(section, name, field):
    assert len(field.description or "") > 10
    assert field.description.endswith(".")
    assert unit_of(field)
    assert range_of(field)
    assert section.__doc__


@pytest.mark.parametrize(("command", "preset"), PRESETS)
def test_what_is_printed_is_a_configuration(command, preset):
    kind = KINDS[command]
    text = commented_toml(kind, preset)
    printed = parse_config(text, "printed", kind)
    least = 'folder = "runs/mine"\n[data]\nmanifest = "data/manifest.jsonl"\n'
    if command == "train" or printed.network in ("unet", "parser"):
        least += '[base]\ncheckpoint = "sd15.safetensors"\n'
    head = f'preset = "{preset}"\n' if preset else 'steps = 1000\nnetwork = "recogniser"\n' * (command == "train-base")
    assert printed == parse_config(head + least, "written", kind)


def test_every_setting_is_printed_with_its_meaning():
    text = commented_toml(KINDS["train"])
    for _, section in sections(KINDS["train"]):
        for name, field in settings(section):
            assert f"{name} =" in text
            assert " ".join(field.description.split()[:5]) in text


def test_a_line_of_a_printed_configuration_fits_on_a_screen():
    assert max(map(len, commented_toml(KINDS["train"]).splitlines())) <= 120


@pytest.mark.parametrize(
    ("table", "name", "words"),
    [
        ("data", "batch", "1 to 4096"),
        ("optimizer", "warmup", "0 to 1 000 000 000"),
        ("data", "resolution", "two of: a multiple of 8, 16 to 2048"),
        ("data", "most_bad_items", "0 to 1"),
        ("data", "cache", "a path, or left out"),
        ("optimizer", "learning_rate", "above 0"),
        ("optimizer", "average", "0 or more, below 1"),
        ("optimizer", "betas", "two of: 0 or more, below 1"),
        ("optimizer", "schedule", "constant | cosine"),
        ("memory", "checkpointing", "true | false"),
        ("preview", "seed", "-2^63 to 2^64 - 1"),
        ("adapter", "alpha", "above 0, or left out"),
        ("adapter", "slots", "1 to 32 of: small letters, digits and _ (at most 64)"),
        ("losses", "eta", "0 to 999"),
    ],
)
def test_ranges_in_words(table, name, words):
    section = {".".join(path): section for path, section in sections(KINDS["train"])}[table]
    assert range_of(section.model_fields[name]) == words


def test_the_page_is_one_table_for_each_table():
    text = page(KINDS)
    assert text.count("| setting | default | unit | range | meaning |") == sum(
        len(list(sections(kind))) for kind in KINDS.values()
    )
    assert "`memory.two_phase_texture` is no setting any more." in text


def test_a_configuration_to_begin_with_says_what_is_to_be_set():
    text = commented_toml(KINDS["train"])
    assert text.count("to be set") == 3
    assert tomllib.loads(text)["folder"] == "runs/mine"
