"""What recordings say about a model's predictions, from numbers of known distribution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_ros.backends.bundle import Bundle, describe_file, load_bundle, write_manifest
from astra_ros.backends.manifest import BundleError, Manifest, TrustSpec
from astra_ros.rollout.trust import (
    Familiarity,
    Trust,
    describe,
    fit_familiarity,
    fit_spread,
    load_trust,
)
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import FloatArray
from tests.bundle_fixture import LATENT
from tests.unit.rollout.test_world_model import observations

RNG = np.random.default_rng(7)
HORIZON = 5


def _usual(count: int, seed: int = 1) -> FloatArray:
    """Latents that look alike: a fixed picture and some variation of its own."""
    base = np.random.default_rng(0).standard_normal((1, *LATENT))
    return (base + 0.2 * np.random.default_rng(seed).standard_normal((count, *LATENT))).astype(np.float32)


def _trust() -> Trust:
    familiarity = fit_familiarity(describe(_usual(600)))
    limit = float(np.quantile(familiarity.distances(_usual(600, 2)), 0.99))
    slope = np.full(HORIZON, 0.5, np.float32)
    return Trust(familiarity, limit, np.linspace(-2, -1, HORIZON, dtype=np.float32), slope)


def with_trust(bundle: Path, trust: Trust) -> Path:
    trust.save(bundle / "trust.npz")
    manifest = load_bundle(bundle).manifest
    files = manifest.files | {"trust.npz": describe_file(bundle / "trust.npz")}
    write_manifest(
        bundle, replace(manifest, files=files, trust=TrustSpec("trust.npz", 0.5, 2.0, ("one",), 4))
    )
    return bundle


def test_usual_pictures_are_familiar_and_others_are_not() -> None:
    trust, fresh = _trust(), _usual(400, 3)
    assert (trust.novelties(fresh) > 1).mean() < 0.05
    elsewhere = RNG.standard_normal((50, *LATENT)).astype(np.float32)
    assert (trust.novelties(elsewhere) > 1).all()
    covered = fresh.copy()
    covered[:, :, : LATENT[1] // 2, : LATENT[2] // 2] = 0.0
    assert (trust.novelties(covered) > 1).mean() > 0.9
    assert trust.novelty(elsewhere[0]) == pytest.approx(trust.novelties(elsewhere)[0], rel=1e-5)


def test_more_spread_means_more_expected_error_and_of_frames_that_were_not_fitted_there_is_none() -> None:
    trust = _trust()
    spread = np.tile(np.array([[0.01], [0.1], [1.0]], np.float32), (1, HORIZON + 3))
    error = trust.expected_error(spread)
    assert error.shape == spread.shape
    assert (np.diff(error[:, :HORIZON], axis=0) > 0).all()
    assert np.isnan(error[:, HORIZON:]).all()
    np.testing.assert_array_equal(trust.expected_error(spread[:, :2]), error[:, :2])
    assert np.isfinite(trust.expected_error(np.zeros((1, HORIZON), np.float32))).all()
    assert np.isnan(trust.expected_error(np.full((1, HORIZON), np.nan, np.float32))).all()


def test_a_fitted_interval_holds_nine_of_ten_errors() -> None:
    def draw(count: int) -> tuple[FloatArray, FloatArray]:
        spread = np.exp(RNG.normal(-2, 0.5, (count, HORIZON)))
        error = np.exp(np.linspace(-1, 0, HORIZON) + 0.7 * np.log(spread) + RNG.normal(0, 0.3, spread.shape))
        return spread.astype(np.float32), error.astype(np.float32)

    intercept, slope, low, high = fit_spread(*draw(4000))
    assert slope == pytest.approx(np.full(HORIZON, 0.7), abs=0.05)
    trust = Trust(fit_familiarity(describe(_usual(100))), 1.0, intercept, slope)
    spread, error = draw(4000)
    share = error / trust.expected_error(spread)
    assert ((share >= low) & (share <= high)).mean() == pytest.approx(0.9, abs=0.02)


def test_less_error_is_never_promised_for_more_spread() -> None:
    spread = np.exp(RNG.normal(size=(500, HORIZON))).astype(np.float32)
    inverse = (1 / spread).astype(np.float32)
    assert (fit_spread(spread, inverse)[1] == 0).all()


def test_a_calibrated_bundle_judges_what_it_sees(bundle_copy: Path) -> None:
    with WorldModel.load(with_trust(bundle_copy, _trust()), "onnxruntime") as model:
        for observation in observations():
            model.observe(observation)
        assert model.manifest.trust == TrustSpec("trust.npz", 0.5, 2.0, ("one",), 4)
        stamp_ns = observations()[-1].stamp_ns
        prediction = model.predict(stamp_ns, np.zeros((4, 8), np.float32), seed=0)
        assert prediction.novelty == model.novelty(stamp_ns) > 1


def test_an_uncalibrated_bundle_says_that_nobody_knows(untrained_bundle: Path) -> None:
    with WorldModel.load(untrained_bundle, "onnxruntime") as model:
        model.observe(observations()[0])
        assert model.trust is None
        assert np.isnan(model.novelty(0))


@pytest.mark.parametrize(
    "damage",
    [
        {"limit": np.nan},
        {"slope": np.zeros(0, np.float32)},
        {"familiarity": Familiarity(*(np.zeros(shape, np.float32) for shape in ((3,), (2, 2), (3,))))},
        {"intercept": np.zeros(HORIZON + 1, np.float32)},
    ],
)
def test_arrays_that_cannot_be_are_refused_with_what_makes_them(
    bundle_copy: Path, damage: dict[str, Any]
) -> None:
    bundle = load_bundle(with_trust(bundle_copy, replace(_trust(), **damage)))
    with pytest.raises(
        BundleError, match=r"trust\.(limit|mean|slope|intercept): expected finite .*export\.calibrate"
    ):
        load_trust(bundle, "fp32")


def test_a_file_that_holds_no_arrays_is_refused(bundle_copy: Path) -> None:
    with_trust(bundle_copy, _trust())
    raw = bytearray((bundle_copy / "trust.npz").read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # encrypted, for which zipfile has an error of its own
    unverified = Bundle(
        bundle_copy, Manifest.from_json((bundle_copy / "manifest.json").read_text()), "0" * 64
    )
    for damaged in (b"no zip", raw):
        (bundle_copy / "trust.npz").write_bytes(damaged)
        with pytest.raises(
            BundleError, match=r"trust\.npz: expected the arrays of a calibration, .*calibrate"
        ):
            load_trust(unverified, "fp32")
