"""A runtime in a process of its own: what it answers, and what is said when it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.ort import OrtBackend
from astra_ros.benchmarking import worker, workers
from astra_ros.benchmarking.busy import busy_processes
from astra_ros.benchmarking.runtimes import RUNTIMES
from astra_ros.benchmarking.worker import AGREEMENT, PEAKS_RUNTIME, Job
from astra_ros.benchmarking.workers import Worker, WorkerError

APPEND = "latents/onnxruntime/append"


def job(bundle: Path, runtime: str, *names: str) -> Job:
    return Job(str(bundle), runtime, 1, 4, names)


def test_it_says_what_runs_and_then_how_long_it_took(untrained_bundle: Path) -> None:
    with Worker(job(untrained_bundle, "onnxruntime", APPEND, "latents/served/append")) as worker:
        assert worker.description["runs"].startswith("onnxruntime ")
        assert worker.description["peak"] == "peaks/cpu/gemm-fp32"
        assert worker.ask(APPEND) > 0
        assert set(worker.ask(AGREEMENT)) == {"cost_difference", "cost_spread", "same_ranking"}
        assert worker.ask(APPEND) > 0


def test_peaks_are_probed_in_one_too(untrained_bundle: Path) -> None:
    name = "peaks/cpu/memory-copy"
    with Worker(job(untrained_bundle, PEAKS_RUNTIME, name)) as worker:
        assert worker.description[name]["unit"] == "GB/s"
        assert worker.ask(name) > 0


def test_the_products_of_numpy_take_as_many_threads_as_the_others(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with Worker(job(untrained_bundle, PEAKS_RUNTIME)) as worker:
        environment = Path(f"/proc/{worker._process.pid}/environ").read_bytes().split(b"\0")
        assert {b"OPENBLAS_NUM_THREADS=1", b"OMP_NUM_THREADS=1", b"MKL_NUM_THREADS=1"} <= set(environment)


def test_a_runtime_that_cannot_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^[^\n]*expected a bundle folder with manifest.json[^\n]*$"):
        Worker(job(tmp_path, "onnxruntime", APPEND))


def test_a_graph_that_a_backend_has_not_costs_the_others_nothing(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines are built of some batches."""
    bundle = load_bundle(untrained_bundle)
    with OrtBackend(bundle) as backend:
        backend.manifest = bundle.manifest.with_batches((1,))
        monkeypatch.setitem(RUNTIMES, "served", lambda *_: nullcontext(backend))
        names = ("stages/served/step_0", "stages/served/step_0_x8")
        with worker._opened(job(untrained_bundle, "served", *names)) as (description, commands):
            assert commands[names[0]]() > 0
            assert names[1] not in commands
    assert description["refused"] == {
        names[1]: "step_0_x8: expected one of the graphs that onnxruntime has here, found another"
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt_rtx"])
def test_why_tensorrt_cannot_run_is_the_reason(untrained_bundle: Path, runtime: str) -> None:
    with pytest.raises(WorkerError, match=r"expected the package tensorrt|no CUDA device"):
        Worker(job(untrained_bundle, runtime, f"latents/{runtime}/append"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_the_reason(untrained_bundle: Path) -> None:
    with pytest.raises(WorkerError, match="device: expected a CUDA device, found none"):
        Worker(job(untrained_bundle, "cuda", "latents/cuda/append"))


def test_a_process_that_dies_is_named_with_its_last_words(untrained_bundle: Path) -> None:
    with Worker(job(untrained_bundle, "onnxruntime", APPEND)) as worker:
        with pytest.raises(
            WorkerError, match="onnxruntime: its process ended early, exit code 1: KeyError: 'nothing'"
        ):
            worker.ask("nothing")
        with pytest.raises(WorkerError, match="ended early"):
            worker.ask(APPEND)


def test_only_the_runtimes_of_others_may_spin(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    for runtime, sleeps in (("torch", False), ("onnxruntime", True)):
        with Worker(job(untrained_bundle, runtime)) as worker:
            environment = Path(f"/proc/{worker._process.pid}/environ").read_bytes()
            assert (b"OMP_WAIT_POLICY=PASSIVE" in environment) is sleeps


def test_plain_torch_is_imported_before_the_backend_that_forbids_spinning() -> None:
    program = """import sys, astra_ros.benchmarking.torch_runtimes
names = list(sys.modules)
sys.exit(names.index("torch") > names.index("astra_ros.backends.eager"))"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_busy_processes_end_with_the_statement() -> None:
    with busy_processes(2) as started:
        assert [process.poll() for process in started] == [None, None]
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 2


def test_busy_processes_end_with_who_started_them() -> None:
    """However that ended."""
    program = (
        "import time\nfrom astra_ros.benchmarking.busy import busy_processes\n"
        "with busy_processes(1) as (one,):\n    print(one.pid, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        busy = Path(f"/proc/{int(starter.stdout.readline())}")
        assert busy.exists()
        starter.kill()
    deadline_s = time.monotonic() + 20.0
    while _is_alive(busy):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _is_alive(process: Path) -> bool:
    """Nobody may have collected it yet."""
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except OSError:
        return False


def test_one_that_is_never_ready_does_not_hold_back_the_others(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "READY_S", 0.05)
    with pytest.raises(WorkerError, match=r"onnxruntime: expected it to be ready within 0\.05 s"):
        Worker(job(untrained_bundle, "onnxruntime", APPEND))
