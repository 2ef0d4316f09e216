# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of `data check`, opened from disk in a real browser: its filters show whom they say."""

from __future__ import annotations

import json

import pytest
from comfyui_anydressing.training.data.check import check_data
from comfyui_anydressing.training.paper_doll.world.dataset import write_dataset
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.browser


@pytest.fixture
def page(tmp_path):
    """Three painted people: one with a caption in parentheses, one without a mask."""
    manifest = write_dataset(tmp_path / "dolls", 3, size=(128, 96), hats=0)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0]["caption"] = "a (red) shirt"
    lines[1]["garments"][0]["mask"] = "m/none.png"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check_data(manifest, (128, 96), sheet=tmp_path / "sheet.html")
    return tmp_path / "sheet.html"


def test_a_filter_shows_those_of_whom_it_was_found(chromium, page):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        shown, errors = browser.new_page(), []
        shown.on("pageerror", lambda error: errors.append(error))
        shown.goto(page.as_uri())
        people = shown.locator("article:visible h2")
        assert people.count() == 3
        for finding, who in (
            ("parentheses (1)", "train-0000000"),
            ("unreadable (1)", "train-0000001"),
            ("nothing found", "train-0000002"),
        ):
            shown.get_by_label(finding).check()
            assert people.all_inner_texts() == [who]
        assert shown.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
        assert errors == []
        browser.close()
