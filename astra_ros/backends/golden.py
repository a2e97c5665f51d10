"""Golden vectors: a rollout of two chunks with known answers, checked each time a backend loads.

They catch what no hash can: a runtime, processor or driver that computes something else than the exporter did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astra_ros.backends.arrays import read_arrays
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError, Manifest
from astra_ros.history.memory import HistorySlots
from astra_ros.types import ByteArray, FloatArray

if TYPE_CHECKING:
    from astra_ros.backends.base import Backend
    from astra_ros.backends.rollout import Rollout

# The first chunk follows `remember`, the second `append`.
NUM_CHUNKS = 2
# Fewer pictures than slots keep loading quick: slot j shows picture j % NUM_PICTURES.
NUM_PICTURES = 4


@dataclass(frozen=True)
class RolloutInputs:
    """Everything that determines the rollout.

    pixels: (p, h, w, 3) uint8 pictures. actions: (s, a) of the slots. mask: (s,).
    noise: (chunks, t, c, h, w). plan: (chunks, t, a) commanded actions.
    """

    pixels: ByteArray
    actions: FloatArray
    mask: FloatArray
    noise: FloatArray
    plan: FloatArray


@dataclass(frozen=True)
class RolloutOutputs:
    """What a network makes of it, stage by stage.

    encoded: (p, c, h, w) pictures. steps: (chunks, K, c, h, w), the last frame after each denoising step; it depends on
    all frames of the steps before. frames: (t, h, w, 3) uint8 of the last chunk.
    """

    encoded: FloatArray
    steps: FloatArray
    frames: ByteArray


@dataclass(frozen=True)
class Deviation:
    """Largest absolute difference between two runs: latents by stage, in the order of `stages`, and grey levels."""

    latents: tuple[float, ...]
    pixels: int


def stages(num_steps: int) -> tuple[str, ...]:
    """What makes latents, in order."""
    steps = tuple(f"step_{k}" for k in range(num_steps))
    return ("encode", *steps, *(f"append, {step}" for step in steps))


def blank_inputs(manifest: Manifest) -> RolloutInputs:
    """Black frames, actions at their mean, noise of zero."""
    layout = _layout(manifest)
    arrays = {field.name: np.zeros(*layout[field.name]) for field in fields(RolloutInputs)}
    for name in ("actions", "plan"):
        arrays[name] += np.asarray(manifest.action.mean, np.float32)
    return RolloutInputs(**arrays)


def run_rollout(backend: Backend, inputs: RolloutInputs, batch: int = 1) -> RolloutOutputs:
    """encode → remember → K steps → append → K steps → decode, of the last of `batch` equal candidates."""
    encoded = np.stack([backend.encode(frame) for frame in inputs.pixels])
    rollout, noise, plan = begun(backend, inputs, encoded, batch)
    first = denoise(rollout, noise[0], plan[0])
    rollout.append(first[-1], plan[0])
    second = denoise(rollout, noise[1], plan[1])
    return RolloutOutputs(encoded, np.stack([first, second])[:, :, -1, -1], backend.decode(second[-1, -1]))


def begun(
    backend: Backend, inputs: RolloutInputs, encoded: FloatArray, batch: int
) -> tuple[Rollout, FloatArray, FloatArray]:
    """A rollout of `batch` equal candidates, and the noise and the plan of its chunks, (chunks, b, t, ...)."""
    rollout = backend.rollout(batch)
    slots = HistorySlots(spread(encoded, len(inputs.mask)), inputs.actions, inputs.mask)
    rollout.begin(backend.remember(slots))
    noise, plan = (np.repeat(rows[:, None], batch, axis=1) for rows in (inputs.noise, inputs.plan))
    return rollout, noise, plan


def denoise(rollout: Rollout, noise: FloatArray, plan: FloatArray) -> FloatArray:
    """One chunk: (b, t, c, h, w), (b, t, a) → (K, b, t, c, h, w), the sample after each step."""
    steps = [noise]
    for k in range(rollout.num_steps):
        steps.append(rollout.denoise(k, steps[-1], plan).copy())
    return np.stack(steps[1:])


def spread(encoded: FloatArray, num_slots: int) -> FloatArray:
    """Latents of the pictures (p, c, h, w) → of the slots (s, c, h, w)."""
    latents: FloatArray = encoded[np.arange(num_slots) % len(encoded)]
    return latents


def deviation(found: RolloutOutputs, expected: RolloutOutputs) -> Deviation:
    """NaN anywhere counts as infinitely far."""
    steps = zip(np.concatenate(found.steps), np.concatenate(expected.steps), strict=True)
    latents = [float(np.max(np.abs(a - b))) for a, b in ((found.encoded, expected.encoded), *steps)]
    levels = np.abs(found.frames.astype(int) - expected.frames)
    return Deviation(tuple(d if np.isfinite(d) else np.inf for d in latents), int(levels.max()))


def relative_errors(
    found: RolloutOutputs, expected: RolloutOutputs, inputs: RolloutInputs
) -> dict[str, float]:
    """Root mean square error of every stage, relative to a scale of that stage; infinite where there is NaN.

    The scale of encode is the root mean square of the latents; of a denoising step, how far it and the steps before it
    moved the sample away from the noise; of decode, half the range of a picture.
    """
    errors = [
        relative(found.encoded - expected.encoded, expected.encoded),
        *step_errors(found.steps, expected.steps, inputs.noise[:, -1]),
        _rms(found.frames.astype(np.float32) - expected.frames) / 127.5,
    ]
    return dict(zip((*stages(found.steps.shape[1]), "decode"), errors, strict=True))


def step_errors(found: FloatArray, expected: FloatArray, noise: FloatArray) -> list[float]:
    """Relative error of every step's samples (chunks, K, ...): root mean square, over the distance from the starting noise.

    noise: (chunks, ...). Infinite where there is NaN, which `max` may pass over.
    """
    steps = zip(np.concatenate(found - expected), np.concatenate(expected - noise[:, None]), strict=True)
    return [relative(error, moved) for error, moved in steps]


def relative(error: FloatArray, whole: FloatArray) -> float:
    """Root mean square of one as a share of the other's; infinite where there is NaN."""
    ratio = _rms(error) / _rms(whole)
    return ratio if np.isfinite(ratio) else np.inf


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def worst(deviations: Sequence[Deviation]) -> Deviation:
    """The largest of each."""
    latents = zip(*(one.latents for one in deviations), strict=True)
    return Deviation(tuple(map(max, latents)), max(one.pixels for one in deviations))


def save(path: Path, inputs: RolloutInputs, outputs: RolloutOutputs) -> None:
    """Write the npz that `load` reads."""
    np.savez_compressed(path, allow_pickle=False, **asdict(inputs), **asdict(outputs))


def load(path: Path, manifest: Manifest) -> tuple[RolloutInputs, RolloutOutputs]:
    """Raises BundleError unless the file holds exactly the arrays that the manifest implies."""
    expected = _layout(manifest)
    arrays = read_arrays(path, "an npz of arrays", EXPORT_AGAIN)
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if found != expected:
        wrong = {name: found.get(name) for name in expected | found if found.get(name) != expected.get(name)}
        raise BundleError(f"{path.name}: expected {expected}, found {wrong}; {EXPORT_AGAIN}")
    return (
        RolloutInputs(**{field.name: arrays[field.name] for field in fields(RolloutInputs)}),
        RolloutOutputs(**{field.name: arrays[field.name] for field in fields(RolloutOutputs)}),
    )


def require_match(backend: Backend, bundle: Bundle, batch: int) -> None:
    """Raises BundleError when the backend is farther from the known answers than the manifest tolerates."""
    inputs, expected = load(bundle.file(bundle.manifest.golden.file), bundle.manifest)
    found = run_rollout(backend, inputs, batch)
    if backend.precision == bundle.manifest.precision:
        problem = _too_far(deviation(found, expected), bundle.manifest)
    else:
        tolerance = bundle.manifest.tolerance(backend.precision)
        problem = _too_coarse(relative_errors(found, expected, inputs), tolerance)
    if problem:
        raise BundleError(
            f"golden vectors, batch {batch}: {problem} with {backend.version} in {backend.precision} on"
            f" {backend.device}; choose another backend or precision, or {EXPORT_AGAIN}"
        )


def _too_far(found: Deviation, manifest: Manifest) -> str:
    spec = manifest.golden
    if max(found.latents) <= spec.latents_tolerance and found.pixels <= spec.pixels_tolerance:
        return ""
    table = _table(dict(zip(stages(manifest.num_steps), found.latents, strict=True)))
    return (
        f"expected at most {spec.latents_tolerance:g} in latents and {spec.pixels_tolerance} grey levels,"
        f" found {table} and {found.pixels}"
    )


def _too_coarse(found: Mapping[str, float], tolerance: float) -> str:
    if max(found.values()) <= tolerance:
        return ""
    return f"expected a relative error of at most {tolerance:g}, found {_table(found)}"


def _table(values: Mapping[str, float]) -> str:
    return "; ".join(f"{stage} {value:.2g}" for stage, value in values.items())


def _layout(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], str]]:
    latent = (manifest.latents.channels, manifest.latents.height, manifest.latents.width)
    frame = (manifest.camera.height, manifest.camera.width, 3)
    slots, chunk, dim = manifest.history.num_slots, manifest.chunk_len, manifest.action.dim
    return {
        "pixels": ((NUM_PICTURES, *frame), "uint8"),
        "actions": ((slots, dim), "float32"),
        "mask": ((slots,), "float32"),
        "noise": ((NUM_CHUNKS, chunk, *latent), "float32"),
        "plan": ((NUM_CHUNKS, chunk, dim), "float32"),
        "encoded": ((NUM_PICTURES, *latent), "float32"),
        "steps": ((NUM_CHUNKS, manifest.num_steps, *latent), "float32"),
        "frames": ((chunk, *frame), "uint8"),
    }
