# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's configuration: the paper's numbers by default, mistakes named in the user's words."""

from __future__ import annotations

import pytest
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.paper_doll.networks.config import PaperDollConfig
from comfyui_anydressing.training.run.config import load_config, parse_config, preset_names

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
        (
            'adapter.slots = ["upper", "upper"]\n',
            r"adapter: does not go together\..*Slots names a garment kind twice\.",
        ),
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


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"base: my\.toml does not say it"):
        parse_config('folder = "run"\ndata.manifest = "m"\n', "my.toml", TrainConfig)


@pytest.mark.parametrize("override", ["data.batch", "=3", ""])
def test_a_malformed_override_is_named(override):
    with pytest.raises(ValueError, match=r"(?s)--set: .*What to do"):
        parse("", override)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(
        ValueError, match="12gb, 24gb, paper-8xA100, paper-doll-ablation, paper-doll-cpu, paper-doll-gpu, smoke"
    ):
        parse_config(f'preset = "48gb"\n{LEAST}', "my.toml", TrainConfig)


def test_broken_toml_names_the_line():
    with pytest.raises(ValueError, match=r"(?s)not valid TOML.*line 4"):
        parse("data.batch =\n")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)nowhere\.toml.*What to do"):
        load_config(tmp_path / "nowhere.toml", TrainConfig)


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
