"""The process in which one runtime runs: `python -m astra_ros.benchmarking.worker JOB`, by workers.py.

It says first what it runs, or why it does not. Then each line it reads names what to do once, and each line it
writes is what came of it: the seconds a subject took.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import load_bundle
from astra_ros.benchmarking.candidates import Ranking
from astra_ros.benchmarking.catalogue import entries
from astra_ros.benchmarking.peaks import gemm_peak, probes
from astra_ros.benchmarking.runtimes import RUNTIMES
from astra_ros.benchmarking.scene import Scene

PEAKS_RUNTIME = "peaks"
AGREEMENT = "agreement"  # of candidates side by side with each alone

Commands = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Job:
    """What a worker is for.

    runtime: of runtimes.py, or PEAKS_RUNTIME. names: of the subjects it may be asked for.
    """

    bundle: str
    runtime: str
    num_threads: int
    candidates: int
    names: tuple[str, ...]


def main(text: str) -> None:
    """Serve until there is no more input. Prints of libraries do not get between the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        with _opened(Job(**json.loads(text))) as (description, commands):
            say(description)
            for line in sys.stdin:
                say(commands[line.strip()]())
    except (ImportError, RuntimeError, ValueError) as error:
        say({"error": " ".join(str(error).split())})


@contextmanager
def _opened(job: Job) -> Iterator[tuple[dict[str, Any], Commands]]:
    """What runs, with what it refuses and why, and what can be asked for."""
    if job.runtime == PEAKS_RUNTIME:
        chosen = {probe.name: probe for probe in probes(job.num_threads) if probe.name in job.names}
        described = {name: {"how": p.how, "unit": p.unit, "work": p.work} for name, p in chosen.items()}
        yield described, {name: probe.subject().seconds for name, probe in chosen.items()}
        return
    bundle = load_bundle(job.bundle)
    scene = Scene(bundle)
    with RUNTIMES[job.runtime](bundle, job.num_threads) as backend:
        known = entries(scene, job.candidates, None)
        own = [entry for entry in known if entry.runtime == job.runtime and entry.name in job.names]
        commands: Commands = {}
        refused = {}
        for entry in own:
            try:
                commands[entry.name] = entry.build(entry.name, backend).seconds
            except BackendError as error:
                refused[entry.name] = str(error)
        commands[AGREEMENT] = lambda: asdict(Ranking(backend, scene, job.candidates).agreement())
        peak = gemm_peak(backend.device, backend.precision)
        what = {"runs": backend.description, "device": backend.device, "peak": peak, "refused": refused}
        yield {**what, "plans_once": backend.plans_once}, commands


if __name__ == "__main__":
    main(sys.argv[1])
