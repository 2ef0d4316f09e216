# SPDX-License-Identifier: GPL-3.0-or-later
"""What AnyDressing trains: one LoRA for each garment kind, W_k' and W_v', and the null token.

The module's state dict has the names and shapes of the AnyDressing file, so export is a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ...anydressing_core.checkpoint import Checkpoint, expected_tensors
from ...anydressing_core.checkpoint_info import CheckpointInfo
from ...anydressing_core.lora import stack_loras
from ...anydressing_core.refusals import refusal
from ...anydressing_core.sites import AttentionSite
from .processors import Lora


class Named(nn.Module):
    """Modules by name. Unlike nn.ModuleDict it takes any name, such as a garment kind called "half"."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._modules.update(modules)

    def __getitem__(self, name: str) -> nn.Module:
        module = self._modules[name]
        assert module is not None
        return module

    def __contains__(self, name: str) -> bool:
        return name in self._modules


class LoraPair(nn.Module):
    """A low-rank update of one projection; zero at first, because `up` is."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, rank, bias=False)
        self.up = nn.Linear(rank, channels, bias=False)
        nn.init.normal_(self.down.weight, std=channels**-0.5)
        nn.init.zeros_(self.up.weight)


class SiteDressing(nn.Module):
    """W_k', W_v' of one site, started from the frozen W_k, W_v, and its null token, started neutral."""

    def __init__(self, to_k: Tensor, to_v: Tensor, null_token: bool) -> None:
        super().__init__()
        channels = to_k.shape[0]
        self.to_k, self.to_v = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        with torch.no_grad():
            self.to_k.weight.copy_(to_k)
            self.to_v.weight.copy_(to_v)
        if null_token:
            self.null_key = nn.Parameter(torch.zeros(channels))
            self.null_bias = nn.Parameter(torch.zeros(1))

    @property
    def null(self) -> tuple[Tensor, Tensor] | None:
        """(k0 (C,), b (1,)), or None when the file has no null token."""
        return (self.null_key, self.null_bias) if "null_key" in self._parameters else None


class Adapter(nn.Module):
    """All trained tensors, in fp32. `state_dict()` is the file's content."""

    def __init__(self, info: CheckpointInfo, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.info = info
        names = expected_tensors(info)
        self.garments = Named({slot: self._slot(slot, names) for slot in info.slots})
        self.dressing = Named({site.key: self._site(site, unet) for site in info.unet.sites})

    def _slot(self, slot: str, names: Mapping[str, tuple[int, ...]]) -> Named:
        rank = self.info.rank[slot]
        return Named(
            {
                site.key: Named({target: LoraPair(site.channels, rank) for target in self.info.lora_targets})
                for site in self.info.unet.sites
                if f"garments.{slot}.{site.key}.q.down.weight" in names
            }
        )

    def _site(self, site: AttentionSite, unet: UNet2DConditionModel) -> SiteDressing:
        attention = unet.get_submodule(site.diffusers_name)
        to_k, to_v = (attention.get_submodule(name).get_parameter("weight") for name in ("to_k", "to_v"))
        return SiteDressing(to_k.detach().float(), to_v.detach().float(), self.info.null_token)

    def loras(self, slots: Sequence[str]) -> dict[str, dict[str, Lora]]:
        """The LoRAs of a batch of garments, stacked for one product: site -> target -> (down, up, scale).

        slots: the kind of each garment, (G,).
        """
        device = next(self.parameters()).device
        scale = torch.tensor([self.info.alpha[slot] / self.info.rank[slot] for slot in slots], device=device)
        return {
            site.key: {target: self._stacked(slots, site.key, target, scale) for target in self.info.lora_targets}
            for site in self.info.unet.sites
            if site.key in self._named(slots[0])
        }

    def _stacked(self, slots: Sequence[str], site: str, target: str, scale: Tensor) -> Lora:
        pairs = [self._pair(slot, site, target) for slot in slots]
        down, up = stack_loras([(pair.down.weight, pair.up.weight) for pair in pairs])
        return down, up, scale

    def _pair(self, slot: str, site: str, target: str) -> LoraPair:
        sites = self._named(slot)[site]
        assert isinstance(sites, Named)
        pair = sites[target]
        assert isinstance(pair, LoraPair)
        return pair

    def _named(self, slot: str) -> Named:
        named = self.garments[slot]
        assert isinstance(named, Named)
        return named

    def site(self, key: str) -> SiteDressing:
        """W_k', W_v' and null token of one site."""
        site = self.dressing[key]
        assert isinstance(site, SiteDressing)
        return site

    def of_slots(self, slots: Iterable[str]) -> Iterator[nn.Parameter]:
        """Every LoRA parameter of these garment kinds."""
        for slot in slots:
            yield from self._named(slot).parameters()

    def train_only(self, slots: Iterable[str]) -> None:
        """Freeze all but the LoRAs of these garment kinds: how a kind is added to a finished file (Sec. 8)."""
        self.requires_grad_(False)
        for parameter in self.of_slots(slots):
            parameter.requires_grad_(True)

    def load(self, checkpoint: Checkpoint) -> None:
        """Take the tensors of a file that was trained for the same sites.

        A garment kind that the file lacks keeps its fresh LoRA. Raises ValueError when the rest does not fit.
        """
        ours, theirs = self.info, checkpoint.info
        unknown = set(theirs.slots) - set(ours.slots)
        same = replace(theirs, slots=ours.slots, rank=ours.rank, alpha=ours.alpha)
        bound = ["unet", "feature_tap", "null_token", "lora_targets"]
        if set(ours.slots) - set(theirs.slots):  # the other kinds must go on being read as they were trained
            bound += ["garment_tokens", "resolution"]
        for name in bound:
            if getattr(same, name) != getattr(ours, name):
                problem = f"was trained with {name} = {getattr(theirs, name)!r}, this run has {getattr(ours, name)!r}"
                why = "Its tensors mean something only with its own setting."
                remedy = f"set {name} to {getattr(theirs, name)!r}, or start without a file."
                raise refusal("init: the file", problem, why, remedy)
        if unknown:
            problem = f"knows the garment kinds {', '.join(sorted(unknown))}, which this run does not"
            raise refusal("init: the file", problem, "They would be lost.", "add them to slots.")
        state = self.state_dict()
        state.update({name: tensor.float() for name, tensor in checkpoint.tensors.items()})
        self.load_state_dict(state)

    def checkpoint(self, info: CheckpointInfo | None = None, dtype: torch.dtype = torch.float32) -> Checkpoint:
        """The file as it stands now, on the CPU; `info` may bring later metadata, such as the number of steps."""
        tensors = {name: tensor.detach().to("cpu", dtype) for name, tensor in self.state_dict().items()}
        return Checkpoint(info or self.info, tensors)
