"""Golden vectors: one small chunk with known answers, checked each time a backend loads.

They catch what no hash can: a runtime, processor or driver that computes something else than the exporter did.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import BundleError, Manifest
from astra_ros.history.memory import HistorySlots
from astra_ros.types import ByteArray, FloatArray

if TYPE_CHECKING:
    from astra_ros.backends.base import Backend


@dataclass(frozen=True)
class ChunkInputs:
    """Everything that determines one chunk.

    pixels: (s, h, w, 3) uint8, one frame per history slot. positions: (s, a). mask: (s,).
    noise: (t, c, h, w). plan: (t, a) commanded positions.
    """

    pixels: ByteArray
    positions: FloatArray
    mask: FloatArray
    noise: FloatArray
    plan: FloatArray


@dataclass(frozen=True)
class ChunkOutputs:
    """What a network makes of it, stage by stage.

    history: (s, c, h, w) encoded frames. steps: (K, t, c, h, w), the sample after each denoising step.
    frames: (t, h, w, 3) uint8.
    """

    history: FloatArray
    steps: FloatArray
    frames: ByteArray


@dataclass(frozen=True)
class Deviation:
    """Largest absolute difference between two runs: latents per stage (encode, then each step), and grey levels."""

    latents: tuple[float, ...]
    pixels: int


def blank_inputs(manifest: Manifest) -> ChunkInputs:
    """Black frames, joints at their mean, noise of zero."""
    layout = _layout(manifest)
    arrays = {field.name: np.zeros(*layout[field.name]) for field in fields(ChunkInputs)}
    for name in ("positions", "plan"):
        arrays[name] += np.asarray(manifest.action.mean, np.float32)
    return ChunkInputs(**arrays)


def run_chunk(backend: Backend, inputs: ChunkInputs) -> ChunkOutputs:
    """encode → remember → K steps → decode."""
    history = np.stack([backend.encode(frame) for frame in inputs.pixels])
    backend.remember(HistorySlots(history, inputs.positions, inputs.mask))
    steps = [inputs.noise]
    for k in range(backend.manifest.num_steps):
        steps.append(backend.denoise(k, steps[-1], inputs.plan))
    return ChunkOutputs(history, np.stack(steps[1:]), backend.decode(steps[-1]))


def deviation(found: ChunkOutputs, expected: ChunkOutputs) -> Deviation:
    """NaN anywhere counts as infinitely far."""
    pairs = [(found.history, expected.history), *zip(found.steps, expected.steps, strict=True)]
    latents = [float(np.max(np.abs(a - b))) for a, b in pairs]
    levels = np.abs(found.frames.astype(int) - expected.frames)
    return Deviation(tuple(d if np.isfinite(d) else np.inf for d in latents), int(levels.max()))


def save(path: Path, inputs: ChunkInputs, outputs: ChunkOutputs) -> None:
    """Write the npz that `load` reads."""
    np.savez_compressed(path, allow_pickle=False, **asdict(inputs), **asdict(outputs))


def load(path: Path, manifest: Manifest) -> tuple[ChunkInputs, ChunkOutputs]:
    """Raises BundleError unless the file holds exactly the arrays that the manifest implies."""
    expected = _layout(manifest)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise BundleError(
            f"{path.name}: expected an npz of arrays, found {error}; export the bundle again"
        ) from error
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if found != expected:
        wrong = {name: found.get(name) for name in expected | found if found.get(name) != expected.get(name)}
        raise BundleError(f"{path.name}: expected {expected}, found {wrong}; export the bundle again")
    return (
        ChunkInputs(**{field.name: arrays[field.name] for field in fields(ChunkInputs)}),
        ChunkOutputs(**{field.name: arrays[field.name] for field in fields(ChunkOutputs)}),
    )


def require_match(backend: Backend, bundle: Bundle) -> None:
    """Raises BundleError when the backend is farther from the known answers than the manifest tolerates."""
    spec = bundle.manifest.golden
    inputs, expected = load(bundle.file(spec.file), bundle.manifest)
    found = deviation(run_chunk(backend, inputs), expected)
    if max(found.latents) > spec.latents_tolerance or found.pixels > spec.pixels_tolerance:
        stages = ("encode", *(f"step_{k}" for k in range(bundle.manifest.num_steps)))
        table = ", ".join(f"{stage} {value:.2g}" for stage, value in zip(stages, found.latents, strict=True))
        raise BundleError(
            f"golden vectors: expected at most {spec.latents_tolerance:g} in latents and {spec.pixels_tolerance} grey"
            f" levels, found {table} and {found.pixels} with {backend.version} on {backend.device};"
            f" choose another backend or export the bundle again"
        )


def _layout(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], str]]:
    latent = (manifest.latents.channels, manifest.latents.height, manifest.latents.width)
    frame = (manifest.camera.height, manifest.camera.width, 3)
    slots, chunk, joints = manifest.history.num_slots, manifest.chunk_len, manifest.action.dim
    return {
        "pixels": ((slots, *frame), "uint8"),
        "positions": ((slots, joints), "float32"),
        "mask": ((slots,), "float32"),
        "noise": ((chunk, *latent), "float32"),
        "plan": ((chunk, joints), "float32"),
        "history": ((slots, *latent), "float32"),
        "steps": ((manifest.num_steps, chunk, *latent), "float32"),
        "frames": ((chunk, *frame), "uint8"),
    }
