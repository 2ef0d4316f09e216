# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing evaluate`: first the pictures, then what they are worth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.defaults import RESOLUTION
from ...anydressing_core.refusals import quote, refusal
from ..base.model import BaseModel
from ..data.manifest import file_stem, plain_caption, read_manifest
from ..dressing.export import row_of_run
from ..dressing.finished import NO_FILE, Way, make_ready
from ..dressing.garments import encoded_garment, picture_source
from ..evaluation.dressed import PICTURES, Encode, Method, Row, Share, dress_items, methods_of, named, open_method
from ..evaluation.items import (
    ITEMS,
    PROMPTS,
    Asked,
    BenchItem,
    BenchName,
    WornPicture,
    data_of,
    garments_of,
    lay_down,
    make_items,
    own_items,
    read_items,
)
from ..evaluation.results_page import REPORT, results_page
from ..evaluation.tables import BenchResults, measured, to_csv, to_json, to_text
from ..evaluation.worth import BenchMeasurer, Judges, bad_of, figures_of, judges_of
from ..hardware import WantedHardware
from ..model.dresser import Dresser
from ..model.sampling import SamplingSettings
from ..paper_doll.bench.measures import measure
from ..paper_doll.bench.pictures import BenchPlan, make_pictures
from ..paper_doll.networks.parser import load_parser
from ..paper_doll.networks.recogniser import load_recogniser
from ..places import require_there
from ..progress import UNWATCHED, Course
from ..run.folder import RunFolder
from ..text_files import read_text

PLAIN = Path("plain")
"""What is written where a file is expected, to dress nobody: the base model alone."""

OTHERS_GO_ON = "This process' share is done; the one that ends last writes the report."

BENCHES: tuple[BenchName, ...] = ("single", "dressing-pair", "three", "pairs")


def evaluate_paper_doll(
    way: Way,
    base: Path,
    out: Path,
    plan: BenchPlan,
    hardware: WantedHardware,
    *,
    judge: Path,
    parser: Path,
    course: Course = UNWATCHED,
) -> str:
    """Make the pictures below `out/pictures` and the figures `out/figures.json` and `.md`; returns the latter.

    judge, parser: the networks that look. Raises ValueError in the user's words, StoppedError when it is stopped.
    """
    judging, parsing = load_recogniser(judge), load_parser(parser)
    ready, pictures = make_ready(way, base, hardware), out / "pictures"
    make_pictures(ready.dresser, ready.identity, ready.base, pictures, plan, course=course)
    report = measure(pictures, ready.base, judging, parsing, course.progress)
    write_atomically(out / "figures.json", report.to_json().encode())
    write_atomically(out / "figures.md", report.to_markdown().encode())
    return report.to_markdown()


# ---- benches of real wardrobes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """Of what a bench is made. data: a manifest, or one's own items; None where its folder has them already.

    prompts: a file of them, a line each. slots: which garments, all that fit when empty. outfits: fewer than the paper's.
    """

    bench: BenchName
    data: Path | None = None
    root: Path | None = None
    prompts: Path | None = None
    slots: Sequence[str] = ()
    outfits: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Ours:
    """A way of dressing that makes its pictures here. way: None dresses nobody."""

    way: Way | None
    resolution: tuple[int, int]
    base: Path
    settings: SamplingSettings
    hardware: WantedHardware
    tokenizer: Path | None = None


@dataclass(frozen=True)
class Rival:
    """Another method's pictures, named by their items."""

    pictures: Path


@dataclass(frozen=True)
class Contestant:
    """Whose pictures are added to a bench. name: what tables call it. row: of Table 3."""

    name: str
    by: Ours | Rival
    row: Row | None = None


def evaluate_wardrobe(
    out: Path, wanted: Wanted, contestant: Contestant | None, judges: Judges | None, course: Course = UNWATCHED
) -> str:
    """Add a method's pictures to a bench, measure all that is there, and write tables and page; returns what to tell.

    judges: None only makes pictures. Under torchrun this is one process of several: each makes and measures its share, and
    whoever finds everything done writes the report. Raises ValueError in the user's words, StoppedError.
    """
    share = Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    folder, told = out / wanted.bench, list[str]()
    items, others_go_on = _items(folder, wanted), False
    if contestant is not None:
        method = _entered(folder, contestant, items, share, course)
        missing = [item.id for item in items if method.picture(item.id) is None]
        others_go_on = bool(missing) and share.ranks > 1 and method.is_ours
        if missing and not others_go_on:
            named = ", ".join(missing[:3]) + (" ..." if missing[3:] else ".")
            told.append(f"{method.name}: {len(missing)} of {len(items)} pictures are missing: {named}")
    if judges is None:
        told.append(f"Pictures are in {folder / PICTURES}. Give --clip to measure them.")
        return "\n".join(told)
    methods = methods_of(folder)
    BenchMeasurer(folder, items, judges, RESOLUTION).measure(methods, share, course)
    pictures = done = 0
    for method in methods:
        bad = bad_of(folder, method, items)
        told += [f"{method.name}: {item} cannot be used, {why}." for item, why in bad.items()]
        pictures += sum(method.picture(item.id) is not None for item in items)
        done += len(bad) + len(figures_of(folder, method, items))
    if others_go_on or done < pictures:
        return "\n".join([*told, OTHERS_GO_ON])
    told += _without_leakage(methods)
    return "\n".join([*told, report_on(out)])


def _without_leakage(methods: Sequence[Method]) -> list[str]:
    """Which of our methods cannot be compared with nobody dressed, in words."""
    ours = [method for method in methods if method.is_ours]
    plain = next((method for method in ours if method.kind == "plain"), None)
    if plain is None:
        return ["Leakage is not measured: nobody is dressed yet (`anydressing evaluate plain`)."] if ours else []
    size = plain.made_from["size"]
    others = [method.name for method in ours if method.made_from["size"] != size]
    by = "x".join(map(str, size))
    return [f"Leakage of {', '.join(others)} is not measured: {plain.name} is {by} (--size)."] if others else []


def report_on(out: Path) -> str:
    """Write figures.json, items.csv and report.html of all benches in a folder; returns the tables for a terminal."""
    results: list[BenchResults] = []
    for bench in BENCHES:
        judges = judges_of(out / bench)
        if judges is not None:
            items = read_items(out / bench / ITEMS)
            rows = [
                measured(method, figures_of(out / bench, method, items), items) for method in methods_of(out / bench)
            ]
            results.append(BenchResults(bench, items, rows, judges, data_of(out / bench)))
    write_atomically(out / "figures.json", to_json(results).encode())
    write_atomically(out / "items.csv", to_csv(results).encode())
    write_atomically(out / REPORT, results_page(out, results).encode())
    return f"{to_text(results)}\n\nThe report: {out / REPORT}"


def _items(folder: Path, wanted: Wanted) -> list[BenchItem]:
    if wanted.data is None:
        if not (folder / ITEMS).is_file():
            why = f"{folder / ITEMS} is not there."
            raise refusal(f"--bench {wanted.bench}", "has no items yet", why, "name its --data.")
        return read_items(folder / ITEMS)
    if wanted.bench == "pairs":
        asked = own_items(wanted.data, wanted.root)
        return lay_down(Asked(asked.items[: wanted.outfits], asked.pictures, wanted.data.name), folder)
    manifest = read_manifest(wanted.data, wanted.root)
    garments, of = garments_of(manifest), f"{manifest.folder.resolve().name} ({manifest.digest[:12]})"
    chosen = [one for one in garments if not wanted.slots or one.slot in wanted.slots]
    prompts = PROMPTS if wanted.prompts is None else _prompts(wanted.prompts)
    asked = make_items(wanted.bench, chosen, prompts, wanted.seed, wanted.outfits)
    return lay_down(replace(asked, of=of), folder)


def _prompts(path: Path) -> list[str]:
    lines = [line for line in read_text(require_there(path, "--prompts")).split("\n") if line.strip()]
    if not lines:
        raise refusal(f"--prompts {str(path)!r}", "holds none", "A line is a prompt.", "write some.")
    try:
        return [plain_caption(line) for line in lines]
    except ValueError as error:
        raise refusal(
            f"--prompts {str(path)!r}", "holds what is no prompt", f"{error}.", "correct that line."
        ) from error


def _entered(folder: Path, contestant: Contestant, items: Sequence[BenchItem], share: Share, course: Course) -> Method:
    """The method, with all pictures of this process' share made."""
    name, by = named(contestant.name), contestant.by
    if isinstance(by, Rival):
        require_there(by.pictures, "--pictures")
        rival = Method(name, by.pictures, False, contestant.row)
        if not any(rival.picture(item.id) for item in items):
            why = f"Pictures are named by their items, {items[0].id}.png for one; {folder / ITEMS} lists them."
            raise refusal(f"--pictures {str(by.pictures)!r}", "has no picture of this bench", why, "name them so.")
        return open_method(folder, rival)
    row = _row_of(by, contestant.row)
    ready = make_ready(by.way or Way(NO_FILE, resolution=by.resolution), by.base, by.hardware, by.tokenizer)
    known = ready.dresser.preparation.slots
    for item in items if by.way is not None and known else ():
        for garment in item.garments:
            if garment.slot not in known:
                why = f"Item {item.id} wears it; the file was trained for {', '.join(known)}."
                remedy = f"make the bench with --slots {','.join(known)}, in another --out."
                raise refusal(f"Garment kind {quote(garment.slot)}", "is not known to this file", why, remedy)
    made_from = {
        "way": "plain" if by.way is None else "reference" if by.way.file == NO_FILE else "file",
        "identity": "plain" if by.way is None else ready.identity,
        "base": ready.base.sha256,
        "size": list(ready.dresser.preparation.resolution),
        **ready.base.hardware.told(),
        **{name: value for name, value in by.settings.told().items() if name != "seed"},
    }
    method = open_method(folder, Method(name, folder / PICTURES / file_stem(name), True, row, made_from))
    encode = None if by.way is None else _encoder(folder, ready.dresser, ready.base)
    dress_items(ready.dresser, ready.base, items, method, by.settings, encode, share=share, course=course)
    return method


def _row_of(by: Ours, wanted: Row | None) -> Row | None:
    """The row of Table 3: what a run's switches say, or what the user says of a file. Raises ValueError where they differ."""
    if by.way is None or by.way.is_by_reference:
        found = None
    elif by.way.file.is_dir():
        found = row_of_run(RunFolder.open(by.way.file))
    else:
        return wanted
    if wanted is not None and wanted != found:
        why = f"By its settings it is row {found}." if found else "It is no row of the paper's Table 3."
        raise refusal(f"--row {wanted}", "does not fit this method", why, "leave --row out.")
    return found


def _encoder(folder: Path, dresser: Dresser, base: BaseModel) -> Encode:
    def encode(garment: WornPicture):
        source = picture_source(folder / garment.image)
        return encoded_garment(garment.slot, (source,), dresser.preparation, base, garment.words)

    return encode
