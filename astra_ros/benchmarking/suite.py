"""A whole run of `astra bench`: everything selected is opened, timed in turn, and compared."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import EXPORT_AGAIN
from astra_ros.benchmarking import comparisons, footprint
from astra_ros.benchmarking.busy import busy_processes
from astra_ros.benchmarking.candidates import Agreement
from astra_ros.benchmarking.catalogue import FOOTPRINTS, Entry, entries, reference_of
from astra_ros.benchmarking.footprint import Footprint
from astra_ros.benchmarking.interleaving import InterleavingConfig, Seconds, interleave
from astra_ros.benchmarking.medians import median, ratio
from astra_ros.benchmarking.names import is_selected, require_known
from astra_ros.benchmarking.peaks import PEAKS, summary
from astra_ros.benchmarking.results import Speed, SpeedResult
from astra_ros.benchmarking.runtimes import COMPARED_ON, SERVED
from astra_ros.benchmarking.scene import Scene
from astra_ros.benchmarking.worker import AGREEMENT, PEAKS_RUNTIME, Job
from astra_ros.benchmarking.workers import Worker, WorkerError

_NO_FLOPS = f"flops: the manifest does not tell them; {EXPORT_AGAIN}"


@dataclass(frozen=True)
class BenchConfig:
    """num_threads: of every runtime that can be told. candidates: action sequences of one observation.

    busy: processes that compete for the processor while everything is timed.
    only: groups, or patterns of names (catalogue.py); none: everything.
    """

    num_threads: int = 2
    candidates: int = 64
    busy: int = 0
    only: tuple[str, ...] = ()
    interleaving: InterleavingConfig = field(default_factory=InterleavingConfig)

    def __post_init__(self) -> None:
        for name, found in (("threads", self.num_threads), ("candidates", self.candidates)):
            if found < 1:
                raise ValueError(f"{name}: expected 1 or more, found {found}")
        if self.busy < 0:
            raise ValueError(f"busy: expected 0 or more, found {self.busy}")


class Suite:
    """Of one bundle. report: told what is being done. Raises ValueError for names that nothing has."""

    def __init__(
        self, bundle: Bundle, config: BenchConfig, report: Callable[[str], None] = lambda text: None
    ) -> None:
        self._bundle, self._config, self._report = bundle, config, report
        self._skipped: dict[str, str] = {}
        self._flops = bundle.manifest.flops
        if self._flops is None:
            self._skipped["GFLOP/s and shares of the peak"] = _NO_FLOPS
        if is_selected(f"stages/{COMPARED_ON}/", config.only):
            for idea, graph in comparisons.untold_ideas(bundle.manifest.graphs).items():
                self._skipped[idea] = f"the bundle has no graph {graph}; {EXPORT_AGAIN} --comparisons"
        known = entries(Scene(bundle), config.candidates, self._flops)
        require_known(config.only, [*PEAKS, *(entry.name for entry in known), *FOOTPRINTS])
        self._entries = [entry for entry in known if is_selected(entry.name, config.only)]
        self._peaks = tuple(name for name in PEAKS if is_selected(name, config.only))

    def run(self) -> SpeedResult:
        """Takes minutes. Raises WorkerError when a process ends that should not."""
        load_before = os.getloadavg()[0]
        footprints = self._footprints()
        with ExitStack() as stack:
            workers = self._start_workers(stack)
            described = workers[PEAKS_RUNTIME].description if PEAKS_RUNTIME in workers else {}
            for runtime in {entry.runtime for entry in self._entries} & workers.keys():
                self._skipped |= workers[runtime].description["refused"]
            ready = [
                entry
                for entry in self._entries
                if entry.runtime in workers and entry.name not in self._skipped
            ]
            turns = {name: partial(workers[PEAKS_RUNTIME].ask, name) for name in described}
            turns |= {entry.name: partial(workers[entry.runtime].ask, entry.name) for entry in ready}
            with busy_processes(self._config.busy):
                seconds = interleave(turns, self._config.interleaving, self._report)
            agreement = self._agreement(workers)
            served_on = workers[SERVED].description["device"] if SERVED in workers else "cpu"
            peaks = {name: probe["work"] / seconds[name] for name, probe in described.items()}
            speeds = {
                entry.name: _speed(entry, workers[entry.runtime].description, seconds, peaks)
                for entry in ready
            }
        goals = [
            *comparisons.speed_goals(seconds, served_on=served_on),
            *comparisons.other_goals(
                speeds.get(f"latents/{SERVED}/append"),
                speeds.get(f"stream/{SERVED}/{self._bundle.manifest.chunk_len}"),
                footprints.get(FOOTPRINTS[0]),
                agreement,
            ),
        ]
        return SpeedResult(
            peaks=summary(described, seconds),
            flops={} if self._flops is None else asdict(self._flops),
            speeds=speeds,
            ideas=comparisons.ideas(seconds, self._bundle.manifest.num_steps),
            agreement=agreement,
            footprints=footprints,
            goals=tuple(goals),
            skipped=self._skipped,
            load_average=(load_before, os.getloadavg()[0]),
            seconds={name: [float(f"{value:.4g}") for value in values] for name, values in seconds.items()},
        )

    def _start_workers(self, stack: ExitStack) -> dict[str, Worker]:
        """One after the other, those that can run here, by runtime."""
        names = {PEAKS_RUNTIME: self._peaks} if self._peaks else {}
        for entry in self._entries:
            names[entry.runtime] = (*names.get(entry.runtime, ()), entry.name)
        workers = {}
        for runtime, own in names.items():
            self._report(f"opening {runtime}{' (it compiles for minutes)' if '.compile' in runtime else ''}")
            root, config = str(self._bundle.root), self._config
            job = Job(root, runtime, config.num_threads, config.candidates, own)
            try:
                workers[runtime] = stack.enter_context(Worker(job))
            except WorkerError as error:
                self._skipped[runtime] = str(error)
        return workers

    def _footprints(self) -> dict[str, Footprint]:
        found = {}
        for name in FOOTPRINTS:
            if not is_selected(name, self._config.only):
                continue
            self._report(f"starting a process of its own: {name}")
            backend = name.rpartition("/")[2]
            try:
                found[name] = footprint.measure(self._bundle.root, backend, self._config.num_threads)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                self._skipped[name] = " ".join(str(error).split())
        return found

    def _agreement(self, workers: Mapping[str, Worker]) -> Agreement | None:
        """Where candidates were timed."""
        is_asked = any(entry.name.startswith("candidates/") for entry in self._entries)
        if not is_asked or SERVED not in workers:
            return None
        self._report("comparing the rankings of the candidates")
        return Agreement(**workers[SERVED].ask(AGREEMENT))


def _speed(
    entry: Entry,
    description: Mapping[str, Any],
    seconds: Mapping[str, Seconds],
    peaks: Mapping[str, Seconds],
) -> Speed:
    own, peak = seconds[entry.name], peaks.get(description["peak"])
    reference = reference_of(entry.name, description["device"])
    slow = seconds.get(reference) if reference and reference != entry.name else None
    flops = entry.flops
    if flops is not None and description["plans_once"]:
        flops -= entry.repeated
    return Speed(
        runs=description["runs"],
        milliseconds=median(1e3 * own),
        per_second=median(1 / own),
        reference=None if slow is None else reference,
        faster=None if slow is None else ratio(slow, own),
        gflops=None if flops is None else median(flops / own / 1e9),
        share_of_peak=None if flops is None or peak is None else ratio(flops / own, peak),
    )
