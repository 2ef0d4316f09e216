# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose attention computes: the user's own, or PyTorch's where heads are wider than the model's."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import comfy.ldm.modules.attention as host_attention
from torch import Tensor

from ..anydressing_core.garment_kv import Attend

TAKE_ANY_HEADS = {f"attention_{kind}" for kind in ("pytorch", "basic", "sub_quad", "split", "xformers", "flash")}
"""ComfyUI's attention functions that were read and take heads of any width; sage and newer ones may not."""

logger = logging.getLogger(__name__)


def own_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, extra: dict[str, Any]) -> Tensor:
    """The user's attention, as ComfyUI's own layers call it. extra: what a replacement is handed."""
    return host_attention.optimized_attention(
        query, key, value, heads, attn_precision=extra.get("attn_precision"), transformer_options=extra
    )


def attend_with(extra: dict[str, Any], widened: bool) -> Attend:
    """The user's attention for heads of the model's own width; PyTorch's for widened heads wherever something else may
    limit the head size or quantise away the bias columns."""

    def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        if widened and takes_only_plain_heads(extra):
            precision = extra.get("attn_precision")
            return host_attention.attention_pytorch(query, key, value, heads, attn_precision=precision)
        return own_attention(query, key, value, heads, extra)

    return attend


def takes_only_plain_heads(extra: dict[str, Any]) -> bool:
    if "optimized_attention_override" in extra:
        say_once("an attention override")
        return True
    name = host_attention.optimized_attention.__name__
    if name in TAKE_ANY_HEADS:
        return False
    say_once("SageAttention" if name.startswith("attention_sage") else f"an attention that we do not know ({name})")
    return True


@cache
def warn_once(text: str) -> None:
    """Warn, also while a pack keeps the log silent: Ultimate SD Upscale does so for the whole of its sampling."""
    logger.handle(logger.makeRecord(logger.name, logging.WARNING, __file__, 0, "AnyDressing: %s", (text,), None))


@cache
def say_once(what: str) -> None:
    logger.info("AnyDressing: %s is active; garments with a null token or regions use PyTorch attention.", what)
