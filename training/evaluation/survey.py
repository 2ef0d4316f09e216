# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper's user study (Sec. 5.1 and 7.3): a page that asks four questions about each set of pictures, and its tally.

Nobody who answers can tell which picture is whose: the page knows pictures by keys that are drawn from the bytes of all of
them as they lie in the evaluation, and the .key.json alone knows the methods. Everybody sees the sets and the pictures of each
in an order of her own, drawn from the seed and her name: `order_of` draws it again, so that nobody's file has to be believed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.digests import content_key
from ...anydressing_core.refusals import quote, refusal
from ..data.pictures import BadPictureError, Source, upright
from ..pages import page
from ..picture_files import embedded_jpeg
from ..places import replaces, require_there
from ..text_files import read_text
from .dressed import Method, methods_of
from .items import ITEMS, BenchItem, read_items
from .metrics import Mean, interval

QUESTIONS = (
    ("Texture consistency", "Which result appears to have the highest consistency with reference garments?"),
    ("Align with prompt", "Which result best matches the prompt '[prompt]'?"),
    ("Image quality", "Which result appears to have the highest image quality?"),
    ("Comprehensive evaluation", "Which result matches your best choice based on comprehensive considerations?"),
)
"""What Table 2 calls it, and what is asked (Sec. 7.3)."""

TABLE_2: Mapping[str, tuple[float, float, float, float]] = MappingProxyType(
    {
        "IP-Adapter": (0.0045, 0.0665, 0.1195, 0.0220),
        "StableGarment": (0.0160, 0.0485, 0.0265, 0.0205),
        "MagicClothing": (0.0205, 0.0900, 0.0970, 0.0375),
        "IMAGDressing": (0.0210, 0.0250, 0.0390, 0.0170),
        "AnyDressing": (0.9380, 0.7700, 0.7180, 0.9030),
    }
)
"""As printed: the share of answers that chose a method, by question."""

SETS = 50
FEWEST_METHODS, MOST_METHODS = 2, 9
PICTURE_HEIGHT, GARMENT_HEIGHT = 512, 224
LARGEST_ANSWERS = 2_000_000
BITS = 0xFFFFFFFF
MARK = "anydressing-survey"
"""What a page is known again by."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Set(_Strict):
    """One item of a bench. options: key -> method."""

    id: str
    bench: str
    item: str
    options: dict[str, str]


class Key(_Strict):
    """What the page does not tell. survey: which one it is, pictures and all."""

    survey: str
    seed: int
    methods: tuple[str, ...]
    sets: tuple[Set, ...]


class Answer(_Strict):
    """What was chosen. question: its place in QUESTIONS."""

    set: str
    question: Annotated[int, Field(ge=0, lt=len(QUESTIONS))]
    chosen: str


class Answers(_Strict):
    """The file that a participant sends."""

    survey: str
    participant: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    answers: Annotated[tuple[Answer, ...], Field(max_length=10_000)]


# ---- building -------------------------------------------------------------------------------------------------------


def build_survey(out: Path, file: Path, *, sets: int = SETS, methods: Sequence[str] = (), seed: int = 0) -> Key:
    """Write the page FILE.html and its key FILE.key.json from an evaluation's folder.

    sets: half of single garments and half of several, as far as there are. methods: names, all that have pictures when
    empty. Raises ValueError when there is nothing to choose between.
    """
    if file.suffix != ".html":
        raise refusal(repr(str(file)), "is no page's name", "A browser opens it.", "say survey.html.")
    key_file = file.with_suffix(".key.json")
    replaces(key_file, lambda path: bool(read_key(path)), "a survey's key")
    replaces(file, lambda path: MARK in path.read_text(encoding="utf-8", errors="replace"), "a survey's page")
    benches = {path.parent.name: path.parent for path in sorted(require_there(out).glob(f"*/{ITEMS}"))}
    found = {bench: methods_of(folder) for bench, folder in benches.items()}
    names = list(methods) or list(
        dict.fromkeys(one.name for some in found.values() for one in some if one.kind != "plain")
    )
    _refuse_names(names, found)
    drawn = _drawn_sets(benches, found, names, sets, seed)
    salt = _salt(drawn, seed)
    told = [_told(benches[bench], item, options, salt) for bench, item, options in drawn]
    kept = tuple(
        Set(
            id=one["id"],
            bench=bench,
            item=item.id,
            options={_option(salt, bench, item, m.name): m.name for m in options},
        )
        for one, (bench, item, options) in zip(told, drawn, strict=True)
    )
    survey = content_key("survey", salt, *names)[:16]
    key = Key(survey=survey, seed=seed, methods=tuple(names), sets=kept)
    shown = {"survey": survey, "seed": seed, "sets": told, "questions": [question for _, question in QUESTIONS]}
    write_atomically(key_file, (key.model_dump_json(indent=1) + "\n").encode())
    write_atomically(file, page("survey.html", survey=shown, sets=len(told), mark=MARK).encode())
    return key


def _salt(drawn: Sequence[Drawn], seed: int) -> str:
    """What nobody knows who has the page alone: the page holds smaller pictures than those whose bytes it is made of."""
    paths = [path for _, item, methods in drawn for method in methods if (path := method.picture(item.id)) is not None]
    return content_key("salt", seed, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths))


def _refuse_names(names: Sequence[str], found: Mapping[str, Sequence[Method]]) -> None:
    known = list(dict.fromkeys(one.name for some in found.values() for one in some))
    for name in names:
        if name not in known:
            why = f"This evaluation has: {', '.join(known) or 'none'}."
            raise refusal(f"Method {quote(name)}", "is not there", why, "name some of these.")
    if not FEWEST_METHODS <= len(set(names)) <= MOST_METHODS or len(set(names)) < len(names):
        why = f"{len(names)} were found or named; people choose between {FEWEST_METHODS} to {MOST_METHODS}."
        raise refusal("A survey", "needs several methods", why, "add some by `anydressing evaluate`, or name --method.")


Drawn = tuple[str, BenchItem, list[Method]]


def _drawn_sets(
    benches: Mapping[str, Path], found: Mapping[str, Sequence[Method]], names: Sequence[str], sets: int, seed: int
) -> list[Drawn]:
    """So many items of which every method has a picture, half of one garment and half of several."""
    possible: dict[bool, list[Drawn]] = {True: [], False: []}
    for bench, folder in benches.items():
        methods = [one for name in names for one in found[bench] if one.name == name]
        for item in read_items(folder / ITEMS) if len(methods) == len(names) else ():
            if all(method.picture(item.id) for method in methods):
                possible[len(item.garments) == 1].append((bench, item, methods))
    for some in possible.values():
        some.sort(key=lambda one: content_key("set", seed, one[0], one[1].id))
    singles, several = possible[True], possible[False]
    half = max(sets - len(several), min(len(singles), sets // 2))
    drawn = singles[:half] + several[: sets - min(half, len(singles))]
    if not drawn:
        why = f"No item has a picture of each of {', '.join(names)}."
        raise refusal(
            "A survey", "has nothing to show", why, "make their pictures by `anydressing evaluate`, or name others."
        )
    return drawn


def _option(salt: str, bench: str, item: BenchItem, method: str) -> str:
    return content_key("option", salt, bench, item.id, method)[:10]


def _told(folder: Path, item: BenchItem, methods: Sequence[Method], salt: str) -> dict[str, Any]:
    """A set as the page knows it. Its pictures are ordered by key, which says nothing of methods."""
    bench = folder.name
    options = {_option(salt, bench, item, method.name): method.picture(item.id) for method in methods}
    return {
        "id": content_key("asked", salt, bench, item.id)[:10],
        "prompt": item.prompt,
        "garments": [
            {"slot": one.slot, "picture": _embedded(folder / one.image, GARMENT_HEIGHT)} for one in item.garments
        ],
        "options": [
            {"key": key, "picture": _embedded(path, PICTURE_HEIGHT)} for key, path in sorted(options.items()) if path
        ],
    }


def _embedded(path: Path, height: int) -> str:
    try:
        picture = upright(Source.find(path.name, path))
    except BadPictureError as error:
        remedy = "make it again, or take it away: its set is then not shown."
        raise refusal(f"The picture {str(path)!r}", "cannot be shown", f"{error.why}.", remedy) from error
    picture.thumbnail((2 * height, height), Image.Resampling.LANCZOS)
    return embedded_jpeg(picture, quality=85)


# ---- counting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """shares: method -> the share that chose it, question by question. dropped: file -> why it does not count."""

    methods: Sequence[str]
    shares: Mapping[str, Sequence[Mean]]
    valid: int
    dropped: Mapping[str, str]

    def to_markdown(self) -> str:
        """Table 2, and the paper's below it."""
        heads = ["Method", *(name for name, _ in QUESTIONS)]
        lines = [heads, ["---"] * len(heads)]
        lines += [[name, *map(_percent, self.shares[name])] for name in self.methods]
        lines += [[f"{name}, printed", *(f"{share:.2%}" for share in shares)] for name, shares in TABLE_2.items()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        dropped = "".join(f"\n{file} does not count: {why}." for file, why in self.dropped.items())
        return f"{self.valid} valid responses; shares with 95 % bootstrap intervals over participants.\n\n{table}\n{dropped}"

    def to_json(self) -> str:
        """The same for a machine."""
        shares = {name: [[one.value, one.low, one.high] for one in self.shares[name]] for name in self.methods}
        told = {"questions": [name for name, _ in QUESTIONS], "valid": self.valid, "shares": shares}
        return json.dumps({**told, "dropped": dict(self.dropped)}, indent=1) + "\n"


def tally_survey(key_file: Path, files: Sequence[Path]) -> Tally:
    """Count what participants answered. As in the paper a response counts unless all its answers are alike, by where the
    picture stood, or another response has the same ones; an unfinished one does not count, nor somebody's second, nor a file
    that holds no answers to this survey.

    Raises ValueError when none is valid.
    """
    key = read_key(key_file)
    sets = {one.id: one for one in key.sets}
    valid: dict[str, Answers] = {}
    seen: dict[tuple[tuple[str, int, str], ...], str] = {}
    dropped: dict[str, str] = {}
    for file in files:
        answers = _read_answers(file, key, sets)
        if isinstance(answers, str):
            dropped[str(file)] = answers
            continue
        content = tuple(sorted((one.set, one.question, one.chosen) for one in answers.answers))
        why = _invalid(answers, key)
        if why is None and content in seen:
            why = f"all its answers are those of {seen[content]}"
        if why is None and answers.participant in valid:
            why = f"{quote(answers.participant)} answered before"
        if why is None:
            valid[answers.participant] = answers
            seen[content] = str(file)
        else:
            dropped[str(file)] = why
    if not valid:
        told = "; ".join(f"{file}: {why}" for file, why in dropped.items()) or "No file was named"
        raise refusal("The survey", "has no valid response", f"{told}.", "ask more people.")
    shares: dict[str, list[Mean]] = defaultdict(list)
    for question in range(len(QUESTIONS)):
        chosen = [
            Counter(sets[one.set].options[one.chosen] for one in answers.answers if one.question == question)
            for answers in valid.values()
        ]
        for method in key.methods:
            shares[method].append(interval([counts[method] / counts.total() for counts in chosen]))
    return Tally(key.methods, shares, len(valid), dropped)


def read_key(path: Path) -> Key:
    """A survey's key. Raises ValueError for another file."""
    try:
        return Key.model_validate_json(read_text(require_there(path)))
    except ValidationError as error:
        why = "`survey build` writes it beside the page."
        raise refusal(f"{str(path)!r}", "is no survey's key", why, "name the file ending in .key.json.") from error


def is_tally(path: Path) -> bool:
    """Whether a file is what `to_json` wrote."""
    told = json.loads(read_text(path))
    return isinstance(told, dict) and {"questions", "valid", "shares"} <= set(told)  # pyright: ignore[reportUnknownArgumentType]


def _read_answers(file: Path, key: Key, sets: Mapping[str, Set]) -> Answers | str:
    """A participant's file, or why it is none."""
    if require_there(file).stat().st_size > LARGEST_ANSWERS:
        return f"it is larger than {LARGEST_ANSWERS} bytes"
    try:
        answers = Answers.model_validate_json(read_text(file))
    except ValidationError as error:
        found = error.errors()[0]
        return f"it cannot be read, {'.'.join(map(str, found['loc'])) or 'it'}: {found['msg']}"
    except ValueError:
        return "it cannot be read, it is no text in UTF-8"
    if answers.survey != key.survey:
        return f"it is of another survey, {quote(answers.survey)}"
    for one in answers.answers:
        if one.set not in sets or one.chosen not in sets[one.set].options:
            return f"it chooses what was not asked, {quote(one.chosen)} in set {quote(one.set)}"
    return answers


def _invalid(answers: Answers, key: Key) -> str | None:
    """Why a response does not count; None where it does."""
    sets = len(key.sets)
    asked = {(one.set, one.question) for one in answers.answers}
    if len(asked) < len(answers.answers):
        return "a question is answered twice"
    if len(asked) < sets * len(QUESTIONS):
        return f"{len(asked)} of {sets * len(QUESTIONS)} questions are answered"
    orders = {one.id: order_of(sorted(one.options), key.seed, answers.participant, one.id) for one in key.sets}
    if len({orders[one.set].index(one.chosen) for one in answers.answers}) == 1:
        return "all answers are alike: the same place every time"
    return None


def order_of(options: Sequence[str], seed: int, participant: str, asked: str) -> list[str]:
    """The pictures of a set as a participant sees them: what the page's `shuffled` does, number for number."""
    draw = _chance(f"{seed} {participant} {asked}")
    order = list(options)
    for place in range(len(order) - 1, 0, -1):
        other = math.floor(draw() * (place + 1))
        order[place], order[other] = order[other], order[place]
    return order


def _chance(text: str) -> Callable[[], float]:
    """xmur3 seeds mulberry32, in 32 bits as JavaScript has them."""
    state = 1779033703 ^ (len(text.encode("utf-16-le")) // 2)
    for character in text:
        state = _times(state ^ ord(character), 3432918353)
        state = ((state << 13) | (state >> 19)) & BITS

    def draw() -> float:
        nonlocal state
        state = (state + 0x6D2B79F5) & BITS
        mixed = _times(state ^ (state >> 15), 1 | state)
        mixed = ((mixed + _times(mixed ^ (mixed >> 7), 61 | mixed)) & BITS) ^ mixed
        return ((mixed ^ (mixed >> 14)) & BITS) / 2**32

    return draw


def _times(one: int, other: int) -> int:
    return (one * other) & BITS


def _percent(mean: Mean) -> str:
    return f"{mean.value:.1%} [{mean.low:.1%}, {mean.high:.1%}]"
