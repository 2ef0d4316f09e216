# SPDX-License-Identifier: GPL-3.0-or-later
"""What ComfyUI lets through unchecked: values from linked nodes and from outside the editor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..anydressing_core.latents import CELL, is_whole
from ..anydressing_core.refusals import quote, refusal
from .garment import AnyDressing, Garment


def number(name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float in [low, high]. ComfyUI lets NaN through, and checks no range on linked values."""
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or not low <= value <= high:  # pyright: ignore[reportOperatorIssue]
        raise refusal(
            f"{name}:",
            f"must be a number from {low:g} to {high:g}, got {value!r}",
            "The value came from a linked node or from outside the editor.",
            f"set {name} to a number from {low:g} to {high:g}.",
        )
    return float(value)  # pyright: ignore[reportArgumentType]


def canvas_size(width: object, height: object) -> tuple[int, int]:
    """Return height and width of a garment's canvas in pixels, 64 to 2048 in whole cells."""
    size = int(number("height", height, 64, 2048)), int(number("width", width, 64, 2048))
    if not is_whole(size):
        raise refusal(
            "width, height:",
            f"{size[1]} x {size[0]} is not a multiple of {CELL}",
            f"The VAE works on cells of {CELL} pixels.",
            f"choose multiples of {CELL}.",
        )
    return size


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """Return `value` when it is one of the options. ComfyUI checks no linked value."""
    if not isinstance(value, str) or value not in options:
        raise refusal(
            f"{name}:",
            f"must be one of {', '.join(options)}, got {quote(value)}",
            "The value came from a linked node or from outside the editor.",
            f"choose {name} from its list.",
        )
    return value


def require_model(model: Any, name: str = "model") -> None:
    """Raise ValueError unless this is what a MODEL wire carries."""
    _require_wire(name, model, hasattr(model, "model") and hasattr(model, "clone"), "MODEL", "a checkpoint loader")


def require_vae(vae: Any) -> None:
    """Raise ValueError unless this is what a VAE wire carries."""
    valid = hasattr(vae, "encode") and not isinstance(vae, str)
    _require_wire("vae", vae, valid, "VAE", "a checkpoint loader")


def require_clip(clip: Any) -> None:
    """Raise ValueError unless this is what a CLIP wire carries."""
    _require_wire("clip", clip, hasattr(clip, "encode_from_tokens"), "CLIP", "a checkpoint loader")


def line(name: str, value: object) -> str:
    """Return `value` when it is text. ComfyUI checks no linked value."""
    if not isinstance(value, str):
        raise refusal(
            f"{name}:",
            f"must be text, got {quote(value)}",
            "The value came from a linked node or from outside the editor.",
            f"write {name} into the node.",
        )
    return value


def require_anydressing(value: Any) -> None:
    """Raise ValueError unless this is what an ANYDRESSING wire carries."""
    _require_wire("anydressing", value, isinstance(value, AnyDressing), "ANYDRESSING", "the AnyDressing Loader")


def require_garment(name: str, value: Any) -> None:
    """Raise ValueError unless this is what an ANYDRESSING_GARMENT wire carries."""
    _require_wire(name, value, isinstance(value, Garment), "GARMENT", "AnyDressing Garment Encode")


def require_conditioning(name: str, value: Any) -> None:
    """Raise ValueError unless this is what a CONDITIONING wire carries."""
    pairs = isinstance(value, list) and all(isinstance(one, list | tuple) and len(one) == 2 for one in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    _require_wire(name, value, pairs, "CONDITIONING", "CLIP Text Encode")


def require_latent(name: str, value: Any) -> None:
    """Raise ValueError unless this is what a LATENT wire carries."""
    held: Any = value.get("samples") if isinstance(value, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    _require_wire(name, value, hasattr(held, "ndim"), "LATENT", "a sampler")


def _require_wire(name: str, value: object, valid: bool, kind: str, source: str) -> None:
    if not valid:
        raise refusal(
            f"{name}:",
            f"must be a {kind} from another node, got {quote(value)}",
            "A value was written where a wire belongs.",
            f"connect the {kind} output of {source}.",
        )
