# SPDX-License-Identifier: GPL-3.0-or-later
"""The `anydressing` command: it reads arguments, calls one function and says in words what went wrong."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from ..anydressing_core.defaults import GUIDANCE, RESOLUTION, STEPS, STRENGTH
from ..anydressing_core.refusals import refusal
from .arguments import (
    Bench,
    ByReference,
    CanvasSize,
    Device,
    Dtype,
    FileOrNone,
    Guidance,
    LayoutName,
    MixName,
    OnlyMissing,
    Precision,
    PrecisionName,
    RegionsName,
    Resume,
    Root,
    RunKind,
    Seed,
    Settings,
    SplitName,
    Steps,
    Strength,
    Table3Row,
    garment_of,
    hardware_of,
    listed,
    size_of,
    words_of,
)
from .endings import AT_ONCE, CUT_SHORT, MISTAKE, in_words, status_of, was_cut_short

if TYPE_CHECKING:
    from .dressing.finished import Way
    from .progress import Course

# The checkout is usually not installed, so installed metadata cannot tell it. tests/test_packaging.py compares it with pyproject.toml.
VERSION = "0.1.0"

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="anydressing",
    help="Train, try and export AnyDressing files: dress any character in several garments at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make, check and prepare training data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
survey_app = typer.Typer(help="Ask people which method they prefer, as the paper does.", no_args_is_help=True)
app.add_typer(survey_app, name="survey")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; `arguments` are those of the process when None. Returns the exit status."""
    if sys.version_info < (3, 11):
        why = "This is an older one; the nodes run on it."
        told = refusal("Training", "needs Python 3.11 or newer", why, "install anydressing for a newer Python.")
        return _fail(str(told), MISTAKE)
    on_stderr = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[on_stderr])
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here ever asks a network
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours is the one that is shown
    try:
        app(args=arguments, prog_name="anydressing")
    except (SystemExit, KeyboardInterrupt) as end:
        if was_cut_short(end):
            return _fail(AT_ONCE, CUT_SHORT)
        return end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 0
    except ValueError as error:
        return _fail(str(error), MISTAKE)
    except OSError as error:
        return _fail(in_words(error), status_of(error))
    return 0


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False) -> None:
    if version:
        typer.echo(f"anydressing {VERSION}")
        raise typer.Exit


# ---- training -------------------------------------------------------------------------------------------------------


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help='A TOML file; it may begin with preset = "24gb".')],
    setting: Settings = None,
    resume: Resume = False,
    device: Device = "auto",
    precision: Annotated[
        PrecisionName | None, typer.Option(help="Another memory.precision than the configuration's.")
    ] = None,
    slots: Annotated[str | None, typer.Option(help="Garment kinds, e.g. upper,lower,hat.")] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="A finished AnyDressing file to start from. Kinds that it lacks are then trained alone."),
    ] = None,
) -> None:
    """Train an AnyDressing file: garment LoRAs, W_k', W_v' and the null token."""
    from .dressing.build import check_sources, make_dressing_task
    from .dressing.config import TrainConfig
    from .run.config import load_config
    from .run.mistakes import Override
    from .run.start import train as run

    named = [
        Override("adapter.slots", None if slots is None else listed(slots), "--slots"),
        Override("adapter.init", None if init is None else str(init), "--init"),
        Override("memory.precision", None if precision is None else precision.value, "--precision"),
    ]
    settings = load_config(config, TrainConfig, [*(setting or []), *(one for one in named if one.value is not None)])
    _tell_of_one_process()
    check_sources(settings, resume=resume)
    if settings.losses.texture == 0 and os.environ.get("RANK", "0") == "0":
        typer.echo("Without texture losses (GTL), as losses.texture = 0 asks.")
    outcome = run(settings, make_dressing_task, resume=resume, console=Console(), device=device)
    raise typer.Exit(_finish(outcome, settings.folder))


@app.command("train-base")
def train_base(
    config: Annotated[Path, typer.Argument(help="A TOML file that names a network of the paper-doll world.")],
    setting: Settings = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Train a network of the paper-doll world: its autoencoder, base model or recognisers."""
    from .paper_doll.networks.config import PaperDollConfig
    from .paper_doll.networks.train import make_task
    from .run.config import load_config
    from .run.start import train as run

    settings = load_config(config, PaperDollConfig, setting or [])
    _tell_of_one_process()
    outcome = run(settings, make_task, resume=resume, console=Console(), device=device)
    raise typer.Exit(_finish(outcome, settings.folder))


@app.command("config")
def print_config(
    kind: Annotated[RunKind, typer.Argument(help="Of which command's run.")] = RunKind.train,
    preset: Annotated[str | None, typer.Option(help="Begin with the values of this preset.")] = None,
) -> None:
    """Print a configuration to begin with: every setting, what it means, its unit and its range."""
    from .dressing.config import TrainConfig
    from .paper_doll.networks.config import PaperDollConfig
    from .run.explain import commented_toml

    model = TrainConfig if kind is RunKind.train else PaperDollConfig
    typer.echo(commented_toml(model, preset), nl=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path, typer.Argument(help="The file to write, for ComfyUI's models/anydressing.")],
    step: Annotated[int | None, typer.Option(help="A checkpoint's step; the newest when left out.")] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="How the numbers are kept: fp16, or what the kinds that were not trained need."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What ComfyUI shows as its title.")] = None,
    author: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Write the AnyDressing file of a run, which the ComfyUI Loader opens."""
    from .dressing.export import export_run

    written = export_run(run, out, step=step, dtype=dtype and dtype.value, title=title, author=author)
    size = out.stat().st_size / 2**20
    typer.echo(f"{out}: {', '.join(written.slots)}; {written.steps} steps; {size:.1f} MiB.")


@app.command("export-base")
def export_base(
    run: Annotated[Path, typer.Argument(help="The folder of a train-base run.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    step: Annotated[int | None, typer.Option(help="A checkpoint's step; the newest when left out.")] = None,
) -> None:
    """Write what a run of train-base trained: a recogniser, or the base model so far."""
    from .paper_doll.networks.export import export_network
    from .run.folder import RunFolder

    written = export_network(RunFolder.open(run), out, step)
    typer.echo(f"{out}: {written}; {out.stat().st_size / 2**20:.1f} MiB.")


@app.command()
def doctor(
    folder: Annotated[Path, typer.Option(help="Where runs would be written.")] = Path(),
    tokenizer: Annotated[Path | None, typer.Option(help="The folder of CLIP's vocab.json and merges.txt.")] = None,
) -> None:
    """Say what this machine can train, and what is missing."""
    from .commands.doctor import examine

    diagnosis = examine(folder, tokenizer)
    typer.echo(diagnosis.render())
    raise typer.Exit(diagnosis.status)


# ---- pictures -------------------------------------------------------------------------------------------------------


@app.command()
def sample(
    file: FileOrNone,
    base: Annotated[Path, typer.Option(help="The base model: a .safetensors file or a diffusers folder.")],
    out: Annotated[Path, typer.Option(help="The folder for the pictures.")],
    prompt: Annotated[str | None, typer.Option(help="What the picture shows.")] = None,
    garment: Annotated[
        list[str] | None, typer.Option(metavar="SLOT=PICTURE", help="A garment, e.g. upper=shirt.png.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="Or: people of a data set, as the previews show them.")] = None,
    root: Root = None,
    split: Annotated[SplitName, typer.Option(help="Which of them.")] = SplitName.held_out,
    count: Annotated[int, typer.Option(min=1, help="How many pictures or people.")] = 1,
    seed: Seed = 0,
    steps: Steps = STEPS,
    guidance: Guidance = GUIDANCE,
    strength: Strength = STRENGTH,
    precision: Precision = PrecisionName.auto,
    device: Device = "auto",
    tokenizer: Annotated[Path | None, typer.Option(help="The folder of CLIP's vocab.json and merges.txt.")] = None,
    reference: ByReference = False,
    size: CanvasSize = None,
    words: Annotated[
        list[str] | None, typer.Option(metavar="SLOT=WORDS", help="What a garment is called: its place, by reference.")
    ] = None,
) -> None:
    """Dress somebody without ComfyUI: the same pictures as the previews of a run."""
    from .commands.sample import FromManifest, Prompted, sample_to_folder
    from .model.sampling import SamplingSettings

    if (prompt is None) == (manifest is None):
        why = "A picture is made from a prompt and garments, or people are taken from a manifest."
        raise refusal("anydressing sample", "needs one of --prompt and --manifest", why, "give exactly one of them.")
    if manifest is not None:
        wanted = FromManifest(manifest, split.value, count, root)
    else:
        wanted = Prompted(
            prompt or "", [garment_of(text) for text in garment or []], count, dict(map(words_of, words or []))
        )
    settings, hardware = SamplingSettings(steps, guidance, strength, seed), hardware_of(precision, device)
    with _course(f"Finished pictures are in {out}; the same command makes all of them again.") as course:
        written = sample_to_folder(
            _way_of(file, reference, size), base, out, wanted, settings, hardware, tokenizer=tokenizer, course=course
        )
    typer.echo(f"{len(written)} pictures in {out}.")


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="The folder for pictures and figures; what is there already is kept.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="An AnyDressing file, the folder of a run, none (by reference alone) or plain (nobody is dressed). Left "
            "out, a wardrobe's bench measures what is there.",
        ),
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The base model that it was trained on.")] = None,
    bench: Annotated[
        Bench, typer.Option(help="What it is measured on: the paper doll, the paper's benches, or pairs of one's own.")
    ] = Bench.paper_doll,
    data: Annotated[
        Path | None,
        typer.Option(help="What the bench is made of: a manifest.jsonl with held-out people; of pairs, their items."),
    ] = None,
    root: Root = None,
    outfits: Annotated[
        int | None, typer.Option(min=1, help="How many outfits: of dolls 200 when left out, else the paper's number.")
    ] = None,
    slots: Annotated[
        str | None, typer.Option(help="What they wear, e.g. upper,lower; all that the file, or the bench, knows.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Other prompts than our seven: a text file, a line each.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the tables call it; the file's name when left out.")] = None,
    row: Annotated[Table3Row | None, typer.Option(help="Which row of the paper's Table 3 it is.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="In place of FILE: a folder of another method's pictures, ITEM.png.")
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="The folder of a CLIP, which measures; without, pictures are only made.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="LAION's aesthetic head for that CLIP, as safetensors.")] = None,
    parser: Annotated[
        Path | None, typer.Option(help="What finds garments in pictures: a folder of transformers, or the doll's file.")
    ] = None,
    regions: Annotated[
        RegionsName, typer.Option(help="pose: by OpenPose's ITEM_keypoints.json beside the pictures.")
    ] = RegionsName.parser,
    network: Annotated[Path | None, typer.Option(help="The texture network, for DISTS; VGG16 for photographs.")] = None,
    judge: Annotated[
        Path | None, typer.Option(help="Of dolls: the recogniser that measures; another than the losses' one.")
    ] = None,
    seed: Seed = 0,
    steps: Steps = STEPS,
    guidance: Guidance = GUIDANCE,
    strength: Strength = STRENGTH,
    precision: Precision = PrecisionName.auto,
    device: Device = "auto",
    tokenizer: Annotated[Path | None, typer.Option(help="The folder of CLIP's vocab.json and merges.txt.")] = None,
    reference: ByReference = False,
    size: CanvasSize = None,
) -> None:
    """Dress people and measure: dolls against the exact truth, or the paper's benches on one's own wardrobe."""
    from .commands.evaluate import PLAIN, Contestant, Ours, Rival, Wanted, evaluate_paper_doll, evaluate_wardrobe
    from .model.sampling import SamplingSettings
    from .paper_doll.bench.pictures import BenchPlan

    settings, hardware = SamplingSettings(steps, guidance, strength, seed), hardware_of(precision, device)
    if bench is Bench.paper_doll:
        if file is None or base is None or judge is None or parser is None:
            why = "The doll's bench dresses by a file and is judged by two networks of its own."
            remedy = "give FILE, --base, --judge and --parser, or choose another --bench."
            raise refusal("anydressing evaluate", "lacks something", why, remedy)
        plan = BenchPlan(outfits or 200, settings, listed(slots or ""))
        with _course() as course:
            way = _way_of(file, reference, size)
            report = evaluate_paper_doll(way, base, out, plan, hardware, judge=judge, parser=parser, course=course)
        typer.echo(report)
        return
    if file is not None and (base is None or pictures is not None):
        problem = "needs the --base of FILE" if base is None else "was given FILE and --pictures"
        raise refusal("anydressing evaluate", problem, "One method is added at a time.", "see --help.")
    contestant: Contestant | None = None
    if pictures is not None:
        contestant = Contestant(name or pictures.absolute().name, Rival(pictures), row.value if row else None)
    elif file is not None and base is not None:
        way = None if file == PLAIN else _way_of(file, reference, size)
        called = "reference" if file == Path("none") else file.absolute().stem + (" and reference" if reference else "")
        ours = Ours(way, size_of(size) if size else RESOLUTION, base, settings, hardware, tokenizer)
        contestant = Contestant(name or called, ours, row.value if row else None)
    wanted = Wanted(bench.value, data, root, prompts, listed(slots or ""), outfits, seed)
    with _course() as course:
        judges = _judges(clip, head, parser, regions, network, device)
        told = evaluate_wardrobe(out, wanted, contestant, judges, course)
    typer.echo(told)


def _judges(
    clip: Path | None, head: Path | None, parser: Path | None, regions: RegionsName, network: Path | None, device: str
) -> Any:
    """Who measures; None without a CLIP."""
    if clip is None:
        given = {"--head": head, "--parser": parser, "--network": network}
        for option, value in given.items():
            if value is not None:
                raise refusal(option, "was given without --clip", "CLIP measures first.", "name a --clip, too.")
        return None
    if regions is RegionsName.pose and parser is not None:
        why = "Regions are found by the pose, so there is nothing for it to find."
        raise refusal("--parser", "was given with --regions pose", why, "leave one of them out.")
    from .commands.wardrobes import parser_at
    from .evaluation.clip import load_clip, load_head
    from .evaluation.worth import Judges
    from .hardware import choose_device
    from .losses.dists import load_dists
    from .places import require_there

    on = choose_device(device)
    loaded = load_clip(clip, on)
    return Judges(
        loaded,
        None if head is None else load_head(require_there(head, "--head"), loaded.width),
        None if parser is None else parser_at(require_there(parser, "--parser"), on),
        None if network is None else load_dists(network),
        regions.value,
    )


def _way_of(file: Path, reference: bool, size: str | None) -> Way:
    """What FILE, --reference and --size ask for."""
    from .dressing.finished import NO_FILE, Way

    if size is None:
        return Way(file, reference)
    if file != NO_FILE:
        raise refusal("--size", "was given with a file", "A file says its own size.", "leave it out.")
    return Way(file, reference, size_of(size))


@survey_app.command("build")
def survey_build(
    out: Annotated[
        Path, typer.Argument(help="The folder of `anydressing evaluate`, with the pictures of several methods.")
    ],
    page: Annotated[Path, typer.Argument(help="The page to write, survey.html; its key is written beside it.")],
    sets: Annotated[int, typer.Option(min=1, max=500, help="Half of one garment, half of several.")] = 50,
    method: Annotated[list[str] | None, typer.Option(help="A method's name; all but plain when left out.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn, and of everybody's order.")] = 0,
) -> None:
    """Write one page that asks the paper's four questions, and the key that says which picture is whose."""
    from .evaluation.survey import build_survey

    key = build_survey(out, page, sets=sets, methods=method or (), seed=seed)
    typer.echo(f"{page}: {len(key.sets)} sets of {', '.join(key.methods)}; {page.stat().st_size / 2**20:.1f} MiB.")
    typer.echo(f"Keep {page.with_suffix('.key.json')} to yourself: it says which picture is whose.")


@survey_app.command("tally")
def survey_tally(
    key: Annotated[Path, typer.Argument(help="The .key.json that was written beside the page.")],
    answers: Annotated[list[Path], typer.Argument(help="The files that participants sent.")],
    json: Annotated[Path | None, typer.Option(help="Also write the shares for a machine.")] = None,
) -> None:
    """Count answers as the paper does: invalid responses are dropped, and Table 2 is printed with intervals."""
    from ..anydressing_core.atomic_write import write_atomically
    from .evaluation.survey import is_tally, tally_survey
    from .places import replaces

    tally = tally_survey(key, answers)
    if json is not None:
        replaces(json, is_tally, "a survey's tally")
        write_atomically(json, tally.to_json().encode())
    typer.echo(tally.to_markdown())


# ---- data -----------------------------------------------------------------------------------------------------------


@data_app.command("paper-doll")
def paper_doll(
    folder: Annotated[Path, typer.Argument(help="Where pictures and manifest.jsonl are written.")],
    count: Annotated[int, typer.Option(min=1, help="How many people.")],
    seed: Annotated[int, typer.Option(min=0, help="The first one's seed.")] = 0,
    size: Annotated[str, typer.Option(metavar="HxW", help="Height x width in pixels.")] = "512x384",
    split: Annotated[SplitName, typer.Option(help="held_out garments are never seen in train.")] = SplitName.train,
    hats: Annotated[float, typer.Option(min=0, max=1, help="The share of people who wear a hat.")] = 0.25,
    workers: Annotated[int, typer.Option(min=1, help="Processes that paint, with a layout of ours.")] = 1,
    layout: Annotated[
        LayoutName, typer.Option(help="Of the files: ours, or that of a published data set.")
    ] = LayoutName.manifest,
    mix: Annotated[
        MixName,
        typer.Option(
            help="paper: one garment of each person laid flat, the others cut out; the published layouts always are."
        ),
    ] = MixName.as_is,
) -> None:
    """Paint people in procedural garments, with flat-lays, exact masks and captions."""
    from .paper_doll.world.dataset import write_dataset
    from .paper_doll.world.published import write_published

    with _course() as course:
        if layout is LayoutName.manifest:
            made = write_dataset(folder, count, seed, size_of(size), split.value, hats, workers, course, mix=mix.value)
        else:
            made = write_published(folder, count, layout.value, seed, size_of(size), split.value, hats, course)
    typer.echo(str(made))


def _converts(layout: str, help: str) -> None:
    """Add the command that converts a layout; all of them take the same."""

    @data_app.command(layout, help=help)
    def command(
        root: Annotated[Path, typer.Argument(metavar="SRC", help="Where the pictures lie; only read.")],
        out: Annotated[Path, typer.Argument(metavar="OUT", help="Where manifest, masks and sheet are written.")],
        resolution: Annotated[
            str, typer.Option(metavar="HxW", help="Of the sheet: what will be trained at.")
        ] = "768x576",
        mix: Annotated[
            MixName, typer.Option(help="paper: of several garments with pictures one a line, the others cut out.")
        ] = MixName.as_is,
        held_out: Annotated[
            float, typer.Option(min=0, max=0.5, help="The share that is held out, where the data has no split.")
        ] = 0.05,
        captions: Annotated[Path | None, typer.Option(help='Lines {"id": ..., "caption": ...}.')] = None,
        parser: Annotated[
            Path | None, typer.Option(help="The folder of a segmentation model, for people without masks.")
        ] = None,
        device: Device = "auto",
        skip_bad: Annotated[
            bool, typer.Option("--skip-bad", help="Leave out looks that cannot be used, if they are few.")
        ] = False,
    ) -> None:
        from .commands.wardrobes import convert_to_folder

        with _course() as course:
            text, status = convert_to_folder(
                layout,
                root,
                out,
                resolution=size_of(resolution),
                mix=mix.value,
                held_out=held_out,
                captions=captions,
                parser=parser,
                device=device,
                skip_bad=skip_bad,
                course=course,
            )
        typer.echo(text)
        raise typer.Exit(status)


_converts("photos", "Make a manifest of one's own photographs: people/, and upper/, lower/ ... of the same names.")
_converts("dresscode", "Make a manifest of DressCode, as it is published.")
_converts("dresscode-mr", "Make a manifest of DressCode-MR, as it is published.")
_converts("viton-hd", "Make a manifest of VITON-HD, as it is published.")
_converts("garments2look", "Make a manifest of Garments2Look, as it is published and unpacked.")


@data_app.command("captions")
def captions(
    manifest: Annotated[Path, typer.Argument(help="A manifest.jsonl, whose captions are written anew.")],
    model: Annotated[
        Path | None,
        typer.Option(help="The folder of a model that makes text of a picture; without, the garments' names."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What the model is asked, or begins with.")] = None,
    only_missing: OnlyMissing = False,
    root: Root = None,
    device: Device = "auto",
) -> None:
    """Caption people anew, by a vision-language model; captions that a hand wrote stay."""
    from .commands.wardrobes import caption_with

    with _course() as course:
        told = caption_with(manifest, model, prompt, root=root, only_missing=only_missing, device=device, course=course)
    typer.echo(told)


@data_app.command("masks")
def masks(
    manifest: Annotated[Path, typer.Argument(help="A manifest.jsonl, whose masks are made.")],
    parser: Annotated[Path, typer.Option(help="The folder of a segmentation model.")],
    only_missing: OnlyMissing = False,
    root: Root = None,
    device: Device = "auto",
) -> None:
    """Make masks anew, by a parser; masks that a hand made stay."""
    from .commands.wardrobes import mask_with

    with _course() as course:
        told = mask_with(manifest, parser, root=root, only_missing=only_missing, device=device, course=course)
    typer.echo(told)


@data_app.command("check")
def check(
    manifest: Annotated[Path, typer.Argument(help="A manifest.jsonl.")],
    resolution: Annotated[
        str | None, typer.Option(metavar="HxW", help="What it will be trained at; 768x576 when nothing says it.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The run that will train on it: judge at its resolution, for its slots.")
    ] = None,
    root: Root = None,
    tokenizer: Annotated[Path | None, typer.Option(help="The folder of CLIP's vocab.json and merges.txt.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also show it: a page, sheet.html, or a picture, sheet.png.")
    ] = None,
) -> None:
    """Open every picture of a data set and say what is wrong with it."""
    from .commands.check import check_for_run

    size = None if resolution is None else size_of(resolution)
    with closing(_display()) as display:
        text, status = check_for_run(
            manifest, size, config, root=root, tokenizer=tokenizer, sheet=sheet, progress=display.work
        )
    typer.echo(text)
    raise typer.Exit(status)


@data_app.command("cache")
def cache(
    config: Annotated[Path, typer.Argument(help="The configuration of a run.")],
    setting: Settings = None,
    device: Device = "auto",
) -> None:
    """Compute what a run reads instead of pictures and words; `train` does the same when it begins."""
    from .dressing.build import cache_for
    from .dressing.config import TrainConfig
    from .run.config import load_config

    settings = load_config(config, TrainConfig, setting or [])
    with _course() as course:
        cached = cache_for(settings, device, course)
    typer.echo(f"{len(cached)} people are ready; {len(cached.quarantined)} were set aside.")


# ---- helpers --------------------------------------------------------------------------------------------------------


def _display() -> Any:
    from .run.display import open_display

    return open_display(Console())


@contextmanager
def _course(then: str = "What is finished is kept: the same command goes on from there.") -> Iterator[Course]:
    """Long work that a person watches, and that Ctrl-C, SIGTERM and a closed terminal stop; the command then ends with their status.

    then: what stopping it means.
    """
    from .progress import Course, StoppedError
    from .run.interrupts import catch_signals

    with catch_signals() as interrupts, closing(_display()) as display:
        try:
            yield Course(display.work, lambda: bool(interrupts))
        except StoppedError as stopped:
            typer.echo(f"{stopped} {then}")
            raise typer.Exit(interrupts.exit_status) from stopped


def _tell_of_one_process() -> None:
    from .hardware import launched_alone

    if launched_alone(os.environ):
        logger.warning(
            "accelerate launch started one process: on a CPU it starts no more, whatever --num_processes says. "
            'For two: torchrun --nproc_per_node 2 "$(which anydressing)" train ...'
        )


def _finish(outcome: Any, folder: Path) -> int:
    from .run.start import end_one_of_several

    finished = outcome.interrupted is None
    if os.environ.get("RANK", "0") == "0":  # under `accelerate launch` one process speaks for all
        stopped = f"Stopped at step {outcome.step}; everything is saved. Go on with --resume."
        typer.echo(f"Finished at step {outcome.step}: {folder}" if finished else stopped)
    status = 0 if finished else 128 + int(outcome.interrupted)
    end_one_of_several(status)
    return status


def _fail(text: str, status: int) -> int:
    typer.echo(text, err=True)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
