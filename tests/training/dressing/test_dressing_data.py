# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step draws: timesteps, noise and dropout at their rates, and batches of people in one to three garments."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from comfyui_anydressing.training.data.cached import CachedGarment, CachedPerson
from comfyui_anydressing.training.dressing.config import Dropout, Losses
from comfyui_anydressing.training.dressing.samples import DressingData
from comfyui_anydressing.training.run.noise import Draw, draws_of_step

OUTFITS = (("upper",), ("upper", "lower"), ("upper", "lower", "hat"))
DRAWS = 6000
NO_TEXTURE = Losses(texture=0.0)


def numbered(slot, number):
    """A garment that can be told by its numbers."""
    cells = torch.zeros(2, 2, dtype=torch.bool)
    cells[0, number % 2] = True
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[number] = True
    return CachedGarment(slot, torch.full((4, 2, 2), float(number)), cells, mask)


class Cached:
    """Three people, in one, two and three garments."""

    digest = "people"
    ids = ("one", "two", "three")
    no_text = torch.zeros(77, 8)

    def __init__(self):
        self.persons = [
            CachedPerson(
                name,
                "a caption",
                torch.full((4, 2, 2), float(index)),
                torch.full((77, 8), 1.0 + index),
                tuple(numbered(slot, 3 * index + place) for place, slot in enumerate(OUTFITS[index])),
                torch.ones(16, 16, dtype=torch.bool),
            )
            for index, name in enumerate(self.ids)
        ]
        self.people = [SimpleNamespace(garments=person.garments) for person in self.persons]

    def load(self, index):
        return self.persons[index]

    def picture(self, index):
        return torch.full((3, 16, 16), float(index))


def drawn(data, item, count=DRAWS):
    return [data.sample(Draw(0, 0, position, item)) for position in range(count)]


@pytest.fixture(scope="module")
def samples():
    """The person in three garments, drawn again and again."""
    return drawn(DressingData(Cached(), Dropout(), Losses()), 2)


def share(samples, condition):
    return sum(map(condition, samples)) / len(samples)


def test_one_text_in_ten_is_dropped(samples):
    # One standard deviation of a share of 6000 is 0.4 % here, and 0.5 % for the garments.
    assert share(samples, lambda sample: not sample.text.any()) == pytest.approx(0.10, abs=0.015)


def test_one_garment_is_dropped_in_fifteen_of_a_hundred_and_never_more(samples):
    counts = Counter(len(sample.garments) for sample in samples)
    assert counts.keys() == {2, 3}
    assert counts[2] / DRAWS == pytest.approx(0.15, abs=0.02)


def test_every_garment_is_dropped_equally_often_and_without_regard_to_the_text(samples):
    fewer = [sample for sample in samples if len(sample.garments) == 2]
    gone = Counter(next(iter(set(OUTFITS[2]) - {one.slot for one in sample.garments})) for sample in fewer)
    assert all(count / len(fewer) == pytest.approx(1 / 3, abs=0.06) for count in gone.values())
    assert len(gone) == 3
    assert share(fewer, lambda sample: not sample.text.any()) == pytest.approx(0.10, abs=0.04)


def test_a_lone_garment_is_never_dropped():
    data = DressingData(Cached(), Dropout(one_garment=1.0), NO_TEXTURE)
    assert all(len(sample.garments) == 1 for item in (0, 1) for sample in drawn(data, item, 50))


def test_nothing_is_dropped_at_rate_zero_and_everything_at_one():
    kept = drawn(DressingData(Cached(), Dropout(text=0.0, one_garment=0.0), NO_TEXTURE), 2, 200)
    assert all(sample.text.any() and len(sample.garments) == 3 for sample in kept)
    gone = drawn(DressingData(Cached(), Dropout(text=1.0, one_garment=1.0), NO_TEXTURE), 2, 200)
    assert all(not sample.text.any() and len(sample.garments) == 2 for sample in gone)


def test_every_timestep_is_equally_likely(samples):
    tenths = Counter(sample.timestep // 100 for sample in samples)
    assert sorted(tenths) == list(range(10))
    assert all(count / DRAWS == pytest.approx(0.1, abs=0.016) for count in tenths.values())
    assert len({sample.timestep for sample in samples}) > 980
    assert min(sample.timestep for sample in samples) >= 0


def test_noise_is_standard_normal_and_new_for_every_sample(samples):
    noise = torch.stack([sample.noise for sample in samples])
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert len({float(one[0, 0, 0]) for one in noise}) > DRAWS - 5


def test_a_sample_is_a_function_of_its_draw():
    data = DressingData(Cached(), Dropout(), Losses())
    draw = draws_of_step(3, 7, len(data), 4)[1]
    one, again = data.sample(draw), data.sample(draw)
    assert torch.equal(one.noise, again.noise)
    assert (one.timestep, one.garments) == (again.timestep, again.garments)


def test_pictures_are_read_only_where_the_texture_losses_act(samples):
    for sample in samples[:200]:
        assert (sample.picture is not None) == (sample.timestep <= Losses().eta)
        assert sample.edges is not None
    without = drawn(DressingData(Cached(), Dropout(), NO_TEXTURE), 2, 50)
    assert all(sample.picture is None and sample.edges is None for sample in without)


# ---- a kind that is added -------------------------------------------------------------------------------------------


def test_only_people_in_the_new_kind_are_drawn_and_it_always_stays():
    data = DressingData(Cached(), Dropout(one_garment=1.0), NO_TEXTURE, new_slots=["hat"])
    assert [data.name(item) for item in range(len(data))] == ["three"]
    worn = [{garment.slot for garment in sample.garments} for sample in drawn(data, 0, 100)]
    assert all("hat" in slots and len(slots) == 2 for slots in worn)


def test_a_kind_that_nobody_wears_is_refused():
    with pytest.raises(ValueError, match="nobody in it wears shoes"):
        DressingData(Cached(), Dropout(), NO_TEXTURE, new_slots=["shoes"])


def test_the_digest_is_of_the_frozen_weights_too():
    digests = {
        DressingData(Cached(), Dropout(), NO_TEXTURE, origin=origin).digest for origin in ([], ["base"], ["other"])
    }
    assert len(digests) == 3


# ---- batches --------------------------------------------------------------------------------------------------------


def batch(foreground=False, losses=NO_TEXTURE):
    data = DressingData(Cached(), Dropout(text=0.0, one_garment=0.0), losses, foreground=foreground)
    return data.collate([data.sample(Draw(0, 0, item, item)) for item in (1, 0, 2)])


def test_people_in_one_to_three_garments_stand_in_one_batch():
    mixed = batch()
    assert mixed.outfits.worn.tolist() == [[0, 1, -1], [2, -1, -1], [3, 4, 5]]
    assert mixed.present.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert mixed.outfits.slots == ["upper", "lower", "upper", "upper", "lower", "hat"]
    assert mixed.outfits.latents[:, 0, 0, 0].tolist() == [3, 4, 0, 6, 7, 8]
    assert mixed.masks.shape == (3, 3, 16, 16)
    # A garment's mask is one row of the picture, that of its number.
    assert mixed.masks[2, 1].sum(dim=1).nonzero().flatten().tolist() == [7]
    assert not mixed.masks[1, 1:].any()
    assert mixed.outfits.cells is None


def test_foreground_cells_come_with_their_garments():
    cells = batch(foreground=True).outfits.cells
    assert cells.shape == (6, 2, 2)
    assert [row.nonzero().flatten().tolist() for row in cells[:, 0]] == [[1], [0], [0], [0], [1], [0]]


def test_a_batch_moves_as_a_whole():
    moved = batch(foreground=True, losses=Losses(eta=999)).to(torch.device("meta"))
    outfits = moved.outfits
    tensors = [moved.latents, moved.noise, moved.timestep, moved.text, moved.masks, moved.edges]
    tensors += [outfits.latents, outfits.worn, outfits.cells, *moved.pictures.values()]
    assert len(moved.pictures) == 3
    assert all(tensor.device.type == "meta" for tensor in tensors)


class Losing(Cached):
    """A hundred people, of whom some have lost their pictures."""

    def __init__(self, lost):
        super().__init__()
        self.lost, self.ids = lost, tuple(f"person {index}" for index in range(100))
        self.persons *= 34
        self.people = [SimpleNamespace(garments=person.garments) for person in self.persons[:100]]

    def picture(self, index):
        if index in self.lost:
            raise ValueError("gone.png changed while the run was going.")
        return super().picture(index)

    def __len__(self):
        return 100


def test_a_lost_picture_is_named_once_and_costs_the_texture_losses_alone(caplog):
    data = DressingData(Losing({4}), Dropout(), Losses(eta=999))
    assert [sample.picture for sample in drawn(data, 4, 3)] == [None] * 3
    assert drawn(data, 5, 1)[0].picture is not None
    assert [record.message for record in caplog.records] == [
        "person 4 goes on without texture losses. gone.png changed while the run was going."
    ]


def test_too_many_lost_pictures_end_the_run():
    data = DressingData(Losing(set(range(10))), Dropout(), Losses(eta=999))
    for item in range(5):
        drawn(data, item, 1)
    with pytest.raises(ValueError, match=r"gone\.png changed"):
        drawn(data, 5, 1)
