# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation names exists."""

import re
from urllib.parse import unquote

import pytest
from comfyui_anydressing.benchmarks.pages import pages


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


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_page_about_the_code_is_what_the_code_says(path):
    assert path.read_text(encoding="utf-8") == pages()[path], "run `python -m benchmarks.pages`"


def test_links_between_pages_lead_somewhere(root):
    broken = []
    for page in [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / unquote(target)).exists():
                broken.append(f"{page.relative_to(root)}: {target}")
    assert broken == []
