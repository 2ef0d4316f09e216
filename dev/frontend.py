# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives ComfyUI's real frontend in headless Chromium. All that knows its page, its selectors and its JavaScript is here."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Request, Route, sync_playwright

from .client import ComfyClient, Prompt

Workflow = dict[str, Any]  # what the frontend saves: nodes with positions, links, widget values

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LAUNCH = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
]
SETTLE = 600  # ms that the frontend takes to mark nodes and show its toasts
PATIENCE = 120_000  # ms

READY = """() => window.app?.graph && window.LiteGraph && Object.keys(LiteGraph.registered_node_types).length > 100"""
# The values are stringified inside the page: playwright would turn `undefined` into null, which breaks the frontend's schema.
LOAD = """async ui => { await app.loadGraphData(ui, true, true, null, {}) }"""
LOAD_API = """async ([api, name]) => {
    await app.loadApiJson(api, name)
    const seeds = app.graph._nodes.flatMap(n => (n.widgets || []).filter(w => w.name === 'control_after_generate'))
    for (const seed of seeds) seed.value = 'fixed'
}"""
# Nodes that show a picture once they have run get the room for it beforehand, so that nothing overlaps then.
ARRANGE = """pictured => {
    for (const n of app.graph._nodes) if (pictured.includes(n.type)) n.setSize([n.size[0], n.size[1] + 290])
    app.graph.arrange()
}"""
PICTURED = ["AnyDressingExampleGarment", "AnyDressingGarmentEncode", "PreviewImage", "SaveImage"]
SERIALIZE = "() => JSON.stringify(app.graph.serialize())"
TO_API = "async () => JSON.stringify((await app.graphToPrompt()).output)"
NODES = """() => {
    const facts = []
    const offered = (w, n) => typeof w.options?.values === 'function' ? w.options.values(w, n) : w.options?.values
    const walk = graph => {
        for (const n of graph._nodes) {
            if (n.mode === 2) continue  // muted: it may name what an artist has yet to make
            const combos = (n.widgets || []).filter(w => w.type === 'combo' && Array.isArray(offered(w, n)))
            facts.push({
                id: String(n.id), type: n.type, red: !!n.has_errors,
                known: !!LiteGraph.registered_node_types[n.type] || !!n.subgraph,
                bad: combos.filter(w => !offered(w, n).includes(w.value)).map(w => `${w.name} = ${w.value}`),
            })
            if (n.subgraph) walk(n.subgraph)
        }
    }
    walk(app.rootGraph ?? app.graph)
    return facts
}"""
IMAGES = """() => app.graph._nodes.flatMap(n => (n.imgs || []).map(i => [n.type, i.naturalWidth, i.naturalHeight]))"""
TEXTS = """() => app.graph._nodes.flatMap(n => (n.widgets || [])
    .filter(w => w.name === '$$node-text-preview').map(w => [n.type, String(w.value)]))"""
HISTORY = "async id => (await fetch('/api/history/' + id)).json()"
TOAST = ".p-toast-message"
DISMISS = """toasts => { for (const button of document.querySelectorAll(toasts)) button.click() }"""
DISMISSED = """toasts => !document.querySelector(toasts)"""


class ChromiumMissingError(RuntimeError):
    """There is no browser to drive; the message says how to get one."""


@dataclass(frozen=True)
class Opened:
    """What the frontend says of a workflow it has opened. A good one has nothing in any of these."""

    unknown_types: tuple[str, ...]
    red_nodes: tuple[str, ...]
    bad_choices: tuple[str, ...]  # values that their combo box does not offer
    schema_toasts: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether the frontend has nothing against the workflow."""
        return not (self.unknown_types or self.red_nodes or self.bad_choices or self.schema_toasts)


@dataclass(frozen=True)
class Ran:
    """What a click on Run led to. history: ComfyUI's entry for the prompt, empty when the prompt was refused."""

    accepted: bool
    answer: dict[str, Any]
    history: dict[str, Any]

    @property
    def status(self) -> str:
        """`success`, `error` or `rejected`."""
        return self.history["status"]["status_str"] if self.accepted else "rejected"


class Frontend:
    """The page of a running ComfyUI, for the time of a `with` block. Requests to anywhere else are blocked and noted."""

    def __init__(self, server: ComfyClient, size: tuple[int, int] = (1400, 900)):
        self.url, self.size = server.url, size
        self.page_errors: list[str] = []
        self.blocked: list[str] = []

    def __enter__(self) -> Frontend:
        executable = find_chromium()
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=executable, headless=True, args=LAUNCH)
            self.page = self._open_page()
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def api_to_ui(self, api: Prompt, name: str = "workflow") -> Workflow:
        """Return the workflow that the frontend makes of a prompt, its nodes arranged and its seeds fixed."""
        self.page.evaluate(LOAD_API, [api, name])
        self.page.wait_for_timeout(SETTLE)  # LoadImage grows when its picture has come
        self.page.evaluate(ARRANGE, PICTURED)
        return json.loads(self.page.evaluate(SERIALIZE))

    def ui_to_api(self, ui: Workflow) -> Prompt:
        """Return the prompt that the frontend would send for a workflow."""
        self._load(ui)
        return self.prompt()

    def prompt(self) -> Prompt:
        """Return the prompt that the frontend would send now."""
        nodes = json.loads(self.page.evaluate(TO_API))
        return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in nodes.items()}

    def open(self, ui: Workflow) -> Opened:
        """Open a workflow, as dropping its file on the canvas does, and return what the frontend says of it."""
        self.dismiss_toasts()
        self._load(ui)
        nodes = self.page.evaluate(NODES)
        return Opened(
            unknown_types=tuple(node["type"] for node in nodes if not node["known"]),
            red_nodes=tuple(f"{node['type']} ({node['id']})" for node in nodes if node["red"]),
            bad_choices=tuple(f"{node['type']}: {choice}" for node in nodes for choice in node["bad"]),
            schema_toasts=tuple(self.page.locator(TOAST, has_text="Invalid workflow").all_inner_texts()),
        )

    def run(self, timeout: float = 900) -> Ran:
        """Click Run and wait for the prompt's end."""
        run = self.page.get_by_role("button", name="Run", exact=True).first
        with self.page.expect_response(is_prompt, timeout=PATIENCE) as sent:
            run.click()
        answer = json.loads(sent.value.text() or "{}")
        if sent.value.status != 200:
            return Ran(False, answer, {})
        return Ran(True, answer, self._history(answer["prompt_id"], timeout))

    def shown_images(self) -> list[tuple[str, int, int]]:
        """Return the pictures that nodes hold for the canvas: node type, width, height."""
        self.page.wait_for_timeout(SETTLE)
        return [tuple(image) for image in self.page.evaluate(IMAGES)]

    def shown_texts(self) -> list[tuple[str, str]]:
        """Return the lines that nodes say under themselves: node type, text."""
        self.page.wait_for_timeout(SETTLE)
        return [tuple(text) for text in self.page.evaluate(TEXTS)]

    def screenshot(self, path: Path) -> None:
        """Save what the page looks like."""
        self.page.screenshot(path=str(path))

    def dismiss_toasts(self) -> None:
        """Close the messages in the corner; most outlive the workflow they speak of, the others close by themselves."""
        self.page.evaluate(DISMISS, f"{TOAST} button")
        self.page.wait_for_function(DISMISSED, arg=TOAST, timeout=PATIENCE)

    def _open_page(self) -> Page:
        context = self._browser.new_context(viewport={"width": self.size[0], "height": self.size[1]}, locale="en-US")
        context.route(lambda url: not self._is_ours(url), self._block)
        page = context.new_page()
        page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        page.goto(self.url, wait_until="domcontentloaded", timeout=PATIENCE)
        page.wait_for_function(READY, timeout=PATIENCE)
        return page

    def _is_ours(self, url: str) -> bool:
        return url.startswith((self.url, self.url.replace("http", "ws", 1), "data:", "blob:"))

    def _block(self, route: Route, request: Request) -> None:
        self.blocked.append(request.url)
        route.abort()

    def _load(self, ui: Workflow) -> None:
        self.page.evaluate(LOAD, ui)
        self.page.wait_for_timeout(SETTLE)

    def _history(self, prompt_id: str, timeout: float) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            history = self.page.evaluate(HISTORY, prompt_id)
            if prompt_id in history:
                return history[prompt_id]
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"The prompt has not ended after {timeout:.0f} s.")


def is_prompt(response: Any) -> bool:
    """Say whether a response answers the frontend's sending of a prompt."""
    return response.url.endswith("/api/prompt") and response.request.method == "POST"


def find_chromium() -> str:
    """Return the path of an installed Chromium or Chrome; raise ChromiumMissingError when there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise ChromiumMissingError(
            f"No browser was found: none of {', '.join(BROWSERS)} is on the PATH.\n"
            "Install one, on Debian with: apt-get install --no-install-recommends chromium"
        )
    return found
