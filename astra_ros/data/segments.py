"""Training segments: a window of an episode at the model's rate, cut into history and target chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class SegmentBatch:
    """What one training step sees.

    history_latents (b, s, c, h, w), history_actions (b, s, f), history_mask (b, s) 1 = filled;
    latents (b, t, c, h, w) and actions (b, t, f) of the chunk that follows.
    """

    history_latents: FloatArray
    history_actions: FloatArray
    history_mask: FloatArray
    latents: FloatArray
    actions: FloatArray


@dataclass(frozen=True)
class SegmentConfig:
    """How segments are cut.

    short_history: share of segments at the start of a memory, with empty slots.
    hindsight: share of chunks whose commands are what the joints did, as when only joint states were recorded.
    imagined: share of histories that carry commands instead of measurements, as in a rollout's later chunks.
    """

    history_slots: int
    chunk_len: int
    short_history: float = 0.15
    hindsight: float = 0.4
    imagined: float = 0.3


class SegmentSampler:
    """Draws random segments from episodes whose frames are already latents, (t, c, h, w) per episode."""

    def __init__(
        self,
        episodes: Sequence[Episode],
        latents: Sequence[FloatArray],
        spec: ActionSpec,
        config: SegmentConfig,
    ) -> None:
        self._episodes, self._latents, self._spec, self._config = episodes, latents, spec, config
        self._strides = [frame_stride(episode, spec.step_dt) for episode in episodes]
        span = config.history_slots - 1 + config.chunk_len
        self._starts = np.array(
            [max(0, len(x) - span * n) for x, n in zip(latents, self._strides, strict=True)], float
        )
        if not self._starts.any():
            raise ValueError(f"episodes: expected some longer than {span * spec.step_dt:.1f} s, found none")

    def draw(self, batch: int, rng: np.random.Generator) -> SegmentBatch:
        chosen = rng.choice(len(self._episodes), batch, p=self._starts / self._starts.sum())
        parts = [self._cut(index, int(rng.integers(self._starts[index])), rng) for index in chosen]
        return SegmentBatch(*(np.stack(column) for column in zip(*parts, strict=True)))

    def _cut(self, index: int, start: int, rng: np.random.Generator) -> tuple[FloatArray, ...]:
        config, episode = self._config, self._episodes[index]
        frames = start + self._strides[index] * np.arange(config.history_slots + config.chunk_len)
        past, target = frames[: config.history_slots], frames[config.history_slots :]
        measured, commanded = episode.measured, episode.commanded
        positions = (commanded if rng.random() < config.imagined else measured)[past]
        plan = (measured if rng.random() < config.hindsight else commanded)[target]
        mask, latents = np.ones(config.history_slots, np.float32), self._latents[index]
        if rng.random() < config.short_history:
            mask[: rng.integers(1, config.history_slots)] = 0.0
            first = int(mask.argmax())
            positions = np.concatenate(
                [np.repeat(positions[first : first + 1], first, axis=0), positions[first:]]
            )
        return (
            latents[past].astype(np.float32) * mask[:, None, None, None],
            self._spec.features(positions, positions[0], is_past=True),
            mask,
            latents[target].astype(np.float32),
            self._spec.features(plan, positions[-1], is_past=False),
        )
