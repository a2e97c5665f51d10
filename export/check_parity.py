"""Is a bundle the checkpoint it was exported from? Torch beside ONNX Runtime, stage by stage and over a rollout.

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
import torch

from astra_ros.backends import golden
from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.manifest import Manifest
from astra_ros.backends.ort import OrtBackend
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint
from astra_ros.denoiser.rollout import Memory, RolloutSettings, roll_out
from astra_ros.history.memory import HistorySlots
from astra_ros.types import FloatArray
from export.contract import PIXELS_TOLERANCE, model_id
from export.reference import TorchReference, golden_inputs
from export.served import as_served
from export.to_onnx import EXPORT_TOLERANCE
from export.weights import round_to_float16

Array = npt.NDArray[Any]

ROLLOUT_CHUNKS = 4


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


@dataclass(frozen=True)
class _Scene:
    """What every backend is given, as torch made it.

    slots: the history; moved: after one chunk. chunks: (2, K + 1, t, c, h, w), every sample of two chunks, noise first.
    """

    inputs: RolloutInputs
    manifest: Manifest
    slots: HistorySlots
    moved: HistorySlots
    chunks: FloatArray

    @property
    def plans(self) -> list[FloatArray]:
        """Of the rollout: (t, a) for each of its chunks."""
        return [self.inputs.plan[chunk % 2] for chunk in range(ROLLOUT_CHUNKS)]


def compare(bundle: Bundle, checkpoint_dir: Path, seed: int) -> list[Row]:
    """One row per stage. Every stage gets torch's input; the rollout runs on its own outputs.

    Raises ValueError when the bundle comes from another checkpoint.
    """
    checkpoint, manifest = load_checkpoint(checkpoint_dir), bundle.manifest
    expected = model_id(checkpoint)
    if manifest.model_id != expected:
        raise ValueError(
            f"model_id: expected {expected} (the checkpoint's), found {manifest.model_id}; export it again"
        )
    unrounded, stored = (as_served(checkpoint, manifest.action.space, manifest.num_steps) for _ in range(2))
    if manifest.weights_dtype == "float16":
        round_to_float16(stored)
    with (
        TorchReference(unrounded, manifest) as trained,
        TorchReference(stored, manifest) as reference,
        OrtBackend(bundle) as backend,
    ):
        scene = _prepare(reference, golden_inputs(manifest, seed))
        before, expected_stages, found = (_stages(each, scene) for each in (trained, reference, backend))
        rollouts = (
            _rollout(backend, scene),
            _torch_rollout(stored, scene),
            _torch_rollout(checkpoint, scene),
        )
    rows = [_row(stage, found[stage], expected_stages[stage], before[stage]) for stage in found]
    appended, again = found["append, step_0"], found["remember, step_0"]
    return [*rows, _row("append - remember", appended, again, again), _row("rollout", *rollouts)]


def _prepare(reference: Backend, inputs: RolloutInputs) -> _Scene:
    encoded = np.stack([reference.encode(frame) for frame in inputs.pixels])
    slots = HistorySlots(golden.spread(encoded, len(inputs.mask)), inputs.actions, inputs.mask)
    rollout = reference.rollout()
    rollout.begin(reference.remember(slots))
    first = golden.denoise(rollout, inputs.noise[:1], inputs.plan[:1])[:, 0]
    rollout.append(first[-1:], inputs.plan[:1])
    moved = slots.append(first[-1], inputs.plan[0])
    second = golden.denoise(rollout, inputs.noise[1:], inputs.plan[1:])[:, 0]
    chunks = np.concatenate([inputs.noise[:, None], np.stack([first, second])], axis=1)
    return _Scene(inputs, reference.manifest, slots, moved, chunks)


def _stages(backend: Backend, scene: _Scene) -> dict[str, Array]:
    """What `backend` makes of the reference's values, by stage."""
    plan, steps = scene.inputs.plan, range(backend.manifest.num_steps)
    results: dict[str, Array] = {"encode": np.stack([backend.encode(frame) for frame in scene.inputs.pixels])}
    rollout = backend.rollout()
    rollout.begin(backend.remember(scene.slots))
    results |= {f"step_{k}": rollout.denoise(k, scene.chunks[:1, k], plan[:1]).copy() for k in steps}
    rollout.append(scene.chunks[:1, -1], plan[:1])
    results |= {f"append, step_{k}": rollout.denoise(k, scene.chunks[1:, k], plan[1:]).copy() for k in steps}
    rollout.begin(backend.remember(scene.moved))
    results["remember, step_0"] = rollout.denoise(0, scene.chunks[1:, 0], plan[1:]).copy()
    results["decode"] = backend.decode(scene.chunks[1, -1])
    return results


def _rollout(backend: Backend, scene: _Scene) -> FloatArray:
    """As a robot rolls out; latents (chunks * t, c, h, w)."""
    generator, rollout, latents = torch.Generator().manual_seed(0), backend.rollout(), []
    rollout.begin(backend.remember(scene.slots))
    for plan in scene.plans:
        noise = torch.randn(1, *scene.inputs.noise.shape[1:], generator=generator)
        latents.append(rollout.sample(noise.numpy(), plan[None]).copy())
        rollout.append(latents[-1], plan[None])
    return np.concatenate(latents, axis=1)[0]


def _torch_rollout(checkpoint: Checkpoint, scene: _Scene) -> FloatArray:
    """The same by the modules that were trained, whatever other action spaces they have."""
    slots, manifest = scene.slots, scene.manifest
    memory = Memory(
        torch.from_numpy(slots.latents)[None], slots.actions[None], torch.from_numpy(slots.mask)[None]
    )
    settings, generator = RolloutSettings(manifest.num_steps), torch.Generator().manual_seed(0)
    plan = np.concatenate(scene.plans)[None]
    latents = roll_out(checkpoint, manifest.action.space, memory, plan, settings, generator)
    return latents[0].numpy()


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
    print(f"{'stage':17} {'max':>9} {'mean':>9} {'limit':>9} {'':9} float16 rounding alone")
    for row in rows:
        verdict = "ok" if row.is_within else "DIFFERS"
        numbers = f"{row.max:9.1e} {row.mean:9.1e} {row.limit:9.1e}"
        print(f"{row.stage:17} {numbers} {verdict:9} {row.rounding:.1e}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.is_within for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
