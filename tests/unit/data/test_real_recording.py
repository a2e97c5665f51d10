"""A real Franka's recording (DROID) through the reader that training uses."""

from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.episode import EpisodeTopics, fit_action_spec, frame_stride, joint_names, read_episode

BAG = Path(__file__).resolve().parents[4] / "shared/data/ros2_bags/droid_train2"
TOPICS = EpisodeTopics(image="/camera/exterior_1/image_raw/compressed")

pytestmark = pytest.mark.skipif(not BAG.exists(), reason="the real recordings are not beside the repository")


def test_a_real_recording_becomes_an_episode() -> None:
    names = joint_names(BAG)
    episode = read_episode(BAG, names, 128, TOPICS)
    assert len(names) == 8
    assert episode.pixels.shape == (137, 128, 128, 3)
    assert episode.pixels.std() > 20
    assert frame_stride(episode, 0.2) == 1
    assert np.array_equal(episode.commanded, episode.measured), (
        "this robot's commands were not recorded as joints"
    )
    spec = fit_action_spec([episode], names, ("rad",) * 7 + ("m",), 0.2)
    features = spec.features(episode.measured, episode.measured[0], is_past=True)
    assert np.abs(features[:, : spec.dim].mean(0)).max() < 1e-3
    assert np.isfinite(features).all()
