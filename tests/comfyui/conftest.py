# SPDX-License-Identifier: GPL-3.0-or-later
"""A real ComfyUI in this process, with a reduced random SD1.5 checkpoint in it: the studio that these tests share."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from support.infos import make_info
from support.random_file import random_checkpoint

FLAGS = ["--cpu", "--use-pytorch-cross-attention", "--disable-api-nodes"]


@pytest.fixture(scope="session")
def host(comfyui_path, random_models):
    """ComfyUI's own modules, imported once; `models` points at our random ones, never at the user's."""
    sys.path.insert(0, str(comfyui_path))
    argv, sys.argv = sys.argv, ["main.py", *FLAGS]
    folder = os.getcwd()  # noqa: PTH109
    try:
        os.chdir(comfyui_path)
        options = importlib.import_module("comfy.options")
        options.enable_args_parsing()
        importlib.import_module("comfy.sd")
        folder_paths = importlib.import_module("folder_paths")
        nodes = importlib.import_module("nodes")
    finally:
        os.chdir(folder)
        sys.argv = argv
    for kind in ("checkpoints", "controlnet", "loras"):
        folder_paths.add_model_folder_path(kind, str(random_models / kind), is_default=True)
    folder_paths.models_dir = str(random_models)
    yield SimpleNamespace(nodes=nodes, folder_paths=folder_paths)
    sys.path.remove(str(comfyui_path))


@pytest.fixture(scope="session")
def pack(host):
    """Our nodes by id, as ComfyUI registers them."""
    package = importlib.import_module("comfyui_anydressing.nodes")
    return {node.define_schema().node_id: node for node in asyncio.run(package.AnyDressingExtension().get_node_list())}


@pytest.fixture(scope="session")
def studio_with_file(host, pack):
    return Studio(host, pack)


@pytest.fixture(scope="session")
def studio(studio_with_file):
    return studio_with_file


@pytest.fixture(scope="session")
def studio_without_file(host, pack):
    """The same where everybody is dressed by reference."""
    return Studio(host, pack, file=False)


def random_info(unet, **changes):
    return make_info(unet, **{"slots": ("upper", "lower", "hat"), "resolution": (96, 64), **changes})


class Studio:
    """The reduced checkpoint, two prompts, three garments from one random file, and what artists do with them."""

    def __init__(self, host, pack, *, file=True):
        self.host, self.pack = host, pack
        loaded = host.nodes.CheckpointLoaderSimple().load_checkpoint("anydressing_random_sd15.safetensors")
        self.model, self.clip, self.vae = loaded
        self.steps = 1 if file else 2  # places are known from the second step on
        if not file:  # the smallest of our U-Nets has all that is tested here
            self.model = host.nodes.CheckpointLoaderSimple().load_checkpoint("anydressing_random_min.safetensors")[0]
        self.prompts = {name: self.encode(name) for name in ("positive", "negative", "other", "")}
        self.positive, self.negative = self.prompts["positive"], self.prompts["negative"]
        self.file = self.random_file() if file else self.no_file
        self.garments = [self.garment(slot) for slot in ("upper", "lower", "hat")]

    def encode(self, text):
        return self.host.nodes.CLIPTextEncode().encode(self.clip, text)[0]

    def random_file(self, name="random.safetensors", *, seed=0, **changes):
        """An AnyDressing value holding a random file for this very U-Net."""
        module = importlib.import_module("comfyui_anydressing.nodes.garment")
        return module.AnyDressing(name, self.random_checkpoint(seed=seed, **changes))

    @property
    def no_file(self):
        """An AnyDressing value of reference mode."""
        module = importlib.import_module("comfyui_anydressing.nodes.garment")
        return module.AnyDressing(module.TRAINING_FREE, None)

    def random_checkpoint(self, *, seed=0, **changes):
        unet = importlib.import_module("comfyui_anydressing.nodes.unet")
        shape = changes.pop("unet", None) or unet.unet_shape(self.model)
        return random_checkpoint(random_info(shape, **changes), seed=seed)

    def picture(self, seed=0, height=96, width=64):
        return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))

    def garment(self, slot="upper", *, seed=None, file=None, model=None, **inputs):
        picture = inputs.pop("image", None)
        if picture is None:
            picture = self.picture(seed if seed is not None else sum(map(ord, slot)))
        node = self.pack["AnyDressingGarmentEncode"]
        if (file or self.file).checkpoint is None:
            inputs = {"clip": self.clip, "size": "custom", "width": 64, "height": 96} | inputs
        return self.run(node, model or self.model, self.vae, file or self.file, picture, slot, **inputs)

    def settings(self, garment, **inputs):
        return self.run(self.pack["AnyDressingGarmentSettings"], garment, **inputs)

    def dress(self, model=None, garments=None, **inputs):
        worn = self.garments[:2] if garments is None else garments
        sockets = {f"garment_{index}": garment for index, garment in enumerate(worn)}
        return self.run(self.pack["AnyDressingApply"], model or self.model, garments=sockets, **inputs)

    def stock(self, module, name, *args, **kwargs):
        """Run one of ComfyUI's own extra nodes."""
        return self.run(getattr(importlib.import_module(f"comfy_extras.{module}"), name), *args, **kwargs)

    def deep_shrink(self, model):
        """Kohya's: the U-Net's inner layers see a smaller picture, for as long as it says; here always."""
        shrunk = {"block_number": 1, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 1.0}
        methods = {"downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic"}
        return self.stock("nodes_model_downscale", "PatchModelAddDownscale", model, **shrunk, **methods)

    @staticmethod
    def breaking(model, call):
        """A clone whose U-Net breaks off in this call."""

        def broken(apply_model, args):
            broken.calls += 1
            if broken.calls == call:
                raise InterruptedError
            return apply_model(args["input"], args["timestep"], **args["c"])

        broken.calls, clone = 0, model.clone()
        clone.set_model_unet_function_wrapper(broken)
        return clone

    @staticmethod
    @torch.inference_mode()
    def run(node, *args, **kwargs):
        """Execute a node, V3 or V1, as ComfyUI does; returns its first output."""
        if hasattr(node, "define_schema"):
            result = node.execute(*args, **kwargs)
            return result.args[0] if hasattr(result, "args") else result[0]
        return getattr(node(), node.FUNCTION)(*args, **kwargs)[0]

    @torch.inference_mode()
    def sample(self, model, *, positive=None, negative=None, latent=None, seed=3, **options):
        """KSampler, on a 12 x 8 latent unless told otherwise."""
        chosen = {"steps": self.steps, "cfg": 6.0, "sampler": "euler", "scheduler": "normal", "denoise": 1.0, **options}
        latent = {"samples": torch.zeros(1, 4, 12, 8)} if latent is None else latent
        out = self.host.nodes.common_ksampler(
            model,
            seed,
            chosen["steps"],
            chosen["cfg"],
            chosen["sampler"],
            chosen["scheduler"],
            positive or self.positive,
            negative or self.negative,
            latent,
            denoise=chosen["denoise"],
        )[0]["samples"]
        assert torch.isfinite(out).all()
        return out.clone()

    @torch.inference_mode()
    def guide(self, guider, *, steps=1, seed=3):
        """SamplerCustomAdvanced with a guider of any kind."""
        sample = importlib.import_module("comfy.sample")
        samplers = importlib.import_module("comfy.samplers")
        latent = torch.zeros(1, 4, 12, 8)
        sigmas = samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", steps)
        noise = sample.prepare_noise(latent, seed)
        sampler = samplers.sampler_object("euler")
        return guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=seed).clone()

    def first_step(self, model, run=None, **options):
        """What the U-Net says in the first step: a list of (prompt name, prediction), one for each row.

        A row's prompt is told from the text embedding that the U-Net is given, not from any bookkeeping.
        """
        recorder = Recorder({name: prompt[0][0] for name, prompt in self.prompts.items()})
        extension = importlib.import_module("comfy.patcher_extension")
        watched = model.clone()
        watched.add_wrapper_with_key(extension.WrappersMP.APPLY_MODEL, "test_recorder", recorder)
        if run is None:
            self.sample(watched, **{"steps": 1, **options})
        else:
            run(watched)
        return recorder.rows


class Recorder:
    def __init__(self, prompts):
        self.prompts, self.rows = prompts, []

    def __call__(self, executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        out = executor(x, t, c_concat, c_crossattn, *args, **kwargs)
        self.rows += [(self._name(text), row.clone()) for text, row in zip(c_crossattn, out, strict=True)]
        return out

    def _name(self, text):
        for name, prompt in self.prompts.items():
            if torch.allclose(text[: prompt.shape[1]].float().cpu(), prompt[0].float(), atol=1e-4):
                return name
        raise AssertionError("a row was given a text embedding that belongs to no prompt")
