# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation names exists."""

import re


def test_every_test_named_in_the_composition_table_exists(root):
    table = (root / "docs" / "composition.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:(test_\w+\.py): )?(test_\w+)`", table)
    assert len(named) > 40
    for file, test in named:
        source = (root / "tests" / "comfyui" / (file or "test_composition.py")).read_text(encoding="utf-8")
        assert f"def {test}(" in source, f"{file}: {test}"


def test_every_composition_test_stands_in_the_table(root):
    table = (root / "docs" / "composition.md").read_text(encoding="utf-8")
    source = (root / "tests" / "comfyui" / "test_composition.py").read_text(encoding="utf-8")
    missing = [test for test in re.findall(r"^def (test_\w+)\(", source, re.M) if test not in table]
    assert missing == ["test_encoding_twice_gives_the_same_bits", *OF_FILES]


OF_FILES = [
    "test_every_kind_of_file_dresses",
    "test_half_size_garments_have_a_quarter_of_the_tokens",
    "test_eight_garments_fit",
]
"""Promises about files and garments alone, not about a pairing."""
