# SPDX-License-Identifier: GPL-3.0-or-later
"""Talks to a running ComfyUI: sends a prompt, follows it node by node, brings back pictures and errors."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import requests

Prompt = dict[str, dict[str, Any]]  # ComfyUI's API format: node id -> class_type and inputs
Event = dict[str, Any]  # a message of ComfyUI's websocket: type and data
Follower = Callable[[Event], None]


@dataclass(frozen=True)
class NodeError:
    """What a node raised while it ran."""

    node_id: str
    node_type: str
    exception_type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Result:
    """What became of a prompt.

    executed: the nodes that ran, in order; cached: those that ComfyUI did not need to run.
    images: pictures by node, as PNG bytes; outputs: all that ComfyUI's history keeps, by node.
    rejection: ComfyUI's answer when it refused the prompt, else empty.
    """

    status: Literal["success", "error", "interrupted", "rejected"]
    executed: tuple[str, ...] = ()
    cached: frozenset[str] = frozenset()
    error: NodeError | None = None  # only when status is "error"
    images: dict[str, list[bytes]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    rejection: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def check(self) -> Result:
        """Return the result itself, or raise RuntimeError saying what went wrong."""
        if self.status == "success":
            return self
        if self.error:
            raise RuntimeError(f"{self.error.node_type} (node {self.error.node_id}) failed: {self.error.message}")
        raise RuntimeError(f"ComfyUI's answer: {self.status} {json.dumps(self.rejection, indent=1)}")


class ComfyClient:
    """One ComfyUI, reached over HTTP at `url`."""

    def __init__(self, url: str):
        self.url = url

    def run(self, prompt: Prompt, follow: Follower | None = None, timeout: float = 900) -> Result:
        """Queue `prompt`, wait for its end and return what became of it.

        follow: called with every message as it comes; it may call `interrupt`.
        Raises ConnectionError or aiohttp.ClientError when the server goes away, asyncio.TimeoutError after `timeout` seconds.
        """
        return in_own_loop(asyncio.wait_for(self._run(prompt, follow), timeout))

    def upload_image(self, path: Path, name: str | None = None) -> str:
        """Put a picture into ComfyUI's input folder; return the name that LoadImage takes."""
        with path.open("rb") as file:
            files = {"image": (name or path.name, file, "image/png")}
            answer = requests.post(f"{self.url}/upload/image", files=files, data={"overwrite": "true"}, timeout=60)
        answer.raise_for_status()
        return answer.json()["name"]

    def interrupt(self) -> None:
        """Stop the prompt that runs now."""
        self._post("/interrupt", {})

    def free(self) -> None:
        """Unload all models and forget all cached results, when the queue comes to it."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def object_info(self) -> dict[str, Any]:
        """Return the description of every node that ComfyUI offers."""
        return self._get("/object_info")

    def is_up(self) -> bool:
        """Say whether the server answers."""
        try:
            return requests.get(f"{self.url}/system_stats", timeout=2).ok
        except requests.RequestException:
            return False

    def _get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, content: dict[str, Any]) -> None:
        requests.post(f"{self.url}{path}", json=content, timeout=60).raise_for_status()

    async def _run(self, prompt: Prompt, follow: Follower | None) -> Result:
        started, name = time.monotonic(), uuid.uuid4().hex
        async with aiohttp.ClientSession(self.url) as session:
            async with session.ws_connect(f"/ws?clientId={name}", max_msg_size=0) as socket:
                async with session.post("/prompt", json={"prompt": prompt, "client_id": name}) as answer:
                    body = await answer.json()
                if answer.status != 200:
                    return Result("rejected", rejection=body)
                prompt_id = body["prompt_id"]
                story = await follow_prompt(socket, prompt_id, follow)
            outputs = (await history_of(session, prompt_id))["outputs"]
            images = await download_images(session, outputs)
        return Result(**story, outputs=outputs, images=images, seconds=time.monotonic() - started)


def in_own_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a thread of its own: playwright keeps an event loop running in ours."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


async def follow_prompt(
    socket: aiohttp.ClientWebSocketResponse[bool], prompt_id: str, follow: Follower | None
) -> dict[str, Any]:
    """Read messages until the prompt ends; return its status, its error and which nodes ran or were cached."""
    executed: list[str] = []
    cached: set[str] = set()
    async for message in socket:
        if message.type != aiohttp.WSMsgType.TEXT:  # previews are binary
            continue
        event = json.loads(message.data)
        kind, data = event["type"], event["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if follow:
            follow(event)
        if kind == "execution_cached":
            cached.update(data["nodes"])
        elif kind == "executing" and data["node"] is not None and data["node"] not in executed:
            executed.append(data["node"])
        elif kind in END:
            error = node_error(data) if kind == "execution_error" else None
            return {"status": END[kind], "error": error, "executed": tuple(executed), "cached": frozenset(cached)}
    raise ConnectionError("ComfyUI closed the connection before the prompt ended.")


END = {"execution_success": "success", "execution_error": "error", "execution_interrupted": "interrupted"}


def node_error(data: dict[str, Any]) -> NodeError:
    """Return the error that an execution_error message tells."""
    return NodeError(
        node_id=data["node_id"],
        node_type=data["node_type"],
        exception_type=data["exception_type"],
        message=data["exception_message"].strip(),
        traceback="".join(data["traceback"]),
    )


async def history_of(session: aiohttp.ClientSession, prompt_id: str) -> dict[str, Any]:
    """Return the prompt's entry in ComfyUI's history, which is written a moment after execution_success."""
    while True:
        async with session.get(f"/history/{prompt_id}") as answer:
            history = await answer.json()
        if prompt_id in history:
            return history[prompt_id]
        await asyncio.sleep(0.05)


async def download_images(session: aiohttp.ClientSession, outputs: dict[str, Any]) -> dict[str, list[bytes]]:
    """Return the pictures among the outputs, by node."""
    images: dict[str, list[bytes]] = {}
    for node_id, output in outputs.items():
        for image in output.get("images", []):
            where = {key: image[key] for key in ("filename", "subfolder", "type")}
            async with session.get("/view", params=where) as answer:
                answer.raise_for_status()
                images.setdefault(node_id, []).append(await answer.read())
    return images
