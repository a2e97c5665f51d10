"""A checkpoint as the evaluation sees it: rollouts in batches, decoded where they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from astra_ros.codec.pictures import decode_latents
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.rollout import Memory, RolloutSettings, stream_rollout
from astra_ros.evaluation.scenes import Sampling, Scenes
from astra_ros.types import ByteArray, FloatArray

BATCH = 8
_SEED_STRIDE = 100_003  # moments of one seed never share noise with those of another


class CheckpointPredictor:
    """One action space of a checkpoint. settings: how it is served, where a Sampling does not say otherwise."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        space: str,
        settings: RolloutSettings,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._checkpoint, self._space, self._settings, self._report = checkpoint, space, settings, report

    def predict(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        """See Predictor. Raises FloatingPointError when a latent is not finite."""
        wanted = tuple(range(plan.shape[1])) if sampling.frames is None else sampling.frames
        starts = range(0, len(scenes), BATCH)
        return np.concatenate([self._batch(scenes, plan, sampling, start, wanted) for start in starts])

    def reconstruct(self, latents: FloatArray) -> ByteArray:
        """See Predictor."""
        return np.stack([decode_latents(self._checkpoint.codec, torch.from_numpy(one)) for one in latents])

    def _batch(
        self, scenes: Scenes, plan: FloatArray, sampling: Sampling, start: int, wanted: tuple[int, ...]
    ) -> ByteArray:
        """(b, frames, h, w, 3)."""
        rows = slice(start, start + BATCH)
        part, shown, first = scenes.part(rows), [], 0
        for chunk in self._chunks(part, plan[rows], sampling, start):
            if not bool(torch.isfinite(chunk).all()):
                raise FloatingPointError(
                    f"{self._space}: latents after frame {first}: expected finite numbers, found NaN;"
                    " take another checkpoint, or train this one again"
                )
            inside = [frame - first for frame in wanted if first <= frame < first + chunk.shape[1]]
            if inside:
                shown.append(self.reconstruct(chunk[:, inside].cpu().numpy()))
            first += chunk.shape[1]
            self._report(
                f"rollout {self._space}: moment {rows.start + len(part)} of {len(scenes)}, frame {min(first, plan.shape[1])} of {plan.shape[1]}"
            )
        return np.concatenate(shown, axis=1)

    def _chunks(self, scenes: Scenes, plan: FloatArray, sampling: Sampling, start: int) -> Iterator[Tensor]:
        device = next(self._checkpoint.denoiser.parameters()).device
        history = scenes.history
        memory = Memory(
            torch.from_numpy(history.latents).to(device),
            history.actions,
            torch.from_numpy(history.mask).to(device),
        )
        generator = torch.Generator().manual_seed(_SEED_STRIDE * sampling.seed + start)
        return stream_rollout(self._checkpoint, self._space, memory, plan, self._served(sampling), generator)

    def _served(self, sampling: Sampling) -> RolloutSettings:
        settings = self._settings
        if sampling.num_steps is not None:
            settings = replace(settings, num_steps=sampling.num_steps)
        return settings if sampling.guidance is None else replace(settings, guidance=sampling.guidance)
