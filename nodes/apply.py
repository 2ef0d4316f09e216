# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Apply: dress the person that MODEL will generate in one to eight encoded garments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..anydressing_core.cost import row_flops, worn_flops
from ..anydressing_core.defaults import STRENGTH
from ..anydressing_core.latents import latent_size
from ..anydressing_core.reference_attention import AS_TRAINED, WITH_FILE, WITHOUT_FILE
from ..anydressing_core.refusals import refusal
from ..anydressing_core.sites import UNetShape
from .attention_patch import GarmentTiming, Strengths, dress_model
from .bank import Wardrobe, make_wardrobe
from .garment import Garment
from .inputs import number, require_garment, require_model
from .notes import tell
from .types import CATEGORY, SEARCH_ALIASES, GarmentWire, range_inputs
from .unet import require_garment_match, unet_shape

MOST_GARMENTS = 8


class AnyDressingApply(io.ComfyNode):
    """Return a clone of MODEL whose conditional predictions wear the garments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingApply",
            display_name="AnyDressing Apply",
            category=CATEGORY,
            description="Dresses the person that the model will generate in the connected garments. Works with LoRA, "
            "ControlNet, IP-Adapter, inpainting and any sampler, before or after them.",
            search_aliases=SEARCH_ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="Your SD1.5 model, with any LoRA or other patch."),
                io.Autogrow.Input(
                    "garments",
                    template=io.Autogrow.TemplatePrefix(
                        GarmentWire.Input(
                            "garment",
                            tooltip="From AnyDressing Garment Encode. A new socket appears as you connect; their order "
                            "does not matter.",
                        ),
                        prefix="garment_",
                        min=0,  # or a muted first garment would refuse the run
                        max=MOST_GARMENTS,
                    ),
                    tooltip=f"The garments to wear together, 1 to {MOST_GARMENTS}.",
                ),
                io.Float.Input(
                    "strength",
                    default=STRENGTH,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How strongly the garments show (lambda in the paper, which uses "
                    f"{STRENGTH:g}). 0 changes nothing.",
                ),
                *range_inputs("dressing", advanced=True),
                io.Boolean.Input(
                    "only_where_worn",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Faster: garments are computed only where they are worn, and with a file in every second step. Off: "
                    "everywhere, in every step.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[io.Model.Output(display_name="model", tooltip="The dressed model, for any sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        strength: float = STRENGTH,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        only_where_worn: bool = False,
        garments: Mapping[str, Garment | None] | None = None,
        **extra: Any,
    ) -> io.NodeOutput:
        require_model(model)
        strength = number("strength", strength, 0.0, 2.0)
        start = number("start_percent", start_percent, 0.0, 1.0)
        end = number("end_percent", end_percent, 0.0, 1.0)
        worn = _connected(garments or {}, extra)
        shape = unet_shape(model)
        for garment in worn:
            require_garment_match(shape, garment.unet, garment.slot)

        worn = sorted((garment for garment in worn if garment.effective), key=lambda garment: garment.order)
        if not worn or strength == 0 or start >= end:
            tell(cls, "nothing is worn: strength 0, no garment with a weight, or an empty range.")
            return io.NodeOutput(model.clone())
        wardrobe = make_wardrobe(model, shape, worn)
        who = ", ".join(garment.slot for garment in worn)
        cost = _cost(shape, worn[0].anydressing.resolution, wardrobe.model)
        if only_where_worn:
            cost += " at most, for it is done only where they are worn"
        tell(cls, f"wears {who}; {wardrobe.model_size() / 1e6:.0f} MB; {cost}.")
        strengths = Strengths(strength, _weight(worn[0]) * strength / STRENGTH)
        timing = GarmentTiming(start, end)
        return io.NodeOutput(dress_model(model, shape, worn, wardrobe, strengths, timing, only_where_worn))


def _cost(shape: UNetShape, resolution: tuple[int, int], wardrobe: Wardrobe) -> str:
    """How much more work a step is, of one conditional and one unconditional row."""
    trained = None if wardrobe.trained is None else wardrobe.trained.at_rest()
    read = wardrobe.level(0.0).at_rest() if wardrobe.levels else None
    size = latent_size(resolution)
    more = worn_flops(shape, size, trained, read) / (2 * row_flops(shape, size))
    height, width = resolution
    return f"a step of {width} x {height} is {more:.0%} more work"


def _weight(garment: Garment) -> float:
    """w of reference attention at the default strength."""
    if garment.by_model:
        return AS_TRAINED
    return WITHOUT_FILE if garment.anydressing.checkpoint is None else WITH_FILE


def _connected(garments: Mapping[str, Garment | None], extra: Mapping[str, Any]) -> Sequence[Garment]:
    """The connected garments, one to eight, all from one file."""
    if extra:
        raise refusal(
            "garments:",
            f"this node has no socket {', '.join(map(repr, sorted(extra)))}",
            f"It takes at most {MOST_GARMENTS} garments, named garments.garment_0 to "
            f"garments.garment_{MOST_GARMENTS - 1}.",
            f"connect at most {MOST_GARMENTS}; a second AnyDressing Apply after this one adds more.",
        )
    worn = [garment for garment in garments.values() if garment is not None]
    for name, garment in garments.items():
        if garment is not None:
            require_garment(f"garments.{name}", garment)
    if not worn:
        raise refusal(
            "garments:",
            "no garment is connected",
            "There is nothing to wear; every garment may be muted or bypassed.",
            "connect AnyDressing Garment Encode to a garment socket, or bypass this node (Ctrl+B).",
        )
    names = sorted({garment.anydressing.name for garment in worn})
    if len({garment.anydressing.identity for garment in worn}) > 1:
        raise refusal(
            "garments:",
            f"they were encoded with different AnyDressing files: {', '.join(names)}",
            "Each file brings its own attention weights, and one Apply has room for one set.",
            "encode all of them with one file, or use one AnyDressing Apply for each file.",
        )
    if len({garment.by_model for garment in worn}) > 1:
        raise refusal(
            "garments:",
            "a garment_model has read some of them, and your own checkpoint the others",
            "The two attend at different layers, and one Apply has room for one way.",
            "read all of them one way, or use one AnyDressing Apply for each.",
        )
    return worn
