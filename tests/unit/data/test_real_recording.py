"""A real Franka's recording (DROID) through the reader that training uses."""

from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.episode import EpisodeTopics, frame_stride, read_contents, read_episode
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.schema import ActionSchema

BAG = Path(__file__).resolve().parents[4] / "shared/data/ros2_bags/droid_train2"
TOPICS = EpisodeTopics(image="/camera/exterior_1/image_raw/compressed")

pytestmark = pytest.mark.skipif(not BAG.exists(), reason="the real recordings are not beside the repository")


def test_a_real_recording_becomes_an_episode() -> None:
    (names,) = read_contents(BAG, TOPICS).joints
    episode = read_episode(BAG, names, 128, TOPICS)
    assert len(names) == 8
    assert episode.pixels.shape == (137, 128, 128, 3)
    assert episode.pixels.std() > 20
    assert frame_stride(episode, 0.2) == 1
    assert np.array_equal(episode.commanded, episode.measured), (
        "this robot's commands were not recorded as joints"
    )
    schema = ActionSchema("droid", "arm", "joint_position", names, ("rad",) * 7 + ("m",))
    spec = fit_action_spec([episode], schema, 0.2)
    features = spec.features(episode.measured, episode.measured[0], is_past=True)
    assert np.abs(features[:, : spec.dim].mean(0)).max() < 0.03
    assert np.isfinite(features).all()
