# SPDX-License-Identifier: GPL-3.0-or-later
"""What our nodes say when they cannot go on: which input, why, and what to do."""

from __future__ import annotations

import importlib
import math
import re

import pytest
import torch

pytestmark = pytest.mark.comfyui


def refused(run, *args, **kwargs):
    """Run a node that must refuse; returns its three lines."""
    with pytest.raises(ValueError, match="What to do: ") as caught:
        run(*args, **kwargs)
    assert type(caught.value) is ValueError  # ComfyUI prints any other class with our file path
    what, why, do = str(caught.value).split("\n")
    assert re.match(r"[a-z_, ]+: ", what), "the first line starts with the input's name"
    assert why
    assert do.startswith("What to do: ")
    return what, why, do


@pytest.fixture
def folder(studio, tmp_path, monkeypatch):
    """An empty models/anydressing."""
    paths = studio.host.folder_paths.folder_names_and_paths
    monkeypatch.setitem(paths, "anydressing", ([str(tmp_path)], {".safetensors"}))
    studio.host.folder_paths.filename_list_cache.clear()
    yield tmp_path
    studio.host.folder_paths.filename_list_cache.clear()


def test_a_file_that_is_gone(studio, folder):
    what, why, do = refused(studio.run, studio.pack["AnyDressingLoader"], "gone.safetensors")
    assert what == "file: 'gone.safetensors' is not in models/anydressing."
    assert str(folder) in why
    assert "training-free" in do


def test_a_broken_file_is_named(studio, folder):
    (folder / "half.safetensors").write_bytes(b"\x01\x02")
    what, _, _ = refused(studio.run, studio.pack["AnyDressingLoader"], "half.safetensors")
    assert what.startswith("file: 'half.safetensors' ")


def test_without_any_file_training_free_is_offered(studio, folder):
    options = studio.pack["AnyDressingLoader"].INPUT_TYPES()["required"]["file"][1]["options"]
    assert options == ["training-free (no file)"]
    assert studio.run(studio.pack["AnyDressingLoader"], options[0]).checkpoint is None


def sdxl_shaped(studio):
    """A MODEL with SDXL's marks: two transformer blocks, a 2048 wide context, a size embedding."""
    sd = importlib.import_module("comfy.supported_models")
    management = importlib.import_module("comfy.model_management")
    patcher = importlib.import_module("comfy.model_patcher")
    config = {
        **dict(studio.model.model.model_config.unet_config),
        "model_channels": 32,
        "context_dim": 2048,
        "transformer_depth": [0, 2],
        "transformer_depth_output": [0, 0, 2, 2],
        "transformer_depth_middle": 2,
        "use_linear_in_transformer": True,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
        "dtype": torch.float32,
    }
    kind = sd.SDXL({**config})
    kind.unet_config = config
    model = kind.get_model({}, "", device="cpu")
    return patcher.ModelPatcher(model, management.get_torch_device(), torch.device("cpu"))


@pytest.mark.parametrize("with_file", [True, False], ids=["file", "training-free"])
def test_another_base_model_is_named(studio, with_file):
    module = importlib.import_module("comfyui_anydressing.nodes.garment")
    file = studio.file if with_file else module.AnyDressing(module.TRAINING_FREE, None)
    what, _, do = refused(studio.garment, "upper", model=sdxl_shaped(studio), file=file)
    assert what.startswith("model: ")
    assert "Stable Diffusion 1.5" in what
    assert "SDXL" in what
    assert "connect an SD1.5 checkpoint" in do


def test_a_file_for_another_width_is_named_with_both_shapes(studio):
    sites = importlib.import_module("comfyui_anydressing.anydressing_core.sites")
    garment = importlib.import_module("comfyui_anydressing.nodes.garment")
    checkpoint = studio.random_checkpoint(unet=sites.UNetShape((16, 32), (1, 1), (True, True), True, 8, 768))
    file = garment.AnyDressing("narrow.safetensors", checkpoint)
    what, _, _ = refused(studio.garment, "upper", file=file)
    assert "'narrow.safetensors' was trained for" in what
    assert "16-32" in what
    assert "320-320" in what


def test_apply_refuses_another_model_too(studio):
    what, _, _ = refused(studio.dress, sdxl_shaped(studio))
    assert what.startswith("model: ")


def test_a_garment_of_another_u_net_is_named_with_both_shapes(studio):
    sites = importlib.import_module("comfyui_anydressing.anydressing_core.sites")
    narrow = studio.garments[0]._replace(unet=sites.UNetShape((16, 32), (1, 1), (True, True), True, 8, 768))
    what, _, do = refused(studio.dress, garments=[narrow])
    assert "the 'upper' garment was encoded with" in what
    assert "same checkpoint" in do


def test_a_mask_of_another_shape_than_the_picture(studio):
    mask = torch.ones(1, 64, 640)
    mask[:, :, :100] = 0
    what, _, _ = refused(studio.garment, "upper", mask=mask)
    assert what == "mask: it is 640 x 64, the garment picture 64 x 96."


def test_a_picture_without_foreground(studio):
    what, _, do = refused(studio.garment, "upper", image=torch.full((1, 96, 64, 3), 0.6), garment_tokens="foreground")
    assert what == "image: no garment can be told from the ground."
    assert "connect a mask" in do


@pytest.mark.parametrize("budget", ["all", "foreground"])
def test_a_white_picture(studio, budget):
    what, _, do = refused(studio.garment, "upper", image=torch.ones(1, 96, 64, 3), garment_tokens=budget)
    assert what == "image: it is white all over."
    assert "another picture" in do


@pytest.mark.parametrize("inputs", [{"strength": 0.0}, {"start_percent": 0.8, "end_percent": 0.2}], ids=str)
def test_dressing_nothing_is_said_in_the_log(studio, caplog, inputs):
    caplog.set_level("INFO")
    studio.dress(**inputs)
    assert any("nothing is worn" in message for message in caplog.messages)


def test_an_untrained_slot_names_the_trained_ones(studio):
    what, why, do = refused(studio.garment, "shoes")
    assert what == "slot: 'random.safetensors' does not know the garment kind 'shoes'."
    assert why == "It was trained for: upper, lower, hat."
    assert "choose one of upper, lower, hat" in do


def test_an_animated_picture_names_its_frames(studio):
    what, _, do = refused(studio.garment, "upper", image=torch.rand(6, 96, 64, 3))
    assert what == "image: the garment picture has 6 frames, expected one."
    assert "ImageFromBatch" in do


def test_a_picture_of_one_pixel(studio):
    what, _, _ = refused(studio.garment, "upper", image=torch.rand(1, 1, 1, 3))
    assert what == "image: the garment picture is 1 x 1 pixels."


@pytest.mark.parametrize(
    "image", ["a string", torch.rand(96, 64, 3), torch.rand(1, 96, 64, 1)], ids=["str", "3d", "grey"]
)
def test_what_is_no_picture(studio, image):
    what, _, _ = refused(studio.garment, "upper", image=image)
    assert what.startswith("image: expected a picture, got ")


def test_a_picture_with_nan(studio):
    what, _, _ = refused(studio.garment, "upper", image=torch.full((1, 96, 64, 3), math.nan))
    assert "NaN" in what


@pytest.mark.parametrize("mask", ["a string", torch.full((1, 96, 64), math.nan)], ids=["str", "nan"])
def test_what_is_no_mask(studio, mask):
    assert refused(studio.garment, "upper", mask=mask)[0].startswith("mask: expected a MASK")


def test_a_batch_of_masks(studio):
    assert refused(studio.garment, "upper", mask=torch.ones(2, 96, 64))[0].startswith("mask: the mask has 2 frames")


def test_an_empty_garment_mask_counts_as_none(studio):
    """LoadImage gives 64 x 64 zeros for a picture without alpha."""
    without, empty = studio.garment("upper"), studio.garment("upper", mask=torch.zeros(1, 64, 64))
    assert without.content == empty.content


def test_an_empty_region(studio):
    what, _, do = refused(studio.settings, studio.garments[0], region=torch.zeros(1, 96, 64))
    assert what.startswith("region: the mask is empty")
    assert "disconnect" in do


def test_a_custom_size_off_the_grid(studio):
    what, _, _ = refused(studio.garment, "upper", size="custom", width=100, height=96)
    assert what == "width, height: 100 x 96 is not a multiple of 8."


BAD_NUMBERS = [math.nan, math.inf, -0.1, 99.0, "0.7", None, True]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["strength", "start_percent", "end_percent"])
def test_numbers_that_are_none_or_out_of_range(studio, name, value):
    what, _, _ = refused(studio.dress, **{name: value})
    assert what == f"{name}: must be a number from 0 to {2 if name == 'strength' else 1}, got {value!r}."


@pytest.mark.parametrize("name", ["weight", "start_percent", "end_percent"])
def test_garment_settings_check_their_numbers(studio, name):
    assert refused(studio.settings, studio.garments[0], **{name: math.nan})[0].startswith(f"{name}: must be a number")


@pytest.mark.parametrize("garments", [None, {}, {"garment_0": None}], ids=["absent", "empty", "unconnected"])
def test_no_garment(studio, garments):
    what, _, do = refused(studio.run, studio.pack["AnyDressingApply"], studio.model, garments=garments)
    assert what == "garments: no garment is connected."
    assert "Ctrl+B" in do


def test_a_ninth_garment(studio):
    sockets = {f"garment_{index}": studio.garments[0] for index in range(8)}
    extra = {"garments.garment_8": studio.garments[0]}
    what, why, _ = refused(studio.run, studio.pack["AnyDressingApply"], studio.model, garments=sockets, **extra)
    assert "'garments.garment_8'" in what
    assert "at most 8" in why


def test_garments_of_two_files(studio):
    other = studio.random_file("other.safetensors", seed=1)
    what, _, do = refused(studio.dress, garments=[studio.garments[0], studio.garment("lower", file=other)])
    assert "other.safetensors, random.safetensors" in what
    assert "one AnyDressing Apply for each file" in do


def test_the_same_file_under_two_names_is_one_file(studio):
    studio.dress(garments=[studio.garments[0], studio.garment("lower", file=studio.random_file("copy.safetensors"))])


def test_a_vae_of_another_kind(studio):
    class WideVae:
        def encode(self, image):
            return torch.zeros(1, 16, 12, 8)

    node = studio.pack["AnyDressingGarmentEncode"]
    what, _, do = refused(studio.run, node, studio.model, WideVae(), studio.file, studio.picture(), "upper")
    assert what.startswith("vae: the latent has the shape (1, 16, 12, 8)")
    assert "SD1.5" in do


def test_a_vae_that_makes_no_numbers(studio):
    class Overflowing:
        def encode(self, image):
            return torch.full((1, 4, 12, 8), math.nan)

    node = studio.pack["AnyDressingGarmentEncode"]
    what, _, do = refused(studio.run, node, studio.model, Overflowing(), studio.file, studio.picture(), "upper")
    assert what == "vae: it makes NaN or infinity of the garment's picture."
    assert "--fp32-vae" in do


def test_a_garment_that_becomes_no_numbers(studio):
    module = importlib.import_module("comfyui_anydressing.nodes.garment")
    checkpoint = studio.random_checkpoint()
    tensors = {name: 1e30 * tensor if "up.weight" in name else tensor for name, tensor in checkpoint.tensors.items()}
    strong = module.AnyDressing("strong.safetensors", type(checkpoint)(checkpoint.info, tensors))
    what, why, _ = refused(studio.garment, "upper", file=strong)
    assert what == "model: reading the garment gave NaN or infinity."
    assert "too strong" in why


def test_out_of_memory_passes_through_untouched(studio, monkeypatch):
    """ComfyUI knows it by its type: it unloads all models and tells the artist."""
    garments_net = importlib.import_module("comfyui_anydressing.nodes.garments_net")

    def fail(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("no memory left")

    monkeypatch.setattr(garments_net, "own_attention", fail)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="no memory left"):
        studio.garment("upper")


def test_an_interrupt_stops_between_the_vae_and_the_pass(studio):
    management = importlib.import_module("comfy.model_management")
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        studio.garment("upper")
    assert not management.processing_interrupted()


def test_sampling_goes_on_after_an_error(studio):
    before = studio.sample(studio.dress())
    refused(studio.garment, "shoes")
    assert torch.equal(before, studio.sample(studio.dress()))
