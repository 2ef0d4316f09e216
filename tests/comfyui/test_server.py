# SPDX-License-Identifier: GPL-3.0-or-later
"""The pack in the real server, over HTTP, on the pinned and on the oldest supported ComfyUI."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import re

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from dev import node_texts
from dev.comfyui import OLDEST, PINNED, find_or_fetch
from dev.export_workflows import STAND_INS
from dev.layouts import LAYOUTS, awake
from dev.prompts import RANDOM_MODELS, shipped
from dev.server import ComfyServer

pytestmark = pytest.mark.comfyui

CHECKPOINT, LOADER, UPPER_PICTURE, LOWER_PICTURE, UPPER, LOWER, APPLY = "1", "2", "3", "4", "5", "6", "7"
SAMPLER, SAVE = "11", "13"


@pytest.fixture(scope="module")
def running(tmp_path_factory, random_models, comfyui_path, root):
    """`running(release)` is that release's server, started once: pytest would start one anew for each list of releases."""
    with contextlib.ExitStack() as servers:

        @functools.cache
        def running(release):
            comfyui = comfyui_path if release == PINNED else find_or_fetch(release)
            flags = ["--use-pytorch-cross-attention", "--preview-method", "none"]
            base = tmp_path_factory.mktemp("base")
            server = servers.enter_context(
                ComfyServer(comfyui, base, models=random_models, packs=STAND_INS, flags=flags)
            )
            server.upload_image(comfyui / "input" / "example.png")  # which every ComfyUI has
            for name in ("upper_breton", "lower_denim", "hat_straw", "upper_logo_tee"):
                server.upload_image(root / "workflows" / "garments" / f"{name}.png")
            return server

        yield running


@pytest.fixture(scope="module", params=[PINNED, OLDEST], ids=["0.30.0", "0.16.3"])
def server(request, running):
    return running(request.param)


@pytest.fixture(scope="module")
def own_checkpoint():
    """The artist's first workflow, on our random checkpoint."""
    prompt = shipped("11_own_checkpoint")
    prompt[CHECKPOINT]["inputs"]["ckpt_name"] = "anydressing_random_sd15.safetensors"
    return prompt


@pytest.fixture
def graph(own_checkpoint):
    """The shipped workflow, smaller: two steps of 64 x 96 pixels."""
    graph = copy.deepcopy(own_checkpoint)
    for node, picture in ((UPPER_PICTURE, "upper_breton.png"), (LOWER_PICTURE, "lower_denim.png")):
        graph[node] = {"class_type": "LoadImage", "inputs": {"image": picture}}  # an artist's own, in their place
    for node in (UPPER, LOWER):
        graph[node]["inputs"].update(size="custom", width=64, height=96)
    graph["10"]["inputs"].update(width=64, height=96)
    graph[SAMPLER]["inputs"].update(steps=2, sampler_name="euler", scheduler="normal")
    return graph


def pixels(result, node=SAVE):
    return np.array(Image.open(io.BytesIO(result.check().images[node][0])))


def undressed(graph):
    """The same workflow without our nodes."""
    plain = {key: node for key, node in graph.items() if not node["class_type"].startswith("AnyDressing")}
    plain[SAMPLER]["inputs"]["model"] = [CHECKPOINT, 0]
    return plain


def encodes(result, graph):
    """How many garments were encoded by this run."""
    return sum(graph[node]["class_type"] == "AnyDressingGarmentEncode" for node in result.executed)


def with_third_garment(graph):
    graph["20"] = {"class_type": "LoadImage", "inputs": {"image": "hat_straw.png"}}
    graph["21"] = copy.deepcopy(graph[UPPER])
    graph["21"]["inputs"].update(image=["20", 0], slot="hat")
    graph[APPLY]["inputs"]["garments.garment_2"] = ["21", 0]
    return graph


def test_the_pack_has_loaded(server):
    """`--quick-test-for-ci` exits 0 even when a pack fails; only the log and the node list tell."""
    assert server.log_problems() == []
    assert "ComfyUI-AnyDressing" in server.log_text()


PROMISES = {
    "AnyDressingLoader": (["file"], ["ANYDRESSING"]),
    "AnyDressingGarmentEncode": (
        [
            "model",
            "vae",
            "anydressing",
            "image",
            "slot",
            "size",
            "width",
            "height",
            "garment_tokens",
            "keep_loras",
            "mask",
            "invert_mask",
            "clip",
            "words",
            "reference",
            "garment_model",
        ],
        ["ANYDRESSING_GARMENT"],
    ),
    "AnyDressingPrepareGarment": (["image", "width", "height", "mask", "invert_mask"], ["IMAGE", "MASK"]),
    "AnyDressingGarmentSettings": (
        ["garment", "weight", "start_percent", "end_percent", "region"],
        ["ANYDRESSING_GARMENT"],
    ),
    "AnyDressingSaveGarment": (["garment", "filename_prefix", "licence"], []),
    "AnyDressingLoadGarment": (
        ["garment", "model", "anydressing", "read_again", "vae", "clip"],
        ["ANYDRESSING_GARMENT", "IMAGE"],
    ),
    "AnyDressingApply": (
        ["model", "garments", "strength", "start_percent", "end_percent", "only_where_worn"],
        ["MODEL"],
    ),
    "AnyDressingAttentionMaps": (["model", "positive", "samples", "image"], ["IMAGE", "MASK", "FLOAT"]),
    "AnyDressingDemoCheckpoint": ([], ["MODEL", "CLIP", "VAE"]),
    "AnyDressingExampleGarment": (["garment"], ["IMAGE"]),
}
"""Node ids, input names in their order, output types: for ever."""


def test_node_ids_inputs_and_outputs_are_what_was_promised(server):
    offered = {name: info for name, info in server.object_info().items() if info["category"].startswith("AnyDressing")}
    assert set(offered) == set(PROMISES)
    for name, (inputs, outputs) in PROMISES.items():
        found = [entry for group in ("required", "optional") for entry in offered[name]["input_order"].get(group, [])]
        assert (found, offered[name]["output"]) == (inputs, outputs), name


def test_every_input_and_output_has_a_tooltip(server):
    for name in PROMISES:
        info = server.object_info()[name]
        for group in (info["input"].get("required", {}), info["input"].get("optional", {})):
            for entry, (_, options) in group.items():
                assert options.get("tooltip"), f"{name}.{entry}"
        assert all(info["output_tooltips"]), name
        assert info["description"], name


def test_templates_are_listed_and_served(server, root):
    """An API file in that folder would be offered as a broken template."""
    names = sorted(path.stem for path in (root / "workflows").glob("*.json"))
    listed = requests.get(f"{server.url}/workflow_templates", timeout=30).json()
    assert {pack: sorted(templates) for pack, templates in listed.items()} == {"ComfyUI-AnyDressing": names}
    for name in names:
        served = requests.get(f"{server.url}/api/workflow_templates/ComfyUI-AnyDressing/{name}.json", timeout=30)
        assert served.json()["nodes"]


def test_the_shipped_workflow_writes_a_dressed_picture(server, graph):
    dressed, plain = pixels(server.run(graph)), pixels(server.run(undressed(copy.deepcopy(graph))))
    assert dressed.shape == (96, 64, 3)
    assert dressed.std() > 1
    assert not np.array_equal(dressed, plain)
    assert "AnyDressing: 64 x 96, " in server.log_text()


def test_the_garments_are_shown_as_the_network_sees_them(server, graph):
    graph[UPPER]["inputs"]["width"] = 72  # not cached from another test
    result = server.run(graph).check()
    assert Image.open(io.BytesIO(result.images[UPPER][0])).size == (72, 96)


SMALL = RANDOM_MODELS | {
    "KSampler": {"steps": 1},
    "EmptyLatentImage": {"width": 96, "height": 128},
    "AnyDressingGarmentEncode": {"size": "custom", "width": 96, "height": 128},
}


def small(name):
    """A shipped workflow on what is here, in one step of a small picture."""
    prompt = awake(shipped(name), LAYOUTS[name])
    for node in prompt.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
    return prompt


def of_kind(prompt, kind):
    return [key for key, node in prompt.items() if node["class_type"] == kind]


def bypassed(prompt):
    """The same with AnyDressing Apply bypassed: whoever had its MODEL has the one that it was given."""
    prompt = copy.deepcopy(prompt)
    for apply in of_kind(prompt, "AnyDressingApply"):
        model = prompt.pop(apply)["inputs"]["model"]
        for node in prompt.values():
            node["inputs"] |= {name: model for name, value in node["inputs"].items() if value == [apply, 0]}
    return prompt


def picture_of(result, prompt):
    return pixels(result, of_kind(prompt, "SaveImage")[0])


def test_these_are_all_shipped_workflows(root):
    assert sorted(path.stem for path in (root / "workflows" / "api").glob("*.json")) == sorted(LAYOUTS)
    assert sorted(path.stem for path in (root / "workflows").glob("*.json")) == sorted(
        one.name for one in LAYOUTS.values()
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_node_of_a_workflow_is_there_with_its_inputs(server, name):
    known = server.object_info()
    for node in shipped(name).values():
        inputs = known[node["class_type"]]["input"]
        offered = {**inputs.get("required", {}), **inputs.get("optional", {})}
        assert {key.split(".")[0] for key in node["inputs"]} <= set(offered), node["class_type"]


@pytest.mark.parametrize(
    ("server", "name"),
    [*((PINNED, name) for name in LAYOUTS), (OLDEST, next(iter(LAYOUTS)))],
    indirect=["server"],
    ids=str,
)
def test_strength_zero_is_the_plain_picture_in_every_shipped_workflow(server, name):
    dressed = small(name)
    off = copy.deepcopy(dressed)
    for apply in of_kind(off, "AnyDressingApply"):
        off[apply]["inputs"]["strength"] = 0.0
    plain, undressed = picture_of(server.run(bypassed(dressed)), dressed), picture_of(server.run(off), dressed)
    assert np.array_equal(undressed, plain)
    assert not np.array_equal(picture_of(server.run(dressed), dressed), plain)


def test_a_muted_first_garment_leaves_the_others(server, graph):
    alone = copy.deepcopy(graph)
    del alone[APPLY]["inputs"]["garments.garment_1"]
    alone[APPLY]["inputs"]["garments.garment_0"] = [LOWER, 0]
    muted = copy.deepcopy(graph)
    del muted[UPPER], muted[APPLY]["inputs"]["garments.garment_0"]
    assert np.array_equal(pixels(server.run(muted)), pixels(server.run(alone)))


def test_all_garments_muted_is_said_in_our_own_words(server, graph):
    for socket in ("garments.garment_0", "garments.garment_1"):
        del graph[APPLY]["inputs"][socket]
    result = server.run(graph)
    assert result.status == "error", result
    assert result.error.message.startswith("garments: no garment is connected.")


CONSTANTS = ["text", 5, [1, 2, 3]]


@pytest.mark.parametrize("server", [PINNED], indirect=True, ids=["0.30.0"])
@pytest.mark.parametrize("value", CONSTANTS, ids=repr)
def test_a_constant_in_place_of_a_wire_is_refused_in_plain_words(server, graph, value):
    """Over the API anything may come where a wire belongs; ComfyUI checks only some of it."""
    wires = {"MODEL", "VAE", "IMAGE", "MASK", "CONDITIONING", "LATENT", "ANYDRESSING", "ANYDRESSING_GARMENT"}
    graph["30"] = {"class_type": "AnyDressingGarmentSettings", "inputs": {"garment": [UPPER, 0]}}
    graph["30"]["inputs"].update(weight=1.0, start_percent=0.0, end_percent=1.0)
    graph[APPLY]["inputs"]["garments.garment_0"] = ["30", 0]
    graph["31"] = {"class_type": "AnyDressingAttentionMaps", "inputs": {"model": [APPLY, 0]}}
    graph["31"]["inputs"].update(positive=graph[SAMPLER]["inputs"]["positive"], samples=[SAMPLER, 0], image=["12", 0])
    server.run(graph).check()
    tried = 0
    for key, node in graph.items():
        if not node["class_type"].startswith("AnyDressing"):
            continue
        groups = server.object_info()[node["class_type"]]["input"]
        declared = {
            name: entry[0] for group in ("required", "optional") for name, entry in groups.get(group, {}).items()
        }
        wired = [name for name in declared if declared[name] in wires]
        wired += ["garments.garment_0"] if node["class_type"] == "AnyDressingApply" else []
        for name in wired:
            wrong = copy.deepcopy(graph)
            wrong[key]["inputs"][name] = value
            result = server.run(wrong)
            tried += 1
            if result.status == "error":
                assert result.error.message.startswith(f"{name}: "), (node["class_type"], name, result.error)
                assert "What to do: " in result.error.message
            else:  # ComfyUI refused the prompt itself, or left this node out of it
                assert key not in result.executed, (node["class_type"], name, value)
    assert tried == 20


@pytest.mark.holds("a dressed and an undressed sampler in one graph")
def test_a_dressed_and_an_undressed_sampler_in_one_graph(server, graph):
    plain = pixels(server.run(undressed(copy.deepcopy(graph))))
    both = copy.deepcopy(graph)
    for old, new in ((SAMPLER, "31"), ("12", "32"), (SAVE, "33")):
        both[new] = copy.deepcopy(graph[old])
    both["31"]["inputs"]["model"] = [CHECKPOINT, 0]
    both["32"]["inputs"]["samples"], both["33"]["inputs"]["images"] = ["31", 0], ["32", 0]
    result = server.run(both)
    assert np.array_equal(pixels(result, "33"), plain)
    assert not np.array_equal(pixels(result), plain)


def test_changing_one_garment_of_three_encodes_one(server, graph):
    graph = with_third_garment(graph)
    server.run(graph).check()
    graph["20"]["inputs"]["image"] = "upper_logo_tee.png"
    assert encodes(server.run(graph).check(), graph) == 1


def test_removing_a_garment_encodes_none(server, graph):
    three = with_third_garment(copy.deepcopy(graph))
    server.run(three).check()
    del three[APPLY]["inputs"]["garments.garment_2"]
    assert encodes(server.run(three).check(), three) == 0


@pytest.mark.parametrize(
    "change",
    [
        (APPLY, "strength", 0.5),
        (APPLY, "end_percent", 0.8),
        ("40", "weight", 0.5),
        ("40", "start_percent", 0.1),
        (SAMPLER, "seed", 7),
    ],
    ids=lambda change: change[1],
)
def test_changing_settings_encodes_none(server, graph, change):
    graph["40"] = {
        "class_type": "AnyDressingGarmentSettings",
        "inputs": {"garment": [UPPER, 0], "weight": 1.0, "start_percent": 0.0, "end_percent": 1.0},
    }
    graph[APPLY]["inputs"]["garments.garment_0"] = ["40", 0]
    before = pixels(server.run(graph))
    node, name, value = change
    graph[node]["inputs"][name] = value
    result = server.run(graph)
    assert encodes(result, graph) == 0
    assert not np.array_equal(before, pixels(result))


@pytest.mark.holds("A, then B, then A again")
def test_a_b_a_gives_a_again_also_after_everything_was_freed(server, graph):
    first = pixels(server.run(graph))
    other = copy.deepcopy(graph)
    other[UPPER_PICTURE]["inputs"]["image"] = "upper_logo_tee.png"
    assert not np.array_equal(first, pixels(server.run(other)))
    server.free()
    graph[SAVE]["inputs"]["filename_prefix"] = "again"
    assert np.array_equal(first, pixels(server.run(graph)))


@pytest.mark.holds("downstream clones")
def test_twenty_downstream_clones_add_no_memory(server, graph):
    """Each FreeU node clones the MODEL. What is kept of two garments of 128 x 192 weighs some 20 MB, twenty copies 400 MB."""
    for node in (UPPER, LOWER):
        graph[node]["inputs"].update(width=128, height=192, garment_tokens="all")
    server.run(graph).check()
    before = psutil.Process(server.pid).memory_info().rss
    previous = APPLY
    for index in range(20):
        node = str(50 + index)
        inputs = {"model": [previous, 0], "b1": 1.0, "b2": 1.0, "s1": 1.0, "s2": 1.0}
        graph[node] = {"class_type": "FreeU", "inputs": inputs}
        previous = node
    graph[SAMPLER]["inputs"]["model"] = [previous, 0]
    server.run(graph).check()
    assert psutil.Process(server.pid).memory_info().rss - before < 100e6


def test_errors_reach_the_artist_as_plain_words(server, graph):
    graph[APPLY]["inputs"]["strength"] = float("nan")
    error = server.run(graph).error
    assert (error.node_id, error.exception_type) == (APPLY, "ValueError")
    assert error.message.startswith("strength: must be a number from 0 to 2, got nan.")


def test_a_ninth_garment_is_refused(server, graph):
    for index in range(9):
        graph[APPLY]["inputs"][f"garments.garment_{index}"] = [UPPER, 0]
    error = server.run(graph).error
    assert "at most 8" in error.message


def test_nested_garments_do_not_vanish_silently(server, graph):
    """ComfyUI takes this shape and hands over no garment at all."""
    inputs = graph[APPLY]["inputs"]
    inputs["garments"] = {"garment_0": inputs.pop("garments.garment_0"), "garment_1": inputs.pop("garments.garment_1")}
    result = server.run(graph)
    assert result.status in ("error", "rejected")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "no such file.safetensors"])
def test_a_file_outside_the_list_is_refused_before_it_is_opened(server, graph, name):
    graph[LOADER]["inputs"]["file"] = name
    result = server.run(graph)
    assert result.status == "rejected"
    assert "value_not_in_list" in json.dumps(result.rejection)


def test_cancelling_stops_and_the_next_run_is_whole(server, graph):
    want = pixels(server.run(graph))
    long = copy.deepcopy(graph)
    long[SAMPLER]["inputs"].update(steps=500, seed=99)

    def cancel(event):
        if event["type"] == "progress" and event["data"]["node"] == SAMPLER:
            server.interrupt()

    result = server.run(long, follow=cancel)
    assert result.status == "interrupted"
    assert result.seconds < 60
    graph[SAVE]["inputs"]["filename_prefix"] = "after_cancel"
    assert np.array_equal(pixels(server.run(graph)), want)


def test_nothing_in_the_log_speaks_of_leaks_or_failed_imports(server):
    assert "memory leak" not in server.log_text()
    assert "IMPORT FAILED" not in server.log_text()


def test_a_garment_of_the_wardrobe_is_worn_to_the_bit_and_shown_before(server, graph):
    """Saved by one run, taken by the next: on a server's own output folder, as an artist would."""
    kept = copy.deepcopy(graph)
    kept["50"] = {"class_type": "AnyDressingSaveGarment", "inputs": {"garment": [UPPER, 0], "filename_prefix": "shirt"}}
    before = pixels(server.run(kept))
    names = server.object_info()["AnyDressingLoadGarment"]["input"]["required"]["garment"][1]["options"]
    assert names == ["shirt_00001_.safetensors"]
    graph[UPPER] = {
        "class_type": "AnyDressingLoadGarment",
        "inputs": {"garment": names[0], "model": [CHECKPOINT, 0], "anydressing": [LOADER, 0]},
    }
    result = server.run(graph)
    assert np.array_equal(pixels(result), before)
    shown = requests.get(f"{server.url}/anydressing/wardrobe/{names[0]}", timeout=10)
    assert Image.open(io.BytesIO(shown.content)).size == (64, 96)
    for name in ("gone.safetensors", "..%2F..%2Fmodels%2Fsecret.safetensors"):
        assert requests.get(f"{server.url}/anydressing/wardrobe/{name}", timeout=10).status_code == 404


@pytest.mark.parametrize("server", [PINNED], indirect=True, ids=["0.30.0"])
def test_every_language_says_all_that_the_nodes_say(server):
    """English is what the nodes say; the others have an entry for each of its entries."""
    texts = node_texts.texts_of(server.object_info())
    assert set(texts) == set(PROMISES)
    assert node_texts.texts_in("en") == texts, "run: python -m dev.node_texts"
    for language in node_texts.LANGUAGES:
        translated = node_texts.texts_in(language)
        english, there = flat(texts), flat(translated)
        assert there.keys() == english.keys()
        same = [key for key, text in there.items() if not text.strip() or (text == english[key] and " " in text)]
        assert same == [], language


def flat(texts, path=()):
    """Nested texts as one mapping from path to text."""
    if isinstance(texts, str):
        return {path: texts}
    return {key: text for name, inner in texts.items() for key, text in flat(inner, (*path, name)).items()}


@pytest.mark.parametrize("language", ["en", *node_texts.LANGUAGES])
@pytest.mark.parametrize("node", PROMISES)
def test_every_node_has_a_help_page(node, language, root):
    page = node_texts.page_of(node, language).read_text(encoding="utf-8")
    texts = node_texts.texts_in(language)[node]
    assert page == node_texts.with_table(page, texts), "run: python -m dev.node_texts"
    assert page.startswith(f"# {texts['display_name']}\n")
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert (root / "web" / "docs" / picture).is_file()


@pytest.mark.parametrize("server", [PINNED], indirect=True, ids=["0.30.0"])
def test_the_server_gives_pages_pictures_and_languages(server):
    pack = "ComfyUI-AnyDressing"
    for path in ("AnyDressingApply.md", "AnyDressingApply/zh.md", "pictures/apply.jpg"):
        assert requests.get(f"{server.url}/extensions/{pack}/docs/{path}", timeout=10).ok, path
    offered = requests.get(f"{server.url}/i18n", timeout=10).json()
    for language in ("en", *node_texts.LANGUAGES):
        assert offered[language]["nodeDefs"].items() >= node_texts.texts_in(language).items()
