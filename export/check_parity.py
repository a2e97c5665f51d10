"""Do all backends and precisions that run here give torch's answers: by stage, over a rollout, and for candidates side by side?

    python -m export.check_parity BUNDLE                  torch runs the bundle's own graphs
    python -m export.check_parity BUNDLE CHECKPOINT       torch runs the network as it was trained

What does not run here is listed with the reason; the files of all TensorRT engines, also for other machines, are checked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

try:
    import torch

    from astra_ros.backends.eager import EagerBackend
    from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint
    from astra_ros.denoiser.rollout import Memory, RolloutSettings, roll_out
    from export.contract import PIXELS_TOLERANCE, model_id
    from export.reference import TorchReference
    from export.served import as_served
    from export.to_onnx import EXPORT_TOLERANCE
    from export.weights import round_to_float16
except ImportError as error:
    raise SystemExit(f"error: {error}; in a clone: pip install -e '.[train]'") from error

from astra_ros.backends import golden
from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.engines import checked_engines
from astra_ros.backends.factory import NAMES, open_backend, precisions
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError, Manifest
from astra_ros.backends.ort import GPU_PROVIDERS
from astra_ros.cli.options import add_json, require_json_folder
from astra_ros.history.memory import HistorySlots
from astra_ros.types import FloatArray

Array = npt.NDArray[Any]

ROLLOUT_CHUNKS = 4
DEFAULT_NAMES = (*NAMES, "torch:cuda", *(f"onnxruntime:{provider}" for provider in GPU_PROVIDERS))


@dataclass(frozen=True)
class Row:
    """Difference of one stage of one backend ("torch:cuda fp32").

    In float32 latents in their own unit, pictures in grey levels of 255; in lower precisions max is the relative error of
    golden.relative_errors. rounding: largest difference that storing the weights as float16 makes, in torch; 0 where
    nothing is rounded or the checkpoint is not given.
    """

    backend: str
    stage: str
    max: float
    limit: float
    mean: float = 0.0
    rounding: float = 0.0

    @property
    def is_within(self) -> bool:
        return self.max <= self.limit


@dataclass(frozen=True)
class _Candidates:
    """No two are alike. noise: (2, b, t, c, h, w) of two chunks. plan: (2, b, t, a)."""

    noise: FloatArray
    plan: FloatArray

    @classmethod
    def of(cls, inputs: RolloutInputs, batch: int) -> Self:
        rng = np.random.default_rng(batch)
        noise = rng.standard_normal((2, batch, *inputs.noise.shape[1:]), np.float32)
        scale = np.linspace(0.5, 1.5, batch, dtype=np.float32)[:, None, None]
        return cls(noise, inputs.plan[:, None] * scale)

    def each(self) -> list[_Candidates]:
        """One by one."""
        rows = range(self.noise.shape[1])
        return [_Candidates(self.noise[:, k : k + 1], self.plan[:, k : k + 1]) for k in rows]


@dataclass(frozen=True)
class _Scene:
    """What every backend is given, as torch made it.

    slots: the history; moved: after one chunk. chunks: (2, K + 1, t, c, h, w), every sample of two chunks, noise first.
    candidates: by batch of the graphs.
    """

    inputs: RolloutInputs
    manifest: Manifest
    slots: HistorySlots
    moved: HistorySlots
    chunks: FloatArray
    candidates: dict[int, _Candidates]

    @property
    def plans(self) -> list[FloatArray]:
        """Of the rollout: (t, a) for each of its chunks."""
        return [self.inputs.plan[chunk % 2] for chunk in range(ROLLOUT_CHUNKS)]


@dataclass(frozen=True)
class Parity:
    """rows: what was compared. refused: backends that the bundle's own golden vectors refuse, and why.

    skipped: backends, or precisions of one, that do not run here, and why. engines: TensorRT engines whose files are in order,
    whether or not they run here; those whose files are not are refused.
    """

    rows: list[Row]
    refused: dict[str, str]
    skipped: dict[str, str]
    engines: list[str]

    @property
    def is_within(self) -> bool:
        return bool(self.rows) and not self.refused and all(row.is_within for row in self.rows)


class Reference:
    """What torch makes of a scene: the stored weights, and the trained ones where the checkpoint is given."""

    def __init__(self, bundle: Bundle, checkpoint_dir: Path | None, seed: int) -> None:
        manifest, inputs = bundle.manifest, _other_noise(bundle, seed)
        if checkpoint_dir is None:
            with EagerBackend(bundle) as backend:
                self.scene = _prepare(backend, inputs)
                self.stages = self.unrounded = _stages(backend, self.scene)
                self.rollout = self.unrounded_rollout = _rollout(backend, self.scene)
                self.candidates = self.unrounded_candidates = _one_by_one(backend, self.scene)
                self.outputs = golden.run_rollout(backend, inputs)
            return
        checkpoint = _require_origin(load_checkpoint(checkpoint_dir), manifest)
        unrounded, stored = (
            as_served(checkpoint, manifest.action.space, manifest.num_steps) for _ in range(2)
        )
        if manifest.weights_dtype == "float16":
            round_to_float16(stored)
        with TorchReference(unrounded, manifest) as trained, TorchReference(stored, manifest) as backend:
            self.scene = _prepare(backend, inputs)
            self.stages, self.unrounded = (_stages(each, self.scene) for each in (backend, trained))
            self.candidates, self.unrounded_candidates = (
                _one_by_one(each, self.scene) for each in (backend, trained)
            )
            self.outputs = golden.run_rollout(backend, inputs)
        self.rollout, self.unrounded_rollout = (
            _torch_rollout(one, self.scene) for one in (stored, checkpoint)
        )

    def rows(self, name: str, backend: Backend) -> list[Row]:
        """Every stage gets torch's input; the rollout runs on its own outputs. name: of the backend, as it was opened."""
        name, manifest = f"{name} {backend.precision}", backend.manifest
        if backend.precision != manifest.precision:
            limit = manifest.tolerance(backend.precision)
            # A chunk goes on from what the one before it got wrong.
            limits = {"rollout": ROLLOUT_CHUNKS * limit}
            return [
                Row(name, stage, error, limits.get(stage, limit))
                for stage, error in self._relative_errors(backend).items()
            ]
        stages = _stages(backend, self.scene)
        appended, again = stages["append, step_0"], stages["remember, step_0"]
        # Stage, what the backend made of it, torch with the stored weights, torch with the trained ones.
        compared = [
            *((stage, stages[stage], self.stages[stage], self.unrounded[stage]) for stage in stages),
            ("append - remember", appended, again, again),
            ("rollout", _rollout(backend, self.scene), self.rollout, self.unrounded_rollout),
            *(
                (f"batch {batch}", found, self.candidates[batch], self.unrounded_candidates[batch])
                for batch, found in self._side_by_side(backend).items()
            ),
        ]
        return [_row(name, *each, _limits(backend)) for each in compared]

    def _side_by_side(self, backend: Backend) -> dict[int, FloatArray]:
        """By batch, of those that the backend runs."""
        return {
            batch: _side_by_side(backend, self.scene, asked)
            for batch, asked in self.scene.candidates.items()
            if batch in backend.batches
        }

    def _relative_errors(self, backend: Backend) -> dict[str, float]:
        errors = golden.relative_errors(
            golden.run_rollout(backend, self.scene.inputs), self.outputs, self.scene.inputs
        )
        errors["rollout"] = golden.relative(_rollout(backend, self.scene) - self.rollout, self.rollout)
        for batch, found in self._side_by_side(backend).items():
            noise = self.scene.candidates[batch].noise
            errors[f"batch {batch}"] = max(
                golden.step_errors(found, self.candidates[batch], noise), default=np.inf
            )
        return errors


def compare(
    bundle: Bundle, checkpoint_dir: Path | None, seed: int, names: Sequence[str] = DEFAULT_NAMES
) -> Parity:
    """Every backend of `names` in every precision it has here.

    Raises ValueError for the checkpoint of another bundle.
    """
    reference = Reference(bundle, checkpoint_dir, seed)
    rows: list[Row] = []
    refused: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            possible = precisions(bundle, name)
        except BackendError as error:
            skipped[name] = str(error)
            continue
        for precision in possible:
            try:
                with open_backend(bundle, name, precision=precision) as backend:
                    rows += reference.rows(name, backend)
            except BundleError as error:
                refused[f"{name} {precision}"] = str(error)
            except BackendError as error:
                skipped[f"{name} {precision}"] = str(error)
    engines = checked_engines(bundle)
    refused |= {f"engines {folder}": wrong for folder, wrong in engines.items() if wrong}
    return Parity(rows, refused, skipped, [folder for folder, wrong in engines.items() if not wrong])


def _require_origin(checkpoint: Checkpoint, manifest: Manifest) -> Checkpoint:
    expected = model_id(checkpoint)
    if manifest.model_id != expected:
        raise ValueError(
            f"model_id: expected {expected} (the checkpoint's), found {manifest.model_id}; {EXPORT_AGAIN}"
        )
    return checkpoint


def _other_noise(bundle: Bundle, seed: int) -> RolloutInputs:
    """The pictures and the plan that a robot judges by, from other noise."""
    inputs, _ = golden.load(bundle.file(bundle.manifest.golden.file), bundle.manifest)
    return replace(inputs, noise=np.random.default_rng(seed).standard_normal(inputs.noise.shape, np.float32))


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
    candidates = {batch: _Candidates.of(inputs, batch) for batch in reference.manifest.batches if batch > 1}
    return _Scene(inputs, reference.manifest, slots, moved, chunks, candidates)


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


def _side_by_side(backend: Backend, scene: _Scene, asked: _Candidates) -> FloatArray:
    """(2, K, b, t, c, h, w): every sample of two chunks. Raises BundleError when golden vectors refuse the batch."""
    rollout = backend.rollout(asked.noise.shape[1])
    rollout.begin(backend.remember(scene.slots))
    first = golden.denoise(rollout, asked.noise[0], asked.plan[0])
    rollout.append(first[-1], asked.plan[0])
    return np.stack([first, golden.denoise(rollout, asked.noise[1], asked.plan[1])])


def _one_by_one(backend: Backend, scene: _Scene) -> dict[int, FloatArray]:
    """The same of candidates that are each alone, by batch."""
    return {
        batch: np.concatenate([_side_by_side(backend, scene, one) for one in asked.each()], axis=2)
        for batch, asked in scene.candidates.items()
    }


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


def _limits(backend: Backend) -> tuple[float, float]:
    """Of latents and grey levels. A CPU must come as near to torch as for an export; a GPU gets what a robot accepts."""
    golden_spec = backend.manifest.golden
    if backend.device == "cpu":
        return EXPORT_TOLERANCE, PIXELS_TOLERANCE
    return golden_spec.latents_tolerance, golden_spec.pixels_tolerance


def _row(
    backend: str, stage: str, found: Array, stored: Array, trained: Array, limits: tuple[float, float]
) -> Row:
    difference = np.abs(found.astype(np.float64) - stored)
    limit = limits[found.dtype == np.uint8]
    rounding = np.abs(stored.astype(np.float64) - trained).max()
    return Row(backend, stage, float(difference.max()), limit, float(difference.mean()), float(rounding))


def report(parity: Parity) -> str:
    """A table, and what is not in it."""
    width = max(22, *(len(row.backend) for row in parity.rows), 0)
    lines = [
        f"{'backend':{width}} {'stage':17} {'max':>9} {'limit':>9} {'':9} {'mean':>9}  float16 rounding alone"
    ]
    for row in parity.rows:
        verdict = "ok" if row.is_within else "DIFFERS"
        numbers = f"{row.max:9.1e} {row.limit:9.1e} {verdict:9} {row.mean:9.1e}  {row.rounding:.1e}"
        lines.append(f"{row.backend:{width}} {row.stage:17} {numbers}")
    lines += [f"engines {folder}: files, sources and tensors in order" for folder in parity.engines]
    lines += [f"REFUSED {name}: {why}" for name, why in parity.refused.items()]
    return "\n".join([*lines, *(f"skipped {name}: {why}" for name, why in parity.skipped.items())])


def _idle(parity: Parity, names: Sequence[str]) -> list[str]:
    """Backends that were asked for by name and compared in no precision."""
    ran = {row.backend.rpartition(" ")[0] for row in parity.rows}
    return [name for name in names if name not in ran]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 when every stage is within its limit and every backend that was named ran, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m export.check_parity",
        description="Compare a bundle as every backend runs it with torch.",
        epilog="example: python -m export.check_parity astra_ros/bundles/tiny runs/tiny; exit code 1: differs, or a backend that was"
        " named does not run",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="what it was exported from")
    parser.add_argument(
        "--backends",
        nargs="+",
        default=DEFAULT_NAMES,
        metavar="NAME",
        help=f"default: {' '.join(DEFAULT_NAMES)}",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the noise")
    add_json(parser)
    options = parser.parse_args(arguments)
    try:
        require_json_folder(options)
        parity = compare(load_bundle(options.bundle), options.checkpoint, options.seed, options.backends)
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(report(parity))
    if options.json:
        options.json.write_text(json.dumps(asdict(parity), indent=1) + "\n")
    if options.backends is not DEFAULT_NAMES and (idle := _idle(parity, options.backends)):
        print(
            f"error: --backends: expected every one to run here, found that {', '.join(idle)} did not",
            file=sys.stderr,
        )
        return 1
    return 0 if parity.is_within else 1


if __name__ == "__main__":
    sys.exit(main())
