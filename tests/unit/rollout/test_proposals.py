"""What a bundle proposes: the network in numpy, its file, and what is wrong with one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astra_ros.backends.bundle import BundleError, describe_file, load_bundle, write_manifest
from astra_ros.backends.manifest import LatentSpec
from astra_ros.rollout.proposals import Proposals, load_proposals, save_proposals
from astra_ros.rollout.world_model import WorldModel
from astra_ros.training.proposals import ProposalsConfig, Ways
from astra_ros.types import FloatArray, Observation
from tests.bundle_fixture import HEIGHT, JOINTS, LATENT, WIDTH, action_specs, untrained_proposals

ARM = action_specs()[1]
CONFIG = ProposalsConfig(count=12, horizon=20, width=4, features=16, rank=6)
ROWS = 7


def question(seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """observed, goal, measured."""
    rng = np.random.default_rng(seed)
    observed, goal = rng.normal(size=(2, *LATENT)).astype(np.float32)
    return observed, goal, rng.uniform(-1, 1, len(JOINTS)).astype(np.float32)


def weights_of(network: torch.nn.Module) -> dict[str, FloatArray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_the_robot_computes_what_was_trained() -> None:
    network = untrained_proposals(CONFIG, LatentSpec(*LATENT), ARM)
    observed, goal, measured = question()
    found = Proposals(weights_of(network), ARM).propose(observed, goal, measured, ROWS)
    mean, std = (torch.tensor(value) for value in (ARM.mean, ARM.std))
    there = torch.from_numpy(measured)
    batch = Ways(
        torch.from_numpy(observed)[None],
        torch.from_numpy(goal)[None],
        ((there - mean) / std)[None],
        torch.tensor([ROWS / CONFIG.horizon]),
        torch.empty(0),
        torch.empty(0),
    )
    with torch.inference_mode():
        rows, scores = network(batch)
    order = torch.argsort(scores[0], descending=True)
    plans = ARM.clip((there + rows[0, order, :ROWS] * std).numpy())
    np.testing.assert_allclose(found.plans, plans, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, scores[0, order].softmax(0).numpy(), atol=1e-5)


def test_plans_stay_in_the_trained_range_likeliest_first_and_differ() -> None:
    weights = weights_of(untrained_proposals(CONFIG, LatentSpec(*LATENT), ARM))
    found = Proposals({**weights, "shapes": 50 * weights["shapes"]}, ARM).propose(*question(), ROWS)
    assert found.plans.shape == (12, ROWS, len(JOINTS))
    assert np.abs(found.plans).max() == 2
    assert (np.diff(found.probabilities) <= 0).all()
    assert found.probabilities.sum() == pytest.approx(1)
    assert len(np.unique(found.plans.reshape(12, -1), axis=0)) == 12


def test_what_is_written_in_eight_bits_proposes_the_same(proposing_bundle: Path) -> None:
    stored = load_proposals(load_bundle(proposing_bundle))
    assert stored is not None
    exact = Proposals(weights_of(untrained_proposals(CONFIG, LatentSpec(*LATENT), ARM)), ARM)
    assert (stored.count, stored.horizon) == (exact.count, exact.horizon) == (12, 20)
    rounded, wanted = (one.propose(*question(), ROWS).plans for one in (stored, exact))
    assert 0 < np.abs(rounded - wanted).max() < 0.02 * np.ptp(wanted)


@pytest.mark.parametrize("rows", [0, 21])
def test_a_plan_of_another_length_is_refused(proposing_bundle: Path, rows: int) -> None:
    proposals = load_proposals(load_bundle(proposing_bundle))
    assert proposals is not None
    with pytest.raises(ValueError, match=rf"horizon: expected 1 to 20 rows, found {rows}"):
        proposals.propose(*question(), rows)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("goal", lambda goal: goal[:, :1, :1]),
        ("goal", lambda goal: goal[None]),
        ("goal", lambda goal: goal * np.nan),
        ("measured", lambda measured: measured[:-1]),
        ("measured", lambda measured: measured * np.inf),
    ],
)
def test_what_is_no_goal_or_no_position_is_refused(
    proposing_bundle: Path, name: str, change: Callable[[FloatArray], FloatArray]
) -> None:
    proposals = load_proposals(load_bundle(proposing_bundle))
    assert proposals is not None
    observed, goal, measured = question()
    asked = {"goal": goal, "measured": measured}
    asked[name] = change(asked[name])
    with pytest.raises(ValueError, match=rf"{name}: expected finite numbers of shape"):
        proposals.propose(observed, **asked, horizon=ROWS)


def test_a_world_model_proposes_from_what_it_observed(proposing_bundle: Path, untrained_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    measured = np.zeros(len(JOINTS), np.float32)
    with WorldModel.load(proposing_bundle, "onnxruntime") as model:
        goal = model.backend.encode(pictures[1])
        assert model.proposals is not None
        model.observe(Observation(1, pictures[0], measured))
        found = model.propose(1, goal, measured, ROWS)
        wanted = model.proposals.propose(model.backend.encode(pictures[0]), goal, measured, ROWS)
        np.testing.assert_array_equal(found.plans, wanted.plans)
        with pytest.raises(LookupError, match="t0_ns"):
            model.propose(2, goal, measured, ROWS)
    with (
        WorldModel.load(untrained_bundle, "onnxruntime") as model,
        pytest.raises(ValueError, match=r"which has none; learn them .* python -m export\.proposals"),
    ):
        model.propose(1, goal, measured, ROWS)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.pop(name)


def with_array(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def damage(arrays: dict[str, Any]) -> None:
        arrays[name] = change(arrays[name])

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("go.bias"), r"proposals\.file: expected"),
        (
            with_array("think.weight", lambda values: values.astype(np.float32)),
            r"proposals\.think\.weight: .*int8",
        ),
        (
            with_array("ways", lambda values: values[:-1]),
            r"proposals\.ways: .* \(12, 16\), found int8 of \(11, 16\)",
        ),
        (
            with_array("judge.bias", lambda values: values * np.nan),
            r"proposals\.judge\.bias: expected finite",
        ),
        (without("think.weight.scale"), r"proposals\.file: expected"),
    ],
)
def test_another_networks_file_is_refused(
    damage: Callable[[dict[str, Any]], None], message: str, proposing_bundle: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(proposing_bundle, tmp_path / "copy"))
    file = copy / "proposals.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    damage(arrays)
    np.savez(file, **arrays)
    manifest = load_bundle(proposing_bundle).manifest
    described = replace(manifest, files=manifest.files | {file.name: describe_file(file)})
    with pytest.raises(BundleError, match=message):
        load_proposals(write_manifest(copy, described))


def test_the_manifest_of_a_bundle_without_them_is_as_before(untrained_bundle: Path) -> None:
    """So that an older astra_ros reads it."""
    assert "proposals" not in (untrained_bundle / "manifest.json").read_text()


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "proposals.npz"
    weights = weights_of(untrained_proposals(CONFIG, LatentSpec(*LATENT), ARM))
    save_proposals(weights, file)
    first = file.read_bytes()
    save_proposals(weights, file)
    assert file.read_bytes() == first
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
