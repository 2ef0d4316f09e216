# SPDX-License-Identifier: GPL-3.0-or-later
"""The survey's key and its tally; its page is tried in tests/browser."""

from __future__ import annotations

import json

import pytest
from comfyui_anydressing.training.evaluation.survey import QUESTIONS, build_survey, order_of, tally_survey
from support.evaluations import draw_bench, draw_person, others, own


@pytest.fixture
def out(tmp_path):
    """An evaluation: 6 items of one garment, 6 of two, by two methods and nobody."""
    methods = {"ours": own, "theirs": others, "plain": lambda item, place: {}}
    draw_bench(tmp_path / "out", "single", ["upper"], methods, outfits=3)
    draw_bench(tmp_path / "out", "dressing-pair", ["upper", "lower"], methods, outfits=3)
    return tmp_path / "out"


@pytest.fixture
def key(out, tmp_path):
    return build_survey(out, tmp_path / "survey.html", sets=12)


def respond(tmp_path, key, name, choice, **changes):
    """Answers in which `choice(set's number, question)` is the method, or None for no answer."""
    answers = []
    for number, one in enumerate(key.sets):
        options = sorted(one.options)
        for question in range(len(QUESTIONS)):
            method = choice(number, question)
            chosen = next((option for option in options if one.options[option] == method), None)
            if chosen is not None:
                answers.append({"set": one.id, "question": question, "chosen": chosen})
    content = {"survey": key.survey, "participant": name, "answers": answers} | changes
    path = tmp_path / f"answers-{name}.json"
    path.write_text(json.dumps(content))
    return path


def tally(tmp_path, *files):
    return tally_survey(tmp_path / "survey.key.json", files)


def test_half_of_the_sets_are_of_one_garment(key):
    assert [one.bench for one in key.sets].count("single") == 6
    assert [one.bench for one in key.sets].count("dressing-pair") == 6
    assert all(sorted(one.options.values()) == ["ours", "theirs"] for one in key.sets)  # nobody dressed is no rival


def test_more_sets_are_taken_where_there_are_some(out, tmp_path):
    for sets, found in ((10, 10), (12, 12), (99, 12)):
        assert len(build_survey(out, tmp_path / f"{sets}.html", sets=sets).sets) == found


def test_the_same_seed_is_the_same_survey_and_another_is_another(out, tmp_path, key):
    again = build_survey(out, tmp_path / "again.html", sets=12)
    assert again == key
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "survey.html").read_bytes()
    other = build_survey(out, tmp_path / "other.html", sets=4, seed=1)
    assert other.survey != key.survey
    assert {option for one in other.sets for option in one.options}.isdisjoint(
        {option for one in key.sets for option in one.options}
    )


def test_shares_are_of_each_participants_answers(tmp_path, key):
    files = [
        respond(tmp_path, key, "a", lambda number, question: "ours"),
        respond(tmp_path, key, "b", lambda number, question: "ours" if number < 6 or question == 3 else "theirs"),
    ]
    told = tally(tmp_path, *files)
    assert told.valid == 2
    assert [mean.value for mean in told.shares["ours"]] == [0.75, 0.75, 0.75, 1]
    assert (told.shares["ours"][0].low, told.shares["ours"][0].high) == (0.5, 1)
    assert "| ours | 75.0% [50.0%, 100.0%] |" in told.to_markdown()
    assert "| AnyDressing, printed | 93.80% | 77.00% | 71.80% | 90.30% |" in told.to_markdown()


def test_invalid_responses_are_dropped_and_named(tmp_path, key):
    good = respond(tmp_path, key, "a", lambda number, question: "ours")
    same = respond(tmp_path, key, "copy", lambda number, question: "ours")
    unfinished = respond(tmp_path, key, "left", lambda number, question: "ours" if number else None)
    orders = [order_of(sorted(one.options), key.seed, "alike", one.id) for one in key.sets]
    alike = respond(tmp_path, key, "alike", lambda number, _: key.sets[number].options[orders[number][1]])
    twice = respond(tmp_path, key, "twice", lambda number, question: ("ours", "theirs")[question % 2], participant="a ")
    told = tally(tmp_path, good, same, unfinished, alike, twice)
    assert told.valid == 1
    assert told.dropped == {
        str(same): f"all its answers are those of {good}",
        str(unfinished): "44 of 48 questions are answered",
        str(alike): "all answers are alike: the same place every time",
        str(twice): "'a' answered before",
    }


def test_nobody_valid_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="has no valid response"):
        tally(tmp_path, respond(tmp_path, key, "a", lambda number, question: None))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"survey": "another"}, "it is of another survey, 'another'"),
        ({"participant": " "}, "it cannot be read, participant: "),
        ({"more": 1}, "it cannot be read, more: "),
        ({"answers": [{"set": "x", "question": 0, "chosen": "y"}]}, "it chooses what was not asked, 'y' in set 'x'"),
        ({"answers": [{"set": "x", "question": 4, "chosen": "y"}]}, "it cannot be read, answers.0.question: "),
    ],
)
def test_files_of_strangers_are_read_strictly_and_the_others_counted(tmp_path, key, changes, told):
    good = respond(tmp_path, key, "good", lambda number, question: "ours")
    bad = respond(tmp_path, key, "a", lambda number, question: "ours", **changes)
    counted = tally(tmp_path, bad, good)
    assert counted.valid == 1
    assert counted.dropped[str(bad)].startswith(told)


def test_what_is_not_json_is_named(tmp_path, key):
    (tmp_path / "answers.json").write_bytes(b"\xff\xfe<html>")
    good = respond(tmp_path, key, "good", lambda number, question: "ours")
    assert (
        "it cannot be read" in tally(tmp_path, tmp_path / "answers.json", good).dropped[str(tmp_path / "answers.json")]
    )


def test_whose_a_picture_is_cannot_be_told_from_the_page(out, tmp_path, key):
    """Its keys follow from the pictures' own bytes: with other bytes, and all else alike, they are others."""
    page = (tmp_path / "survey.html").read_text()
    assert not any(name in page for name in ("ours", "theirs"))
    draw_person(out / "single" / "pictures" / "theirs" / "0000-0.png", {"upper": (1, 2, 3)})
    draw_person(out / "dressing-pair" / "pictures" / "theirs" / "0000-0.png", {"upper": (1, 2, 3)})
    for path in (out / "single" / "pictures" / "theirs").glob("*.png"):
        draw_person(path, {"upper": (1, 2, 3)})
    other = build_survey(out, tmp_path / "other.html", sets=4)
    assert other.survey != key.survey
    assert {option for one in other.sets for option in one.options}.isdisjoint(
        {option for one in key.sets for option in one.options}
    )


def test_other_peoples_files_are_not_written_over(out, tmp_path, key):
    build_survey(out, tmp_path / "survey.html", sets=4)  # its own page and key are
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(ValueError, match="is there already"):
        build_survey(out, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"


def test_a_survey_needs_two_methods_with_pictures(out, tmp_path):
    with pytest.raises(ValueError, match="needs several methods"):
        build_survey(out, tmp_path / "s.html", methods=["ours"])
    with pytest.raises(ValueError, match=r"Method 'nobody' is not there\.\nThis evaluation has: plain, ours, theirs"):
        build_survey(out, tmp_path / "s.html", methods=["ours", "nobody"])
    for path in (out / "dressing-pair" / "pictures" / "theirs").glob("*.png"):
        path.unlink()
    for path in (out / "single" / "pictures" / "theirs").glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="No item has a picture of each of"):
        build_survey(out, tmp_path / "s.html")
    assert not (tmp_path / "s.html").exists()


def test_a_picture_that_cannot_be_shown_is_named_and_nothing_is_written(out, tmp_path):
    for path in (out / "single" / "pictures" / "theirs").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"The picture '.*single/pictures/theirs/.*' cannot be shown"):
        build_survey(out, tmp_path / "s.html")
    assert not list(tmp_path.glob("s.*"))


def test_a_key_never_replaces_what_is_no_key(out, tmp_path):
    (tmp_path / "s.key.json").write_text("{}")
    with pytest.raises(ValueError, match="is there already"):
        build_survey(out, tmp_path / "s.html")
