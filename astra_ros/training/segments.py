"""From encoded datasets to training segments: one action contract per action space, and the weights of the mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import frame_stride
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.segments import SegmentConfig, SegmentSampler, SegmentSource
from astra_ros.training.latents import EncodedSet


def fit_specs(sets: Sequence[EncodedSet], step_dt: float) -> dict[str, ActionSpec]:
    """Normalisation and range of every action space, over all datasets that share it.

    Raises ValueError when one has no usable episode.
    """
    sharing: dict[str, list[EncodedSet]] = {}
    for one in sets:
        sharing.setdefault(one.source.dataset.schema.space, []).append(one)
    return {space: _fit(of_space, step_dt) for space, of_space in sharing.items()}


def _fit(sets: Sequence[EncodedSet], step_dt: float) -> ActionSpec:
    for one in sets:
        if not one.episodes:
            raise ValueError(
                f"{one.source.dataset.path}: expected a usable episode, found {len(one.bad)} bad ones"
            )
    schema = sets[0].source.dataset.schema
    return fit_action_spec([episode for one in sets for episode, _ in one.episodes], schema, step_dt)


def kept_specs(fitted: Mapping[str, ActionSpec], known: Mapping[str, ActionSpec]) -> dict[str, ActionSpec]:
    """The fitted action spaces; one that is known keeps its normalisation, and its range grows to what was fitted."""
    return {space: _widened(known.get(space, spec), spec) for space, spec in fitted.items()}


def _widened(known: ActionSpec, fitted: ActionSpec) -> ActionSpec:
    lower, upper = map(min, known.lower, fitted.lower), map(max, known.upper, fitted.upper)
    return replace(known, lower=tuple(lower), upper=tuple(upper))


def segment_sampler(
    sets: Sequence[EncodedSet], specs: Mapping[str, ActionSpec], config: SegmentConfig
) -> SegmentSampler:
    """Segments of all datasets, each drawn as often as its weight says."""
    sources = [
        source
        for one in sets
        for source in _sources(one, specs[one.source.dataset.schema.space], config.chunk_len)
    ]
    return SegmentSampler(sources, list(specs), config)


def _sources(one: EncodedSet, spec: ActionSpec, chunk_len: int) -> list[SegmentSource]:
    """A dataset's episodes, weighted so that together they are drawn `weight` times as often as a set of weight 1."""
    strides = [frame_stride(episode, spec.step_dt) for episode, _ in one.episodes]
    lengths = [len(latents) for _, latents in one.episodes]
    moments = sum(
        max(0, length - chunk_len * stride) for length, stride in zip(lengths, strides, strict=True)
    )
    if moments == 0:
        steps = ((length - 1) / stride for length, stride in zip(lengths, strides, strict=True))
        raise ValueError(
            f"{one.source.dataset.path}: expected an episode of {chunk_len * spec.step_dt:.1f} s, a chunk, or longer, "
            f"found {max(steps, default=0.0) * spec.step_dt:.1f} s; leave it out of data.sets, or record longer ones and choose another --out"
        )
    weight = one.source.weight / moments
    return [SegmentSource(episode, latents, spec, weight) for episode, latents in one.episodes]
