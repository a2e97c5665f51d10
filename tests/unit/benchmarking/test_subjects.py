"""What is timed does what it says, on the untrained bundle. Nothing here looks at a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime import OrtValue

from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.manifest import FlopsSpec
from astra_ros.backends.ort import OrtBackend
from astra_ros.benchmarking import footprint, peaks
from astra_ros.benchmarking.candidates import DECODED, Ranking, Way
from astra_ros.benchmarking.catalogue import entries, reference_of
from astra_ros.benchmarking.chunk import UNITS, Scheme, chunk_flops, chunk_subject, repeated_flops
from astra_ros.benchmarking.names import GROUPS, is_selected
from astra_ros.benchmarking.peaks import PEAKS, gemm_peak, probes
from astra_ros.benchmarking.runtimes import RUNTIMES
from astra_ros.benchmarking.scene import Scene
from astra_ros.benchmarking.stages import UNITS as STAGE_UNITS
from astra_ros.benchmarking.stages import stage_flops, stage_subject
from astra_ros.benchmarking.stream import UNITS as PREDICTIONS
from astra_ros.benchmarking.stream import stream_subject
from astra_ros.denoiser.io import CACHE_AXES


class CountingBackend(OrtBackend):
    """Counts the runs of each graph. given: what the last one was run on. told: the actions of every denoising step."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, num_threads=1)
        self.runs: Counter[str] = Counter()
        self.given: dict[str, Any] = {}
        self.told: list[bytes] = []

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.runs[graph] += 1
        self.given = dict(inputs)
        if "actions" in inputs:
            self.told.append(inputs["actions"].tobytes())
        return super().run(graph, inputs)


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(scope="module")
def loaded(bundle: Bundle) -> Iterator[CountingBackend]:
    with CountingBackend(bundle) as backend:
        yield backend


@pytest.fixture
def backend(loaded: CountingBackend) -> CountingBackend:
    loaded.runs.clear()
    loaded.told.clear()
    return loaded


@pytest.fixture(scope="module")
def scene(bundle: Bundle) -> Scene:
    return Scene(bundle)


@pytest.mark.parametrize(
    ("scheme", "histories"),
    [
        ("recompute", {"remember": 2 * UNITS}),
        ("remember", {"remember": UNITS}),
        ("append", {"append": UNITS}),
    ],
)
def test_a_chunk_keeps_its_history_as_its_scheme_says(
    backend: CountingBackend, scene: Scene, scheme: Scheme, histories: dict[str, int]
) -> None:
    latents = chunk_subject("latents", backend, scheme, scene, with_codec=False)
    pixels = chunk_subject("pixels", backend, scheme, scene, with_codec=True)
    steps = {"step_0": UNITS, "step_1": UNITS}
    backend.runs.clear()
    latents.run()
    assert backend.runs == {**histories, **steps}
    backend.runs.clear()
    pixels.run()
    codec = {"encode": UNITS, "decode": UNITS * scene.manifest.chunk_len}
    assert backend.runs == {**histories, **steps, **codec}
    assert latents.units == pixels.units == UNITS


@pytest.mark.parametrize("scheme", ["recompute", "remember", "append"])
def test_no_chunk_is_told_what_the_one_before_was(
    backend: CountingBackend, scene: Scene, scheme: Scheme
) -> None:
    """A runtime that keeps what it made of the last actions would otherwise be timed without them."""
    subject = chunk_subject("latents", backend, scheme, scene, with_codec=False)
    backend.told.clear()
    for _ in range(2):
        subject.run()
    chunks = backend.told[:: scene.manifest.num_steps]
    assert len(chunks) == 2 * UNITS
    assert all(one != other for one, other in pairwise(chunks))


def test_no_graph_and_no_prediction_is_told_the_same_twice(backend: CountingBackend, scene: Scene) -> None:
    stage_subject("step_0", backend, "step_0").run()
    stream_subject("stream", backend, scene, 4 * scene.manifest.chunk_len).run()
    alone, chunks = backend.told[:STAGE_UNITS], backend.told[STAGE_UNITS :: scene.manifest.num_steps]
    for told in (alone, chunks):
        assert len(told) == 8
        assert all(one != other for one, other in pairwise(told))


def test_work_of_a_chunk() -> None:
    flops = FlopsSpec(remember=100, append=10, step=2, plan=1)
    assert [chunk_flops(s, flops, 4) for s in ("recompute", "remember", "append")] == [408, 108, 18]
    assert repeated_flops(flops, 4) == 3


@pytest.mark.parametrize(
    ("graph", "work"),
    [
        ("encode", None),
        ("fused", None),
        ("remember", 100),
        ("append_x8", 80),
        ("step_1", 1),
        ("step_t", 1),
        ("step_0_x8", 8),
    ],
)
def test_work_of_a_graph(graph: str, work: int | None) -> None:
    assert stage_flops(graph, FlopsSpec(remember=100, append=10, step=1)) == work


def test_every_graph_of_the_bundle_can_run_alone(backend: CountingBackend, scene: Scene) -> None:
    for graph in scene.manifest.graph_specs:
        stage_subject(graph, backend, graph).run()
    assert set(backend.runs) == set(scene.manifest.graphs)


@pytest.mark.parametrize("graph", ["append", "step_0_x8"])
def test_a_graph_that_runs_alone_finds_the_history_where_a_rollout_has_it(
    backend: CountingBackend, graph: str
) -> None:
    """A device is not given it by the host each time."""
    stage_subject(graph, backend, graph).run()
    shapes = backend.specs[graph].inputs
    for name, value in backend.given.items():
        assert isinstance(value, OrtValue if name in CACHE_AXES else np.ndarray)
        assert tuple(value.shape() if name in CACHE_AXES else value.shape) == shapes[name]


@pytest.mark.parametrize(
    ("way", "runs"),
    [
        ("separate", {"encode": 10, "remember": 10, "step_0": 10, "step_1": 10}),
        ("shared", {"encode": 1, "remember": 1, "step_0": 10, "step_1": 10}),
        ("batched", {"encode": 1, "remember": 1, "step_0_x8": 2, "step_1_x8": 2}),
    ],
)
def test_candidates_share_what_their_way_says(
    backend: CountingBackend, scene: Scene, way: Way, runs: dict[str, int]
) -> None:
    ranking = Ranking(backend, scene, count=10)
    subject = ranking.subject("latents", way, with_frames=False)
    subject.run()  # the first time also checks the graphs
    backend.runs.clear()
    subject.run()
    assert backend.runs == runs
    assert subject.units == 10 * scene.manifest.chunk_len
    backend.runs.clear()
    ranking.subject("frames", way, with_frames=True).run()
    assert backend.runs["decode"] == scene.manifest.chunk_len * (10 if way == "separate" else DECODED)


def test_candidates_are_ranked_alike_side_by_side(backend: CountingBackend, scene: Scene) -> None:
    found = Ranking(backend, scene, count=10).agreement()
    assert found.same_ranking
    assert found.cost_difference < 1e-3 * found.cost_spread
    assert len({plan.tobytes() for plan in scene.plans(10)}) == 10


def test_a_stream_encodes_one_new_picture_per_prediction(backend: CountingBackend, scene: Scene) -> None:
    horizon = 2 * scene.manifest.chunk_len
    subject = stream_subject("stream", backend, scene, horizon)
    subject.run()  # encodes what was remembered before
    backend.runs.clear()
    subject.run()
    assert backend.runs["encode"] == PREDICTIONS
    assert backend.runs["decode"] == PREDICTIONS * horizon == subject.units
    assert backend.runs["append"] == PREDICTIONS


def test_a_process_of_its_own_tells_its_memory(untrained_bundle: Path) -> None:
    found = footprint.measure(untrained_bundle, "onnxruntime", 1)
    assert found.runs.startswith("onnxruntime ")
    assert 20 < found.rss_mb <= found.peak_rss_mb < 4000
    assert 0 < found.load_s < 300


def test_a_process_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^[^\n]*expected a bundle folder with manifest.json[^\n]*$"):
        footprint.measure(tmp_path, "onnxruntime", 1)


def test_names_are_groups_runtimes_and_what(scene: Scene) -> None:
    known = entries(scene, 64, FlopsSpec(1, 1, 1))
    names = [entry.name for entry in known]
    assert len(set(names)) == len(names)
    assert {name.split("/")[0] for name in (*names, *PEAKS)} | {"footprint"} == set(GROUPS)
    assert {entry.runtime for entry in known} == set(RUNTIMES)
    for device in ("cpu", "cuda:0 (a device)"):
        references = {reference_of(name, device) for name in names} - {None}
        assert references <= set(names)
    assert reference_of("latents/served/append", "cuda:0 (a device)") == "latents/cuda/recompute"
    assert is_selected("latents/torch/append", ["latents"])
    assert is_selected("latents/torch/append", ["stages", "*/torch/*"])
    assert not is_selected("latents/torch/append", ["latents/torch"])


def test_without_torch_numpy_shows_the_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "find_spec", lambda name: None)
    found = {probe.name: probe.how for probe in probes(3)}
    assert list(found) == [gemm_peak("cpu", "fp32"), "peaks/cpu/memory-read", "peaks/cpu/memory-copy"]
    assert found[gemm_peak("cpu", "fp32")].endswith(f"numpy {np.__version__}, 3 threads")
    assert all(f"numpy {np.__version__}, 1 thread" in how for how in list(found.values())[1:])


def test_peaks_are_rates_of_products_and_memory() -> None:
    found = {probe.name: probe for probe in probes(1)}
    assert set(found) <= set(PEAKS)
    assert gemm_peak("cpu", "fp32") in found
    assert gemm_peak("cuda:0 (a device)", "fp16") in PEAKS
    for probe in found.values():
        probe.run()
        assert probe.work > 1e8
