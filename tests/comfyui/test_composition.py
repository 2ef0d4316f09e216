# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing beside everything else an artist uses, on real ComfyUI. docs/composition.md lists each pairing."""

from __future__ import annotations

import importlib

import pytest
import torch

pytestmark = pytest.mark.comfyui

CONDITIONAL = {"positive", "other"}


@pytest.fixture(params=["studio_with_file", "studio_without_file"], ids=["file", "reference"])
def studio(request):
    return request.getfixturevalue(request.param)


def reading(garment):
    """All tensors that were read of a garment."""
    return [*garment.tokens, *(part for level in garment.levels for pair in level.tokens for part in pair)]


def with_file_alone():
    """Of a test that is about the file's own attention."""
    return pytest.mark.parametrize("studio", ["studio_with_file"], indirect=True, ids=["file"])


def assert_only_conditional_rows_wear(plain, dressed, *, conditional=CONDITIONAL):
    """Row by row of the first step: text rows change, unconditional ones keep every bit (Eq. 16)."""
    assert [name for name, _ in plain] == [name for name, _ in dressed]
    assert any(name in conditional for name, _ in plain)
    for (name, before), (_, after) in zip(plain, dressed, strict=True):
        if name in conditional:
            assert (before - after).abs().max() > 1e-4, f"the {name!r} row wears nothing"
        else:
            assert torch.equal(before, after), f"the {name!r} row has changed"


# --- what must not change -------------------------------------------------------------------------------------------


@pytest.mark.holds("strength 0, an empty or reversed range", "bit-identical to the plain workflow")
@pytest.mark.parametrize(
    "inputs",
    [{"strength": 0.0}, {"start_percent": 0.5, "end_percent": 0.5}, {"start_percent": 1.0, "end_percent": 0.0}],
    ids=["strength 0", "empty range", "reversed range"],
)
def test_dressing_that_is_off_is_bit_identical(studio, inputs):
    assert torch.equal(studio.sample(studio.model), studio.sample(studio.dress(**inputs)))


@pytest.mark.holds("a garment with weight 0 or never in range", "as if it were not connected")
def test_a_garment_out_of_range_or_without_weight_is_not_there(studio):
    upper, lower, _ = studio.garments
    alone = studio.sample(studio.dress(garments=[upper]))
    assert torch.equal(alone, studio.sample(studio.dress(garments=[upper, studio.settings(lower, weight=0.0)])))
    never = studio.settings(lower, start_percent=0.3, end_percent=0.3)
    assert torch.equal(alone, studio.sample(studio.dress(garments=[upper, never])))


@pytest.mark.holds("start and end percent", "other steps keep their bits")
def test_a_range_touches_only_its_own_steps(studio):
    early = studio.dress(end_percent=0.5)
    plain, dressed = studio.first_step(studio.model, steps=2), studio.first_step(early, steps=2)
    assert not torch.equal(plain[1][1], dressed[1][1])
    late = studio.dress(start_percent=0.5)
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(plain[:2], studio.first_step(late, steps=2)[:2], strict=True)
    )
    assert not torch.equal(studio.sample(studio.model, steps=2), studio.sample(late, steps=2))


@pytest.mark.holds("start and end percent")
def test_a_garments_own_range_touches_only_its_own_steps(studio):
    upper, lower, _ = studio.garments
    late = studio.settings(lower, start_percent=0.6)
    both = studio.first_step(studio.dress(garments=[upper, late]))
    alone = studio.first_step(studio.dress(garments=[upper]))
    for (_, a), (_, b) in zip(both, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(
        studio.sample(studio.dress(garments=[upper, late]), steps=4),
        studio.sample(studio.dress(garments=[upper]), steps=4),
    )


@pytest.mark.holds("the MODEL that comes in", "never changed: options, patches, weights")
def test_the_incoming_model_is_never_changed(studio):
    before = studio.sample(studio.model)
    options, patches = repr(studio.model.model_options), dict(studio.model.patches)
    wrappers, models = repr(studio.model.wrappers), dict(studio.model.additional_models)
    weights = {name: value.clone() for name, value in studio.model.model.state_dict().items()}
    studio.garment("upper", seed=11)
    studio.sample(studio.dress())
    assert (options, patches) == (repr(studio.model.model_options), dict(studio.model.patches))
    assert (wrappers, models) == (repr(studio.model.wrappers), dict(studio.model.additional_models))
    assert all(torch.equal(weights[name], value) for name, value in studio.model.model.state_dict().items())
    assert torch.equal(before, studio.sample(studio.model))


@pytest.mark.holds("A, then B, then A again", "A to the bit, also after everything was freed")
def test_a_b_a_gives_a_again(studio):
    a, b = studio.dress(garments=studio.garments[:2]), studio.dress(garments=studio.garments[1:])
    first = studio.sample(a)
    assert not torch.equal(first, studio.sample(b))
    assert torch.equal(first, studio.sample(a))


def test_encoding_twice_gives_the_same_bits(studio):
    again = studio.garment("upper")
    for one, other in zip(reading(studio.garments[0]), reading(again), strict=True):
        assert torch.equal(one, other)
    assert again.content == studio.garments[0].content


@pytest.mark.holds("order of the garment sockets", "changes no bit")
def test_the_order_of_garments_changes_no_bit(studio):
    forward, backward = studio.dress(garments=studio.garments), studio.dress(garments=studio.garments[::-1])
    assert torch.equal(studio.sample(forward), studio.sample(backward))


@pytest.mark.holds("a dressed and an undressed sampler in one graph", "the undressed one is the plain picture")
def test_a_dressed_and_an_undressed_sampler_share_a_model(studio):
    plain, dressed = studio.sample(studio.model), studio.sample(studio.dress())
    assert not torch.equal(plain, dressed)
    assert torch.equal(plain, studio.sample(studio.model))


@pytest.mark.holds("order of the garment sockets")
def test_the_order_of_like_garments_from_two_models_changes_no_bit(studio):
    """Same picture, same kind, other results: only what came out can tell them apart."""
    one, other = studio.garment("upper"), studio.garment("upper", model=reseeded_model(studio))
    assert torch.equal(
        studio.sample(studio.dress(garments=[one, other])), studio.sample(studio.dress(garments=[other, one]))
    )


@pytest.mark.holds(
    "two Apply nodes",
    "with a file their terms add up; by reference the later one takes its share of what the earlier "
    "leaves; this is not one softmax over both",
)
@with_file_alone()
def test_two_applies_add_their_terms(studio):
    upper, lower, _ = studio.garments
    both = studio.sample(studio.dress(studio.dress(garments=[upper], strength=0.4), garments=[lower], strength=0.3))
    swapped = studio.sample(studio.dress(studio.dress(garments=[lower], strength=0.3), garments=[upper], strength=0.4))
    assert (both - swapped).abs().max() < 1e-5 * both.abs().max()
    first = studio.first_step(studio.dress(studio.dress(garments=[upper]), garments=[lower]))
    assert_only_conditional_rows_wear(studio.first_step(studio.dress(garments=[upper])), first)


@pytest.mark.holds("two Apply nodes")
def test_a_second_apply_goes_around_what_the_first_leaves(studio_without_file):
    """Reference attention takes its share of whatever attends already."""
    studio = studio_without_file
    upper, lower, _ = studio.garments
    once = studio.dress(garments=[upper])
    twice = studio.dress(once, garments=[lower])
    assert_only_conditional_rows_wear(studio.first_step(once), studio.first_step(twice))
    assert_only_conditional_rows_wear(studio.first_step(studio.dress(garments=[lower])), studio.first_step(twice))
    assert torch.equal(studio.sample(twice), studio.sample(studio.dress(once, garments=[lower])))


@pytest.mark.holds("two Apply nodes")
def test_stacking_is_not_one_softmax_over_both(studio):
    upper, lower, _ = studio.garments
    stacked = studio.sample(studio.dress(studio.dress(garments=[upper]), garments=[lower]))
    assert not torch.allclose(stacked, studio.sample(studio.dress(garments=[upper, lower])), atol=1e-3)


# --- who wears the garments -----------------------------------------------------------------------------------------


@pytest.mark.holds("KSampler, CFG 1", "the positive row alone is dressed")
@pytest.mark.parametrize("cfg", [6.0, 1.0])
def test_ksampler_dresses_the_positive_row_alone(studio, cfg):
    plain, dressed = studio.first_step(studio.model, cfg=cfg), studio.first_step(studio.dress(), cfg=cfg)
    assert len(plain) == (2 if cfg != 1 else 1)
    assert_only_conditional_rows_wear(plain, dressed)


@pytest.mark.holds("DualCFGGuider", "both text rows are dressed, the negative is not")
def test_dual_cfg_dresses_both_text_rows(studio):
    def run(model):
        guider = importlib.import_module("comfy_extras.nodes_custom_sampler").Guider_DualCFG(model)
        guider.set_conds(studio.positive, studio.prompts["other"], studio.negative)
        guider.set_cfg(5.0, 4.0)
        studio.guide(guider)

    plain, dressed = studio.first_step(studio.model, run), studio.first_step(studio.dress(), run)
    assert sorted(name for name, _ in plain) == ["negative", "other", "positive"]
    assert_only_conditional_rows_wear(plain, dressed)


@pytest.mark.holds("PerpNegGuider, PerpNeg", "the positive row alone is dressed")
def test_perp_neg_guider_dresses_the_positive_row_alone(studio):
    def run(model):
        guider = importlib.import_module("comfy_extras.nodes_perpneg").Guider_PerpNeg(model)
        guider.set_conds(studio.positive, studio.negative, studio.prompts[""])
        guider.set_cfg(5.0, 1.0)
        studio.guide(guider)

    plain, dressed = studio.first_step(studio.model, run), studio.first_step(studio.dress(), run)
    assert sorted(name for name, _ in plain) == ["", "negative", "positive"]
    assert_only_conditional_rows_wear(plain, dressed)


@pytest.mark.holds("PerpNegGuider, PerpNeg")
def test_perp_neg_node_dresses_the_positive_row_alone(studio):
    perp_neg = lambda model: studio.stock("nodes_perpneg", "PerpNeg", model, studio.prompts[""], 1.0)  # noqa: E731
    plain, dressed = studio.first_step(perp_neg(studio.model)), studio.first_step(perp_neg(studio.dress()))
    assert_only_conditional_rows_wear(plain, dressed)


def area_prompts(studio):
    """The positive prompt in the left half, another one over everything."""
    nodes = studio.host.nodes
    left = nodes.ConditioningSetArea().append(studio.positive, 32, 96, 0, 0, 1.0)[0]
    return nodes.ConditioningCombine().combine(left, studio.prompts["other"])[0]


def masked_prompts(studio, bounds="default"):
    mask = torch.zeros(1, 12, 8)
    mask[:, :, :4] = 1
    nodes = studio.host.nodes
    left = nodes.ConditioningSetMask().append(studio.positive, mask, bounds, 1.0)[0]
    right = nodes.ConditioningSetMask().append(studio.prompts["other"], 1 - mask, bounds, 1.0)[0]
    return nodes.ConditioningCombine().combine(left, right)[0]


@pytest.mark.holds("masked and regional prompts", "each positive piece is dressed, the negative is not")
@pytest.mark.parametrize("bounds", ["default", "mask bounds"])
def test_masked_prompts_are_dressed_and_the_negative_is_not(studio, bounds):
    prompts = masked_prompts(studio, bounds)
    plain = studio.first_step(studio.model, positive=prompts)
    assert_only_conditional_rows_wear(plain, studio.first_step(studio.dress(), positive=prompts))


@pytest.mark.holds("masked and regional prompts")
def test_area_prompts_are_dressed_and_the_negative_is_not(studio):
    """ComfyUI copies an area's uuid into the negative list; a test by uuid would dress the negative."""
    prompts = area_prompts(studio)
    plain = studio.first_step(studio.model, positive=prompts)
    assert_only_conditional_rows_wear(plain, studio.first_step(studio.dress(), positive=prompts))


@pytest.mark.holds("masked and regional prompts")
def test_an_area_in_the_negative_alone_changes_nothing(studio):
    negative = studio.host.nodes.ConditioningSetArea().append(studio.negative, 32, 96, 0, 0, 1.0)[0]
    plain = studio.first_step(studio.model, negative=negative)
    assert_only_conditional_rows_wear(plain, studio.first_step(studio.dress(), negative=negative))


# --- model patches, in either order ---------------------------------------------------------------------------------


def sag(studio, model):
    return studio.stock("nodes_sag", "SelfAttentionGuidance", model, 0.5, 2.0)


def pag(studio, model):
    return studio.stock("nodes_pag", "PerturbedAttentionGuidance", model, 3.0)


def hypertile(studio, model):
    return studio.stock("nodes_hypertile", "HyperTile", model, 32, 2, 0, False)


def tome(studio, model):
    return studio.stock("nodes_tomesd", "TomePatchModel", model, 0.5)


def deep_shrink(studio, model):
    return studio.deep_shrink(model)


def free_lunch(studio, model, name):
    """FreeU looks for 4x and 2x the model's base width; the reduced model has the base width alone, so it is halved."""
    config = model.model.model_config.unet_config
    width = config["model_channels"]
    config["model_channels"] = width // 2
    try:
        return studio.stock("nodes_freelunch", name, model, 1.1, 1.2, 0.9, 0.2)
    finally:
        config["model_channels"] = width


def freeu(studio, model):
    return free_lunch(studio, model, "FreeU")


def freeu_v2(studio, model):
    return free_lunch(studio, model, "FreeU_V2")


def attention_multiply(studio, model):
    return studio.stock("nodes_attention_multiply", "UNetSelfAttentionMultiply", model, 1.0, 1.1, 1.0, 1.2)


def style_lora(studio, model):
    loader = studio.host.nodes.LoraLoaderModelOnly()
    return loader.load_lora_model_only(model, "anydressing_random_style_lora.safetensors", 1.0)[0]


def ip_adapter(studio, model):
    """An attn2 replacement at every site, as IP-Adapter sets them: the text's share plus that of image tokens."""
    attention = importlib.import_module("comfy.ldm.modules.attention")
    torch.manual_seed(1)
    tokens = {site.channels: torch.randn(1, 4, site.channels) for site in studio.garments[0].unet.sites}

    def attend(q, k, v, extra):
        image = tokens[q.shape[-1]].to(q).expand(q.shape[0], -1, -1)
        heads = extra["n_heads"]
        return attention.optimized_attention(q, k, v, heads) + attention.optimized_attention(q, image, image, heads)

    patched = model.clone()
    for site in studio.garments[0].unet.sites:
        patched.set_model_attn2_replace(attend, *site.ldm_block)
    return patched


def lcm(studio, model):
    return studio.stock("nodes_model_advanced", "ModelSamplingDiscrete", model, "lcm", False)


PATCHES = [sag, pag, hypertile, tome, deep_shrink, freeu, freeu_v2, attention_multiply, style_lora, ip_adapter, lcm]


@pytest.mark.holds_by_reference(
    "an attention that replaces self-attention (PAG, SAG), sage, an override",
    "keeps what the garments leave of the softmax; garments use PyTorch attention, said once in the log",
)
@pytest.mark.holds_by_reference("HyperTile, ToMe", "dressed; where they move tokens there are no places")
@pytest.mark.holds(
    "SAG, PAG, HyperTile, ToMe, Deep Shrink (PatchModelAddDownscale), FreeU, FreeU v2, "
    "UNetSelfAttentionMultiply, a style LoRA, an attn2 patch (as IP-Adapter sets), LCM's "
    "ModelSamplingDiscrete",
    "either order",
)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.__name__)
def test_a_patch_composes_in_either_order(studio, patch):
    steps = (
        max(studio.steps, 2) if patch is lcm else studio.steps
    )  # from pure noise LCM's first step is DDPM's, but for rounding

    def sampled(model):
        torch.manual_seed(0)  # HyperTile draws its tiles from the global generator
        return studio.sample(model, latent={"samples": torch.zeros(1, 4, 16, 16)}, steps=steps)

    before, after = sampled(studio.dress(patch(studio, studio.model))), sampled(patch(studio, studio.dress()))
    assert torch.equal(before, after)
    assert not torch.equal(before, sampled(patch(studio, studio.model)))
    assert not torch.equal(before, sampled(studio.dress()))


@pytest.mark.holds(
    "SAG, PAG, HyperTile, ToMe, Deep Shrink (PatchModelAddDownscale), FreeU, FreeU v2, "
    "UNetSelfAttentionMultiply, a style LoRA, an attn2 patch (as IP-Adapter sets), LCM's "
    "ModelSamplingDiscrete",
)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.__name__)
def test_unconditional_rows_keep_their_bits_under_a_patch(studio, patch):
    def rows(model):
        torch.manual_seed(0)
        return studio.first_step(model, latent={"samples": torch.zeros(1, 4, 16, 16)})

    assert_only_conditional_rows_wear(rows(patch(studio, studio.model)), rows(patch(studio, studio.dress())))


@pytest.mark.holds("many of these at once", "Apply may stand anywhere among them")
def test_many_patches_together_compose_wherever_apply_stands(studio):
    def sampled(place):
        model = studio.model
        for index, patch in enumerate([style_lora, sag, pag, freeu, ip_adapter, attention_multiply, None]):
            if index == place:
                model = studio.dress(model)
            model = model if patch is None else patch(studio, model)
        return studio.sample(model)

    first, middle, last = (sampled(place) for place in (0, 3, 6))
    assert torch.equal(first, middle)
    assert torch.equal(first, last)


@pytest.mark.holds("a style LoRA while encoding", "stripped unless keep_loras; the picture keeps it")
def test_a_style_lora_is_stripped_from_the_encoding_and_kept_in_the_picture(studio):
    styled = style_lora(studio, studio.model)
    plain, stripped = studio.garment("upper"), studio.garment("upper", model=styled)
    kept = studio.garment("upper", model=styled, keep_loras=True)
    assert all(torch.equal(a, b) for a, b in zip(reading(plain), reading(stripped), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(reading(plain), reading(kept), strict=True))
    styled_picture = studio.sample(styled)
    studio.garment("upper", model=styled)
    assert torch.equal(styled_picture, studio.sample(styled))


@pytest.mark.holds(
    "merged checkpoints (ModelMergeSimple and its kin)",
    "garments are read by the merge, without its LoRAs",
)
def test_a_merged_checkpoint_reads_garments_as_a_whole(studio):
    """A merge is kept as patches, as LoRAs are; leaving it out would read the garment with the first model alone."""
    other = reseeded_model(studio)
    merged = studio.stock("nodes_model_merging", "ModelMergeSimple", studio.model, other, ratio=0.0)
    want = reading(studio.garment("upper", model=other))
    for model in (merged, style_lora(studio, merged)):
        for a, b in zip(reading(studio.garment("upper", model=model)), want, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def reseeded_model(studio):
    """A checkpoint of the same shape with other weights."""
    sd = importlib.import_module("comfy.sd")
    weights = studio.model.model.diffusion_model.state_dict()
    return sd.load_diffusion_model_state_dict({f"model.diffusion_model.{k}": v * 0.9 for k, v in weights.items()})


@pytest.mark.holds("LoRA hooks on a prompt", "composes")
def test_lora_hooks_on_a_prompt_compose(studio):
    hooks, utils = importlib.import_module("comfy.hooks"), importlib.import_module("comfy.utils")
    path = studio.host.folder_paths.get_full_path_or_raise("loras", "anydressing_random_style_lora.safetensors")
    group = hooks.create_hook_lora(utils.load_torch_file(path), 1.0, 0.0)
    hooked = [[text, {**extra, "hooks": group}] for text, extra in studio.positive]

    def registered(model):
        model = model.clone()
        model.register_all_hook_patches(group, hooks.create_target_dict(hooks.EnumWeightTarget.Model))
        return model

    plain = studio.first_step(registered(studio.model), positive=hooked)
    dressed = studio.first_step(registered(studio.dress()), positive=hooked)
    assert_only_conditional_rows_wear(plain, dressed)
    before = studio.sample(registered(studio.dress()), positive=hooked)
    assert not torch.equal(before, studio.sample(studio.dress()))


@pytest.mark.holds("ControlNet", "composes")
@pytest.mark.parametrize("by_reference", [False, True], ids=["file", "reference"])
def test_controlnet_composes(studio_with_file, by_reference):
    studio, nodes = studio_with_file, studio_with_file.host.nodes
    file = studio.no_file if by_reference else studio.file
    garments = [studio.garment(slot, file=file) for slot in ("upper", "lower")]
    net = nodes.ControlNetLoader().load_controlnet("anydressing_random_controlnet.safetensors")[0]
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        studio.positive, studio.negative, net, torch.rand(1, 96, 64, 3), 1.0, 0.0, 1.0
    )
    prompts = {"positive": positive, "negative": negative}
    model = studio.dress(garments=garments)
    assert_only_conditional_rows_wear(studio.first_step(studio.model, **prompts), studio.first_step(model, **prompts))
    assert not torch.equal(studio.sample(model, steps=2, **prompts), studio.sample(model, steps=2))


# --- samplers, sizes, batches, inpainting ---------------------------------------------------------------------------


@pytest.mark.holds("euler, euler_ancestral, dpmpp_2m, uni_pc, ddim, lcm, heun", "dressed, and the same twice")
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "ddim", "lcm", "heun"])
def test_any_sampler_dresses(studio, sampler):
    scheduler = "ddim_uniform" if sampler == "ddim" else "normal"
    options = {"sampler": sampler, "scheduler": scheduler, "steps": 2}
    first, again = (studio.sample(studio.dress(), **options) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, studio.sample(studio.model, **options))


@pytest.mark.holds("a batch of three", "each picture is dressed")
def test_each_picture_of_a_batch_is_dressed(studio):
    latent = {"samples": torch.zeros(3, 4, 12, 8)}
    plain, dressed = studio.first_step(studio.model, latent=latent), studio.first_step(studio.dress(), latent=latent)
    assert len(plain) == 6
    assert_only_conditional_rows_wear(plain, dressed)


@pytest.mark.holds("a picture of another size than the garments, odd sizes", "dressed")
@pytest.mark.parametrize("size", [(24, 16), (8, 20), (13, 9)], ids=str)
def test_the_picture_may_have_another_size_than_the_garments(studio, size):
    latent = {"samples": torch.zeros(1, 4, *size)}
    plain, dressed = studio.first_step(studio.model, latent=latent), studio.first_step(studio.dress(), latent=latent)
    assert_only_conditional_rows_wear(plain, dressed)


@pytest.mark.holds("inpainting by mask", "what lies outside stays")
def test_masked_inpainting_keeps_what_lies_outside(studio):
    torch.manual_seed(0)
    mask = torch.zeros(1, 1, 96, 64)
    mask[..., :48, :] = 1
    latent = {"samples": torch.randn(1, 4, 12, 8), "noise_mask": mask}
    dressed = studio.sample(studio.dress(), latent=latent)
    torch.testing.assert_close(dressed[..., 7:, :], latent["samples"][..., 7:, :], atol=1e-5, rtol=1e-5)
    plain = studio.first_step(studio.model, latent=latent)
    assert_only_conditional_rows_wear(plain, studio.first_step(studio.dress(), latent=latent))
    assert not torch.equal(dressed, studio.sample(studio.model, latent=latent))


@pytest.mark.holds("an inpainting model (nine channels)", "wears the same file")
def test_an_inpainting_model_wears_the_same_file(studio):
    """Nine input channels: latent, mask, masked picture. Only the first convolution differs."""
    inpainting = inpainting_model(studio)
    conditioning = studio.host.nodes.InpaintModelConditioning().encode(
        studio.positive, studio.negative, studio.picture(5), studio.vae, torch.ones(1, 96, 64)
    )
    prompts = {"positive": conditioning[0], "negative": conditioning[1]}
    garment = studio.garment("upper", model=inpainting)
    plain = studio.first_step(inpainting, **prompts)
    assert_only_conditional_rows_wear(plain, studio.first_step(studio.dress(inpainting, [garment]), **prompts))


def inpainting_model(studio):
    sd = importlib.import_module("comfy.sd")
    weights = {f"model.diffusion_model.{k}": v for k, v in studio.model.model.diffusion_model.state_dict().items()}
    name = "model.diffusion_model.input_blocks.0.0.weight"
    torch.manual_seed(2)
    weights[name] = torch.cat([weights[name], torch.randn(weights[name].shape[0], 5, 3, 3) * 0.05], dim=1)
    return sd.load_diffusion_model_state_dict(weights)


# --- regions --------------------------------------------------------------------------------------------------------


def half_mask(top):
    mask = torch.zeros(1, 96, 64)
    mask[:, :48] = 1 if top else 0
    mask[:, 48:] = 0 if top else 1
    return mask


@pytest.mark.holds("region masks", "choose where each garment goes, also inside area prompts")
@with_file_alone()
def test_a_full_region_is_no_region(studio):
    upper, lower, _ = studio.garments
    full = studio.settings(upper, region=torch.ones(1, 96, 64))
    torch.testing.assert_close(
        studio.sample(studio.dress(garments=[full, lower])), studio.sample(studio.dress()), atol=1e-4, rtol=1e-4
    )


@pytest.mark.holds("region masks")
def test_regions_swap_what_each_half_wears(studio):
    upper, lower, _ = studio.garments
    regions = [studio.settings(upper, region=half_mask(True)), studio.settings(lower, region=half_mask(False))]
    swapped = [studio.settings(upper, region=half_mask(False)), studio.settings(lower, region=half_mask(True))]
    plain, dressed = studio.first_step(studio.model), studio.first_step(studio.dress(garments=regions))
    assert_only_conditional_rows_wear(plain, dressed)
    assert not torch.allclose(
        studio.sample(studio.dress(garments=regions)), studio.sample(studio.dress(garments=swapped)), atol=1e-3
    )


@pytest.mark.holds("region masks")
def test_a_region_follows_the_picture_into_an_area_prompt(studio):
    """The area's crop starts at the right half; a region on the left half must not reach it."""
    nodes = studio.host.nodes
    right = nodes.ConditioningSetArea().append(studio.positive, 32, 96, 32, 0, 1.0)[0]
    prompts = nodes.ConditioningCombine().combine(right, studio.prompts["other"])[0]
    left_only = torch.zeros(1, 96, 64)
    left_only[..., :32] = 1
    dressed = studio.dress(garments=[studio.settings(studio.garments[0], region=left_only)])
    plain_rows = studio.first_step(studio.model, positive=prompts)
    for (name, before), (_, after) in zip(plain_rows, studio.first_step(dressed, positive=prompts), strict=True):
        assert torch.allclose(before, after, atol=1e-5) == (name != "other"), name


@pytest.mark.holds("region masks while other garments are out of range", "each region keeps its garment")
def test_a_region_meets_its_garment_also_while_others_are_out_of_range(studio):
    upper, lower, hat = studio.garments
    halves = [studio.settings(lower, region=half_mask(False)), studio.settings(upper, region=half_mask(True))]
    late = studio.settings(hat, start_percent=0.6)
    with_late = studio.first_step(studio.dress(garments=[late, *halves]))
    for (_, a), (_, b) in zip(with_late, studio.first_step(studio.dress(garments=halves)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def tiled(model, rows):
    """What packs for tiled sampling do: each tile of `rows` latent rows goes in with all conditions, tile after tile."""

    def together(apply_model, args):
        x, t, c = args["input"], args["timestep"], dict(args["c"])
        tiles = x.split(rows, dim=2)
        c["c_crossattn"] = torch.cat([c["c_crossattn"]] * len(tiles))
        out = apply_model(torch.cat(tiles), torch.cat([t] * len(tiles)), **c)
        return torch.cat(out.chunk(len(tiles)), dim=2)

    model = model.clone()
    model.set_model_unet_function_wrapper(together)
    return model


@pytest.mark.holds("packs that sample in tiles, several in one batch", "each tile's positive rows are dressed")
def test_tiles_that_share_a_batch_are_dressed_row_by_row(studio):
    latent = {"samples": torch.zeros(1, 4, 16, 8)}
    plain = studio.first_step(tiled(studio.model, 8), latent=latent)
    dressed = studio.first_step(tiled(studio.dress(), 8), latent=latent)
    assert [name for name, _ in plain] == ["negative", "positive"] * 2
    assert_only_conditional_rows_wear(plain, dressed)


@pytest.mark.holds("packs that sample in tiles, several in one batch")
def test_a_batch_that_cannot_be_told_apart_is_refused(studio):
    def halved(apply_model, args):
        c = {**args["c"], "c_crossattn": args["c"]["c_crossattn"][:1]}
        return apply_model(args["input"][:1], args["timestep"][:1], **c).repeat(2, 1, 1, 1)

    model = studio.dress()
    model.set_model_unet_function_wrapper(halved)
    with pytest.raises(ValueError, match=r"(?s)model: a node rearranges the batch.*What to do"):
        studio.sample(model)


@pytest.mark.holds("region masks under tiled sampling", "refused in plain words")
def test_a_region_under_tiled_sampling_is_refused_with_the_way_out(studio):
    model = tiled(studio.dress(garments=[studio.settings(studio.garments[0], region=half_mask(True))]), 8)
    with pytest.raises(ValueError, match=r"(?s)region: this MODEL is sampled in tiles.*What to do: remove the region"):
        studio.sample(model, latent={"samples": torch.zeros(1, 4, 16, 8)})


@pytest.mark.holds("region masks with HyperTile or ToMe", "refused in plain words: the picture's layout is gone there")
def test_a_region_under_hypertile_is_refused_with_the_way_out(studio):
    garment = studio.settings(studio.garments[0], region=half_mask(True))
    model = hypertile(studio, studio.dress(garments=[garment]))
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"(?s)region: .*HyperTile.*What to do: remove the region"):
        studio.sample(model, latent={"samples": torch.zeros(1, 4, 16, 16)})


@pytest.mark.holds("region masks under Deep Shrink", "lie on the smaller grid")
def test_a_region_finds_its_place_in_a_shrunken_unet(studio):
    """Deep Shrink's layers have grids that no site has by itself."""
    latent = {"samples": torch.zeros(1, 4, 24, 16)}
    plain = studio.first_step(deep_shrink(studio, studio.model), latent=latent)

    def upper_share(top):
        garment = studio.settings(studio.garments[0], region=half_mask(top))
        dressed = studio.first_step(deep_shrink(studio, studio.dress(garments=[garment])), latent=latent)
        changes = [(a - b).abs() for (name, a), (_, b) in zip(plain, dressed, strict=True) if name == "positive"]
        return changes[0][:, :12].sum() / changes[0].sum()

    assert upper_share(True) > 1.2 * upper_share(False)


# --- the user's attention -------------------------------------------------------------------------------------------


def counting_override(model):
    """An attention override, as the sage and flash nodes set it, that counts its calls by key tokens."""
    calls = []

    def override(func, q, k, v, *args, **kwargs):
        calls.append((q.shape[-1], k.shape[1]))
        return func(q, k, v, *args, **kwargs)

    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = override
    return patched, calls


@pytest.mark.holds(
    "an attention override (sage, flash nodes)",
    "serves self-attention, text, encoding, and garments from a file without null token and without "
    "regions; other garments use PyTorch attention, said once in the log",
)
def test_an_attention_override_serves_every_plain_call(studio):
    file = studio.random_file("faithful", null_token=False)
    garments = [studio.garment(slot, file=file) for slot in ("upper", "lower")]
    dressed, calls = counting_override(studio.dress(garments=garments))
    sites = garments[0].unet.sites
    assert torch.equal(studio.sample(dressed, steps=1), studio.sample(studio.dress(garments=garments), steps=1))
    assert len(calls) == 3 * len(sites)  # self-attention, text, garments
    garment_tokens = {sum(g.tokens[i].shape[1] for g in garments) for i in range(len(sites))}
    assert sum(tokens in garment_tokens for _, tokens in calls) >= len(sites)


@pytest.mark.holds_by_reference("an attention that replaces self-attention (PAG, SAG), sage, an override")
@pytest.mark.holds("an attention override (sage, flash nodes)")
def test_an_attention_override_is_spared_widened_heads(studio, caplog):
    importlib.import_module("comfyui_anydressing.nodes.kernels").say_once.cache_clear()
    caplog.set_level("INFO")
    file = studio.random_file("null", null_token=True)
    garments = [studio.garment("upper", file=file)]
    dressed, calls = counting_override(studio.dress(garments=garments))
    sites = garments[0].unet.sites
    assert torch.equal(studio.sample(dressed, steps=1), studio.sample(studio.dress(garments=garments), steps=1))
    assert len(calls) == 2 * len(sites)  # self-attention and text only
    studio.sample(dressed)
    said = [record for record in caplog.messages if "an attention override is active" in record]
    assert len(said) == 1


# --- files ----------------------------------------------------------------------------------------------------------

VARIANTS = {
    "attn_input": {"feature_tap": "attn_input"},
    "attn_output": {"feature_tap": "attn_output"},
    "faithful": {"null_token": False},
    "out lora": {"lora_targets": ("q", "k", "v", "out")},
    "foreground": {"garment_tokens": "foreground"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_file_dresses(studio, variant):
    file = studio.random_file(variant, **VARIANTS[variant])
    picture = torch.ones(1, 96, 64, 3)
    picture[:, 24:72, 16:48] = studio.picture(1, 48, 32)
    garment = studio.garment("upper", file=file, image=picture, size="custom", width=64, height=96)
    whole = 12 * 8
    tokens = garment.tokens[0].shape[1]
    assert tokens == (6 * 4 if variant == "foreground" else whole)
    dressed = studio.dress(garments=[garment])
    assert_only_conditional_rows_wear(studio.first_step(studio.model), studio.first_step(dressed))


def test_half_size_garments_have_a_quarter_of_the_tokens(studio):
    full, half = (
        studio.garment("upper", size="custom", garment_tokens="all", width=width, height=height)
        for width, height in ((128, 192), (64, 96))
    )
    for one, other in zip(reading(full), reading(half), strict=True):
        assert one.shape[1] == 4 * other.shape[1]


def test_eight_garments_fit(studio):
    garments = [studio.garment("upper", seed=seed) for seed in range(8)]
    assert_only_conditional_rows_wear(
        studio.first_step(studio.model), studio.first_step(studio.dress(garments=garments))
    )


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.holds("downstream clones", "share one bank of K' and V', which goes with the last of them")
def test_downstream_clones_share_one_bank(studio):
    dressed = studio.dress()
    bank = dressed.get_additional_models_with_key("anydressing")[0].model
    clones = [dressed]
    for _ in range(20):
        clones.append(clones[-1].clone())
    assert all(c.get_additional_models_with_key("anydressing")[0].model is bank for c in clones)
    assert not any(isinstance(v, torch.Tensor) for v in walk(clones[-1].model_options))


def walk(value):
    if isinstance(value, dict):
        for entry in value.values():
            yield from walk(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from walk(entry)
    else:
        yield value


@pytest.mark.holds("downstream clones")
def test_the_bank_goes_with_the_last_clone(studio):
    import gc
    import weakref

    dressed = studio.dress()
    studio.sample(dressed)
    bank = weakref.ref(dressed.get_additional_models_with_key("anydressing")[0].model)
    assert bank() is not None
    del dressed
    gc.collect()
    importlib.import_module("comfy.model_management").cleanup_models()
    gc.collect()
    assert bank() is None


@pytest.mark.holds(
    "ComfyUI's MultiGPU node",
    "is not refused; K' and V' travel to the other card at each call (sampling on two cards was not run)",
)
def test_the_bank_can_be_copied_to_another_card(studio):
    """What ComfyUI's MultiGPU node does to every model that a MODEL brings along."""
    bank = studio.dress().get_additional_models_with_key("anydressing")[0]
    copied = bank.deepclone_multigpu(torch.device("cpu"))
    assert copied.model is not bank.model
    for (name, ours), (other, theirs) in zip(
        bank.model.named_parameters(), copied.model.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)


@pytest.mark.holds("lowvram offloading", "the same picture")
def test_weights_left_offloaded_by_lowvram_give_the_same_picture(studio, monkeypatch):
    """With memory for nothing, weights stay behind and LoRAs are added as each layer runs."""
    management, patcher = (
        importlib.import_module("comfy.model_management"),
        importlib.import_module("comfy.model_patcher"),
    )
    styled = style_lora(studio, studio.model)

    def encoded_and_sampled():
        management.unload_all_models()
        garment = studio.garment("upper", model=styled, keep_loras=True)
        return reading(garment), studio.sample(studio.dress(styled, [garment]))

    plain = studio.sample(studio.model)
    want_tokens, want = encoded_and_sampled()
    load = patcher.ModelPatcher.load
    patches = []

    def load_nothing(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        load(self, device_to, 1, force_patch_weights, False)
        patches.extend(m for m in self.model.modules() if getattr(m, "weight_function", None))

    monkeypatch.setattr(patcher.ModelPatcher, "load", load_nothing)
    got_tokens, got = encoded_and_sampled()
    monkeypatch.undo()
    management.unload_all_models()
    assert patches, "nothing was left offloaded"
    assert torch.equal(plain, studio.sample(studio.model))
    for a, b in zip(want_tokens, got_tokens, strict=True):
        torch.testing.assert_close(a[0], b[0], atol=1e-5, rtol=1e-5)
    assert (want - got).abs().max() < 1e-4 * want.abs().max()


@pytest.mark.holds("fp16, bf16, fp8 weights", "encode and dress")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_weights_stored_small_encode_and_dress(studio, dtype):
    sd = importlib.import_module("comfy.sd")
    weights = {f"model.diffusion_model.{k}": v for k, v in studio.model.model.diffusion_model.state_dict().items()}
    model = sd.load_diffusion_model_state_dict(weights, model_options={"dtype": dtype})
    garment = studio.garment("upper", model=model)
    assert_only_conditional_rows_wear(
        studio.first_step(model), studio.first_step(studio.dress(model, [garment])), conditional=CONDITIONAL
    )
