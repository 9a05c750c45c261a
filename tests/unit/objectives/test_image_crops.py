"""Random cuts: Pillow's pixels, torchvision's areas, the same in every run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pyfsb.errors import ConfigError
from pyfsb.objectives.image_crops import MAX_SIDES_RATIO, Box, RandomCrop, crop
from pyfsb.objectives.row_objective import SampleKey


def key(sample_id: int, *, seed: int = 3, data_pass: int = 0) -> SampleKey:
    return SampleKey(seed=seed, sample_id=sample_id, data_pass=data_pass)


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (3, size, size)).astype(np.uint8)


@pytest.mark.parametrize("size", [16, 33, 224])
def test_pixels_are_those_of_pillow(size: int) -> None:
    pixels = noise(size)
    whole = Image.fromarray(pixels.transpose(1, 2, 0))
    for number in range(20):
        box = RandomCrop(min_ratio=0.4, num_samples=20).draw(key(number), size)
        assert box is not None
        edges = (box.left, box.top, box.left + box.width, box.top + box.height)
        expected = np.asarray(whole.crop(edges).resize((size, size), Image.Resampling.BICUBIC))
        found = crop(pixels, box).transpose(1, 2, 0)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_the_whole_image_stays_as_it_is() -> None:
    pixels = noise(16)
    assert np.array_equal(crop(pixels, Box(left=0, top=0, width=16, height=16)), pixels)
    assert RandomCrop(min_ratio=1.0, num_samples=9).draw(key(4), 16) == Box(
        left=0, top=0, width=16, height=16
    )


@pytest.mark.parametrize("ratio", [0.9, 0.3])
def test_areas_sides_and_places_are_spread_over_what_is_allowed(ratio: float) -> None:
    size, num = 1000, 4000
    cuts = RandomCrop(min_ratio=ratio, num_samples=num)
    boxes = [cuts.draw(key(number), size) for number in range(num)]
    values = np.array([(b.left, b.top, b.width, b.height) for b in boxes if b]) / size
    assert len(values) == num
    left, top, width, height = values.T
    assert left.min() >= 0 and top.min() >= 0
    assert (left + width).max() <= 1 and (top + height).max() <= 1
    area, sides = width * height, width / height
    assert area.min() >= ratio - 0.002 and area.max() <= 1
    assert area.mean() == pytest.approx((1 + ratio) / 2, abs=0.01)
    assert sides.max() <= MAX_SIDES_RATIO + 0.01 and sides.min() >= 1 / MAX_SIDES_RATIO - 0.01
    assert np.log(sides).mean() == pytest.approx(0.0, abs=0.01)
    room = 1 - width > 0.02
    assert (left[room] / (1 - width[room])).mean() == pytest.approx(0.5, abs=0.02)


def test_a_cut_depends_on_seed_pass_and_sample_and_on_nothing_else() -> None:
    cuts = RandomCrop(min_ratio=0.5, num_samples=9)
    assert cuts.draw(key(1), 224) == cuts.draw(key(1), 224)
    others = [key(2), key(1, seed=4), key(1, data_pass=1)]
    assert len({cuts.draw(own, 224) for own in [key(1), *others]}) == 4


def test_samples_of_validation_stay_whole() -> None:
    cuts = RandomCrop(min_ratio=0.5, num_samples=5)
    assert [cuts.draw(key(number), 16) is None for number in range(8)] == [False] * 5 + [True] * 3


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1])
def test_a_share_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="min_crop_ratio"):
        RandomCrop(min_ratio=ratio, num_samples=1)
