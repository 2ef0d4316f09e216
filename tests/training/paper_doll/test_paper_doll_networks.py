# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper-doll world's networks: what they compute, and that `train-base` and `export` bring them forth."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import torch
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.base.vae import narrowed
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.losses.dists import Dists, load_dists
from comfyui_anydressing.training.paper_doll.networks.base_unet import BaseData
from comfyui_anydressing.training.paper_doll.networks.config import PaperDollConfig
from comfyui_anydressing.training.paper_doll.networks.export import export_network
from comfyui_anydressing.training.paper_doll.networks.parser import ParsingData, ParsingTask, load_parser
from comfyui_anydressing.training.paper_doll.networks.recogniser import (
    QUESTIONS,
    SEVERAL,
    Recogniser,
    load_recogniser,
    recognition_loss,
    right_answers,
    save_recogniser,
    truth_of_garment,
    truth_of_person,
)
from comfyui_anydressing.training.paper_doll.networks.recognition import VIEWS, RecognitionData
from comfyui_anydressing.training.paper_doll.networks.train import make_task
from comfyui_anydressing.training.paper_doll.world import write_dataset
from comfyui_anydressing.training.run.config import parse_config
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.run.noise import Draw
from comfyui_anydressing.training.run.start import train
from diffusers import AutoencoderTiny
from rich.console import Console

GARMENT = {"kind": "hoodie", "cut": "pouch", "texture": "plain", "colours": ["red", "navy"], "print": "none"}
PERSON = {"scene": "beach", "pose": "waving", "garments": {"upper": GARMENT, "lower": {"kind": "jeans"}}}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("world"), 6, size=(64, 48))


@pytest.fixture(scope="module")
def tokenizer_folder(small_base):
    return small_base / "tokenizer"


@pytest.fixture(scope="module")
def run(manifest, tmp_path_factory):
    """Train a network for two steps."""

    def go(name, text):
        folder = tmp_path_factory.mktemp("runs") / name
        config = parse_config(
            f'network = "{name}"\nfolder = "{folder}"\nsteps = 2\n{text}\n'
            f'[data]\nmanifest = "{manifest}"\nresolution = [64, 48]\nbatch = 2\nworkers = 0\n'
            "[preview]\nevery = 2\nsteps = 1\n[optimizer]\naverage = 0.9\n",
            "test",
            kind=PaperDollConfig,
        )
        assert train(config, make_task, resume=False, console=Console(file=io.StringIO())).step == 2
        return RunFolder.open(folder)

    return go


@pytest.fixture(scope="module")
def autoencoder(run):
    return run("autoencoder", "crop = 32\nwidths = [32, 64]\nattention = [false, true]")


@pytest.fixture(scope="module")
def base_file(autoencoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    assert "32-64" in export_network(autoencoder, path)
    return path


def test_an_autoencoders_run_shows_pictures(autoencoder):
    assert sorted(path.name for path in (autoencoder.path / "previews").iterdir()) == [
        "step-00000000.png",
        "step-00000002.png",
    ]


def test_half_of_the_garments_are_dyed_and_their_colours_then_not_asked_for(manifest):
    """Red, green and blue change places, so that a kind is not told by its colour; whole people keep theirs."""
    read = read_manifest(manifest)
    data = RecognitionData(read, "train")
    counts = Counter()
    for position in range(80):
        draw = Draw(0, 1, position, position % len(data))
        picture, truth = data.sample(draw)
        item = data.items[draw.item]
        view = VIEWS[draw.integer(len(VIEWS), "view")]
        before, _ = data.view(item, view, draw.integer(len(item.garments), "garment"))
        amounts, as_before = picture.mean((1, 2)), before.mean((1, 2))  # moving and mirroring change none
        torch.testing.assert_close(amounts.sort().values, as_before.sort().values)
        dyed = not torch.allclose(amounts, as_before)
        asked = bool((truth["colours"] >= 0).all())
        assert not (dyed and (asked or view == "person"))
        counts[view if view == "person" else ("dyed" if not asked else "as it is")] += 1
    assert min(counts["person"], counts["dyed"], counts["as it is"]) >= 10


def test_its_export_begins_a_base_model_with_latents_of_unit_spread(base_file, manifest, tokenizer_folder):
    base = load_base(base_file, tokenizer=tokenizer_folder)
    data = RecognitionData(read_manifest(manifest), "train")
    people = [data.view(item, "person", 0)[0] for item in read_manifest(manifest).items]
    latents = base.encode_mode(torch.stack(people) * 2 - 1)
    assert abs(float(latents.mean())) < 0.02
    assert float(latents.std()) == pytest.approx(1, abs=0.02)


def test_a_padded_autoencoder_is_opened_narrow_and_computes_the_same(base_file, tokenizer_folder):
    base = load_base(base_file, tokenizer=tokenizer_folder)
    first = base.vae.encoder.layers[0]
    assert first.out_channels == 16
    wide = AutoencoderTiny(encoder_block_out_channels=(64,) * 4, decoder_block_out_channels=(64,) * 4).eval()
    with torch.no_grad():
        for mine, theirs in zip(wide.parameters(), base.vae.parameters(), strict=True):
            mine.zero_()[tuple(slice(length) for length in theirs.shape)] = theirs
        picture = torch.rand(1, 3, 32, 24) * 2 - 1
        torch.testing.assert_close(base.vae.encode(picture).latents, wide.encode(picture).latents)
        latent = torch.randn(1, 4, 4, 3)
        torch.testing.assert_close(base.vae.decode(latent).sample, wide.decode(latent).sample)


def test_an_autoencoder_without_empty_channels_stays_as_it_is():
    torch.manual_seed(0)
    vae = AutoencoderTiny(encoder_block_out_channels=(64,) * 4, decoder_block_out_channels=(64,) * 4)
    with torch.no_grad():
        vae.encoder.layers[1].conv[2].weight[-1] = 0  # one dead channel within a block is nothing to cut
    before = {name: value.detach().clone() for name, value in vae.named_parameters()}
    after = dict(narrowed(vae).named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_u_net_is_trained_in_the_base_and_goes_back_into_its_file(run, base_file, tokenizer_folder, tmp_path):
    trained = run("unet", f'[base]\ncheckpoint = "{base_file}"\ntokenizer = "{tokenizer_folder}"')
    out = tmp_path / "trained.safetensors"
    assert "base model" in export_network(trained, out)
    before, after = (load_base(path, tokenizer=tokenizer_folder) for path in (base_file, out))
    assert not torch.equal(before.unet.conv_in.weight, after.unet.conv_in.weight)
    for mine, theirs in zip(before.vae.parameters(), after.vae.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert (trained.path / "previews" / "step-00000002.png").is_file()


def test_the_mean_of_the_noise_strays_by_channel_as_far_as_told():
    class Cached:
        digest, no_text = "", torch.zeros(77, 8)

        def latent(self, item):
            return torch.zeros(4, 32, 32)

        def text(self, item):
            return self.no_text

    def means(offset):
        text = f'network = "unet"\nfolder = "r"\nsteps = 1\nflat_lays = 0\nnoise_offset = {offset}\n'
        text += '[data]\nmanifest = "m"\n[base]\ncheckpoint = "b"\n'
        data = BaseData(parse_config(text, "test", PaperDollConfig), Cached(), [["hoodie"]], torch.zeros(1, 77, 8))
        noises = torch.stack([data.sample(Draw(0, 0, position, 0))[1] for position in range(200)])
        assert noises.std(dim=(2, 3)).mean() == pytest.approx(1, abs=0.01)
        return noises.mean(dim=(2, 3))

    assert means(0.0).std(dim=0) == pytest.approx(torch.full((4,), 1 / 32), abs=0.01)
    assert means(0.5).std(dim=0) == pytest.approx(torch.full((4,), 0.5), abs=0.1)


def test_a_u_net_needs_a_base_to_be_trained_in():
    with pytest.raises(ValueError, match="name one in"):
        parse_config('network = "unet"\nfolder = "r"\nsteps = 1\n[data]\nmanifest = "m"\n', "test", PaperDollConfig)


def test_an_export_replaces_its_own_kind_alone(run, tmp_path, caplog):
    trained, out = run("recogniser", "widths = [8, 12]\nkernel = 5"), tmp_path / "mine.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"is there already(?s:.*)a recogniser of the paper-doll world"):
        export_network(trained, out)
    assert out.read_bytes() == b"mine"
    out.unlink()
    export_network(trained, out)
    assert "is replaced" not in caplog.text
    export_network(trained, out)
    assert "is replaced" in caplog.text


def test_a_recognisers_export_is_a_feature_network_for_dists(run, tmp_path):
    out = tmp_path / "recogniser.safetensors"
    export_network(run("recogniser", "widths = [8, 12]\nkernel = 5"), out)
    recogniser = load_recogniser(out)
    maps = recogniser(torch.rand(1, 3, 16, 12))
    assert [tuple(features.shape) for features in maps] == [(1, 8, 8, 6), (1, 12, 4, 3)]
    dists = load_dists(out)
    assert isinstance(dists, Dists)
    image = torch.rand(1, 3, 16, 12)
    assert float(dists(image, image)) == pytest.approx(0, abs=1e-6)
    assert float(dists(image, 1 - image)) > 0.05


def test_other_files_are_no_recognisers(base_file, tmp_path):
    with pytest.raises(ValueError, match="is not a recogniser"):
        load_recogniser(base_file)
    broken = tmp_path / "x.safetensors"
    recogniser = Recogniser([4, 8])
    recogniser.widths = (4, 9)
    save_recogniser(broken, recogniser)
    with pytest.raises(ValueError, match="is not a recogniser"):
        load_recogniser(broken)


def test_truth_names_what_is_known_and_nothing_else():
    garment, person = truth_of_garment(GARMENT), truth_of_person(PERSON)
    assert QUESTIONS["kind"][int(garment["kind"])] == "hoodie"
    assert {QUESTIONS["colours"][place] for place in garment["colours"].nonzero().flatten()} == {"red", "navy"}
    assert int(garment["scene"]) == -1
    assert bool((garment["wears"] == -1).all())
    assert {QUESTIONS["wears"][place] for place in (person["wears"] > 0).nonzero().flatten()} == {"hoodie", "jeans"}
    assert int(person["kind"]) == -1


def test_the_loss_looks_at_known_answers_only():
    truth = {
        name: torch.stack([one, other])
        for (name, one), other in zip(truth_of_garment(GARMENT).items(), truth_of_person(PERSON).values(), strict=True)
    }
    logits = {name: torch.randn(2, len(words), requires_grad=True) for name, words in QUESTIONS.items()}
    torch.stack(list(recognition_loss(logits, truth).values())).sum().backward()
    assert bool((logits["kind"].grad[1] == 0).all())
    assert bool((logits["scene"].grad[0] == 0).all())
    assert bool((logits["wears"].grad[0] == 0).all())
    hats = QUESTIONS["wears"].index("beanie")  # no hat is worn
    assert bool((logits["wears"].grad[1, :hats] != 0).all())
    assert bool((logits["wears"].grad[1, hats:] == 0).all())


def test_answers_are_counted_right():
    truth = {name: answer[None] for name, answer in truth_of_person(PERSON).items()}
    perfect = {
        name: truth[name].float() * 2 - 1
        if name in SEVERAL
        else torch.nn.functional.one_hot(truth[name].clamp(min=0), len(words)).float()
        for name, words in QUESTIONS.items()
    }
    counts = right_answers(perfect, truth)
    assert counts["scene"] == counts["pose"] == (1, 1)
    assert counts["kind"] == counts["colours"] == (0, 0)
    assert counts["wears"] == (2, 2)
    perfect["wears"][0, 0] = 5.0
    assert right_answers(perfect, truth)["wears"] == (1, 2)


def test_a_worn_garment_is_black_outside_its_mask(manifest):
    read = read_manifest(manifest)
    picture, _ = RecognitionData(read, "train").view(read.items[0], "worn", 0)
    dark = (picture == 0).all(dim=0).float().mean()
    assert 0.5 < float(dark) < 0.99


def test_a_parser_is_trained_and_exported(run, manifest, base_file, tmp_path):
    trained = run("parser", f'widths = [6, 8, 8]\n[base]\ncheckpoint = "{base_file}"')
    out = tmp_path / "parser.safetensors"
    assert "a parser with" in export_network(trained, out)
    parser = load_parser(out)
    item = read_manifest(manifest).items[0]
    picture = torch.rand(3, 60, 52)
    parts = parser.parse(picture)
    assert tuple(parts) == ("background", "person", "upper", "lower", "hat")
    assert torch.equal(sum(mask.int() for mask in parts.values()), torch.ones(60, 52, dtype=torch.int))
    data = ParsingData(read_manifest(manifest), "train", "a base model")
    picture, truth = data.sample(Draw(0, 0, 0, 0))
    assert picture.shape == (3, 64, 48)
    assert {0, 1, 2, 3} <= set(truth.unique().tolist()) <= {0, 1, 2, 3, 4}
    assert data.name(0) == item.id


def test_a_parser_sees_half_of_the_pictures_as_the_autoencoder_gives_them_back(manifest):
    class Blind:
        """Whatever it encodes comes back black."""

        vae = torch.nn.Identity()

        def encode_mode(self, images):
            return images

        def decode(self, latents):
            return torch.full_like(latents, -1)

    text = 'network = "parser"\nsteps = 1\nfolder = "run"\nwidths = [6, 8]\n[data]\nmanifest = "m"\n[base]\ncheckpoint = "b"'
    config = parse_config(text, "test", PaperDollConfig)
    data = ParsingData(read_manifest(manifest), "train", "a base model")
    task = ParsingTask(config, data, Blind())
    pictures, parts = data.collate([data.sample(Draw(0, 0, 0, item)) for item in range(4)])

    def loss(*changed):
        seen = pictures.clone()
        seen[list(changed)] = 0.5
        return task.losses((seen, parts), measure=False).total.item()

    assert loss(0, 1) == loss()
    assert loss(2) != loss()
    assert loss(3) != loss()


def test_a_recogniser_is_no_parser(run, tmp_path):
    out = tmp_path / "recogniser.safetensors"
    export_network(run("recogniser", "widths = [8, 12]"), out)
    with pytest.raises(ValueError, match="is not a parser"):
        load_parser(out)
