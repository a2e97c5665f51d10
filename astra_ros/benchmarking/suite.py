"""A whole run of `astra bench`: everything selected is opened, timed in turn, and compared."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.benchmarking import comparisons, footprint
from astra_ros.benchmarking.candidates import Agreement, Ranking
from astra_ros.benchmarking.catalogue import FOOTPRINTS, Entry, entries, reference_of
from astra_ros.benchmarking.footprint import Footprint
from astra_ros.benchmarking.interleaving import InterleavingConfig, Seconds, interleave
from astra_ros.benchmarking.medians import median, ratio
from astra_ros.benchmarking.names import is_selected, require_known
from astra_ros.benchmarking.peaks import PEAKS, gemm_peak, probes, summary
from astra_ros.benchmarking.results import Speed, SpeedResult
from astra_ros.benchmarking.runtimes import SERVED, Runtimes
from astra_ros.benchmarking.scene import Scene
from astra_ros.benchmarking.work import bundle_flops
from astra_ros.denoiser.cost import Flops


@dataclass(frozen=True)
class BenchConfig:
    """num_threads: of every runtime that can be told. candidates: action sequences of one observation.

    only: groups, or patterns of names (catalogue.py); none: everything.
    """

    num_threads: int = 2
    candidates: int = 64
    only: tuple[str, ...] = ()
    interleaving: InterleavingConfig = field(default_factory=InterleavingConfig)

    def __post_init__(self) -> None:
        for name, found in (("threads", self.num_threads), ("candidates", self.candidates)):
            if found < 1:
                raise ValueError(f"{name}: expected 1 or more, found {found}")


class Suite:
    """Of one bundle. report: told what is being done. Raises ValueError for names that nothing has."""

    def __init__(
        self, bundle: Bundle, config: BenchConfig, report: Callable[[str], None] = lambda text: None
    ) -> None:
        self._bundle, self._config, self._report = bundle, config, report
        self._scene = Scene(bundle)
        self._skipped: dict[str, str] = {}
        self._flops = self._known_flops()
        known = entries(self._scene, config.candidates, self._flops)
        require_known(config.only, [*PEAKS, *(entry.name for entry in known), *FOOTPRINTS])
        self._entries = [entry for entry in known if is_selected(entry.name, config.only)]

    def run(self) -> SpeedResult:
        """Takes minutes."""
        load_before = os.getloadavg()[0]
        footprints = self._footprints()
        timed = [
            probe for probe in probes(self._config.num_threads) if is_selected(probe.name, self._config.only)
        ]
        with Runtimes(self._bundle, self._config.num_threads, self._report) as runtimes:
            opened = [(e, backend) for e in self._entries if (backend := runtimes.get(e.runtime)) is not None]
            subjects = [probe.subject() for probe in timed]
            subjects += [entry.build(entry.name, backend) for entry, backend in opened]
            seconds = interleave(subjects, self._config.interleaving, self._report)
            agreement = self._agreement(runtimes)
            peaks = {probe.name: probe.work / seconds[probe.name] for probe in timed}
            speeds = {entry.name: _speed(entry, backend, seconds, peaks) for entry, backend in opened}
        goals = [
            *comparisons.speed_goals(seconds),
            *comparisons.other_goals(
                speeds.get(f"latents/{SERVED}/append"),
                speeds.get(f"stream/{SERVED}/{self._scene.manifest.chunk_len}"),
                footprints.get(FOOTPRINTS[0]),
                agreement,
            ),
        ]
        return SpeedResult(
            peaks=summary(timed, seconds),
            flops={} if self._flops is None else asdict(self._flops),
            speeds=speeds,
            ideas=comparisons.ideas(seconds),
            agreement=agreement,
            footprints=footprints,
            goals=tuple(goals),
            skipped={**self._skipped, **runtimes.skipped},
            load_average=(load_before, os.getloadavg()[0]),
            seconds={name: [float(f"{value:.4g}") for value in values] for name, values in seconds.items()},
        )

    def _known_flops(self) -> Flops | None:
        try:
            return bundle_flops(self._bundle.manifest)
        except ValueError as error:
            self._skipped["GFLOP/s and shares of the peak"] = str(error)
            return None

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

    def _agreement(self, runtimes: Runtimes) -> Agreement | None:
        """Of what was timed."""
        if not any(entry.name.startswith("candidates/") for entry in self._entries):
            return None
        backend = runtimes.get(SERVED)
        if backend is None:
            return None
        self._report("comparing the rankings of the candidates")
        return Ranking(backend, self._scene, self._config.candidates).agreement()


def _speed(
    entry: Entry, backend: Backend, seconds: Mapping[str, Seconds], peaks: Mapping[str, Seconds]
) -> Speed:
    own = seconds[entry.name]
    reference = reference_of(entry.name)
    slow = seconds.get(reference) if reference and reference != entry.name else None
    peak = peaks.get(gemm_peak(backend.device, backend.precision))
    return Speed(
        runs=f"{backend.version}, {backend.precision}, {backend.device}",
        milliseconds=median(1e3 * own),
        per_second=median(1 / own),
        reference=None if slow is None else reference,
        faster=None if slow is None else ratio(slow, own),
        gflops=None if entry.flops is None else median(entry.flops / own / 1e9),
        share_of_peak=None if entry.flops is None or peak is None else ratio(entry.flops / own, peak),
    )
