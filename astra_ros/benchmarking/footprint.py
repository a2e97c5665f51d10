"""Memory and time to load of a process that only predicts: `python -m astra_ros.benchmarking.footprint`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

PREDICTIONS = 5
_TIMEOUT_S = 600
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Footprint:
    """Of a fresh process.

    runs: backend, version, precision and device. import_s: of the package. load_s: of the bundle, hashes, golden
    vectors and warm-up included. rss_mb, peak_rss_mb: resident memory, 10^6 bytes, after predictions of the longest
    horizon.
    """

    runs: str
    import_s: float
    load_s: float
    rss_mb: float
    peak_rss_mb: float


def measure(bundle: Path, backend: str, num_threads: int) -> Footprint:
    """Start such a process and wait for it. Raises RuntimeError with the last line of what it said."""
    command = [sys.executable, "-m", __name__, str(bundle), backend, str(num_threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise RuntimeError(lines[-1])
    return Footprint(**json.loads(result.stdout.splitlines()[-1]))


def main(bundle: str, backend: str, num_threads: str) -> None:
    """In the fresh process."""
    started = perf_counter()
    from astra_ros.backends.bundle import load_bundle
    from astra_ros.backends.factory import open_backend
    from astra_ros.benchmarking.scene import Scene
    from astra_ros.benchmarking.stream import stream_subject

    imported = perf_counter()
    verified = load_bundle(bundle)
    opened = open_backend(verified, backend, int(num_threads))
    loaded = perf_counter()
    predict = stream_subject("footprint", opened, Scene(verified), verified.manifest.max_horizon)
    for _ in range(PREDICTIONS):
        predict.run()
    found = Footprint(
        runs=f"{opened.version}, {opened.precision}, {opened.device}",
        import_s=round(imported - started, 3),
        load_s=round(loaded - imported, 3),
        rss_mb=resident_mb("VmRSS"),
        peak_rss_mb=resident_mb("VmHWM"),  # of this program: getrusage would begin with the parent's
    )
    print(json.dumps(asdict(found)))  # noqa: T201


def resident_mb(field: str, pid: int | str = "self") -> float:
    """Memory of a process, 10^6 bytes. field: VmRSS, now, or VmHWM, at most so far. Raises RuntimeError when it has none."""
    status = Path(f"/proc/{pid}/status")
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) * 1024 / _MEGABYTE, 1)
    raise RuntimeError(f"{status}: expected {field}, found none")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ImportError, RuntimeError, ValueError) as error:
        sys.exit(" ".join(str(error).split()))
