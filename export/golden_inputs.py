"""What golden vectors are made of: patterns that exercise every input, or a recording of the robot itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astra_ros.backends.golden import NUM_CHUNKS, NUM_PICTURES, RolloutInputs
from astra_ros.backends.manifest import Manifest
from astra_ros.data.episode import Episode
from astra_ros.evaluation.reliving import bounds
from astra_ros.history.layout import slot_frames
from astra_ros.types import ByteArray


def patterned(manifest: Manifest, seed: int) -> RolloutInputs:
    """A seeded rollout of plausible size: smooth pictures, wandering actions, and slots empty as in short histories."""
    rng = np.random.default_rng(seed)
    action, slots, chunk = manifest.action, manifest.history.num_slots, manifest.chunk_len
    steps = rng.standard_normal((slots + NUM_CHUNKS * chunk, action.dim)) * np.asarray(action.delta_std)
    actions = (np.asarray(action.mean) + np.cumsum(steps, axis=0)).astype(np.float32)
    mask = np.ones(slots, np.float32)
    mask[1 : slots // 2] = 0
    latent = (manifest.latents.channels, manifest.latents.height, manifest.latents.width)
    return RolloutInputs(
        pixels=np.stack([_smooth_picture(rng, manifest) for _ in range(NUM_PICTURES)]),
        actions=actions[:slots],
        mask=mask,
        noise=rng.standard_normal((NUM_CHUNKS, chunk, *latent), np.float32),
        plan=actions[slots:].reshape(NUM_CHUNKS, chunk, action.dim),
    )


def recorded(manifest: Manifest, episode: Episode, seed: int) -> RolloutInputs:
    """The same at a moment in the middle of a recording: its last pictures, what its joints did, what they were told next.

    Raises ValueError where there is none with the whole memory behind it and the chunks before it.
    """
    spec, inputs = manifest.action, patterned(manifest, seed)
    num_slots, horizon = len(inputs.mask), NUM_CHUNKS * manifest.chunk_len
    first, end, stride = bounds(manifest, episode, horizon)
    now = (first + end - 1) // 2
    ages = np.arange(NUM_PICTURES)
    pixels = np.empty_like(inputs.pixels)
    pixels[(num_slots - 1 - ages) % NUM_PICTURES] = episode.pixels[now - stride * ages]
    plan = spec.steps(episode.commanded, now + stride * np.arange(1, horizon + 1), stride)
    return replace(
        inputs,
        pixels=pixels,
        actions=spec.steps(episode.measured, slot_frames(now, stride)[0], stride),
        plan=plan.reshape(inputs.plan.shape),
    )


def _smooth_picture(rng: np.random.Generator, manifest: Manifest) -> ByteArray:
    height, width = manifest.camera.height, manifest.camera.width
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    frequency, phase = rng.uniform(1, 12, (2, 3)), rng.uniform(0, 6, 3)
    waves = np.sin(frequency[0] * rows + frequency[1] * columns + phase)
    return np.asarray(127.5 + 120 * waves, np.uint8)
