# SPDX-License-Identifier: GPL-3.0-or-later
"""The survey, answered in a real browser by three participants, one of them carelessly, and counted."""

from __future__ import annotations

import json

import pytest
from comfyui_anydressing.training.cli import main
from comfyui_anydressing.training.evaluation.survey import order_of
from playwright.sync_api import sync_playwright
from support.evaluations import draw_bench, others, own

pytestmark = pytest.mark.browser

SETS, QUESTIONS = 4, 4
PHONE = {"width": 360, "height": 740}


@pytest.fixture
def survey(tmp_path):
    """Two sets of one garment and two of several, from three methods of which nobody is to know the names."""
    methods = {"OursOrNot": own, "TheOthers": others, "Nothing": lambda item, place: {}}
    for bench, slots in (("single", ["upper"]), ("dressing-pair", ["upper", "lower"])):
        draw_bench(tmp_path / "out", bench, slots, methods, prompts=("a <b>park</b>",))
    assert main(["survey", "build", str(tmp_path / "out"), str(tmp_path / "survey.html"), "--sets", str(SETS)]) == 0
    return tmp_path / "survey.html"


@pytest.fixture
def browser(chromium):
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield started
        started.close()


def begin(page, survey, participant):
    page.goto(survey.as_uri())
    page.get_by_role("textbox").fill(participant)
    page.get_by_role("button", name="Begin").click()


def download(page, folder):
    with page.expect_download() as told:
        page.get_by_role("button", name="Download my answers").click()
    path = folder / told.value.suggested_filename
    told.value.save_as(path)
    return path


def positions(survey, page):
    """Where each method's picture stands in the set that is shown."""
    key = json.loads(survey.with_suffix(".key.json").read_text())
    names = {option: method for one in key["sets"] for option, method in one["options"].items()}
    shown = page.locator("input[name=question-0]").evaluate_all("inputs => inputs.map(one => one.value)")
    (asked,) = (one for one in key["sets"] if set(one["options"]) == set(shown))
    participant = page.evaluate("participant")
    assert shown == order_of(sorted(shown), key["seed"], participant, asked["id"])  # the tally knows what was seen
    return [names[option] for option in shown]


def test_three_participants_one_of_them_invalid(survey, browser, tmp_path, capsys):
    page, errors, asked = browser.new_page(viewport=PHONE), [], []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: asked.append(request.url))
    files = []

    # By touch, on a phone: always the first method of the key.
    begin(page, survey, "Anna Ä.")
    orders, legends = [], page.locator("legend").all_inner_texts()
    legends = [legend.partition(". ")[2] for legend in legends]
    for _ in range(SETS):
        order = positions(survey, page)
        orders.append(order)
        assert page.get_by_role("button", name="Next").is_disabled()
        for question in range(QUESTIONS):
            page.locator("fieldset").nth(question).locator("label").nth(order.index("OursOrNot")).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("#prompt").inner_text() == "a <b>park</b>"
        page.get_by_role("button", name="Next").click()
    files.append(download(page, tmp_path))
    assert len({tuple(order) for order in orders}) > 1

    # By keys alone; she leaves after the first set and comes back.
    begin(page, survey, "Bea")
    first = positions(survey, page)
    for number in range(QUESTIONS):
        page.keyboard.press(str(first.index("TheOthers" if number == 1 else "OursOrNot") + 1))
    page.keyboard.press("Enter")
    begin(page, survey, "Bea")
    assert page.get_by_role("heading").inner_text() == f"Set 2 of {SETS}"
    for _ in range(SETS - 1):
        at = positions(survey, page).index("OursOrNot") + 1
        for _ in range(QUESTIONS):
            page.keyboard.press(str(at))
        page.keyboard.press("Enter")
    files.append(download(page, tmp_path))

    # Somebody who always takes the first.
    begin(page, survey, "C")
    for _ in range(SETS):
        for _ in range(QUESTIONS):
            page.keyboard.press("1")
        page.keyboard.press("Enter")
    files.append(download(page, tmp_path))

    assert errors == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert not any(name in survey.read_text() for name in ("OursOrNot", "TheOthers"))
    capsys.readouterr()
    told = tmp_path / "shares.json"
    assert main(["survey", "tally", str(survey.with_suffix(".key.json")), *map(str, files), "--json", str(told)]) == 0
    printed = capsys.readouterr().out
    assert "2 valid responses" in printed
    assert "Which result best matches the prompt 'a <b>park</b>'?" in legends
    assert "answers-C.json does not count: all answers are alike: the same place every time" in printed
    shares = json.loads(told.read_text())["shares"]
    assert [mean for mean, _, _ in shares["OursOrNot"]] == [1, (1 + 3 / 4) / 2, 1, 1]
    assert [mean for mean, _, _ in shares["TheOthers"]] == [0, (0 + 1 / 4) / 2, 0, 0]
