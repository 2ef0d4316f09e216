# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of third-party packs, imitated: what real packs do to a MODEL, its blocks and its batches (docs/composition.md)."""

from __future__ import annotations

import gc
import importlib
import logging
import math
import weakref

import pytest
import torch

pytestmark = pytest.mark.comfyui


@pytest.fixture
def patcher_extension(studio):
    return importlib.import_module("comfy.patcher_extension")


# --- windows over a film, as AnimateDiff-Evolved cuts them -----------------------------------------------------------


def windowed(model, length=3, stride=2):
    """A clone whose batch is one film, sampled in overlapping windows whose predictions are averaged."""
    wrappers = importlib.import_module("comfy.patcher_extension").WrappersMP

    def in_windows(executor, model, conds, x, timestep, model_options):
        total = [torch.zeros_like(x) for _ in conds]
        count = torch.zeros(x.shape[0], 1, 1, 1)
        for start in range(0, x.shape[0] - length + 1, stride):
            frames = list(range(start, start + length))
            copies = [cond and [dict(entry) for entry in cond] for cond in conds]
            part = executor(model, copies, x[frames], timestep[frames], model_options)
            for whole, predicted in zip(total, part, strict=True):
                whole[frames] += predicted
            count[frames] += 1
        return [whole / count for whole in total]

    model = model.clone()
    model.add_wrapper_with_key(wrappers.CALC_COND_BATCH, "film", in_windows)
    return model


@pytest.mark.holds("context windows that a wrapper cuts out of a film", "either order, with regions too")
def test_windows_over_a_film_compose_in_either_order(studio):
    film = {"samples": torch.zeros(5, 4, 12, 8)}
    before, after = windowed(studio.dress()), studio.dress(windowed(studio.model))
    pictures = studio.sample(before, latent=film)
    assert torch.equal(pictures, studio.sample(after, latent=film))
    plain = studio.first_step(windowed(studio.model), latent=film)
    for dressed in (before, after):
        for (name, bare), (_, worn) in zip(plain, studio.first_step(dressed, latent=film), strict=True):
            assert torch.equal(bare, worn) == (name == "negative"), name


@pytest.mark.holds("garments only where they are worn, in tiles, windows or a compiled U-Net", "computed everywhere")
def test_windows_over_a_film_are_dressed_everywhere(studio):
    film = {"samples": torch.zeros(5, 4, 12, 8)}
    on, off = (windowed(studio.dress(only_where_worn=switch)) for switch in (True, False))
    assert torch.equal(studio.sample(on, latent=film, steps=4), studio.sample(off, latent=film, steps=4))


@pytest.mark.holds("context windows that a wrapper cuts out of a film")
def test_regions_meet_their_garments_in_every_window(studio):
    region = torch.zeros(1, 96, 64)
    region[:, :48] = 1
    worn = [studio.settings(studio.garments[0], region=region)]
    film = {"samples": torch.zeros(5, 4, 12, 8)}
    before, after = windowed(studio.dress(garments=worn)), studio.dress(windowed(studio.model), garments=worn)
    assert torch.equal(studio.sample(before, latent=film), studio.sample(after, latent=film))


# --- a transformer block of a pack's own, as Advanced-ControlNet's reference has -------------------------------------


def reference_block(fidelity, seen):
    """A block whose self-attention looks at itself twice, and once more at the unconditional rows alone.

    It hands an attn1 replacement what that pack hands it: n_heads and dim_head, and what stands in transformer_options.
    """

    def forward(self, x, context=None, transformer_options=None):
        options = dict(transformer_options or {})
        replaced = options.pop("patches_replace", {}).get("attn1", {})
        options.pop("patches", None)
        options.pop("activations_shape", None)
        extra = {**options, "n_heads": self.n_heads, "dim_head": self.d_head}
        seen.append(sorted(extra))
        replacement = replaced.get((*options["block"], options["block_index"]), plain_attention)
        rows = len(options["cond_or_uncond"])
        unconditional = [
            row
            for index, kind in enumerate(options["cond_or_uncond"])
            if kind == 1
            for row in range(index * (len(x) // rows), (index + 1) * (len(x) // rows))
        ]
        n = self.norm1(x)
        q, twice = self.attn1.to_q(n), torch.cat([n, n], dim=1)
        out = self.attn1.to_out(replacement(q, self.attn1.to_k(twice), self.attn1.to_v(twice), extra))
        if unconditional and not math.isclose(fidelity, 0):
            some = n[unconditional]
            alone = self.attn1.to_out(
                replacement(q[unconditional], self.attn1.to_k(some), self.attn1.to_v(some), extra)
            )
            styled = out.clone()
            styled[unconditional] = alone
            out = fidelity * styled + (1 - fidelity) * out
        x = x + out
        x = x + self.attn2(self.norm2(x), context=context)
        return x + self.ff(self.norm3(x))

    return forward


def plain_attention(q, k, v, extra):
    attention = importlib.import_module("comfy.ldm.modules.attention")
    return attention.optimized_attention(q, k, v, extra["n_heads"])


@pytest.mark.holds(
    "a pack's own transformer block, which hands replacements other keys and asks once more about the "
    "unconditional rows",
    "dressed; the negative is not, whatever the batch",
)
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("fidelity", [0.0, 0.5, 1.0])
def test_a_block_that_asks_once_more_about_some_rows(studio, monkeypatch, fidelity, batch):
    seen = []
    attention = importlib.import_module("comfy.ldm.modules.attention")
    monkeypatch.setattr(attention.BasicTransformerBlock, "forward", reference_block(fidelity, seen))
    latent = {"samples": torch.zeros(batch, 4, 12, 8)}
    plain, dressed = (studio.first_step(model, latent=latent) for model in (studio.model, studio.dress()))
    assert not {"attn_precision", "activations_shape"} & set(seen[0])
    for (name, bare), (_, worn) in zip(plain, dressed, strict=True):
        assert torch.equal(bare, worn) == (name == "negative"), name


@pytest.mark.holds(
    "a pack's own transformer block, which hands replacements other keys and asks once more about the "
    "unconditional rows",
)
def test_regions_and_maps_need_nothing_of_such_a_block(studio, monkeypatch):
    attention = importlib.import_module("comfy.ldm.modules.attention")
    region = torch.zeros(1, 96, 64)
    region[:, :48] = 1
    model = studio.dress(garments=[studio.settings(studio.garments[0], region=region), studio.garments[1]])
    monkeypatch.setattr(attention.BasicTransformerBlock, "forward", reference_block(0.5, []))
    studio.sample(model)
    image = torch.rand(1, 96, 64, 3)
    node = studio.pack["AnyDressingAttentionMaps"]
    with torch.inference_mode():
        maps = node.execute(model, studio.positive, {"samples": torch.zeros(1, 4, 12, 8)}, image).args[1]
    assert maps.shape == (2, 96, 64)
    assert maps[1, :36].mean() > 3 * maps[1, 60:].mean()  # the upper garment, after the lower


@pytest.mark.holds(
    "a replacement that writes into the query it is handed (SEG)",
    "the garments see the query as it was",
)
def test_a_replacement_that_writes_into_the_query_changes_no_garment(studio):
    """Smoothed energy guidance blurs the queries that it is handed, in place."""

    def with_replacement(careful):
        def smoothed(q, k, v, extra):
            q = q.clone() if careful else q
            q[:] = q.mean(dim=1, keepdim=True)
            return plain_attention(q, k, v, extra)

        model = studio.model.clone()
        model.set_model_attn1_replace(smoothed, "middle", 0)
        return studio.dress(model)

    assert torch.equal(studio.sample(with_replacement(False)), studio.sample(with_replacement(True)))


# --- whoever keeps what it was shown, as layerdiffuse does -----------------------------------------------------------


@pytest.mark.holds(
    "a pack that keeps the last transformer_options it saw",
    "keeps no garments in memory, and ComfyUI speaks of no leak",
)
def test_the_bank_goes_although_a_pack_keeps_the_last_options_it_saw(studio, patcher_extension):
    kept = []

    def keep(executor, x, timestep, context=None, y=None, control=None, transformer_options=None, **kwargs):
        kept[:] = [transformer_options]
        return executor(x, timestep, context, y, control, transformer_options, **kwargs)

    model = studio.dress()
    bank = weakref.ref(model.get_additional_models_with_key("anydressing")[0].model)
    model.add_wrapper_with_key(patcher_extension.WrappersMP.DIFFUSION_MODEL, "keeper", keep)
    studio.sample(model)
    assert kept
    del model
    gc.collect()
    assert bank() is None


@pytest.mark.holds("a node that copies patches without the models that belong to them", "refused in plain words")
def test_a_model_that_lost_its_garments_says_so(studio):
    dressed = studio.dress()
    lost = studio.model.clone()
    lost.model_options = dressed.model_options
    lost.wrappers = dressed.wrappers
    del dressed
    gc.collect()
    with pytest.raises(ValueError, match=r"^model: its garments are gone\.\n.*\nWhat to do: connect AnyDressing Apply"):
        studio.sample(lost)


# --- tiles and crops that are latents of their own, as upscalers and detailers make them -----------------------------


@pytest.mark.holds(
    "region masks of another shape than what is sampled",
    "said in the log: a tile or a crop that is a latent of its own (Ultimate SD Upscale, detailers) has "
    "the region stretched over it, which cannot be seen when the shapes are alike",
)
@pytest.mark.parametrize(
    ("region", "doubted"),
    [((96, 64), False), ((768, 512), False), ((1000, 667), False), ((96, 96), True), ((768, 640), True)],
    ids=str,
)
def test_a_region_of_another_shape_than_what_is_sampled_is_doubted_aloud(studio, caplog, region, doubted):
    importlib.import_module("comfyui_anydressing.nodes.kernels").warn_once.cache_clear()
    mask = torch.zeros(1, *region)
    mask[:, : region[0] // 2] = 1
    studio.sample(studio.dress(garments=[studio.settings(studio.garments[0], region=mask)]))
    said = [line for line in caplog.messages if "is stretched over 64 x 96" in line]
    assert len(said) == doubted


@pytest.mark.holds("region masks of another shape than what is sampled")
def test_the_doubt_is_heard_while_a_pack_keeps_the_log_silent(studio, caplog):
    importlib.import_module("comfyui_anydressing.nodes.kernels").warn_once.cache_clear()
    caplog.set_level(logging.CRITICAL + 1)  # as Ultimate SD Upscale does for the whole of its sampling
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    caplog.handler.setLevel(0)
    studio.sample(studio.dress(garments=[studio.settings(studio.garments[0], region=mask)]))
    assert [line for line in caplog.messages if "is stretched over 64 x 96" in line]


# --- attention that nobody knows yet ---------------------------------------------------------------------------------


@pytest.mark.holds(
    "an attention function that we do not know",
    "is never handed widened heads: those use PyTorch attention, said once in the log",
)
def test_an_unknown_attention_backend_is_never_handed_widened_heads(studio, monkeypatch, caplog):
    attention = importlib.import_module("comfy.ldm.modules.attention")
    module = importlib.import_module("comfyui_anydressing.nodes.kernels")
    module.say_once.cache_clear()
    caplog.set_level("INFO")
    model = studio.dress(garments=[studio.garment("upper", file=studio.random_file("null", null_token=True))])
    expected, widths = studio.sample(model), set()
    own = {site.channels // 8 for site in studio.garments[0].unet.sites}

    def attention_next_year(q, k, v, heads, *args, **kwargs):
        width = q.shape[-1] // heads
        if width not in own:
            raise NotImplementedError(f"heads of {width}")
        widths.add(width)
        return attention.attention_pytorch(q, k, v, heads, *args, **kwargs)

    monkeypatch.setattr(attention, "optimized_attention", attention_next_year)
    monkeypatch.setattr(attention, "optimized_attention_masked", attention_next_year)
    torch.testing.assert_close(studio.sample(model), expected)
    assert widths
    said = [line for line in caplog.messages if "attention_next_year" in line]
    assert len(said) == 1
    assert "use PyTorch attention" in said[0]
