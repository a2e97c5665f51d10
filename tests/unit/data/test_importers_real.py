"""The real sets, where they are beside the repository: what the importers make of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.importers import bridge, donkey, droid, g1, tum

SHARED = Path(__file__).resolve().parents[4] / "shared/data"
pytestmark = pytest.mark.skipif(
    not SHARED.exists(), reason="the real recordings are not beside the repository"
)


def test_g1() -> None:
    source = g1.open_source(SHARED / "g1_pick_bottle")
    assert len(source.episodes) == 80
    episode = source.episodes["episode_000001"]()
    assert episode.pixels.shape == (131, 240, 320, 3)
    assert source.schema.names[7] == "kRightShoulderPitch"
    elbow = source.schema.names.index("kRightElbow")
    assert np.corrcoef(episode.measured[1:, elbow], episode.commanded[:-1, elbow])[0, 1] > 0.99


def test_droid() -> None:
    source = droid.open_source(SHARED / "droid_subset")
    assert len(source.episodes) == 33
    episode = source.episodes["train_00002_cam1"]()
    assert episode.pixels.shape == (137, 192, 320, 3)
    assert source.tasks["train_00002_cam1"] == "Move the bottom right tip of the duvet to the left"
    assert 0 <= episode.measured[:, 7].min() < episode.measured[:, 7].max() <= 1


def test_bridge() -> None:
    source = bridge.open_source(SHARED / "bridge_octo_debug")
    assert len(source.episodes) == 75, "25 distinct episodes, three cameras that were there"
    episode = source.episodes["episode_000000_cam0"]()
    assert episode.pixels.shape == (10, 64, 64, 3)
    assert source.tasks["episode_000000_cam0"] == "put cup from counter or drying rack into sink"
    assert np.abs(episode.commanded[:, :3]).max() < 0.1


def test_cars() -> None:
    track = donkey.open_source(SHARED / "donkey_tub_official", (20, 24, 42, 46))
    lengths = [len(load().pixels) for load in track.episodes.values()]
    assert lengths == [200, 40, 180, 40, 40]
    carpet = donkey.open_source(SHARED / "donkey_yuki")
    assert len(carpet.episodes) == 29
    episode = carpet.episodes["segment_03"]()
    assert episode.pixels.shape == (20, 120, 160, 3)
    assert np.abs(episode.measured).max() <= 1


def test_the_handheld_camera_turns_the_way_its_pictures_move() -> None:
    """Turning right moves the picture left, by the focal length per radian: the poses are in the camera's own axes."""
    source = tum.open_source(SHARED / "tum_fr1_rpy", (9, 12, 18, 21))
    assert list(source.episodes) == [f"segment_{i:02d}" for i in range(6)]
    episode = source.episodes["segment_01"]()
    poses = episode.measured.reshape(-1, 3, 4)[:, :, :3]
    turns = np.einsum("tij,tik->tjk", poses[:-1], poses[1:])[:, :2, 2]  # towards x (right) and y (down)
    grey = episode.pixels.mean(3)
    shifts = np.array([shift(before, after) for before, after in pairwise(grey)])
    for axis in range(2):
        assert np.corrcoef(turns[:, axis], shifts[:, axis])[0, 1] < -0.9


def shift(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """How far the picture moved, pixels right and down, by phase correlation."""
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    spectra = [np.fft.fft2((picture - picture.mean()) * window) for picture in (before, after)]
    cross = spectra[0].conj() * spectra[1]
    peak = np.unravel_index(np.fft.ifft2(cross / (np.abs(cross) + 1e-6)).real.argmax(), before.shape)
    down, right = ((int(at) + n // 2) % n - n // 2 for at, n in zip(peak, before.shape, strict=True))
    return right, down
