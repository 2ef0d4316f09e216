# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node says to the artist beside its outputs: in the log, and as a line of text on the node itself."""

from __future__ import annotations

import logging

from comfy_api.latest import io
from server import PromptServer

logger = logging.getLogger(__name__)


def tell(node: type[io.ComfyNode], text: str) -> None:
    """Say something. The node needs `io.Hidden.unique_id` in its schema; classic nodes and Nodes 2.0 both show it."""
    logger.info("AnyDressing: %s", text)
    server = getattr(PromptServer, "instance", None)  # none when a node is run without a server
    number = node.hidden and node.hidden.unique_id
    if server is not None and number:
        server.send_progress_text(text, number)
