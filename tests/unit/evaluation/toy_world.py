"""A world of which everything is known: a bright square at the column that its one joint commands.

A latent frame is that column, so the codec is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode
from astra_ros.evaluation.movements import opposite
from astra_ros.evaluation.scenes import HeldOutData, Sampling, Scenes, held_out_data
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

SIZE, SQUARE = 32, 8
SPEC = ActionSpec(
    space="slider",
    modality="arm",
    representation="joint_position",
    names=("slide",),
    units=("m",),
    step_dt=0.2,
    mean=(12.0,),
    std=(8.0,),
    delta_std=(2.0,),
    lower=(0.0,),
    upper=(24.0,),
)


def render(columns: np.ndarray) -> ByteArray:
    """(...) columns → (..., h, w, 3), between pixels by blending, so that no movement is invisible."""
    x = np.arange(SIZE)
    inside = np.clip(np.minimum(x + 1 - columns[..., None], columns[..., None] + SQUARE - x), 0, 1)
    rows = ((x >= 12) & (x < 20)).astype(float)
    picture = 40 + 180 * rows[:, None] * inside[..., None, :]
    return np.repeat(picture[..., None], 3, axis=-1).round().astype(np.uint8)


def column_of(frames: ByteArray) -> np.ndarray:
    """What `render` was given."""
    bright = frames[..., 12:20, :, 0].astype(float).mean(axis=-2) - 40
    centre = (bright * np.arange(SIZE)).sum(axis=-1) / np.maximum(bright.sum(axis=-1), 1e-6)
    return centre - (SQUARE - 1) / 2


def episode(seed: int, num_frames: int = 120, hertz: int = 10) -> Episode:
    """Abrupt changes of speed, bouncing within the picture."""
    rng = np.random.default_rng(seed)
    speed = np.repeat(rng.uniform(-2.0, 2.0, -(-num_frames // 6)), 6)[:num_frames]
    columns = 12 - np.abs((np.cumsum(speed) + 12) % 48 - 24) + 12
    columns = np.clip(columns, 0, 24).astype(np.float32)
    stamps = np.arange(num_frames) * (NANOSECONDS // hertz)
    return Episode(f"slider_{seed}", stamps, render(columns), columns[:, None], columns[:, None])


def data(episodes: int = 4, num_frames: int = 120) -> HeldOutData:
    """Held-out episodes."""
    recorded = [episode(seed, num_frames) for seed in range(episodes)]
    return held_out_data("slider", SPEC, recorded, lambda pixels: column_of(pixels)[:, None, None, None])


class ToyModel:
    """Obeys the plan and draws it exactly."""

    def predict(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        return self._shown(self.futures(scenes, plan, sampling), sampling)

    def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        return render(plan[..., 0])

    def reconstruct(self, latents: FloatArray) -> ByteArray:
        return render(latents[..., 0, 0, 0])

    @staticmethod
    def _shown(frames: ByteArray, sampling: Sampling) -> ByteArray:
        return frames if sampling.frames is None else frames[:, sampling.frames]


class CopyLast(ToyModel):
    """Nothing ever moves."""

    def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        return np.repeat(scenes.observed[:, None], plan.shape[1], axis=1)


class IgnoresActions(ToyModel):
    """Knows what happened, whatever it is told."""

    def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        return scenes.happened


class Contrary(ToyModel):
    """Does the opposite."""

    def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        return render(opposite(SPEC, plan, scenes.last_action)[..., 0])


@dataclass
class Inert(ToyModel):
    """Obeys while it remembers at most `length` frames, then ignores the plan."""

    length: int = 4

    def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        remembered = scenes.history.mask[0].sum()  # the first remembered frame is the anchor as well
        return render(plan[..., 0]) if remembered <= self.length + 1 else scenes.happened


@dataclass
class Blurs(ToyModel):
    """Obeys, but loses contrast by `per_step` grey levels per frame."""

    per_step: float = 1.0

    def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        fading = np.maximum(0.0, 1 - self.per_step * np.arange(1, plan.shape[1] + 1) / 100)
        frames = render(plan[..., 0])
        return (40 + (frames.astype(float) - 40) * fading[None, :, None, None, None]).round().astype(np.uint8)


@dataclass
class Coarse(ToyModel):
    """Errs by less with more denoising steps, and carries out `guidance` of the plan: none of it with 0."""

    num_steps: int = 2
    guidance: float = 1.0

    def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        steps = self.num_steps if sampling.num_steps is None else sampling.num_steps
        guidance = self.guidance if sampling.guidance is None else sampling.guidance
        told = scenes.last_action[:, None] + guidance * (plan - scenes.last_action[:, None])
        return render(told[..., 0] + 4 / steps)


class ColumnReader:
    """The perfect inverse-dynamics model of this world."""

    def recover(self, spec: ActionSpec, observed: ByteArray, frames: ByteArray) -> FloatArray:
        return (column_of(frames) - column_of(observed)[:, None])[..., None].astype(np.float32)
