# SPDX-License-Identifier: GPL-3.0-or-later
"""DISTS by hand on the picture alone, and against torchmetrics on VGG16 with the same random weights."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_anydressing.training.losses.dists import Dists, DistsWeights, Vgg16Stages, l2_pool, load_vgg16_dists
from safetensors.torch import save_file
from torch import nn
from torchmetrics.functional.image import dists as torchmetrics_dists
from torchvision.models.vgg import cfgs, make_layers


def nothing(image):
    """A feature network without features: DISTS compares the pictures alone."""
    return []


def random_features(seed=0):
    """VGG16's convolutions with random weights that keep the maps' scale down to the last stage."""
    torch.manual_seed(seed)
    features = make_layers(cfgs["D"])
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.normal_(layer.bias, std=0.1)
    return features


@pytest.fixture(scope="module")
def features():
    return random_features()


def constant(*values):
    """One constant picture for each value: (B, 3, 4, 4)."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_plain_pictures_differ_in_texture_only():
    # l = 2 * 0.2 * 0.4 / (0.04 + 0.16) = 0.8 and s = 1; the three l have half of the uniform weights.
    distance = Dists(nothing)(constant(0.2, 0.3), constant(0.4, 0.3))
    assert distance.tolist() == pytest.approx([0.5 * 0.2, 0.0], abs=1e-5)


def test_a_negative_differs_in_structure_only():
    # Both means are 1/2, both variances 1/4, the covariance -1/4: l = 1 and s = -1.
    image = torch.zeros(1, 3, 2, 2)
    image[..., 0] = 1
    assert Dists(nothing)(image, 1 - image).item() == pytest.approx(0.5 * 2, abs=1e-5)


def test_alpha_weighs_texture_and_beta_structure_normalised_together():
    # Red alone counts, its texture three times its structure: 3/4 (1 - 0.8) + 1/4 * 0.
    weights = DistsWeights(torch.tensor([3.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
    image, target = constant(0.2).clone(), constant(0.4).clone()
    image[:, 1:] = 0.9
    assert Dists(nothing, weights)(image, target).item() == pytest.approx(0.75 * 0.2, abs=1e-5)


def test_the_pictures_channels_come_before_the_networks():
    def red_plus_one(image):
        return [image[:, :1] + 1]

    only_last = DistsWeights(torch.tensor([0.0, 0, 0, 1]), torch.zeros(4))
    # 1 - 2 * 1.2 * 1.4 / (1.44 + 1.96) = 0.2^2 / 3.4
    assert Dists(red_plus_one, only_last)(constant(0.2), constant(0.4)).item() == pytest.approx(0.04 / 3.4, abs=1e-5)


def test_l2_pool_is_the_root_of_the_hann_weighted_mean_square():
    # Where the window sticks out on one side a quarter of its weight meets zeros, in the corner 7/16.
    expected = torch.tensor([[1.5, 3**0.5], [3**0.5, 2.0]])
    torch.testing.assert_close(l2_pool(torch.full((1, 1, 4, 4), 2.0))[0, 0], expected)


def test_l2_pool_of_nothing_has_a_finite_slope():
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    l2_pool(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


# ---- against torchmetrics -------------------------------------------------------------------------------------------


def torchmetrics_network(features, monkeypatch):
    """torchmetrics' DISTS with our VGG16 and its own, published, alpha and beta."""
    monkeypatch.setattr(torchmetrics_dists, "vgg16", lambda weights: SimpleNamespace(features=features))
    return torchmetrics_dists.DISTSNetwork()


@pytest.mark.parametrize("published", [True, False])
def test_torchmetrics_agrees_on_the_same_random_vgg16(features, monkeypatch, published):
    theirs = torchmetrics_network(features, monkeypatch)
    weights = DistsWeights(theirs.alpha.detach().flatten(), theirs.beta.detach().flatten())
    if not published:
        theirs.alpha.data.fill_(1)
        theirs.beta.data.fill_(1)
    ours = Dists(Vgg16Stages(features), weights if published else None)
    torch.manual_seed(1)
    target = torch.rand(2, 3, 49, 36)  # odd sides: both must round alike when they halve
    image = (target + 0.2 * torch.randn_like(target)).clamp(0, 1).requires_grad_()
    expected = theirs(image, target, require_grad=True)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), image)
    distance = ours(image, target)
    (gradient,) = torch.autograd.grad(distance.sum(), image)
    assert expected.min() > 0.01  # there is something to agree on
    torch.testing.assert_close(distance, expected, rtol=0, atol=1e-5)
    assert (gradient - expected_gradient).norm() < 1e-4 * expected_gradient.norm()


def test_stages_are_the_five_relus_of_dists(features):
    maps = Vgg16Stages(features)(torch.zeros(1, 3, 32, 24))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (64, 32, 24),
        (128, 16, 12),
        (256, 8, 6),
        (512, 4, 3),
        (512, 2, 2),
    ]


# ---- frozen, fp32, finite -------------------------------------------------------------------------------------------


def test_equal_pictures_are_exactly_zero_apart(features):
    torch.manual_seed(2)
    image = torch.rand(2, 3, 32, 24)
    assert torch.equal(Dists(Vgg16Stages(features))(image, image.clone()), torch.zeros(2))


def test_a_black_pair_is_zero_with_a_finite_gradient(features):
    image = torch.zeros(1, 3, 32, 24, requires_grad=True)
    distance = Dists(Vgg16Stages(features))(image, torch.zeros(1, 3, 32, 24))
    distance.backward()
    assert distance.item() == 0.0
    assert torch.isfinite(image.grad).all()


def test_nothing_in_it_can_be_trained():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    dists = Dists(one_map(network), DistsWeights(torch.ones(5), torch.ones(5)))
    assert list(dists.parameters())
    assert not any(parameter.requires_grad for parameter in dists.parameters())
    assert not any(module.training for module in dists.modules())
    image = torch.rand(1, 3, 4, 4, requires_grad=True)
    dists(image, torch.rand(1, 3, 4, 4)).sum().backward()
    assert all(parameter.grad is None for parameter in dists.parameters())
    assert image.grad.abs().sum() > 0


def one_map(network):
    """A feature network that returns its network's output as the only map."""

    class Maps(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, image):
            return [self.network(image)]

    return Maps()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_fp32_whatever_comes_in_and_runs_around_it(dtype):
    torch.manual_seed(3)
    network = nn.Conv2d(3, 4, 3)
    image, target = (torch.rand(1, 3, 8, 8).to(dtype) for _ in range(2))
    plain = Dists(one_map(network))(image.float(), target.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = Dists(one_map(network))(image, target)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_a_half_precision_network_is_taken_over_in_fp32():
    dists = Dists(one_map(nn.Conv2d(3, 4, 3).bfloat16()))
    assert {parameter.dtype for parameter in dists.parameters()} == {torch.float32}


# ---- the file -------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused_by_name_and_says_what_to_do(tmp_path):
    path = tmp_path / "vgg16.safetensors"
    with pytest.raises(ValueError, match=r"vgg16\.safetensors' was not found") as error:
        load_vgg16_dists(path)
    assert f"Nothing is at {path}." in str(error.value)


@pytest.mark.parametrize("path", [None, "nowhere/vgg16.safetensors"])
def test_both_ways_out_are_named_by_their_settings(path):
    with pytest.raises(ValueError, match="VGG16") as error:
        load_vgg16_dists(path)
    assert "losses.feature_network" in str(error.value)
    assert "losses.texture = 0" in str(error.value)


@pytest.mark.parametrize("prefix", ["", "features."])
def test_a_file_of_torchvisions_names_is_read(features, tmp_path, prefix):
    tensors = {f"{prefix}{key}": tensor for key, tensor in features.state_dict().items()}
    torch.manual_seed(4)
    alpha, beta = torch.rand(1475), torch.rand(1475)
    if prefix:  # all of vgg16(), with the published weights' shape beside it
        tensors |= {"classifier.0.weight": torch.zeros(1), "alpha": alpha.view(1, -1, 1, 1), "beta": beta}
    save_file(tensors, tmp_path / "vgg16.safetensors")
    loaded = load_vgg16_dists(tmp_path / "vgg16.safetensors")
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    image, target = torch.rand(1, 3, 32, 24), torch.rand(1, 3, 32, 24)
    expected = Dists(Vgg16Stages(features), DistsWeights(alpha, beta) if prefix else None)
    assert torch.equal(loaded(image, target), expected(image, target))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tensors: tensors.pop("28.weight"), "'28.weight' is missing"),
        (lambda tensors: tensors.update({"30.weight": torch.zeros(1)}), "'30.weight' is not VGG16's"),
        (lambda tensors: tensors.update({"alpha": torch.ones(1475)}), "'beta' is missing"),
        (lambda tensors: tensors.update({"0.bias": torch.zeros(65)}), r"'0.bias' has the shape \(65,\)"),
        (lambda tensors: tensors.update({"0.bias": torch.full((64,), torch.nan)}), "'0.bias' holds NaN"),
    ],
    ids=["missing", "unknown", "alpha alone", "misshapen", "nan"],
)
def test_another_networks_file_is_refused_with_the_first_fault(features, tmp_path, change, complaint):
    tensors = dict(features.state_dict())
    change(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=complaint) as error:
        load_vgg16_dists(tmp_path / "other.safetensors")
    assert "other.safetensors" in str(error.value)


def test_a_pickle_is_never_opened(tmp_path):
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match="pickle"):
        load_vgg16_dists(tmp_path / "vgg16.pth")


@pytest.mark.parametrize(
    ("alpha", "beta"),
    [(torch.ones(3), torch.ones(4)), (torch.ones(1, 3), torch.ones(1, 3)), (-torch.ones(3), torch.ones(3))],
    ids=["two lengths", "two axes", "negative"],
)
def test_impossible_alpha_and_beta_are_refused(alpha, beta):
    with pytest.raises(ValueError, match="alpha and beta"):
        DistsWeights(alpha, beta)


def test_alpha_and_beta_must_fit_the_network():
    with pytest.raises(ValueError, match=r"(?s)have 4 entries.*feature maps have 3 channels"):
        Dists(nothing, DistsWeights(torch.ones(4), torch.ones(4)))(constant(0.1), constant(0.2))
