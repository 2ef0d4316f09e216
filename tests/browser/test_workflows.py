# SPDX-License-Identifier: GPL-3.0-or-later
"""Every shipped workflow in the real frontend: it opens clean, is the twin of its prompt, and runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dev import node_texts
from dev.frontend import ChromiumMissingError, Frontend, find_chromium
from dev.server import ComfyServer

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
ARTISTS_CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def chromium(require):
    try:
        find_chromium()
    except ChromiumMissingError as error:
        require(False, str(error))


@pytest.fixture(scope="module")
def server(comfyui_path, random_models, tmp_path_factory):
    """A server on which the artist's checkpoint stands too: our random one under its name."""
    base = tmp_path_factory.mktemp("base")
    checkpoints = base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    random = random_models / "checkpoints" / "anydressing_random_sd15.safetensors"
    (checkpoints / ARTISTS_CHECKPOINT).symlink_to(random)
    flags = ["--use-pytorch-cross-attention"]
    with ComfyServer(comfyui_path, base, models=random_models, flags=flags) as server:
        for picture in (WORKFLOWS / "garments").glob("*.png"):
            server.upload_image(picture)
        yield server
        assert server.log_problems() == []


@pytest.fixture(scope="module")
def frontend(chromium, server):
    with Frontend(server) as page:
        yield page


def test_every_prompt_has_its_workflow_and_the_other_way_round():
    assert NAMES
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_clean(frontend, name):
    opened = frontend.open(read(WORKFLOWS / f"{name}.json"))
    assert opened.is_clean, opened
    assert frontend.page_errors == []


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_and_its_prompt_are_twins(frontend, name):
    assert frontend.ui_to_api(read(WORKFLOWS / f"{name}.json")) == read(WORKFLOWS / "api" / f"{name}.json")


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_opens_as_its_twin(frontend, name):
    """The other direction: what the frontend makes of the prompt sends that prompt again."""
    api = read(WORKFLOWS / "api" / f"{name}.json")
    assert frontend.ui_to_api(frontend.api_to_ui(api, name)) == api


@pytest.mark.parametrize("name", NAMES)
def test_every_node_says_which_pack_it_is_from(name):
    for node in read(WORKFLOWS / f"{name}.json")["nodes"]:
        ours = node["type"].startswith("AnyDressing")
        assert node["properties"]["cnr_id"] == ("anydressing" if ours else "comfy-core")


LEGIBLE = 0.6
"""Below .57 classic nodes show no words at all."""

OVERLAPS = """() => {
    const boxes = app.graph._nodes.map(n => [n.title, ...n.getBounding()])
    const meet = (a, b) => a[1] < b[1] + b[3] && b[1] < a[1] + a[3] && a[2] < b[2] + b[4] && b[2] < a[2] + a[4]
    return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => meet(a, b)).map(b => `${a[0]} | ${b[0]}`))
}"""


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_can_be_read_when_it_opens(frontend, name):
    """On a screen of 1600 x 900, in classic nodes: words at the zoom at which it opens, nothing on top of another."""
    before = frontend.page.viewport_size
    frontend.page.set_viewport_size({"width": 1600, "height": 900})
    frontend.open(read(WORKFLOWS / f"{name}.json"))
    frontend.page.wait_for_function("scale => app.canvas.ds.scale >= scale", arg=LEGIBLE, timeout=10_000)
    assert frontend.page.evaluate(OVERLAPS) == []
    titles = frontend.page.evaluate("app.graph._nodes.map(n => n.title)")
    assert len(set(titles)) == len(titles), "every title says what its node holds"
    frontend.page.set_viewport_size(before)


UNFOLD = "() => app.graph._nodes.filter(n => n.flags.collapsed).forEach(n => n.collapse())"


@pytest.mark.parametrize("name", [name for name in NAMES if name < "10"])
def test_a_paper_doll_workflow_runs_and_shows_its_picture(frontend, name):
    """The first as it is; the others, which differ in their nodes alone, in six steps."""
    workflow, prompt = read(WORKFLOWS / f"{name}.json"), read(WORKFLOWS / "api" / f"{name}.json")
    if name != NAMES[0]:
        for node in workflow["nodes"]:
            if node["type"] == "KSampler":
                assert node["widgets_values"][2] == 30
                node["widgets_values"][2] = 6
        for node in prompt.values():
            if node["class_type"] == "KSampler":
                node["inputs"]["steps"] = 6
    frontend.open(workflow)
    frontend.page.evaluate(UNFOLD)
    ran = frontend.run()
    assert ran.status == "success", ran
    shown = {kind: (width, height) for kind, width, height in frontend.shown_images()}
    assert shown["SaveImage"] == (288, 384)
    assert shown["AnyDressingGarmentEncode"] == (288, 384)
    assert shown["AnyDressingAttentionMaps"] == (288, 384)
    told = dict(frontend.shown_texts())
    assert "the plain ground around it is " in told["AnyDressingGarmentEncode"]
    assert told["AnyDressingGarmentEncode"].startswith("288 x 384, ")
    assert "MB" in told["AnyDressingApply"]
    assert "upper: orange" in told["AnyDressingAttentionMaps"]
    assert "confusion 0." in told["AnyDressingAttentionMaps"]
    assert frontend.prompt() == prompt  # what is told stays out of the workflow


SLOTS = """() => app.graph._nodes.filter(n => n.comfyClass === 'AnyDressingGarmentEncode')
    .map(n => n.widgets.find(w => w.name === 'slot').options.values)"""
SOCKETS = """() => app.graph._nodes.find(n => n.comfyClass === 'AnyDressingApply').inputs
    .filter(i => i.name.startsWith('garments.')).map(i => i.label)"""
CHOOSE = """([kind, value]) => {
    const widget = app.graph._nodes.find(n => n.comfyClass === kind).widgets[0]
    widget.value = value
    widget.callback(value)
}"""
NODES_2 = "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"


@pytest.fixture(params=[False, True], ids=["classic", "Nodes 2.0"])
def canvas(frontend, request):
    frontend.page.evaluate(NODES_2, request.param)
    yield frontend
    frontend.page.evaluate(NODES_2, False)


def test_only_the_slots_of_the_connected_file_are_offered(canvas):
    canvas.open(read(WORKFLOWS / "01_two_garments.json"))
    assert canvas.page.evaluate(SLOTS) == [["upper", "lower", "hat"]] * 2
    canvas.page.evaluate(CHOOSE, ["AnyDressingLoader", "training-free (no file)"])
    assert canvas.page.evaluate(SLOTS) == [["upper", "lower", "hat", "dress", "outer", "shoes", "bag"]] * 2
    canvas.page.evaluate(CHOOSE, ["AnyDressingLoader", "paper_doll.safetensors"])
    assert canvas.page.evaluate(SLOTS) == [["upper", "lower", "hat"]] * 2


def test_garment_sockets_count_from_one(canvas):
    canvas.open(read(WORKFLOWS / "01_two_garments.json"))
    canvas.page.wait_for_timeout(300)
    assert canvas.page.evaluate(SOCKETS) == ["garment 1", "garment 2", "garment 3"]


def test_an_example_garment_is_seen_before_it_is_run(canvas, request):
    canvas.open(read(WORKFLOWS / "02_one_garment.json"))
    classic = "classic" in request.node.name
    shown = (
        "app.graph._nodes.some(n => n.comfyClass === 'AnyDressingExampleGarment' && n.imgs?.[0]?.naturalWidth === 384)"
    )
    drawn = "[...document.querySelectorAll('[data-node-id] img')].some(i => i.naturalWidth === 384)"
    canvas.page.wait_for_function(shown if classic else drawn, timeout=20_000)
    assert canvas.page_errors == []


SAVED = """async () => {
    await app.refreshComboInNodes()
    const node = LiteGraph.createNode('AnyDressingLoadGarment')
    app.graph.add(node)
    const garment = node.widgets.find(w => w.name === 'garment')
    garment.value = 'polo_00001_.safetensors'
    garment.callback(garment.value)
    return garment.options.values
}"""


@pytest.fixture(scope="module")
def polo(server):
    """A garment in the wardrobe."""
    read_one = {
        "AnyDressingDemoCheckpoint",
        "AnyDressingLoader",
        "AnyDressingExampleGarment",
        "AnyDressingGarmentEncode",
    }
    prompt = read(WORKFLOWS / "api" / "02_one_garment.json")
    prompt = {key: node for key, node in prompt.items() if node["class_type"] in read_one}
    encode = next(key for key, node in prompt.items() if node["class_type"] == "AnyDressingGarmentEncode")
    save = {"class_type": "AnyDressingSaveGarment", "inputs": {"garment": [encode, 0], "filename_prefix": "polo"}}
    server.run(prompt | {"50": save}).check()


def test_a_garment_of_the_wardrobe_is_seen_before_it_is_run(canvas, polo, request):
    canvas.open({"nodes": [], "links": [], "version": 0.4})
    assert canvas.page.evaluate(SAVED) == ["polo_00001_.safetensors"]
    classic = "classic" in request.node.name
    shown = "app.graph._nodes[0].imgs?.[0]?.naturalWidth === 288"
    drawn = "[...document.querySelectorAll('[data-node-id] img')].some(i => i.naturalWidth === 288)"
    canvas.page.wait_for_function(shown if classic else drawn, timeout=20_000)
    assert canvas.page_errors == []


def test_only_example_garments_are_served(frontend):
    status = "async name => (await fetch('/api/anydressing/example_garment/' + encodeURIComponent(name))).status"
    assert frontend.page.evaluate(status, "upper_striped_polo") == 200
    for name in ("nobody", "../anydressing/paper_doll.safetensors", "..\\upper_striped_polo"):
        assert frontend.page.evaluate(status, name) == 404


@pytest.mark.parametrize(
    "since", [{"invert_mask", "clip", "words", "reference"}, {"clip", "words", "reference"}], ids=len
)
def test_a_workflow_saved_before_there_were_these_inputs_opens_and_sends_the_same_prompt(frontend, since):
    workflow = read(WORKFLOWS / "02_one_garment.json")
    (encode,) = (node for node in workflow["nodes"] if node["type"] == "AnyDressingGarmentEncode")
    later = [entry for entry in encode["inputs"] if entry["name"] in since]
    assert {entry["name"] for entry in later} == since
    encode["inputs"] = [entry for entry in encode["inputs"] if entry not in later]
    del encode["widgets_values"][-sum("widget" in entry for entry in later) :]
    assert frontend.open(workflow).is_clean
    assert frontend.prompt() == read(WORKFLOWS / "api" / "02_one_garment.json")


def test_the_artists_workflow_is_accepted_as_it_is(frontend):
    """It runs at 768 x 576 for thirty steps; here one step of a small picture, through the same page."""
    workflow = read(WORKFLOWS / "10_sd15_two_garments.json")
    for node in workflow["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 1
        elif node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [64, 96]
        elif node["type"] == "AnyDressingGarmentEncode":
            node["widgets_values"][1:4] = ["custom", 64, 96]
    assert frontend.open(workflow).is_clean
    assert frontend.run().status == "success"
    assert frontend.page_errors == []


REFERENCE = """() => app.graph._nodes.filter(n => n.comfyClass === 'AnyDressingGarmentEncode')
    .map(n => n.widgets.find(w => w.name === 'reference').value)"""
ADD = """() => {
    const node = LiteGraph.createNode('AnyDressingGarmentEncode')
    app.graph.add(node)
    return node.widgets.find(w => w.name === 'reference').value
}"""


def test_a_new_node_dresses_by_reference_too_and_a_saved_one_as_it_did(canvas):
    """`words` and `reference` are the last widgets: a graph that was saved before them has two values less."""
    saved = read(WORKFLOWS / "01_two_garments.json")
    for node in saved["nodes"]:
        if node["type"] == "AnyDressingGarmentEncode":
            assert node["widgets_values"][-2:] == ["", False]
            node["widgets_values"] = node["widgets_values"][:-2]
    canvas.open(saved)
    assert canvas.page.evaluate(REFERENCE) == [False, False]
    assert canvas.page.evaluate(ADD) is True
    both = read(WORKFLOWS / "01_two_garments.json")
    for node in both["nodes"]:
        if node["type"] == "AnyDressingGarmentEncode":
            node["widgets_values"][-1] = True
    canvas.open(both)
    assert canvas.page.evaluate(REFERENCE) == [True, True]


def test_a_prompt_from_before_opens_as_it_was(canvas):
    prompt = read(WORKFLOWS / "api" / "01_two_garments.json")
    for node in prompt.values():
        for name in ("words", "reference"):
            node["inputs"].pop(name, None)
    canvas.open(canvas.api_to_ui(prompt, "before"))
    assert canvas.page.evaluate(REFERENCE) == [False, False]


def test_people_find_us_by_their_own_words(frontend):
    frontend.open({"nodes": [], "links": [], "version": 0.4})
    frontend.page.mouse.dblclick(700, 500)
    search = frontend.page.locator("input:focus")
    search.wait_for(timeout=20_000)
    found = frontend.page.locator("[role=option]", has_text="AnyDressing Garment Encode")
    for word in ("服装", "衣服", "着せ替え", "의류", "wardrobe", "fashion", "shirt"):
        search.fill("KSampler")
        found.first.wait_for(state="detached", timeout=20_000)
        search.fill(word)
        found.first.wait_for(timeout=20_000)
    frontend.page.keyboard.press("Escape")


HELP = """kind => {
    const node = LiteGraph.createNode(kind)
    app.graph.add(node)
    app.canvas.selectNode(node)
    app.canvas.setDirty(true, true)
}"""
LOCALE = "async language => app.extensionManager.setting.set('Comfy.Locale', language)"


@pytest.fixture
def in_language(frontend):
    yield lambda language: frontend.page.evaluate(LOCALE, language)
    frontend.page.evaluate(LOCALE, "en")


@pytest.mark.parametrize("language", ["en", *node_texts.LANGUAGES])
def test_help_is_read_with_its_picture(frontend, in_language, language):
    """The panel shows our page of that language, the picture in it, and the inputs."""
    in_language(language)
    frontend.open({"nodes": [], "links": [], "version": 0.4})
    frontend.page.evaluate(HELP, "AnyDressingPrepareGarment")
    frontend.page.get_by_test_id("info-button").click(timeout=20_000)
    texts = node_texts.texts_in(language)["AnyDressingPrepareGarment"]
    frontend.page.locator("h1", has_text=texts["display_name"]).wait_for(timeout=20_000)
    drawn = (
        "[...document.querySelectorAll('img')].some(i => i.src.endsWith('pictures/prepare.jpg') && i.naturalWidth > 0)"
    )
    frontend.page.wait_for_function(drawn, timeout=20_000)
    shown = frontend.page.locator("td", has_text=texts["inputs"]["invert_mask"]["tooltip"])
    assert shown.count() == 1
