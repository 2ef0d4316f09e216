# SPDX-License-Identifier: GPL-3.0-or-later
"""Eq. 15 of one micro-batch: what the trainer takes a step by, and what is counted and timed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..base.model import BaseModel
from ..losses.dists import Dists
from ..losses.terms import (
    LossReading,
    LossWeights,
    gradient_norms,
    ldm_loss,
    localisation_loss,
    one_step_estimate,
    weighted_sum,
)
from ..losses.texture import TEXTURE_PARTS, texture_of_rows, two_phase_texture
from ..model.dressing import DressingModel
from ..run.task import Terms
from .config import Losses
from .samples import DressingBatch


@dataclass(frozen=True)
class Predicted:
    """Both passes of the U-Net. estimate: z0_hat (Eq. 10), (B, 4, h, w). ldm, localisation: scalars (Eq. 14, 9)."""

    estimate: Tensor
    ldm: Tensor
    localisation: Tensor


@dataclass(frozen=True)
class Texture:
    """L_texture (Eq. 11). term: scalar with the graph. values: what is shown; graphs: of its parts, when measured."""

    term: Tensor
    values: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    graphs: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


class DressingStep:
    """The adapter on a frozen base model, and its losses. dists: None when texture is off.

    Whoever calls turns autocast off: the frozen U-Net computes in its own precision, where autocast would keep every
    norm's result in fp32; the adapter's fp32 weights are rounded on the way in, and the losses are computed in fp32.
    """

    def __init__(self, model: DressingModel, base: BaseModel, losses: Losses, dists: Dists | None) -> None:
        self.model, self.base, self.dists = model, base, dists
        self.weights = LossWeights(losses.localisation, losses.texture, losses.eta)
        self.reading = reading_of(losses)
        self._strength, self._most = losses.strength, losses.texture_samples or None

    def terms(self, batch: DressingBatch, *, measure: bool) -> Terms:
        """L of Eq. 15. measure: also the norm of each weighted term's gradient, see `_probe`."""
        predicted = self.predict(batch)
        texture = self.texture(batch, predicted, measure=measure)
        parts: dict[str, float | Tensor] = {"ldm": predicted.ldm, "loc": predicted.localisation, **texture.values}
        if measure:
            pulls = {"ldm": predicted.ldm, "loc": self.weights.lambda1 * predicted.localisation}
            pulls |= {name: self.weights.lambda2 * part for name, part in texture.graphs.items()}
            norms = gradient_norms(pulls, self._probe())
            parts |= {f"gradient of {name}": norm for name, norm in norms.items()}
        return Terms(self.total(predicted, texture), parts)

    def predict(self, batch: DressingBatch) -> Predicted:
        """Noise the latents, run GarmentsNet over the garments and DressingNet over the people."""
        noisy = self.base.schedule.add_noise(batch.latents, batch.noise, batch.timestep)
        prediction = self.model(noisy, batch.timestep, batch.text, batch.outfits, self._strength)
        height, width = batch.latents.shape[-2:]
        localisation = localisation_loss(
            prediction.maps,
            batch.masks,
            {site.key: site.grid(height, width) for site in self.model.adapter.info.unet.sites},
            reduction=self.reading.localisation,
            present=batch.present,
        )
        # to fp32 first: Apple's GPUs have no double precision
        alphas = self.base.schedule.alphas_cumprod.float().to(noisy.device)[batch.timestep]
        estimate = one_step_estimate(noisy, prediction.noise, alphas)
        return Predicted(estimate, ldm_loss(prediction.noise, batch.noise), localisation)

    def texture(self, batch: DressingBatch, predicted: Predicted, *, measure: bool = False) -> Texture:
        """Decode the people with t <= eta, or a few that are drawn, and judge their fabrics. measure: part by part."""
        if self.dists is None:
            return Texture(torch.zeros(()))
        term = two_phase_texture(
            predicted.estimate,
            batch.timestep,
            self.weights.eta,
            self.texture_of_row(batch),
            max_per_step=self._most,
            generator=batch.draw.generator("texture"),
            separate=measure,
        )
        values = {"texture": term.loss, **dict(zip(TEXTURE_PARTS, term.parts, strict=True))}
        graphs = () if term.part_surrogates is None else zip(TEXTURE_PARTS, term.part_surrogates, strict=True)
        # The surrogate has the gradient alone; the loss that is shown needs the value, too.
        return Texture(term.surrogate - term.surrogate.detach() + term.loss, values, dict(graphs))

    def texture_of_row(self, batch: DressingBatch) -> Callable[[Tensor, int], Tensor]:
        """How one person's estimate is judged: (z0_hat (1, 4, h, w), row) -> L_perc and L_hf, (2,)."""
        edges, dists = batch.edges, self.dists
        assert edges is not None
        assert dists is not None

        def texture(latent: Tensor, row: int) -> Tensor:
            only = slice(row, row + 1)
            if row not in batch.pictures:  # it was lost on the way, which its sample has said
                return 0 * latent.sum().expand(len(TEXTURE_PARTS))
            image, truth = self.base.decode(latent), batch.pictures[row][None]
            masks, present = batch.masks[only], batch.present[only]
            return texture_of_rows(image, truth, masks, edges[only], dists, self.reading, present=present)[:, 0]

        return texture

    def total(self, predicted: Predicted, texture: Texture) -> Tensor:
        """L = L_LDM + lambda1 L_loc + lambda2 L_texture."""
        return weighted_sum(predicted.ldm, predicted.localisation, texture.term, self.weights)

    def _probe(self) -> Tensor:
        """W_k' of the middle site, or where that is frozen a LoRA's matrix in the middle."""
        sites = self.model.adapter.info.unet.sites
        probe = self.model.adapter.site(sites[len(sites) // 2].key).to_k.weight
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return probe if probe.requires_grad else trained[len(trained) // 2]


def reading_of(losses: Losses) -> LossReading:
    """How a run reads the paper's norms (D6)."""
    return LossReading(losses.localisation_reduction, losses.high_frequency_reduction)
