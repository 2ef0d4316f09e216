# SPDX-License-Identifier: GPL-3.0-or-later
"""Every shipped workflow in the real frontend: it opens clean, is the twin of its prompt, and runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dev import node_texts
from dev.export_blueprint import CONVERT
from dev.export_workflows import PACKS, STAND_INS
from dev.frontend import READY, TOAST, Frontend
from dev.layouts import LAYOUTS, awake
from dev.prompts import shipped
from dev.server import ComfyServer

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAMES = list(LAYOUTS)
ARTISTS_OWN = {
    "checkpoints/v1-5-pruned-emaonly-fp16.safetensors": "checkpoints/anydressing_random_sd15.safetensors",
    "controlnet/control_v11p_sd15_openpose_fp16.safetensors": "controlnet/anydressing_random_controlnet.safetensors",
    "loras/your_style.safetensors": "loras/anydressing_random_style_lora.safetensors",
}
"""Models that workflows name, and what stands in for them here."""


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def workflow(name):
    return read(WORKFLOWS / f"{LAYOUTS[name].name}.json")


def in_steps(opened, steps):
    """A workflow with fewer steps than the thirty that it ships with."""
    for node in opened["nodes"]:
        if node["type"] == "KSampler":
            assert node["widgets_values"][2] == 30
            node["widgets_values"][2] = steps
    return opened


OF_THE_DOLL = [name for name in NAMES if shipped(name)["1"]["class_type"] == "AnyDressingDemoCheckpoint"]


@pytest.fixture(scope="module")
def server(comfyui_path, random_models, tmp_path_factory):
    """A server on which the artist's models stand, too: our random ones under their names."""
    base = tmp_path_factory.mktemp("base")
    for own, random in ARTISTS_OWN.items():
        (base / "models" / own).parent.mkdir(parents=True, exist_ok=True)
        (base / "models" / own).symlink_to(random_models / random)
    flags = ["--use-pytorch-cross-attention"]
    with ComfyServer(comfyui_path, base, models=random_models, packs=STAND_INS, flags=flags) as server:
        server.upload_image(comfyui_path / "input" / "example.png")
        yield server
        assert server.log_problems() == []


@pytest.fixture(scope="module")
def frontend(chromium, server):
    with Frontend(server) as page:
        yield page


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_clean(frontend, name):
    opened = frontend.open(workflow(name))
    assert opened.is_clean, opened
    assert frontend.page_errors == []


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_and_its_prompt_are_twins(frontend, name):
    assert frontend.ui_to_api(workflow(name)) == awake(shipped(name), LAYOUTS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_opens_as_its_twin(frontend, name):
    """The other direction: what the frontend makes of the prompt sends that prompt again."""
    assert frontend.ui_to_api(frontend.api_to_ui(shipped(name), name)) == shipped(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_says_which_pack_it_is_from(name):
    for node in workflow(name)["nodes"]:
        packs = [pack for start, (pack, _) in PACKS.items() if node["type"].startswith(start)]
        assert node["properties"]["cnr_id"] == (packs[0] if packs else "comfy-core")


CARDS = "[data-testid^='template-workflow-']"
PICTURED = """cards => [...document.querySelectorAll(cards + ' img')].some(img => img.naturalWidth > 0)"""


def test_templates_are_listed_by_names_that_read(frontend):
    """In the browser of templates, under our name, with pictures; the frontend's order is that of the disk."""
    frontend.open(workflow(NAMES[0]))
    frontend.page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    frontend.page.get_by_text("ComfyUI-AnyDressing", exact=True).first.click(timeout=20_000)
    frontend.page.wait_for_function(PICTURED, arg=CARDS, timeout=20_000)
    cards = frontend.page.locator(CARDS).all()
    shown = [card.get_attribute("data-testid").removeprefix("template-workflow-") for card in cards]
    frontend.page.keyboard.press("Escape")
    assert sorted(shown) == [layout.name for layout in LAYOUTS.values()]


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
    frontend.open(workflow(name))
    frontend.page.wait_for_function("scale => app.canvas.ds.scale >= scale", arg=LEGIBLE, timeout=10_000)
    assert frontend.page.evaluate(OVERLAPS) == []
    titles = frontend.page.evaluate("app.graph._nodes.map(n => n.title)")
    assert len(set(titles)) == len(titles), "every title says what its node holds"
    frontend.page.set_viewport_size(before)


UNFOLD = "() => app.graph._nodes.filter(n => n.flags.collapsed).forEach(n => n.collapse())"


PICTURES = {"09_outfit_grid": (580, 772), "10_larger": (432, 576)}
"""What Save Image shows, where it is not the doll's own size."""


@pytest.mark.parametrize("name", [name for name in OF_THE_DOLL if not LAYOUTS[name].app])
def test_a_paper_doll_workflow_runs_and_shows_its_picture(frontend, name):
    """The first as it is; the others, which differ in their nodes alone, in three steps."""
    opened, prompt = workflow(name), awake(shipped(name), LAYOUTS[name])
    if name != NAMES[0]:
        in_steps(opened, 3)
        for node in prompt.values():
            if node["class_type"] == "KSampler":
                node["inputs"]["steps"] = 3
    frontend.open(opened)
    frontend.page.evaluate(UNFOLD)
    ran = frontend.run()
    assert ran.status == "success", ran
    shown = {kind: (width, height) for kind, width, height in frontend.shown_images()}
    assert shown["SaveImage"] == PICTURES.get(name, (288, 384))
    assert shown["AnyDressingGarmentEncode"] == (288, 384)
    if name == "07_regions":
        assert shown["AnyDressingGarmentSettings"] == (288, 384)
    told = dict(frontend.shown_texts())
    assert "the plain ground around it is " in told["AnyDressingGarmentEncode"]
    assert told["AnyDressingGarmentEncode"].startswith("288 x 384, ")
    assert re.search(r" MB; a step of 288 x 384 is \d+ % more work", told["AnyDressingApply"].replace("%", " %"))
    if any(node["class_type"] == "AnyDressingAttentionMaps" for node in prompt.values()):
        assert shown["AnyDressingAttentionMaps"] == (288, 384)
        assert "upper: orange" in told["AnyDressingAttentionMaps"]
        assert "confusion 0." in told["AnyDressingAttentionMaps"]
    assert frontend.prompt() == prompt  # what is told stays out of the workflow


DRAWN = "() => [...document.images].some(img => img.naturalWidth === 288 && img.naturalHeight === 384)"


@pytest.fixture
def app_mode(frontend):
    """The page that everybody here uses goes back to the canvas; the mode does not end with the workflow."""
    yield frontend
    frontend.page.evaluate("app.extensionManager.command.execute('Comfy.ToggleLinear')")
    frontend.open(workflow(NAMES[0]))


def test_an_app_opens_as_one_and_runs(app_mode):
    """Two garments, who she is, strength and seed at the right; the picture in the middle, and no wire to be seen.

    After the first workflow, which it shares its garments with: where ComfyUI has Apply's result it asks no Garment Encode.
    """
    app_mode.open(in_steps(workflow("15_app"), 2))
    for label in ("Her shirt", "Who she is, and where", "Seed"):
        app_mode.page.get_by_text(label, exact=True).first.wait_for(timeout=20_000)
    assert app_mode.run().status == "success"
    app_mode.page.wait_for_function(DRAWN, timeout=20_000)


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
    canvas.open(workflow("01_two_garments"))
    assert canvas.page.evaluate(SLOTS) == [["upper", "lower", "hat"]] * 2
    canvas.page.evaluate(CHOOSE, ["AnyDressingLoader", "training-free (no file)"])
    assert canvas.page.evaluate(SLOTS) == [["upper", "lower", "hat", "dress", "outer", "shoes", "bag"]] * 2
    canvas.page.evaluate(CHOOSE, ["AnyDressingLoader", "paper_doll.safetensors"])
    assert canvas.page.evaluate(SLOTS) == [["upper", "lower", "hat"]] * 2


def test_garment_sockets_count_from_one(canvas):
    canvas.open(workflow("01_two_garments"))
    canvas.page.wait_for_timeout(300)
    assert canvas.page.evaluate(SOCKETS) == ["garment 1", "garment 2", "garment 3"]


def test_an_example_garment_is_seen_before_it_is_run(canvas, request):
    canvas.open(workflow("02_one_garment"))
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
    prompt = shipped("02_one_garment")
    prompt = {key: node for key, node in prompt.items() if node["class_type"] in read_one}
    encode = next(key for key, node in prompt.items() if node["class_type"] == "AnyDressingGarmentEncode")
    save = {"class_type": "AnyDressingSaveGarment", "inputs": {"garment": [encode, 0], "filename_prefix": "polo"}}
    server.run(prompt | {"50": save}).check()


def test_a_garment_of_the_wardrobe_is_seen_before_it_is_run(canvas, polo, request):
    canvas.open({"nodes": [], "links": [], "version": 0.4})
    assert "polo_00001_.safetensors" in canvas.page.evaluate(SAVED)
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
    saved = workflow("03_three_garments")
    worn = CHOICES["AnyDressingApply"]
    for apply in (node for node in saved["nodes"] if node["type"] == "AnyDressingApply"):
        apply["inputs"] = [entry for entry in apply["inputs"] if entry["name"] not in worn]
        del apply["widgets_values"][-len(worn) :]
    for encode in (node for node in saved["nodes"] if node["type"] == "AnyDressingGarmentEncode"):
        later = [entry for entry in encode["inputs"] if entry["name"] in since]
        assert {entry["name"] for entry in later} == since
        encode["inputs"] = [entry for entry in encode["inputs"] if entry not in later]
        del encode["widgets_values"][-sum("widget" in entry for entry in later) :]
    meant = shipped("03_three_garments")
    for node in meant.values():
        if node["class_type"] == "AnyDressingApply":
            node["inputs"] |= dict.fromkeys(worn, False)
    assert frontend.open(saved).is_clean
    assert frontend.prompt() == meant


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_THE_DOLL])
def test_the_artists_workflow_is_accepted_as_it_is(frontend, name):
    """It runs at 768 x 576 for thirty steps; here one step of a small picture, through the same page."""
    opened = in_steps(workflow(name), 1)
    for node in opened["nodes"]:
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [64, 96]
        elif node["type"] == "AnyDressingGarmentEncode":
            node["widgets_values"][1:4] = ["custom", 64, 96]
    assert frontend.open(opened).is_clean
    assert frontend.run().status == "success"
    assert frontend.page_errors == []


CHOSEN = """([kind, name]) => app.graph._nodes.filter(n => n.comfyClass === kind)
    .map(n => n.widgets.find(w => w.name === name).value)"""
ADD = """([kind, name]) => {
    const node = LiteGraph.createNode(kind)
    app.graph.add(node)
    return node.widgets.find(w => w.name === name).value
}"""
CHOICES = {"AnyDressingGarmentEncode": ["words", "reference"], "AnyDressingApply": ["only_where_worn"]}
"""Node -> its last widgets, of which the last is a switch that is on in new nodes; graphs from before have no value for them."""


@pytest.mark.holds_by_reference("a file at the same time")
@pytest.mark.parametrize("kind", CHOICES)
def test_a_new_node_begins_with_what_is_best_and_a_saved_one_stays_as_it_was(canvas, kind):
    choice = [kind, CHOICES[kind][-1]]
    saved, on = workflow("01_two_garments"), workflow("01_two_garments")
    nodes = [node for node in saved["nodes"] if node["type"] == kind]
    assert nodes
    for node in nodes:
        del node["widgets_values"][-len(CHOICES[kind]) :]
    canvas.open(saved)
    assert canvas.page.evaluate(CHOSEN, choice) == [False] * len(nodes)
    assert canvas.page.evaluate(ADD, choice) is True
    for node in on["nodes"]:
        if node["type"] == kind:
            node["widgets_values"][-1] = True
    canvas.open(on)
    assert canvas.page.evaluate(CHOSEN, choice) == [True] * len(nodes)


def test_a_prompt_from_before_opens_as_it_was(canvas):
    prompt = shipped("01_two_garments")
    for node in prompt.values():
        for name in CHOICES.get(node["class_type"], []):
            node["inputs"].pop(name, None)
    canvas.open(canvas.api_to_ui(prompt, "before"))
    assert canvas.page.evaluate(CHOSEN, ["AnyDressingGarmentEncode", "reference"]) == [False, False]
    assert canvas.page.evaluate(CHOSEN, ["AnyDressingApply", "only_where_worn"]) == [False]


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


# --- one node for all of it ------------------------------------------------------------------------------------------

BLUEPRINT = WORKFLOWS.parent / "subgraphs" / "Dress.json"
SERVED = "async () => Object.values(await (await fetch('/api/global_subgraphs')).json())"


def test_the_blueprint_is_offered_and_opens_clean(frontend):
    """An invalid one would raise a toast at every start of the page."""
    mine = [one for one in frontend.page.evaluate(SERVED) if "AnyDressing" in one["info"]["node_pack"]]
    assert [one["name"] for one in mine] == ["Dress"]
    opened = frontend.open(read(BLUEPRINT))
    assert opened.is_clean, opened
    frontend.page.reload()
    frontend.page.wait_for_function(READY, timeout=60_000)
    frontend.page.wait_for_timeout(3000)
    assert "blueprint" not in " ".join(frontend.page.locator(TOAST).all_inner_texts()).lower()
    frontend.open({"nodes": [], "links": [], "version": 0.4})
    frontend.page.mouse.dblclick(700, 500)
    search = frontend.page.locator("input:focus")
    search.wait_for(timeout=20_000)
    search.fill("Dress")
    frontend.page.locator("[role=option]", has_text="Subgraph Blueprints / AnyDressing").wait_for(timeout=20_000)
    frontend.page.keyboard.press("Escape")


def test_dressing_can_be_made_one_node(frontend):
    """Loader, Garment Encode and Apply together; the picture is the same."""
    frontend.open(in_steps(workflow("02_one_garment"), 1))
    before = frontend.prompt()
    within = [key for key, node in before.items() if node["class_type"] in ("AnyDressingLoader", *DRESSING)]
    frontend.page.evaluate(CONVERT, within)
    after = frontend.prompt()
    assert sorted(node["class_type"] for node in after.values()) == sorted(
        node["class_type"] for node in before.values()
    )
    (apply,) = (node for node in after.values() if node["class_type"] == "AnyDressingApply")
    assert after[apply["inputs"]["garments.garment_0"][0]]["class_type"] == "AnyDressingGarmentEncode"
    assert frontend.run().status == "success"
    assert frontend.page_errors == []


DRESSING = ("AnyDressingGarmentEncode", "AnyDressingApply")
