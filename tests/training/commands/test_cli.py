# SPDX-License-Identifier: GPL-3.0-or-later
"""The command as a person meets it: real processes on a tiny base model and twelve painted people."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_anydressing.anydressing_core.checkpoint import load_checkpoint
from comfyui_anydressing.training.cli import main
from comfyui_anydressing.training.dressing import build, export
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.paper_doll.world import dataset
from comfyui_anydressing.training.run.config import load_config
from comfyui_anydressing.training.run.events import read_events
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.sheets import CAPTION, GAP, HEADER, MARGIN, PICTURE_HEIGHT, TITLES
from PIL import Image
from support.waiting import wait_until

ENTRY = Path(__file__).parents[2] / "support" / "command_entry.py"
STEPS = 20  # of the preset


@pytest.fixture(scope="session")
def make_config(small_base, small_data):
    """Writes a configuration that starts from the preset `smoke`; `more` is TOML after it."""

    def make(path, folder, more="", manifest=small_data):
        tables = f'[base]\ncheckpoint = "{small_base}"\n[data]\nmanifest = "{manifest}"\n'
        path.write_text(f'preset = "smoke"\nfolder = "{folder}"\n{tables}{more}')
        return path

    return make


@pytest.fixture
def config(make_config, tmp_path):
    return make_config(tmp_path / "config.toml", tmp_path / "run")


@pytest.fixture(scope="session")
def smoke(make_config, tmp_path_factory):
    """A finished run of the preset, by a process as a terminal starts it; how long it took, and what it said."""
    folder = tmp_path_factory.mktemp("smoke")
    path = make_config(folder / "config.toml", folder / "run")
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, ENTRY, "train", path], check=False, capture_output=True, text=True, env=environment
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return folder / "run", time.monotonic() - began, process.stdout


@pytest.fixture(scope="session")
def finished(smoke, commands, tmp_path_factory):
    """The smoke run's file, in fp32."""
    path = tmp_path_factory.mktemp("finished") / "file.safetensors"
    assert commands.run("export", smoke[0], path, "--dtype", "fp32")[0] == 0
    return path


def steps_so_far(run):
    return (
        [event["step"] for event in read_events(run) if event["event"] == "step"]
        if (run / "events.jsonl").exists()
        else []
    )


def in_words(output):
    """What was said, without line breaks: rich may wrap anywhere."""
    return " ".join(output.split())


def assert_refused(status, output, *words, expected=1):
    """The three lines of a refusal, and no traceback."""
    assert status == expected, output
    assert "Traceback" not in output
    assert "What to do: " in output
    for word in words:
        assert word in in_words(output), output


# ---- a run ----------------------------------------------------------------------------------------------------------


def test_the_smoke_run_is_finished_within_a_minute_and_leaves_everything(smoke):
    run, seconds, output = smoke
    assert seconds < 60 or os.getloadavg()[0] > os.cpu_count()
    assert f"Finished at step {STEPS}: {run}" in output
    assert load_config(run / "config.toml", TrainConfig).steps == STEPS
    assert RunFolder.open(run).steps() == [10, 20]
    assert sorted(path.name for path in (run / "previews").iterdir()) == [
        f"{name}.{kind}"
        for name in ("reference", *(f"step-{step:08d}" for step in (0, 10, 20)))
        for kind in ("json", "png")
    ]
    told = json.loads((run / "previews" / "step-00000010.json").read_text())
    assert (told["precision"], told["device"], told["people"]) == ("fp32", "cpu", ["held_out-0000000"])


def test_every_reading_of_the_smoke_run_is_a_number(smoke):
    readings = [event for event in read_events(smoke[0]) if event["event"] == "step"]
    assert [event["step"] for event in readings] == list(range(1, STEPS + 1))
    for event in readings:
        assert all(math.isfinite(event[name]) for name in ("loss", "ldm", "loc", "grad", "rate")), event
    assert {"gradient of ldm", "gradient of loc"} <= readings[0].keys()
    assert not [event for event in read_events(smoke[0]) if event["event"] in ("skip", "preview failed")]


def test_ten_kills_change_no_bit(commands, make_config, finished, tmp_path):
    often, rng, kills, runs = ("--set", "checkpoints.every=1"), random.Random(7), 0, []
    while kills < 10:
        run = tmp_path / f"run{len(runs)}"
        config = make_config(tmp_path / f"{run.name}.toml", run)
        runs.append(run)
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            resume = ["--resume"] if (run / "config.toml").exists() else []
            begun = len(steps_so_far(run))
            command = commands.start("train", config, *often, *resume)
            if kills < 10:
                taken = rng.choice((0, 1, 2))  # steps that it may still take
                wait_until(lambda r=run, n=begun + taken, c=command: not c.running or len(steps_so_far(r)) >= n)
                time.sleep(rng.uniform(0, 0.1 if taken else 1.0))
                command.kill()
            status = command.wait()
            kills += status == -signal.SIGKILL
        assert status == 0, command.output
    unbroken = load_checkpoint(finished)
    for run in runs:
        assert commands.run("export", run, run.with_suffix(".safetensors"), "--dtype", "fp32")[0] == 0
        ours = load_checkpoint(run.with_suffix(".safetensors"))
        assert ours.info.steps == STEPS
        assert ours.tensors.keys() == unbroken.tensors.keys()
        assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in unbroken.tensors.items())


def test_a_signal_ends_a_run_saved_and_its_folder_is_its_own(commands, config, tmp_path):
    run = tmp_path / "run"
    for number, resume in ((signal.SIGINT, []), (signal.SIGTERM, ["--resume"])):
        command = commands.start("train", config, "--set", "preview.every=0", *resume)
        before = len(steps_so_far(run)) if resume else 0
        wait_until(lambda b=before: (run / "events.jsonl").exists() and len(steps_so_far(run)) > b)
        other = commands.run("train", config, "--set", "preview.every=0", "--resume")
        assert_refused(*other, f"is in use by pid {command.pid}")
        command.kill(number)
        assert command.wait() == 128 + number, command.output
        last = steps_so_far(run)[-1]
        assert f"Stopped at step {last}; everything is saved. Go on with --resume." in command.output
        assert RunFolder.open(run).latest() == last
    assert [event["signal"] for event in read_events(run) if event["event"] == "stop"] == ["SIGINT", "SIGTERM"]


def test_a_second_signal_ends_a_command_at_once_with_a_word(tmp_path, capsys, monkeypatch):
    def interrupted_twice(*_, **__):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(dataset, "write_dataset", interrupted_twice)
    assert main(["data", "paper-doll", str(tmp_path), "--count", "2"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err.startswith("Ended at once.")


def test_a_command_that_is_interrupted_where_nobody_waits_for_it_says_so(smoke, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "export_run", interrupted)
    assert main(["export", str(smoke[0]), str(tmp_path / "file.safetensors")]) == 128 + signal.SIGINT
    assert capsys.readouterr().err.startswith("Ended at once.")


UNET = ("train-base", "--set", 'network="unet"', "--set", "data.resolution=[64, 48]")


@pytest.mark.parametrize("verb", [("data", "cache"), ("train",), UNET], ids=["data cache", "train", "train-base"])
def test_a_signal_while_the_caches_are_built_keeps_what_is_there(commands, make_config, small_data, tmp_path, verb):
    data = shutil.copytree(small_data.parent, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))
    path = tmp_path / "config.toml"
    make_config(path, tmp_path / "run", manifest=data / "manifest.jsonl")
    if verb is UNET:
        path.write_text("steps = 2\n" + path.read_text().partition("\n")[2])  # the preset is another command's
    command = commands.start(*verb, path)
    wait_until(lambda: "reading files" in command.output)
    command.kill(signal.SIGTERM)
    assert command.wait() == 128 + signal.SIGTERM, command.output
    assert "is kept" in command.output
    assert "Traceback" not in command.output


def test_two_processes_train_as_one_does(commands, make_config, smoke, tmp_path):
    config = make_config(tmp_path / "config.toml", tmp_path / "run", "batch = 1\n[preview]\nevery = 0\n")
    with_two = ["train", config, "--set", "steps=10"]
    world = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    both = [commands.start(*with_two, RANK=rank, LOCAL_RANK=rank, **world) for rank in (0, 1)]
    assert [command.wait() for command in both] == [0, 0], both[0].output + both[1].output
    assert ["Finished" in command.output for command in both] == [True, False]
    (two, state), (one, _) = (RunFolder.open(run).load(10) for run in (tmp_path / "run", smoke[0]))
    assert state["samples_a_step"] == 2
    for name, tensor in one["model"].items():
        torch.testing.assert_close(two["model"][name], tensor, atol=1e-5, rtol=0)


def test_a_launch_that_started_one_process_of_several_is_told(config, capsys, caplog, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))  # as `accelerate launch --cpu --num_processes 2` does
    assert_refused(main(["train", str(config), "--device", "tpu"]), capsys.readouterr().err, "is unknown")
    assert "started one process" in caplog.text
    assert "torchrun --nproc_per_node 2" in caplog.text


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- the disk -------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_a_run_in_words_and_it_goes_on(commands, config, smoke, tmp_path):
    run = tmp_path / "run"
    size = sum(path.stat().st_size for path in (smoke[0] / "checkpoints" / "step-00000010").iterdir())
    short = ("train", config, "--set", "preview.every=0", "--set", "checkpoints.every=2", "--set", "steps=6")
    status, output = commands.run(*short, quota=round(1.5 * size))
    assert_refused(status, output, "step-00000004 could not be saved", "No space left on device", expected=3)
    assert RunFolder.open(run).latest() == 2
    status, output = commands.run(*short, "--resume")
    assert status == 0, output
    assert "Going on from step 2." in output


def test_a_folder_that_refuses_is_named(commands, make_config, tmp_path):
    refusing = "/sys" if Path("/sys").is_dir() else "/System"
    config = make_config(tmp_path / "config.toml", f"{refusing}/run")
    assert_refused(*commands.run("train", config), f"The run folder '{refusing}/run' cannot be made", expected=3)


def test_a_file_in_the_place_of_the_folder_is_named(commands, make_config, tmp_path):
    (tmp_path / "run").write_text("a file")
    config = make_config(tmp_path / "config.toml", tmp_path / "run")
    assert_refused(*commands.run("train", config), f"The run folder '{tmp_path / 'run'}' cannot be made")


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(small_data, tmp_path):
    """The data with a picture that is none."""
    data = shutil.copytree(small_data.parent, tmp_path / "data")
    (data / "img" / "train-0000003.png").write_bytes(b"no picture")
    return data / "manifest.jsonl"


def test_a_bad_picture_is_set_aside_and_named(commands, make_config, spoiled, tmp_path):
    config = make_config(tmp_path / "config.toml", tmp_path / "run", "most_bad_items = 0.1\n", spoiled)
    status, output = commands.run("data", "cache", config)
    assert status == 0, output
    assert "11 people are ready; 1 were set aside." in output
    assert "1 of 12 people have bad pictures and are left out" in in_words(output)
    assert "img/train-0000003.png" in in_words(output)


def test_bad_pictures_of_those_who_sit_for_previews_stop_nothing(commands, make_config, small_data, tmp_path):
    data = shutil.copytree(small_data.parent, tmp_path / "data")
    for name in ("held_out-0000000", "held_out-0000001"):
        (data / "img" / f"{name}.png").write_bytes(b"no picture")
    config = make_config(tmp_path / "config.toml", tmp_path / "run", manifest=data / "manifest.jsonl")
    status, output = commands.run("train", config, "--set", "steps=1")
    assert status == 0, output
    assert "Nobody who is held out can sit for the previews; others do." in in_words(output)
    assert (tmp_path / "run" / "previews" / "step-00000000.png").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_finds_all_that_was_cached_for_it(commands, make_config, small_data, tmp_path, precision):
    data = shutil.copytree(small_data.parent, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))
    config = make_config(tmp_path / "config.toml", tmp_path / "run", manifest=data / "manifest.jsonl")
    with_precision = ("--set", f"memory.precision={precision}", "--set", "preview.every=0")
    assert commands.run("data", "cache", config, *with_precision)[0] == 0
    entries = set((data / "cache").rglob("*.safetensors"))
    assert commands.run("train", config, *with_precision, "--set", "steps=1")[0] == 0
    assert set((data / "cache").rglob("*.safetensors")) == entries


def test_too_many_bad_pictures_stop_a_run(commands, make_config, spoiled, tmp_path):
    config = make_config(tmp_path / "config.toml", tmp_path / "run", manifest=spoiled)
    assert_refused(*commands.run("train", config), "1 of 12 people", "at most 5% may", "img/train-0000003.png")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("losses.texture=0.001", "The file of VGG16's weights is not named"),
        ("losses.textur=0.001", "did you mean 'losses.texture'?"),
        ("data.manifest=nowhere.jsonl", "'nowhere.jsonl' is not a file"),
        ("base.checkpoint=nowhere.safetensors", "'nowhere.safetensors' was not found"),
        ("base.checkpoint=/nope", "'/nope' was not found. Nothing is at /nope."),
        ("base.tokenizer=nowhere", "CLIP's tokenizer was not found"),
        ("adapter.init=nowhere.safetensors", "adapter.init: 'nowhere.safetensors' was not found"),
        ("adapter.init=nowhere.safetensors", "paths count from the folder in which the command runs"),
        ("data.resolution=[60, 48]", "multiple of 8"),
        ("data.batch", "--set data.batch=2"),
    ],
)
def test_a_mistake_is_named_before_the_run_has_a_folder(config, tmp_path, capsys, setting, words):
    assert_refused(main(["train", str(config), "--set", setting]), capsys.readouterr().err, words)
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_names_the_known_ones(config, capsys):
    config.write_text(config.read_text().replace("smoke", "smoky"))
    assert_refused(main(["train", str(config)]), capsys.readouterr().err, "none named 'smoky'", "12gb", "smoke")


def test_a_base_file_that_is_none_is_named(config, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"nothing of the kind")
    setting = f"base.checkpoint={other}"
    assert_refused(main(["train", str(config), "--set", setting]), capsys.readouterr().err, "other.safetensors")


def test_a_finished_run_is_not_begun_again(smoke, capsys):
    assert_refused(
        main(["train", str(smoke[0].parent / "config.toml")]),
        capsys.readouterr().err,
        "already holds a run",
        "--resume",
        "--set folder=runs/another",
    )


def test_a_run_goes_on_with_its_own_settings_alone(smoke, capsys):
    arguments = ["train", str(smoke[0].parent / "config.toml"), "--resume", "--set", "seed=1"]
    assert_refused(main(arguments), capsys.readouterr().err, "It began with another seed")


def test_a_run_goes_on_with_its_own_base_model_alone(commands, make_config, small_base, tmp_path):
    base = shutil.copytree(small_base, tmp_path / "base")
    config = make_config(tmp_path / "config.toml", tmp_path / "run")
    arguments = ("train", config, "--set", f"base.checkpoint={base}", "--set", "preview.every=0", "--set")
    assert commands.run(*arguments, "steps=1")[0] == 0
    weights = next((base / "unet").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-4] ^= 1  # the last number's smallest bit
    weights.write_bytes(data)
    assert_refused(*commands.run(*arguments, "steps=2", "--resume"), "the base model is another")


# ---- a new kind of garment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_a_new_kind_of_garment_is_trained_alone(commands, make_config, smoke, small_data, tmp_path, dtype):
    finished = tmp_path / "finished.safetensors"
    assert commands.run("export", smoke[0], finished, "--dtype", dtype, "--title", "Dolls")[0] == 0
    more = "[preview]\nevery = 2\n[optimizer]\naverage = 0.5\n"
    config = make_config(tmp_path / "config.toml", tmp_path / "run", 'licence = "CC-BY-4.0"\n' + more)
    new = ("--slots", "upper,lower,hat", "--init", finished, "--set", "steps=2")
    status, output = commands.run("train", config, *new)
    assert status == 0, output
    events = read_events(tmp_path / "run")
    lines = [json.loads(line) for line in small_data.read_text().splitlines()]
    hats = [line for line in lines if line["split"] == "train" and "hat" in [one["slot"] for one in line["garments"]]]
    assert events[0]["items"] == len(hats) == 3
    assert [event["step"] for event in events if event["event"] == "preview"] == [0, 2]
    assert commands.run("export", tmp_path / "run", tmp_path / "hat.safetensors")[0] == 0
    before, after = load_checkpoint(finished), load_checkpoint(tmp_path / "hat.safetensors")
    start = load_checkpoint(tmp_path / "run" / "start.safetensors")
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    hat = {name for name in after.tensors if name not in before.tensors}
    assert {name.split(".")[1] for name in hat} == {"hat"}
    assert all(not torch.equal(after.tensors[name].float(), start.tensors[name]) for name in hat if ".up." in name)
    assert after.info.title == "Dolls"
    assert (after.info.slots, after.info.steps) == (("upper", "lower", "hat"), STEPS + 2)
    assert after.info.dataset == before.info.dataset
    assert after.info.dataset_licence == "not stated; then CC-BY-4.0"


def test_a_new_kind_keeps_how_the_others_are_read(commands, config, finished):
    new = ("--slots", "upper,lower,hat", "--init", finished)
    status, output = commands.run("train", config, *new, "--set", "adapter.garment_tokens='all'")
    assert_refused(status, output, "init: the file was trained with garment_tokens = 'cropped'")
    status, output = commands.run("train", config, *new, "--set", "data.resolution=[96, 72]")
    assert_refused(status, output, "init: the file was trained with resolution = (64, 48)")


def test_a_kind_that_nobody_wears_is_refused(commands, config, finished):
    status, output = commands.run("train", config, "--slots", "upper,lower,shoes", "--init", finished)
    assert_refused(status, output, "nobody in it wears shoes")


def without_lowers(manifest, folder):
    """The data as if nobody wore a lower."""
    data = shutil.copytree(manifest.parent, folder)
    people = [json.loads(line) for line in manifest.read_text().splitlines()]
    for person in people:
        person["garments"] = [one for one in person["garments"] if one["slot"] != "lower"]
    (data / "manifest.jsonl").write_text("".join(json.dumps(person) + "\n" for person in people))
    return data / "manifest.jsonl"


def test_a_kind_that_is_not_in_the_data_is_not_claimed(commands, make_config, small_data, tmp_path):
    manifest = without_lowers(small_data, tmp_path / "data")
    config = make_config(tmp_path / "config.toml", tmp_path / "run", manifest=manifest)
    status, output = commands.run("train", config)
    assert_refused(status, output, "nobody in it wears lower", 'set adapter.slots = ["upper"]')
    assert not (tmp_path / "run").exists()
    assert_refused(*commands.run("train", config, "--slots", "lower"), "set adapter.slots = [", '"upper"]')
    shorter = ("--set", "steps=1", "--set", "preview.every=0")
    status, output = commands.run("train", config, *shorter, "--slots", "upper")
    assert status == 0, output


def test_data_is_judged_as_the_run_will_train(make_config, small_data, tmp_path, capsys):
    config = make_config(tmp_path / "config.toml", tmp_path / "run")
    assert main(["data", "check", str(small_data), "--config", str(config)]) == 0
    told = capsys.readouterr().out
    assert "at 64 x 48 (height x width)" in told
    assert "--resolution" not in told
    assert main(["data", "check", str(small_data), "--config", str(config), "--resolution", "32x24"]) == 0
    assert "at 32 x 24 (height x width)" in capsys.readouterr().out


def test_data_that_is_judged_at_the_default_is_told_so(small_data, capsys):
    main(["data", "check", str(small_data)])
    assert "Judged at 768 x 576, since nothing else was said: --config FILE" in in_words(capsys.readouterr().out)
    main(["data", "check", str(small_data), "--resolution", "64x48"])
    assert "Judged at" not in capsys.readouterr().out


def test_data_without_wearers_of_a_runs_slots_is_told_beforehand(make_config, small_data, tmp_path, capsys):
    manifest = without_lowers(small_data, tmp_path / "data")
    config = make_config(tmp_path / "config.toml", tmp_path / "run")
    assert main(["data", "check", str(manifest), "--config", str(config)]) == 1
    assert "nobody in it wears lower" in capsys.readouterr().out


def test_a_kind_that_a_file_to_start_from_knows_need_not_be_in_the_data(
    commands, make_config, small_data, finished, tmp_path
):
    manifest = without_lowers(small_data, tmp_path / "data")
    config = make_config(tmp_path / "config.toml", tmp_path / "run", manifest=manifest)
    status, output = commands.run("train", config, "--init", finished, "--set", "steps=1", "--set", "preview.every=0")
    assert status == 0, output


def test_a_run_that_began_without_wearers_of_a_kind_goes_on_with_a_word(
    commands, make_config, small_data, tmp_path, monkeypatch
):
    manifest = without_lowers(small_data, tmp_path / "data")
    config = make_config(tmp_path / "config.toml", tmp_path / "run", manifest=manifest)
    with monkeypatch.context() as earlier:  # as versions did that looked at nobody
        earlier.setattr(build, "lack_of_wearers", lambda *_: None)
        assert main(["train", str(config), "--set", "steps=1", "--set", "preview.every=0"]) == 0
    status, output = commands.run("train", config, "--resume", "--set", "steps=2", "--set", "preview.every=0")
    assert status == 0, output
    assert "nobody in it wears lower" in in_words(output)
    assert "This run goes on as it began." in in_words(output)


# ---- export ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_an_exported_file_says_what_it_is(smoke, finished, tmp_path, capsys, name, dtype):
    path = tmp_path / "new" / "folder" / "file.safetensors"
    titled = ["--title", "Paper dolls", "--author", "the tests"]
    assert main(["export", str(smoke[0]), str(path), "--dtype", name, *titled]) == 0
    assert f"upper, lower; {STEPS} steps" in capsys.readouterr().out
    file, settings = load_checkpoint(path), load_config(smoke[0] / "config.toml", TrainConfig)
    exact = load_checkpoint(finished).tensors
    assert all(torch.equal(tensor, exact[name].to(dtype)) for name, tensor in file.tensors.items())
    info = file.info
    assert (info.title, info.author, info.steps) == ("Paper dolls", "the tests", STEPS)
    assert info.training_config_hash == settings.digest
    assert info.resolution == settings.data.resolution == (64, 48)
    assert info.loss_reading == "L_LDM mse; L_loc l2; L_perc DISTS frame; L_hf l2 per edge value"
    assert info.dataset.startswith("dolls (")
    assert info.dataset_licence == "not stated"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_earlier_step_can_be_exported(smoke, finished, tmp_path):
    assert main(["export", str(smoke[0]), str(tmp_path / "ten.safetensors"), "--step", "10", "--dtype", "fp32"]) == 0
    ten = load_checkpoint(tmp_path / "ten.safetensors")
    assert ten.info.steps == 10
    name = next(name for name in ten.tensors if name.endswith("to_k.weight"))
    assert not torch.equal(ten.tensors[name], load_checkpoint(finished).tensors[name])


@pytest.mark.parametrize(
    ("out", "more", "words"),
    [
        ("file.ckpt", [], "is not a file's name for this"),
        ("file.safetensors", ["--step", "7"], "choose another step; here are: 10, 20."),
        ("file.safetensors", ["--title", "two\nlines"], "title is"),
    ],
)
def test_an_export_that_cannot_be_leaves_no_file(smoke, tmp_path, capsys, out, more, words):
    assert_refused(main(["export", str(smoke[0]), str(tmp_path / out), *more]), capsys.readouterr().err, words)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_same_run_is_replaced_with_a_word(smoke, tmp_path, capsys, caplog):
    out = tmp_path / "file.safetensors"
    assert main(["export", str(smoke[0]), str(out), "--step", "10", "--title", "Ten"]) == 0
    assert caplog.messages == []
    assert main(["export", str(smoke[0]), str(out)]) == 0
    assert load_checkpoint(out).info.steps == STEPS
    assert caplog.messages == [f"{out} held 10 steps and is replaced."]


@pytest.mark.parametrize("kind", ["another run's", "a base model", "no weights", "a folder"])
def test_another_file_is_never_written_over(smoke, finished, make_model, tmp_path, capsys, kind):
    from comfyui_anydressing.anydressing_core.checkpoint import save_checkpoint

    out = tmp_path / "file.safetensors"
    if kind == "another run's":
        save_checkpoint(out, make_model().adapter.checkpoint())
    elif kind == "a base model":
        shutil.copy(Path(__file__).parents[3] / "demo" / "paper_doll_base.safetensors", out)
    elif kind == "no weights":
        out.write_text("mine")
    else:
        out.mkdir()
    before = out.read_bytes() if out.is_file() else b""
    assert_refused(main(["export", str(smoke[0]), str(out)]), capsys.readouterr().err, "is there already")
    assert (out.read_bytes() if out.is_file() else b"") == before


def test_step_0_is_exported_with_a_word(commands, config, tmp_path):
    run = tmp_path / "run"
    command = commands.start("train", config, "--set", "preview.steps=200")
    wait_until(lambda: (run / "events.jsonl").exists())  # while the first preview is made
    command.kill(signal.SIGTERM)
    assert command.wait() == 128 + signal.SIGTERM, command.output
    assert RunFolder.open(run).steps() == [0]
    status, output = commands.run("export", run, tmp_path / "file.safetensors")
    assert status == 0, output
    assert "This is step 0" in in_words(output)
    assert load_checkpoint(tmp_path / "file.safetensors").info.steps == 0


def test_only_runs_of_the_adapter_are_exported(smoke, tmp_path, capsys):
    out = str(tmp_path / "file.safetensors")
    assert_refused(main(["export", str(tmp_path), out]), capsys.readouterr().err, "is not a run folder")
    other = shutil.copytree(smoke[0], tmp_path / "other")
    (other / "start.safetensors").unlink()
    assert_refused(main(["export", str(other), out]), capsys.readouterr().err, "has nothing to export")


# ---- sample ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def smoke_bf16(make_config, commands, tmp_path_factory):
    """A short run whose frozen weights are kept in bf16, as those of the presets for a GPU."""
    folder = tmp_path_factory.mktemp("smoke bf16")
    config = make_config(folder / "config.toml", folder / "run", '[memory]\nprecision = "bf16"\n')
    status, output = commands.run("train", config, "--set", "steps=10")
    assert status == 0, output
    return folder / "run"


def from_preview(commands, run, base, data, out, *options):
    """How far a sample is from each picture of the run's last preview: the largest differences of its bytes."""
    return from_sheet(commands, max((run / "previews").glob("step-*.png")), run, base, data, out, *options)


def from_sheet(commands, sheet, file, base, data, out, *options):
    """The same of any sheet, whose people a file dresses again."""
    held_out = ("--manifest", data, "--steps", "2", "--out", out, *options)
    status, output = commands.run("sample", file, "--base", base, *held_out)
    assert status == 0, output
    assert f"1 pictures in {out}." in output
    sample = Image.open(out / "held_out-0000000.png")
    assert sample.size == (48, 64)
    sheet = np.asarray(Image.open(sheet)).astype(int)
    shown = np.asarray(sample.resize((240, PICTURE_HEIGHT), Image.Resampling.LANCZOS)).astype(int)
    row = sheet[MARGIN + HEADER + CAPTION + TITLES :][:PICTURE_HEIGHT]
    places = [MARGIN + 240 // 2 + GAP + column * (240 + GAP) for column in range(6)]
    return [np.abs(row[:, left : left + 240] - shown).max() for left in places]


def test_a_run_shows_first_what_reference_mode_makes_of_the_base_model(
    smoke, commands, small_base, small_data, tmp_path
):
    sheet = smoke[0] / "previews" / "reference.png"
    items = [json.loads(line) for line in small_data.read_text().splitlines()]
    for item in items:  # the run knows no hats
        item["garments"] = [garment for garment in item["garments"] if garment["slot"] != "hat"]
    data = small_data.with_name("hatless.jsonl")
    data.write_text("\n".join(map(json.dumps, items)))
    *others, dressed, _ = from_sheet(commands, sheet, "none", small_base, data, tmp_path, "--size", "64x48")
    assert dressed <= 2 < min(others), (dressed, others)


def test_a_sample_is_the_preview_of_that_step(smoke, commands, small_base, small_data, tmp_path):
    *others, dressed, _ = from_preview(commands, smoke[0], small_base, small_data, tmp_path)
    assert dressed <= 2  # the captions are encoded in another batch: rounding
    assert dressed < min(others), (dressed, others)


def test_a_sample_is_the_preview_in_bf16_too(smoke_bf16, commands, small_base, small_data, tmp_path):
    *others, dressed, _ = from_preview(commands, smoke_bf16, small_base, small_data, tmp_path / "auto")
    assert dressed <= 2
    assert dressed < min(others), (dressed, others)
    *_, exact, _ = from_preview(commands, smoke_bf16, small_base, small_data, tmp_path / "fp32", "--precision", "fp32")
    assert exact > 2  # which tells the two apart: the test can fail
    told = [json.loads((tmp_path / name / "held_out-0000000.json").read_text()) for name in ("auto", "fp32")]
    assert [(one["precision"], one["device"]) for one in told] == [("bf16", "cpu"), ("fp32", "cpu")]


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda:7", "finds no CUDA device"), ("mps", "finds no Apple GPU"), ("tpu", "auto, cpu, cuda, cuda:N or mps")],
)
def test_a_device_that_is_not_there_is_refused(finished, small_base, small_data, tmp_path, capsys, device, words):
    wanted = ["--base", str(small_base), "--out", str(tmp_path / "out"), "--manifest", str(small_data)]
    status = main(["sample", str(finished), *wanted, "--device", device])
    assert_refused(status, capsys.readouterr().err, words, f"--device '{device}'")


def test_a_sample_says_what_it_was_made_from(finished, commands, small_base, small_data, tmp_path):
    shirt = small_data.parent / "g" / "train-0000000_upper.png"
    wanted = ("--prompt", "a woman in a park", "--garment", f"upper={shirt}", "--count", 2, "--seed", 5, "--steps", 1)
    status, output = commands.run("sample", finished, "--base", small_base, "--out", tmp_path / "out", *wanted)
    assert status == 0, output
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["0000.json", "0000.png", "0001.json", "0001.png"]
    told = json.loads((tmp_path / "out" / "0000.json").read_text())
    assert len(told.pop("base_sha256")) == 64
    assert told == {
        "file": str(finished),
        "reference": False,
        "base": str(small_base),
        "precision": "fp32",
        "device": "cpu",
        "seed": 5,
        "prompt": "a woman in a park",
        "garments": {"upper": str(shirt)},
        "steps": 1,
        "guidance": 6.0,
        "strength": 0.7,
    }


def test_a_sample_that_is_stopped_keeps_the_pictures_that_are_finished(
    finished, commands, small_base, small_data, tmp_path
):
    shirt = small_data.parent / "g" / "train-0000000_upper.png"
    wanted = ("--prompt", "a woman", "--garment", f"upper={shirt}", "--count", 1000, "--steps", 5)
    command = commands.start("sample", finished, "--base", small_base, "--out", tmp_path / "out", *wanted)
    wait_until((tmp_path / "out" / "0003.json").exists)
    command.kill(signal.SIGINT)
    assert command.wait() == 128 + signal.SIGINT, command.output
    said = in_words(command.output)
    assert "Stopped at sampling" in said
    assert "of 5000" in said
    assert f"Finished pictures are in {tmp_path / 'out'}" in said
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert 4 <= len(pictures) < 1000
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.size == (48, 64)
        assert json.loads(picture.with_suffix(".json").read_text())["prompt"] == "a woman"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "x", "--garment", "shoes=SHIRT"], "Garment kind 'shoes' was given"),
        (["--prompt", "x"], "No garment was given"),
        (["--prompt", "x", "--garment", "upper"], "write --garment upper=shirt.png"),
        (["--prompt", "x", "--garment", "upper=nowhere.png"], "'nowhere.png' was not found. Nothing is at "),
        (["--prompt", "x", "--garment", "upper=SHIRT", "--steps", "0"], "steps = 0 is impossible"),
        ([], "needs one of --prompt and --manifest"),
    ],
)
def test_a_sample_that_cannot_be_is_refused(finished, small_base, small_data, tmp_path, capsys, arguments, words):
    shirt = str(small_data.parent / "g" / "train-0000000_upper.png")
    given = [argument.replace("SHIRT", shirt) for argument in arguments]
    status = main(["sample", str(finished), "--base", str(small_base), "--out", str(tmp_path / "out"), *given])
    assert_refused(status, capsys.readouterr().err, words)
    assert not (tmp_path / "out").exists()


REFERENCE = ["--prompt", "a woman in a shirt", "--garment", "upper=SHIRT", "--words", "upper=striped shirt"]


def test_somebody_is_dressed_without_a_file_and_beside_one(finished, small_base, small_data, tmp_path, capsys):
    shirt = str(small_data.parent / "g" / "train-0000000_upper.png")
    given = [argument.replace("SHIRT", shirt) for argument in (*REFERENCE, "--steps", "2", "--seed", "3")]
    pictures = {}
    for name, file, more in (
        ("none", "none", ["--size", "64x48"]),
        ("nobody", "none", ["--size", "64x48", "--strength", "0"]),
        ("file", str(finished), []),
        ("both", str(finished), ["--reference"]),
    ):
        out = tmp_path / name
        assert main(["sample", file, "--base", str(small_base), "--out", str(out), *given, *more]) == 0, name
        pictures[name] = np.asarray(Image.open(out / "0000.png")).astype(int)
        told = json.loads((out / "0000.json").read_text())
        assert told["reference"] == (name != "file")
        assert pictures[name].shape == (64, 48, 3)
    for one, other in (("none", "nobody"), ("both", "file"), ("both", "none")):
        assert np.abs(pictures[one] - pictures[other]).max() > 2, (one, other)


@pytest.mark.parametrize(
    ("file", "arguments", "words"),
    [
        ("none", ["--size", "60x48"], "'60x48' is not a size"),
        ("FILE", ["--size", "64x48"], "--size was given with a file"),
        ("none", ["--words", "shirt"], "--words 'shirt' does not say whose"),
        ("none", ["--words", "hat=cap"], "--words hat=... names no garment"),
    ],
)
def test_what_reference_cannot_take_is_refused(
    finished, small_base, small_data, tmp_path, capsys, file, arguments, words
):
    shirt = str(small_data.parent / "g" / "train-0000000_upper.png")
    given = [argument.replace("SHIRT", shirt) for argument in (*REFERENCE, *arguments)]
    status = main(
        [
            "sample",
            file.replace("FILE", str(finished)),
            "--base",
            str(small_base),
            "--out",
            str(tmp_path / "out"),
            *given,
        ]
    )
    assert_refused(status, capsys.readouterr().err, words)


def test_a_file_for_another_base_model_is_refused(make_model, make_info, small_base, small_data, tmp_path, capsys):
    from comfyui_anydressing.anydressing_core.checkpoint import save_checkpoint

    other = tmp_path / "other.safetensors"
    save_checkpoint(other, make_model().adapter.checkpoint())
    wanted = ["--base", str(small_base), "--out", str(tmp_path / "out"), "--manifest", str(small_data)]
    assert_refused(main(["sample", str(other), *wanted]), capsys.readouterr().err, "does not fit the base model")


# ---- words ----------------------------------------------------------------------------------------------------------


def help_of(*command):
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, ENTRY, *command, "--help"], check=True, capture_output=True, text=True, env=environment
    ).stdout


def verbs_in(text):
    rows = text.partition("Commands")[2].splitlines()
    return [row.strip("│ ").split()[0] for row in rows if row.startswith("│ ") and row[2] != " "]


def test_the_verbs_stay():
    verbs = ["train", "train-base", "config", "export", "export-base", "doctor", "sample", "evaluate", "data"]
    assert verbs_in(help_of()) == [*verbs, "survey"]
    assert verbs_in(help_of("survey")) == ["build", "tally"]
    assert verbs_in(help_of("data")) == [
        *("paper-doll", "photos", "dresscode", "dresscode-mr", "viton-hd", "garments2look"),
        *("captions", "masks", "check", "cache"),
    ]


@pytest.mark.parametrize("command", [(), ("train",), ("sample",)])
def test_help_is_readable_on_a_narrow_terminal(command):
    text = help_of(*command)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_an_unknown_verb_and_a_missing_argument_are_usage_errors(capsys):
    assert main(["trian"]) == 2
    assert main(["train"]) == 2
    assert "Traceback" not in capsys.readouterr().err
