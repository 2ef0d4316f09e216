# SPDX-License-Identifier: GPL-3.0-or-later
"""ComfyUI's door to AnyDressing. Nothing is imported before ComfyUI asks, so that any tool may import the checkout."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the extension that lists our nodes."""
    from .nodes import AnyDressingExtension

    return AnyDressingExtension()
