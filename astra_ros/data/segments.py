"""Windows of an episode at the model's rate: the packed history's slots, and the chunk that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode, IntArray, frame_stride
from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.history.layout import slot_ages
from astra_ros.types import FloatArray

# Of `varied`: how far a camera is moved, in latents of 8 pixels, and the spread of the light. Latents have unit variance.
_MOUNT, _GAIN, _LEVEL = 2, 0.15, 0.2


@dataclass(frozen=True)
class Window:
    """What is remembered at a moment. latents (s, c, h, w) float32, actions (s, a) per step, mask (s,) 1 = filled."""

    latents: FloatArray
    actions: FloatArray
    mask: FloatArray


@dataclass(frozen=True)
class SegmentSource:
    """An episode whose frames are already latents (t, c, h, w). weight: how often each of its moments is drawn."""

    episode: Episode
    latents: np.ndarray
    spec: ActionSpec
    weight: float = 1.0


@dataclass(frozen=True)
class SegmentBatch:
    """What one training step sees.

    history_latents (b, s, c, h, w), history_actions (b, s, f), history_mask (b, s) 1 = filled;
    latents (b, t, c, h, w) and actions (b, t, f) of the chunk that follows; space (b,) index of the action space.
    """

    history_latents: torch.Tensor
    history_actions: torch.Tensor
    history_mask: torch.Tensor
    latents: torch.Tensor
    actions: torch.Tensor
    space: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """In the order of the fields."""
        return tuple(getattr(self, f.name) for f in fields(self))

    def to(self, device: torch.device | str) -> SegmentBatch:
        """The same batch on a device; from pinned memory without waiting."""
        return SegmentBatch(*(values.to(device, non_blocking=True) for values in self.tensors))


SEGMENT_TENSORS = len(fields(SegmentBatch))


@dataclass(frozen=True)
class SegmentConfig:
    """How segments are cut.

    just_started: share with a single remembered frame. short_history: share that began some random time ago.
    hindsight: share of chunks whose commands are what the joints did, as when only joint states were recorded.
    imagined: share of histories that carry commands instead of measurements, as in a rollout's later chunks.
    elsewhere: share of an arm's segments that are set before a picture of another action space, where there is one, so that
    what stands still is copied whatever it shows; a picture of its own would leave a second arm there that never moves.
    varied: share of segments seen in another light and, but for arms, whose joints say where in the picture they are, from a
    camera that is mounted a little differently.
    """

    chunk_len: int = 8
    just_started: float = 0.1
    short_history: float = 0.4
    hindsight: float = 0.3
    imagined: float = 0.3
    elsewhere: float = 0.0
    varied: float = 0.0

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if name != "chunk_len" and not 0.0 <= share <= 1.0:
                raise ValueError(f"{name}: expected a share, 0 to 1, found {share}")


def slot_frames(now: int, stride: int, started: int = 0) -> tuple[IntArray, FloatArray]:
    """Frame of every slot at frame `now` of a recording that began at frame `started`, and the mask. Both (s,)."""
    frames = np.array([started, *(now - stride * age for age in slot_ages())])
    mask = (frames >= started).astype(np.float32)
    return np.maximum(frames, started), mask


def cut_window(
    episode: Episode, latents: np.ndarray, spec: ActionSpec, now: int, *, started: int = 0
) -> Window:
    """What is remembered at frame `now`, as measured; frames before `started` are not remembered."""
    return _window(latents, spec, episode.measured, now, frame_stride(episode, spec.step_dt), started)


def step_actions(episode: Episode, spec: ActionSpec, frames: IntArray) -> FloatArray:
    """(n,) frames → (n, a): the commanded action of the step that ends at each."""
    return spec.steps(episode.commanded, frames, frame_stride(episode, spec.step_dt))


class SegmentSampler:
    """Draws random segments. Spaces are numbered in the order of `spaces`; features are padded to the widest."""

    def __init__(
        self, sources: Sequence[SegmentSource], spaces: Sequence[str], config: SegmentConfig
    ) -> None:
        self._sources, self._config = sources, config
        self._space = {space: index for index, space in enumerate(spaces)}
        self._num_features = max(source.spec.num_features for source in sources)
        self._strides = [frame_stride(source.episode, source.spec.step_dt) for source in sources]
        lengths = np.array([len(source.latents) for source in sources])
        self._moments = np.maximum(0, lengths - config.chunk_len * np.array(self._strides))
        weights = self._moments * np.array([source.weight for source in sources])
        if not weights.any():
            raise ValueError(
                f"episodes: expected some longer than {config.chunk_len} model steps, found none"
            )
        self._probabilities = weights / weights.sum()
        own = np.array([source.spec.space for source in sources])
        self._others = {space: weights * (own != space) for space in spaces}
        self._backgrounds = [
            _background(source)
            if config.elsewhere and source.spec.modality == "arm" and self._others[source.spec.space].any()
            else None
            for source in sources
        ]

    def draw(self, batch: int, rng: np.random.Generator) -> SegmentBatch:
        chosen = rng.choice(len(self._sources), batch, p=self._probabilities)
        parts = [self._cut(int(index), int(rng.integers(self._moments[index])), rng) for index in chosen]
        return SegmentBatch(*(torch.from_numpy(np.stack(column)) for column in zip(*parts, strict=True)))

    def _cut(self, index: int, now: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        config, source, stride = self._config, self._sources[index], self._strides[index]
        episode, spec = source.episode, source.spec
        past = episode.commanded if rng.random() < config.imagined else episode.measured
        plan = episode.measured if rng.random() < config.hindsight else episode.commanded
        window = _window(source.latents, spec, past, now, stride, self._started(now, rng))
        target = now + stride * np.arange(1, config.chunk_len + 1)
        actions = chunk_features(spec, spec.steps(plan, target, stride), window.actions[-1])
        shift = self._elsewhere(index, rng)
        latents = np.concatenate([window.latents, source.latents[target].astype(np.float32)]) + shift
        if config.varied and rng.random() < config.varied:
            latents = _varied(latents, rng, 0 if spec.modality == "arm" else _MOUNT)
        past_latents, latents = np.split(latents, [len(window.mask)])
        return (
            past_latents * window.mask[:, None, None, None],
            self._padded(history_features(spec, window.actions)),
            window.mask,
            latents,
            self._padded(actions),
            np.array(self._space[spec.space]),
        )

    def _started(self, now: int, rng: np.random.Generator) -> int:
        """Since when the robot remembers."""
        kind = rng.random()
        if kind < self._config.just_started:
            return now
        return (
            int(rng.integers(now + 1)) if kind < self._config.just_started + self._config.short_history else 0
        )

    def _elsewhere(self, index: int, rng: np.random.Generator) -> FloatArray:
        """(c, h, w), the same for all frames: from the camera's own background to any frame of another action space."""
        own = self._backgrounds[index]
        if own is None or rng.random() >= self._config.elsewhere:
            return np.zeros(1, np.float32)
        others = self._others[self._sources[index].spec.space]
        other = self._sources[int(rng.choice(len(others), p=others / others.sum()))].latents
        found: FloatArray = other[int(rng.integers(len(other)))].astype(np.float32) - own
        return found

    def _padded(self, features: FloatArray) -> FloatArray:
        return np.pad(features, ((0, 0), (0, self._num_features - features.shape[1])))


def _background(source: SegmentSource) -> FloatArray:
    """What a camera that stands still sees most of the time."""
    few = source.latents[:: max(1, len(source.latents) // 32)]
    median: FloatArray = np.median(few.astype(np.float32), axis=0)
    return median


def _varied(latents: FloatArray, rng: np.random.Generator, most: int) -> FloatArray:
    """Frames (t, c, h, w), all moved by the same few latents, `most` at most, with one change of every channel's gain and level."""
    c, h, w = latents.shape[1:]
    top, left = rng.integers(2 * most + 1, size=2)
    gain = np.exp(_GAIN * rng.standard_normal((c, 1, 1), np.float32))
    level = _LEVEL * rng.standard_normal((c, 1, 1), np.float32)
    wide = np.pad(latents, ((0, 0), (0, 0), (most, most), (most, most)), "edge")
    moved: FloatArray = gain * wide[:, :, top : top + h, left : left + w] + level
    return moved


def _window(
    latents: np.ndarray, spec: ActionSpec, rows: FloatArray, now: int, stride: int, started: int
) -> Window:
    frames, mask = slot_frames(now, stride, started)
    return Window(
        latents[frames].astype(np.float32) * mask[:, None, None, None],
        spec.steps(rows, frames, stride),
        mask,
    )
