"""The torch backend beside ONNX Runtime, and what a CUDA device adds to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.backends import cuda_graph, golden
from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.cuda_graph import RecordedFunction, Recorder
from astra_ros.backends.eager import EagerBackend
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.ort import OrtBackend
from astra_ros.backends.rollout import Rollout
from astra_ros.backends.torch_graph import load_graphs
from astra_ros.history.memory import HistorySlots
from astra_ros.types import FloatArray

TOLERANCE = 1e-4
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none")


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(scope="module")
def inputs(bundle: Bundle) -> RolloutInputs:
    return golden.load(bundle.file("golden.npz"), bundle.manifest)[0]


class RecordingBackend(EagerBackend):
    """On the CPU through everything that surrounds a CUDA graph: fixed buffers, shared inputs, outputs that stay."""

    def _open(self) -> None:
        recorder = Recorder(torch.device("cpu"))
        for name, graph in load_graphs(self._bundle).items():
            self._graphs[name] = recorder.record(graph, self.specs[name])


OPENERS = [
    pytest.param(lambda bundle: EagerBackend(bundle, 1), id="cpu"),
    pytest.param(lambda bundle: RecordingBackend(bundle, 1), id="recorded"),
    pytest.param(lambda bundle: EagerBackend(bundle, 1, "cuda"), id="cuda", marks=needs_cuda),
]


@pytest.fixture(scope="module", params=OPENERS)
def backend(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[EagerBackend]:
    """Its golden vectors have been checked."""
    with request.param(bundle) as loaded:
        yield loaded


def test_it_answers_as_onnxruntime(
    backend: EagerBackend, bundle: Bundle, inputs: RolloutInputs, capsys: pytest.CaptureFixture[str]
) -> None:
    with OrtBackend(bundle, 1) as other:
        for batch in bundle.manifest.batches:
            expected = golden.run_rollout(other, inputs, batch)
            difference = golden.deviation(golden.run_rollout(backend, inputs, batch), expected)
            with capsys.disabled():
                print(
                    f"\ntorch on {backend.device} - onnxruntime, batch {batch}: {max(difference.latents):.1e}"
                )
            assert max(difference.latents) <= TOLERANCE
            assert difference.pixels <= 1


def test_it_says_what_it_is(backend: EagerBackend) -> None:
    assert (backend.name, backend.precision) == ("torch", "fp32")
    assert backend.version == f"torch {torch.__version__}"


def two_chunks(rollout: Rollout, inputs: RolloutInputs, seed: int) -> Iterator[FloatArray]:
    """Latents of a chunk, then of the one after it."""
    noise = np.random.default_rng(seed).standard_normal((rollout.batch, *inputs.noise.shape[1:]), np.float32)
    plan = np.repeat(inputs.plan[:1], rollout.batch, axis=0)
    latents = rollout.sample(noise, plan).copy()
    yield latents
    rollout.append(latents, plan)
    yield rollout.sample(noise, plan).copy()


def test_rollouts_that_take_turns_do_not_touch_each_other(
    backend: EagerBackend, inputs: RolloutInputs
) -> None:
    """Whatever memory of the device they share: one past, two rollouts chunk by chunk, and another past in between."""
    encoded = golden.spread(np.stack([backend.encode(frame) for frame in inputs.pixels]), len(inputs.mask))
    slots = HistorySlots(encoded, inputs.actions, inputs.mask)
    other_slots = HistorySlots(-encoded, inputs.actions, inputs.mask)
    for batch in backend.manifest.batches:
        past, other_past = backend.remember(slots), backend.remember(other_slots)
        rollouts = [backend.rollout(batch) for _ in range(3)]
        starts = [past, other_past, past]
        alone = []
        for seed, (rollout, start) in enumerate(zip(rollouts, starts, strict=True)):
            rollout.begin(start)
            alone.append(list(two_chunks(rollout, inputs, seed)))
        for rollout, start in zip(rollouts, starts, strict=True):
            rollout.begin(start)
        turns = [two_chunks(rollout, inputs, seed) for seed, rollout in enumerate(rollouts)]
        for chunk in range(2):
            for expected, turn in zip(alone, turns, strict=True):
                np.testing.assert_array_equal(next(turn), expected[chunk])
        assert np.abs(alone[0][1] - alone[1][1]).max() > 1e-3


def test_closing_lets_go_of_everything(bundle: Bundle) -> None:
    backend = EagerBackend(bundle, 1)
    backend.load()
    backend.close()
    assert not backend._graphs
    with pytest.raises(RuntimeError, match=r"expected load\(\) first"):
        backend.encode(np.zeros((48, 64, 3), np.uint8))


def test_float32_is_not_rounded_while_graphs_are_recorded() -> None:
    parts = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    with cuda_graph._full_precision():
        assert [part.fp32_precision for part in parts] == ["ieee", "ieee"]
    assert [part.fp32_precision for part in parts] == before


def test_torch_is_imported_only_when_asked_for() -> None:
    code = "import sys, astra_ros.backends.factory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_device_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"device: expected one of \('cpu', 'cuda'\), found 'tpu'"):
        EagerBackend(bundle, device="tpu").load()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_device_that_is_not_there_is_refused_and_never_replaced(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="device: expected a CUDA device, found none that torch"):
        EagerBackend(bundle, device="cuda").load()


@needs_cuda
def test_on_a_cuda_device_every_graph_is_recorded_and_memory_stays_constant(
    bundle: Bundle, inputs: RolloutInputs
) -> None:
    with EagerBackend(bundle, 1, "cuda") as backend:
        assert all(
            isinstance(graph, RecordedFunction) and graph.run != graph._run
            for graph in backend._graphs.values()
        )
        used = []
        for _ in range(3):
            answer = golden.run_rollout(backend, inputs, backend.manifest.batches[-1])
            used.append(torch.cuda.memory_allocated())
        assert used[1] == used[2]
        again = golden.run_rollout(backend, inputs, backend.manifest.batches[-1])
        assert golden.deviation(answer, again).latents == (0.0,) * len(
            golden.stages(bundle.manifest.num_steps)
        )


@needs_cuda
def test_fetched_values_lie_in_page_locked_memory(bundle: Bundle) -> None:
    with EagerBackend(bundle, 1, "cuda") as backend:
        fetched = backend.fetch(torch.ones(3, device="cuda"))
        assert torch.from_numpy(fetched).is_pinned()
        np.testing.assert_array_equal(fetched, 1)
