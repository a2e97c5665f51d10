"""Windows of an episode at the model's rate: the packed history's slots, and the chunk that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode, IntArray, frame_stride
from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.history.layout import NUM_SLOTS, slot_frames
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
    at_home (b,): 1 = before the background that belongs to the actions, 0 = before another (SegmentConfig.elsewhere).
    """

    history_latents: torch.Tensor
    history_actions: torch.Tensor
    history_mask: torch.Tensor
    latents: torch.Tensor
    actions: torch.Tensor
    space: torch.Tensor
    at_home: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """In the order of the fields."""
        return tuple(getattr(self, f.name) for f in fields(self))

    def split(self, rows: int) -> tuple[SegmentBatch, SegmentBatch]:
        """The first rows, and the others."""
        first, others = zip(*((values[:rows], values[rows:]) for values in self.tensors), strict=True)
        return SegmentBatch(*first), SegmentBatch(*others)

    def to(self, device: torch.device | str) -> SegmentBatch:
        """The same batch on a device; from pinned memory without waiting."""
        return SegmentBatch(*(values.to(device, non_blocking=True) for values in self.tensors))


SEGMENT_TENSORS = len(fields(SegmentBatch))


@dataclass(frozen=True)
class SegmentConfig:
    """How segments are cut.

    just_started: share with a single remembered frame. short_history: share that began some random time ago.
    hindsight: share of chunks whose commands are what the joints did, as when only joint states were recorded.
    imagined: share of histories whose newest chunk, or chunks, carry commands instead of measurements, as in a rollout's later chunks.
    own: share of segments whose newest chunk of memory the model predicts itself, as in a rollout (training/own_memory.py), and
    remembers with the plan that it predicted it from.
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
    own: float = 0.0
    elsewhere: float = 0.0
    varied: float = 0.0

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if name != "chunk_len" and not 0.0 <= share <= 1.0:
                raise ValueError(f"{name}: expected a share, 0 to 1, found {share}")
        if self.just_started + self.short_history > 1.0 + 1e-9:
            raise ValueError(
                f"just_started, short_history: expected shares that come to 1 at most, found {self.just_started} and"
                f" {self.short_history}; lower one of them"
            )


def cut_window(
    episode: Episode, latents: np.ndarray, spec: ActionSpec, now: int, *, started: int = 0
) -> Window:
    """What is remembered at frame `now`, as measured; frames before `started` are not remembered."""
    return _window(latents, spec, episode.measured, now, frame_stride(episode, spec.step_dt), started)


def step_actions(episode: Episode, spec: ActionSpec, frames: IntArray) -> FloatArray:
    """(n,) frames → (n, a): the commanded action of the step that ends at each."""
    return spec.steps(episode.commanded, frames, frame_stride(episode, spec.step_dt))


@dataclass(frozen=True)
class _Variation:
    """Another light, and a camera that is mounted a little differently.

    gain, level: (c, 1, 1). top, left: where the picture begins in one that is repeated `most` latents beyond its edges.
    """

    gain: FloatArray
    level: FloatArray
    top: int
    left: int
    most: int

    @classmethod
    def drawn(cls, rng: np.random.Generator, channels: int, most: int) -> _Variation:
        top, left = rng.integers(2 * most + 1, size=2)
        gain = np.exp(_GAIN * rng.standard_normal((channels, 1, 1), np.float32))
        level = _LEVEL * rng.standard_normal((channels, 1, 1), np.float32)
        return cls(gain, level, int(top), int(left), most)

    def of(self, latents: FloatArray) -> FloatArray:
        """Frames (t, c, h, w), all moved and changed alike."""
        height, width = latents.shape[2:]
        beyond = (self.most, self.most)
        wide = np.pad(latents, ((0, 0), (0, 0), beyond, beyond), "edge")
        seen = wide[:, :, self.top : self.top + height, self.left : self.left + width]
        changed: FloatArray = self.gain * seen + self.level
        return changed


@dataclass(frozen=True)
class _Cut:
    """What is drawn of a segment. now: frame of its moment; started: since when the robot remembers; follows: there is a chunk before.

    imagined: newest slots whose actions are commands.
    """

    index: int
    now: int
    started: int
    imagined: int
    is_hindsight: bool
    shift: FloatArray
    variation: _Variation | None
    follows: bool


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
        """`batch` segments, followed by those one chunk before each of the first round(own * batch).

        Where the episode has no earlier chunk, the memory of the earlier segment is empty.
        """
        chosen = rng.choice(len(self._sources), batch, p=self._probabilities)
        own = round(self._config.own * batch)
        cuts = [self._cut(int(index), rng, follows=place < own) for place, index in enumerate(chosen)]
        rows = [self._tensors(cut) for cut in cuts] + [self._earlier(cut) for cut in cuts[:own]]
        return SegmentBatch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    def _cut(self, index: int, rng: np.random.Generator, *, follows: bool) -> _Cut:
        """follows: there is a chunk before it, if the episode is long enough."""
        config, source = self._config, self._sources[index]
        back = self._back(index) if follows and self._moments[index] > self._back(index) else 0
        now = int(rng.integers(back, self._moments[index]))
        is_imagined, is_hindsight = rng.random() < config.imagined, rng.random() < config.hindsight
        # The anchor is never of a rollout.
        chunks = int(rng.integers(1, -(-(NUM_SLOTS - 1) // config.chunk_len), endpoint=True))
        imagined = min(NUM_SLOTS - 1, chunks * config.chunk_len) if is_imagined else 0
        started, shift = self._started(now - back, rng), self._elsewhere(index, rng)
        variation = None
        if config.varied and rng.random() < config.varied:
            most = 0 if source.spec.modality == "arm" else _MOUNT
            variation = _Variation.drawn(rng, source.latents.shape[1], most)
        return _Cut(index, now, started, imagined, is_hindsight, shift, variation, follows=back > 0)

    def _tensors(self, cut: _Cut) -> tuple[np.ndarray, ...]:
        source, stride = self._sources[cut.index], self._strides[cut.index]
        spec, plan, window = source.spec, self._plan(cut), self._remembered(cut)
        target = cut.now + stride * np.arange(1, self._config.chunk_len + 1)
        actions = chunk_features(spec, spec.steps(plan, target, stride), window.actions[-1])
        latents = np.concatenate([window.latents, source.latents[target].astype(np.float32)]) + cut.shift
        if cut.variation is not None:
            latents = cut.variation.of(latents)
        past_latents, latents = np.split(latents, [len(window.mask)])
        return (
            past_latents * window.mask[:, None, None, None],
            self._padded(history_features(spec, window.actions)),
            window.mask,
            latents,
            self._padded(actions),
            np.array(self._space[spec.space]),
            np.array(not cut.shift.any(), np.float32),
        )

    def _plan(self, cut: _Cut) -> FloatArray:
        """Rows of the episode's actions that chunks are told."""
        episode = self._sources[cut.index].episode
        return episode.measured if cut.is_hindsight else episode.commanded

    def _remembered(self, cut: _Cut) -> Window:
        """As measured, but for what a rollout would have imagined."""
        source, stride = self._sources[cut.index], self._strides[cut.index]
        window = cut_window(source.episode, source.latents, source.spec, cut.now, started=cut.started)
        frames, _ = slot_frames(cut.now, stride, cut.started)
        # What the model itself predicts is remembered with the plan that it predicts it from.
        own = self._config.chunk_len if cut.follows else 0
        for count, rows in ((cut.imagined, source.episode.commanded), (own, self._plan(cut))):
            if count:
                window.actions[-count:] = source.spec.steps(rows, frames[-count:], stride)
        return window

    def _earlier(self, cut: _Cut) -> tuple[np.ndarray, ...]:
        """A chunk before it, alike in all else."""
        if cut.follows:
            return self._tensors(replace(cut, now=cut.now - self._back(cut.index), follows=False))
        latents, actions, mask, *others = self._tensors(cut)
        return np.zeros_like(latents), actions, np.zeros_like(mask), *others

    def _back(self, index: int) -> int:
        """Frames of a chunk."""
        return self._config.chunk_len * self._strides[index]

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


def _window(
    latents: np.ndarray, spec: ActionSpec, rows: FloatArray, now: int, stride: int, started: int
) -> Window:
    frames, mask = slot_frames(now, stride, started)
    return Window(
        latents[frames].astype(np.float32) * mask[:, None, None, None],
        spec.steps(rows, frames, stride),
        mask,
    )
