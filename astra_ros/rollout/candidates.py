"""Many plans from one past, in as few runs of the network as the backend's batches allow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from astra_ros.backends.base import Backend, Past
from astra_ros.backends.rollout import Rollout
from astra_ros.rollout.chunks import roll_out
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class Futures:
    """What follows from some of the plans. plans: their indices. latents: (n, horizon, c, h, w), their own copy."""

    plans: range
    latents: FloatArray


@dataclass
class Pace:
    """first_s: seconds that the first chunk of the last question took, and so will that of the next; 0 before the first."""

    first_s: float = 0.0


class Candidates:
    """Rolls out plans side by side. Buffers are made once per batch; no two questions may run at the same time.

    paces: of questions, by the number of plans side by side and of steps.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.paces = defaultdict[tuple[int, int], Pace](Pace)
        self._rollouts: dict[int, Rollout] = {}

    def prepare(self) -> Iterator[None]:
        """Opens the graphs of every batch and checks their golden vectors; returns control after every graph.

        The first roll_out does it otherwise. Nothing is left to do the second time. Raises BundleError.
        """
        for batch in self._backend.batches:
            if batch not in self._rollouts:
                yield from self._backend.prepare(batch)
                self._rollouts[batch] = self._backend.rollout(batch)

    @property
    def largest_batch(self) -> int:
        """Plans that one run of the network takes."""
        return self._backend.batches[-1]

    @property
    def num_steps(self) -> int:
        """Denoising steps of a chunk."""
        return self._backend.manifest.num_steps

    def roll_out(
        self, past: Past, plans: FloatArray, seed: int, num_steps: int = 0
    ) -> Iterator[Futures | None]:
        """Futures of plans (n, horizon, a), batch by batch. Yields after every chunk: Futures if it completes a batch, else None.

        So the caller may stop, or do something else, after each chunk, and after each piece of `prepare` if that was not
        done before. All plans see the same noise. num_steps: as for Rollout.sample.
        """
        yield from self.prepare()
        for group, batch in _groups(len(plans), self._backend.batches):
            rows = plans[group.start : group.stop]
            # A batch has a fixed size: its last places repeat the last plan.
            padded = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
            chunks: list[FloatArray] = []
            for chunk in roll_out(
                self._rollouts[batch], past, padded, self._backend.manifest, seed, num_steps
            ):
                chunks.append(chunk[: len(rows)])
                if len(chunks) * chunk.shape[1] < plans.shape[1]:
                    yield None
            yield Futures(group, np.concatenate(chunks, axis=1)[:, : plans.shape[1]])


def _groups(count: int, batches: tuple[int, ...]) -> Iterator[tuple[range, int]]:
    """Indices that run together and the batch that takes them: the largest, and for the rest the smallest that fits."""
    for start in range(0, count, batches[-1]):
        group = range(start, min(count, start + batches[-1]))
        yield group, next(batch for batch in batches if batch >= len(group))
