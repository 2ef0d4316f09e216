# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes: they adapt anydressing_core to ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .apply import AnyDressingApply
from .attention_maps import AnyDressingAttentionMaps
from .demo_checkpoint import AnyDressingDemoCheckpoint
from .example_garment import AnyDressingExampleGarment, serve_example_garments
from .garment_encode import AnyDressingGarmentEncode
from .garment_settings import AnyDressingGarmentSettings
from .loader import AnyDressingLoader, register_model_folder
from .prepare_garment import AnyDressingPrepareGarment
from .wardrobe import AnyDressingLoadGarment, AnyDressingSaveGarment, register_wardrobe

NODES: list[type[io.ComfyNode]] = [
    AnyDressingLoader,
    AnyDressingPrepareGarment,
    AnyDressingGarmentEncode,
    AnyDressingGarmentSettings,
    AnyDressingSaveGarment,
    AnyDressingLoadGarment,
    AnyDressingApply,
    AnyDressingAttentionMaps,
    AnyDressingDemoCheckpoint,
    AnyDressingExampleGarment,
]


class AnyDressingExtension(ComfyExtension):
    """What ComfyUI asks for our nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_model_folder()
        register_wardrobe()
        serve_example_garments()
        return NODES
