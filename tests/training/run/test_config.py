# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's configuration: the paper's numbers by default, mistakes named in the user's words."""

from __future__ import annotations

import pytest
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.paper_doll.networks.config import PaperDollConfig
from comfyui_anydressing.training.run.config import load_config, parse_config, preset_names
from comfyui_anydressing.training.run.mistakes import Override
from pydantic import BaseModel

LEAST = 'folder = "run"\nbase.checkpoint = "sd15.safetensors"\ndata.manifest = "m.jsonl"\n'


def parse(text="", *overrides):
    return parse_config(LEAST + text, "my.toml", TrainConfig, overrides)


def test_the_defaults_are_the_papers():
    config = parse()
    assert config.steps == 100_000
    assert config.data.resolution == (768, 576)
    assert config.data.batch == 4
    assert config.optimizer.learning_rate == 5e-5
    assert (config.losses.localisation, config.losses.texture, config.losses.eta) == (0.01, 0.001, 350)
    assert (config.preview.steps, config.preview.guidance, config.preview.strength) == (30, 6.0, 0.7)


def test_what_the_paper_leaves_open_has_our_decision():
    config = parse()
    assert config.adapter.feature_tap == "attn_input"  # D1
    assert config.adapter.null_token  # D2
    assert config.adapter.rank == 64  # D5
    assert (config.losses.localisation_reduction, config.losses.high_frequency_reduction) == ("l2", "l2")  # D6
    assert config.losses.strength == 1.0  # D8
    assert (config.dropout.text, config.dropout.one_garment) == (0.1, 0.15)  # D9


@pytest.mark.parametrize("name", preset_names(TrainConfig))
def test_every_preset_is_a_whole_configuration(name):
    assert parse_config(f'preset = "{name}"\n{LEAST}', "my.toml", TrainConfig).steps > 0


def test_a_file_lies_over_its_preset_and_set_over_both():
    text = f'preset = "12gb"\n{LEAST}data.batch = 3\n'
    config = parse_config(text, "my.toml", TrainConfig, ["data.accumulate=7", "adapter.title=Summer"])
    assert (config.data.batch, config.data.accumulate, config.adapter.title) == (3, 7, "Summer")
    assert config.memory.checkpointing


def test_the_resolved_configuration_reads_back_the_same():
    config = parse("losses.eta = 200\n")
    again = parse_config(config.to_toml(), "resolved", TrainConfig)
    assert again == config
    assert again.digest == config.digest


def test_any_change_changes_the_digest():
    assert parse().digest != parse("seed = 1\n").digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data.bach = 2\n", r"data\.bach: my\.toml has an unknown setting.*did you mean 'data\.batch'"),
        ("learning_rate = 1\n", r"did you mean 'optimizer\.learning_rate'"),
        ("data.batch = 0\n", r"data\.batch: got 0"),
        ('data.batch = "two"\n', r"data\.batch: got 'two'"),
        ("data.resolution = [100, 64]\n", "multiple of 8"),
        ('adapter.slots = ["Upper Body"]\n', r"adapter\.slots\.0: got 'Upper Body'"),
        ('adapter.slots = ["upper", "upper"]\n', r"adapter\.slots: got .*It names a garment kind twice\."),
        ("adapter.slots = []\n", r"adapter\.slots: got \[\]"),
        ("dropout.text = 1.5\n", r"dropout\.text: got 1\.5"),
        ("optimizer.learning_rate = nan\n", r"optimizer\.learning_rate"),
        ("optimizer.betas = [0.9, 1.0]\n", r"optimizer\.betas\.1: got 1\.0"),
        ("data.resolution = [8, 4096]\n", r"data\.resolution\.0: got 8.*data\.resolution\.1: got 4096"),
        ("checkpoints.keep_last = 1\n", r"checkpoints\.keep_last"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(text, words):
    with pytest.raises(ValueError, match=f"(?s){words}.*") as caught:
        parse(text)
    assert "What to do: " in str(caught.value)


RAW = (
    "Input should",
    "valid integer",
    "List should",
    "Tuple should",
    "String should",
    "Unable to parse",
    "valid tuple",
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer.betas = [0.9, 1.0]", "Its range: two of: 0 or more, below 1; for example [0.9, 0.999]."),
        ("data.resolution = 512", "Its range: two of: a multiple of 8, 16 to 2048; for example [768, 576]."),
        ("data.resolution = [512]", "data.resolution: got [512]."),
        ("data.resolution = [512, 384, 3]", "data.resolution: got [512, 384, 3]."),
        ("adapter.slots = []", "Its range: 1 to 32 of: small letters, digits and _ (at most 64)"),
        ("seed = 18446744073709551616", "Its range: -2^63 to 2^64 - 1."),
        ("preview.seed = 18446744073709551616", "Its range: -2^63 to 2^64 - 1."),
        ("seed = 1.5", "It is a whole number."),
        ("data.batch = 1e20", "Its range: 1 to 4096."),
        ("data.accumulate = 1e20", "Its range: 1 to 4096."),
        ("data.workers = 1_000_000", "Its range: 0 to 256."),
        ("steps = 1e20", "Its range: 1 to 1 000 000 000."),
        ("preview.people = 1e20", "Its range: 1 to 4096."),
        ("optimizer.learning_rate = inf", "Its range: above 0. Infinity and nan are no numbers here."),
        ("optimizer.clip = nan", "Infinity and nan are no numbers here."),
        ("adapter.alpha = inf", "Infinity and nan are no numbers here."),
        ('adapter.title = "two\\nlines"', "It is one line of visible text."),
        ("data = 3", "It is a table of settings."),
        ('optimizer.schedule = "linear"', "Its range: constant | cosine."),
    ],
)
def test_a_mistake_is_told_in_plain_words(text, words):
    head = LEAST.replace('data.manifest = "m.jsonl"\n', "") if text.startswith("data = ") else LEAST
    with pytest.raises(ValueError, match=": got ") as caught:
        parse_config(f"{head}{text}\n", "my.toml", TrainConfig)
    assert words in str(caught.value)
    assert not [raw for raw in RAW if raw in str(caught.value)]
    assert str(caught.value).count("\n") == 2


def every_number(kind, path=()):
    """The dotted names of all settings of a kind of run that are a number."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from every_number(field.annotation, (*path, name))
        elif field.annotation in (int, float):
            yield ".".join((*path, name)), field.annotation


NUMBERS = [(kind, *one) for kind in (TrainConfig, PaperDollConfig) for one in every_number(kind)]


@pytest.mark.parametrize(
    ("kind", "name", "type_"), NUMBERS, ids=[f"{kind.command}-{name}" for kind, name, _ in NUMBERS]
)
def test_every_number_is_finite_and_every_count_is_bounded(kind, name, type_):
    head = 'network = "recogniser"\nsteps = 1\n' if kind is PaperDollConfig else ""
    for value in ("inf", "nan", "-inf", *(["1e20", "18446744073709551616"] if type_ is int else [])):
        with pytest.raises(ValueError, match=f"{name}: got"):
            parse_config(head + LEAST, "my.toml", kind, [f"{name}={value}"])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("optimizer.wd", "optimizer.weight_decay"),
        ("data.batch_size", "data.batch"),
        ("batch", "data.batch"),
        ("losses.textur", "losses.texture"),
        ("adapter.learning_rate", "optimizer.learning_rate"),
    ],
)
def test_an_unknown_setting_names_a_setting_that_may_be_meant(name, meant):
    with pytest.raises(ValueError, match=f"{name}: my.toml has an unknown setting") as caught:
        parse(f"{name} = 1\n")
    assert f"did you mean {meant!r}?" in str(caught.value)


def test_an_unknown_table_names_the_nearest_table():
    with pytest.raises(ValueError, match=r"optimiser: .*(?s:.*)did you mean 'optimizer'\?"):
        parse("[optimiser]\nlearning_rate = 1.0\n")


@pytest.mark.parametrize("override", ["data.batch=0", "optimizer.lr=1", "data.batch.x=3", "losses.eta=2000"])
def test_a_mistake_of_the_command_line_is_blamed_on_it(override):
    with pytest.raises(ValueError, match=f"--set {override.partition('=')[0]}") as caught:
        parse("", "steps=5", override)
    assert "my.toml" not in str(caught.value)


def test_a_mistake_of_an_option_is_blamed_on_that_option():
    with pytest.raises(ValueError, match=r"adapter\.slots: got(?s:.*)correct it in --slots\."):
        parse("", Override("adapter.slots", [], "--slots"))


def test_a_mistake_of_the_file_is_not_blamed_on_the_command_line():
    with pytest.raises(ValueError, match=r"correct it in my\.toml") as caught:
        parse("data.batch = 0\n", "data.accumulate=2")
    assert "--set" not in str(caught.value)


def test_a_preset_is_not_set_from_the_command_line():
    with pytest.raises(ValueError, match="preset: cannot be given by --set preset") as caught:
        parse("", "preset=12gb")
    assert "preview" not in str(caught.value)
    assert 'preset = "NAME"' in str(caught.value)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"base: my\.toml does not say it"):
        parse_config('folder = "run"\ndata.manifest = "m"\n', "my.toml", TrainConfig)


@pytest.mark.parametrize("override", ["data.batch", "=3", ""])
def test_a_malformed_override_is_named(override):
    with pytest.raises(ValueError, match=r"(?s)--set: .*What to do"):
        parse("", override)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(
        ValueError,
        match="12gb, 1x-24gb-evening, 1x-80gb, 24gb, paper-8xA100, paper-doll-ablation, paper-doll-cpu, paper-doll-gpu, smoke",
    ):
        parse_config(f'preset = "48gb"\n{LEAST}', "my.toml", TrainConfig)


def test_broken_toml_names_the_line():
    with pytest.raises(ValueError, match=r"(?s)not valid TOML.*line 4"):
        parse("data.batch =\n")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)nowhere\.toml.*What to do") as caught:
        load_config(tmp_path / "nowhere.toml", TrainConfig)
    assert f"Nothing is at {tmp_path / 'nowhere.toml'}." in str(caught.value)


@pytest.mark.parametrize("name", preset_names(PaperDollConfig))
def test_every_preset_of_the_paper_doll_world_is_valid(name):
    least = (
        f'preset = "{name}"\nfolder = "run"\n[data]\nmanifest = "m.jsonl"\n[base]\ncheckpoint = "base.safetensors"\n'
    )
    assert parse_config(least, "my.toml", PaperDollConfig).network == name.split("-")[0].replace("base", "unet")


OLD = 'memory = {{ precision = "bf16", checkpointing = true, two_phase_texture = {} }}\n'


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_retired_setting_is_passed_over_with_a_word(caplog, value):
    config = parse(OLD.format(value))
    assert config == parse('memory = { precision = "bf16", checkpointing = true }\n')
    assert "memory.two_phase_texture, in my.toml, is no setting any more. " in caplog.text


def test_a_run_of_train_base_goes_on_without_what_it_never_read(caplog):
    least = 'preset = "recogniser-loss"\nfolder = "run"\ndata.manifest = "m.jsonl"\n'
    old = 'data.licence = "CC0"\nmemory.checkpointing = true\npreview.people = 2\npreview.strength = 0.5\n'
    assert parse_config(least + old, "my.toml", PaperDollConfig) == parse_config(least, "my.toml", PaperDollConfig)
    assert caplog.text.count("is no setting any more") == 4


def test_other_retired_settings_are_passed_over_where_they_mean_what_is_done_now(caplog):
    old = 'losses.perceptual_region = "frame"\nadapter.lora_targets = "q,k,v"\nadapter.rank = 8\n'
    assert parse(old) == parse("adapter.rank = 8\n")
    assert caplog.text.count("is no setting any more") == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('losses.perceptual_region = "bbox"\n', r"losses\.perceptual_region: 'bbox' is not possible any more"),
        ('adapter.lora_targets = "q,k,v,out"\n', r"adapter\.lora_targets: 'q,k,v,out' is not possible any more"),
    ],
)
def test_what_a_retired_setting_can_do_no_more_is_refused(text, words):
    with pytest.raises(ValueError, match=f"(?s){words}.*What to do: correct my.toml"):
        parse(text)


# ---- files as editors write them ------------------------------------------------------------------------------------

MINE = 'folder = "run"\n[base]\ncheckpoint = "sd15.safetensors"\n[data]\nmanifest = "m.jsonl"\n[adapter]\nauthor = "Müller"\n'


def load_bytes(folder, content):
    (folder / "mine.toml").write_bytes(content)
    return load_config(folder / "mine.toml", TrainConfig)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    assert load_bytes(tmp_path, b"\xef\xbb\xbf" + MINE.encode()) == load_bytes(tmp_path, MINE.encode())


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_lines_may_end_as_another_system_ends_them(tmp_path, ending):
    assert load_bytes(tmp_path, MINE.replace("\n", ending).encode()) == load_bytes(tmp_path, MINE.encode())


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_another_eight_bit_encoding_is_named_with_its_line(tmp_path, encoding):
    with pytest.raises(ValueError, match=r"mine\.toml' is not saved as UTF-8") as caught:
        load_bytes(tmp_path, MINE.encode(encoding))
    _, why, remedy = str(caught.value).split("\n")
    assert why == "Line 7 holds, after 'author = \"M', the byte 0xfc, which is no UTF-8."
    assert "save it as UTF-8" in remedy


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_utf_16_is_named(tmp_path, encoding):
    with pytest.raises(ValueError, match=r"mine\.toml' is (saved as UTF-16|not a text file)(?s:.*)save it as UTF-8"):
        load_bytes(tmp_path, MINE.encode(encoding))


@pytest.mark.parametrize("path", [r"C:\Users\me", r"D:\models", r"C:\runs" + "\\"])
def test_a_windows_path_in_double_quotes_is_told_how_it_is_written(path):
    with pytest.raises(ValueError, match=r"Line 4 is adapter\.init") as caught:
        parse(f'adapter.init = "{path}"\n')
    assert "single quotes" in str(caught.value)
    assert "forward slashes" in str(caught.value)


def test_a_windows_path_that_is_read_as_a_tab_is_refused():
    with pytest.raises(ValueError, match=r"adapter\.init: got(?s:.*)single quotes"):
        parse('adapter.init = "C:\\new\\table"\n')
    assert str(parse("adapter.init = 'C:\\new\\table'\n").adapter.init) == r"C:\new\table"


def test_bytes_of_a_terminal_that_are_no_utf_8_are_refused():
    with pytest.raises(ValueError, match=r"--set adapter\.title: got(?s:.*)UTF-8"):
        parse("", "adapter.title=M\udcfcller")
