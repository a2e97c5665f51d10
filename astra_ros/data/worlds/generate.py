"""Fill a dataset with episodes of a world: several processes simulate, this one writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import DatasetWriter
from astra_ros.data.worlds.base import FRAME_HZ, SIZE_PX, Style, episode_name, style_of
from astra_ros.data.worlds.catalog import open_world

OnDone = Callable[[str, Exception | None], None]


@dataclass(frozen=True)
class GenerateConfig:
    """world: a name of the catalog; seeds: one episode each; style: None alternates between the two by seed."""

    world: str
    seeds: range
    style: Style | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        if len(self.seeds) < 1 or self.seeds.start < 0:
            raise ValueError(
                f"seeds: expected one or more from 0 on, found {len(self.seeds)} from {self.seeds.start}; "
                "choose --episodes and --first-seed so"
            )
        if self.workers < 1:
            raise ValueError(f"workers: expected 1 or more, found {self.workers}; choose --workers so")

    def style_of(self, seed: int) -> Style:
        return self.style or style_of(seed)


def generate(out: Path, config: GenerateConfig, on_done: OnDone) -> int:
    """Add the episodes that `out` lacks, in the order of their seeds. Returns how many failed.

    on_done is told of every episode that was written (None) or failed (why); the others go on.
    """
    world, num_failed = open_world(config.world), 0
    with DatasetWriter(out, world.name, world.schema, FRAME_HZ, SIZE_PX) as writer:
        missing = [seed for seed in config.seeds if not writer.has(episode_name(seed))]
        for seed, job in _simulate(config, missing):
            try:
                writer.append(job.result(), world.task(seed, config.style_of(seed)))
            except Exception as error:  # noqa: BLE001 - whatever a simulator raises: one bad episode must not end a long run
                num_failed += 1
                on_done(episode_name(seed), error)
            else:
                on_done(episode_name(seed), None)
    return num_failed


def _simulate(config: GenerateConfig, seeds: Sequence[int]) -> Iterator[tuple[int, Future[Episode]]]:
    """Finished or failed episodes in the order of their seeds."""
    num_done = 0
    while num_done < len(seeds):
        # A fresh interpreter per process: a graphics context does not survive a fork.
        with ProcessPoolExecutor(config.workers, get_context("spawn")) as pool:
            for seed, job in _submit(pool, config, seeds[num_done:]):
                yield seed, job
                num_done += 1
                if isinstance(job.exception(), BrokenProcessPool):
                    break  # a process died, and the pool with it: a new one goes on after that episode


def _submit(
    pool: ProcessPoolExecutor, config: GenerateConfig, seeds: Sequence[int]
) -> Iterator[tuple[int, Future[Episode]]]:
    """Jobs in order; a few are under way behind the one that is waited for. Ends early when the pool breaks."""
    queue: deque[tuple[int, Future[Episode]]] = deque()
    waiting = iter(seeds)
    while True:
        try:
            for seed in islice(waiting, 2 * config.workers - len(queue)):
                queue.append((seed, pool.submit(_episode, config.world, seed, config.style_of(seed))))
        except BrokenProcessPool:
            return
        if not queue:
            return
        yield queue.popleft()


def _episode(world: str, seed: int, style: Style) -> Episode:
    return open_world(world).episode(seed, style)
