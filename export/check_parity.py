"""Is a bundle the checkpoint it was exported from? Torch beside ONNX Runtime, stage by stage and over a whole rollout.

Run as `python -m export.check_parity astra_ros/bundles/tiny runs/tiny/checkpoint`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.golden import ChunkInputs
from astra_ros.backends.ort import OrtBackend
from astra_ros.denoiser.checkpoint import load_checkpoint
from astra_ros.history.memory import HistorySlots
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import NANOSECONDS, ByteArray, Observation
from export.contract import PIXELS_TOLERANCE, model_id
from export.reference import TorchReference, golden_inputs
from export.to_onnx import EXPORT_TOLERANCE
from export.weights import round_to_float16

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """Difference of one stage. Latents in their own unit, pictures in grey levels of 255.

    rounding: largest difference that storing the weights as float16 makes, in torch; 0 for float32.
    """

    stage: str
    max: float
    mean: float
    limit: float
    rounding: float

    @property
    def is_within(self) -> bool:
        return self.max <= self.limit


def compare(bundle: Bundle, checkpoint_dir: Path, seed: int) -> list[Row]:
    """One row per stage. Every stage gets torch's input; the rollout runs on its own outputs.

    Raises ValueError when the bundle comes from another checkpoint.
    """
    as_trained, as_stored = load_checkpoint(checkpoint_dir), load_checkpoint(checkpoint_dir)
    expected, manifest = model_id(as_trained), bundle.manifest
    if manifest.model_id != expected:
        raise ValueError(
            f"model_id: expected {expected} (the checkpoint's), found {manifest.model_id}; export it again"
        )
    if manifest.weights_dtype == "float16":
        round_to_float16(as_stored)
    inputs = golden_inputs(manifest, seed)
    with (
        TorchReference(as_trained, manifest) as trained,
        TorchReference(as_stored, manifest) as reference,
        OrtBackend(bundle) as backend,
    ):
        stages = [_stages(each, reference, inputs) for each in (trained, reference, backend)]
    return [
        _row(stage, found, stored, unrounded)
        for (stage, unrounded), stored, found in zip(
            stages[0].items(), stages[1].values(), stages[2].values(), strict=True
        )
    ]


def _stages(backend: Backend, reference: Backend, inputs: ChunkInputs) -> dict[str, Array]:
    """What `backend` makes of the reference's inputs, by stage."""
    results: dict[str, Array] = {"encode": np.stack([backend.encode(frame) for frame in inputs.pixels])}
    history = np.stack([reference.encode(frame) for frame in inputs.pixels])
    slots = HistorySlots(history, inputs.positions, inputs.mask)
    for each in (backend, reference):
        each.remember(slots)
    sample = inputs.noise
    for k in range(backend.manifest.num_steps):
        results[f"step_{k}"] = backend.denoise(k, sample, inputs.plan)
        sample = reference.denoise(k, sample, inputs.plan)
    results["decode"] = backend.decode(sample)
    results["rollout"] = _rollout(backend, inputs)
    return results


def _rollout(backend: Backend, inputs: ChunkInputs) -> ByteArray:
    """The longest rollout the manifest allows, from frames at the slots' times."""
    world_model, manifest = WorldModel(backend), backend.manifest
    step_ns = round(manifest.action.step_dt * NANOSECONDS)
    for slot, (pixels, positions) in enumerate(zip(inputs.pixels, inputs.positions, strict=True)):
        world_model.observe(Observation(slot * step_ns, pixels, positions))
    plan = np.resize(inputs.plan, (manifest.max_horizon, manifest.action.dim))
    return world_model.predict(slot * step_ns, plan, seed=0).frames


def _row(stage: str, found: Array, stored: Array, trained: Array) -> Row:
    difference = np.abs(found.astype(np.float64) - stored)
    limit = PIXELS_TOLERANCE if found.dtype == np.uint8 else EXPORT_TOLERANCE
    rounding = np.abs(stored.astype(np.float64) - trained).max()
    return Row(stage, float(difference.max()), float(difference.mean()), limit, float(rounding))


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 when every stage is within its limit, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m export.check_parity",
        description="Compare a bundle run by ONNX Runtime with its checkpoint run by torch.",
        epilog="example: python -m export.check_parity astra_ros/bundles/tiny runs/tiny/checkpoint; exit code 1: differs",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seed", type=int, default=1, help="seed of the inputs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    options = parser.parse_args(arguments)
    try:
        rows = compare(load_bundle(options.bundle), options.checkpoint, options.seed)
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(f"{'stage':10} {'max':>9} {'mean':>9} {'limit':>9} {'':9} float16 rounding alone")
    for row in rows:
        verdict = "ok" if row.is_within else "DIFFERS"
        numbers = f"{row.max:9.1e} {row.mean:9.1e} {row.limit:9.1e}"
        print(f"{row.stage:10} {numbers} {verdict:9} {row.rounding:.1e}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.is_within for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
