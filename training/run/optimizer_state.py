# SPDX-License-Identifier: GPL-3.0-or-later
"""An optimizer's moments as named tensors, so that a checkpoint holds no pickle and knows parameters by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def optimizer_tensors(optimizer: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """All that an optimizer keeps of each parameter, as `name/key`."""
    return {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def set_optimizer_tensors(
    optimizer: Any, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimizer back what `optimizer_tensors` returned; its settings stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    places = {name: place for place, name in enumerate(parameters)}
    for key, value in tensors.items():
        name, _, part = key.rpartition("/")
        state.setdefault(places[name], {})[part] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
