"""The TensorRT backend: with real engines on a device of host memory (host_cuda.py), and on a GPU where there is one."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_ros.backends import trt
from astra_ros.backends.base import Backend, BackendError, Past
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.engines import Precision
from astra_ros.backends.manifest import BundleError
from astra_ros.backends.ort import OrtBackend
from astra_ros.backends.trt import TensorRtBackend, TensorRtRtxBackend
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.history.memory import HistorySlots
from astra_ros.rollout.candidates import Candidates
from astra_ros.types import FloatArray
from export import check_parity, engine_weights
from export.build_trt import build_engines
from export.engine_builder import BuildConfig
from tests.bundle_fixture import CHUNK, LATENT
from tests.unit.backends.host_cuda import HostCuda, HostRuntime
from tests.unit.backends.test_bundle import flip_a_bit
from tests.unit.backends.test_engines import write

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed; run: make test")
real_cuda = pytest.importorskip(
    "cuda.bindings.runtime", reason="cuda-bindings is not installed; run: make test"
)

BATCH = 8
HAS_GPU = real_cuda.cudaGetDeviceCount()[0] == real_cuda.cudaError_t.cudaSuccess

Place = Callable[..., HostCuda]


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With float32 engines beside its files."""
    root = Path(shutil.copytree(untrained_bundle, tmp_path_factory.mktemp("trt") / "bundle"))
    bundle = load_bundle(root)
    build_engines(bundle, BuildConfig(precision="fp32"))
    return bundle


@pytest.fixture
def place(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Puts a device of host memory in the place of CUDA."""

    def put(precision: Precision = "fp32", scratch: Path | None = None, **options: Any) -> HostCuda:
        cuda = HostCuda(**options)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
        monkeypatch.setattr(tensorrt_rtx, "Runtime", HostRuntime(cuda, bundle, precision, scratch))
        return cuda

    return put


@pytest.fixture
def cuda(place: Place) -> HostCuda:
    return place()


@pytest.fixture
def backend(bundle: Bundle, cuda: HostCuda) -> Iterator[TensorRtRtxBackend]:
    with TensorRtRtxBackend(bundle) as loaded:
        yield loaded
    assert not cuda.memory
    assert not cuda.graphs


def past_of(backend: Backend, seed: int) -> Past:
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((NUM_SLOTS, *LATENT), np.float32)
    actions = 0.3 * rng.standard_normal((NUM_SLOTS, backend.manifest.action.dim), np.float32)
    return backend.remember(HistorySlots(latents, actions, np.ones(NUM_SLOTS, np.float32)))


def roll_out(backend: Backend, batch: int, seed: int, chunks: int = 3) -> FloatArray:
    """Latents of every chunk of candidates with actions of their own."""
    rng, rollout, samples = np.random.default_rng(seed), backend.rollout(batch), []
    rollout.begin(past_of(backend, seed))
    for _ in range(chunks):
        noise = rng.standard_normal((batch, CHUNK, *LATENT), np.float32)
        actions = 0.3 * rng.standard_normal((batch, CHUNK, backend.manifest.action.dim), np.float32)
        samples.append(rollout.sample(noise, actions).copy())
        rollout.append(samples[-1], actions)
    return np.stack(samples)


def test_what_it_says_of_itself(backend: TensorRtRtxBackend) -> None:
    assert backend.name == "tensorrt_rtx"
    assert backend.version == f"tensorrt_rtx {tensorrt_rtx.__version__}"
    assert (backend.precision, backend.device) == ("fp32", "cuda:0 (host memory, SM 89)")


@pytest.mark.parametrize("batch", [1, BATCH])
def test_rollouts_are_those_of_onnxruntime(backend: TensorRtRtxBackend, bundle: Bundle, batch: int) -> None:
    """The golden vectors were checked while loading; these go on longer, and through the CUDA graph."""
    with OrtBackend(bundle, num_threads=1) as other:
        for seed in (0, 1):
            found, expected = roll_out(backend, batch, seed), roll_out(other, batch, seed)
            assert np.abs(found - expected).max() <= 1e-5
            assert np.abs(expected).max() > 0.5


def test_the_parity_program_gives_a_gpu_the_limits_of_the_manifest(bundle: Bundle, cuda: HostCuda) -> None:
    parity = check_parity.compare(bundle, None, 3, ["tensorrt_rtx"])
    assert parity.is_within
    assert {row.backend for row in parity.rows} == {"tensorrt_rtx fp32"}
    golden = bundle.manifest.golden
    assert {row.limit for row in parity.rows} == {golden.latents_tolerance, golden.pixels_tolerance}
    assert parity.engines
    assert "not run here" not in check_parity.report(parity)
    assert not cuda.memory


def test_rollouts_may_take_turns(backend: TensorRtRtxBackend) -> None:
    """Rollouts of one batch share the buffers of the steps, and pasts stay as they are."""
    pasts = [past_of(backend, seed) for seed in (0, 1)]
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((1, CHUNK, *LATENT), np.float32)
    actions = np.zeros((1, CHUNK, backend.manifest.action.dim), np.float32)

    @cache
    def alone(seed: int) -> FloatArray:
        rollout = backend.rollout()
        rollout.begin(pasts[seed])
        return rollout.sample(noise, actions).copy()

    both = [backend.rollout() for _ in pasts]
    for rollout, past in zip(both, pasts, strict=True):
        rollout.begin(past)
    for _ in range(2):
        for seed, rollout in enumerate(both):
            assert np.array_equal(rollout.sample(noise, actions), alone(seed))
    assert not np.array_equal(alone(0), alone(1))


def test_the_steps_of_a_chunk_are_one_cuda_graph(backend: TensorRtRtxBackend, cuda: HostCuda) -> None:
    before = cuda.calls.copy()
    for seed in range(3):
        roll_out(backend, 1, seed)
    calls = cuda.calls - before
    assert calls["cudaGraphInstantiate"] == 1
    assert calls["cudaGraphLaunch"] == 3 * 3 - 1  # the first chunk runs before the graph is there


def test_warming_up_makes_the_cuda_graphs(backend: TensorRtRtxBackend, cuda: HostCuda) -> None:
    backend.warmup()
    before = cuda.calls.copy()
    for batch in (1, BATCH):
        roll_out(backend, batch, seed=0)
    calls = cuda.calls - before
    assert (calls["cudaGraphInstantiate"], calls["cudaGraphLaunch"]) == (0, 2 * 3)


def test_nothing_is_allocated_after_the_first_rollout(backend: TensorRtRtxBackend, cuda: HostCuda) -> None:
    roll_out(backend, BATCH, seed=0)
    before = dict(cuda.memory)
    first, second = (roll_out(backend, BATCH, seed=seed) for seed in (1, 2))
    assert cuda.memory.keys() == before.keys()
    assert not np.array_equal(first, second)


def test_keys_and_values_stay_on_the_device(backend: TensorRtRtxBackend, cuda: HostCuda) -> None:
    """One copy to the host per chunk: its latents."""
    roll_out(backend, BATCH, seed=0)
    before = cuda.calls.copy()
    roll_out(backend, BATCH, seed=1, chunks=2)
    assert (cuda.calls - before)["cudaStreamSynchronize"] == 2


def test_steps_run_one_by_one_where_no_graph_can_be_captured(
    bundle: Bundle, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = place(captures=False)
    with OrtBackend(bundle, num_threads=1) as other, TensorRtRtxBackend(bundle) as backend:
        assert np.abs(roll_out(backend, 1, seed=0) - roll_out(other, 1, seed=0)).max() <= 1e-5
    assert "no CUDA graph can be made of them" in caplog.text
    assert caplog.text.count("no CUDA graph") == 1
    assert not cuda.calls["cudaGraphLaunch"]


def test_steps_run_one_by_one_where_their_graph_answers_otherwise(
    bundle: Bundle, cuda: HostCuda, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With some driver or GPU; the golden vectors see the steps alone."""
    launch = cuda.cudaGraphLaunch

    def forgetful(graph: Any, stream: int) -> tuple[Any, ...]:
        cuda.graphs[graph] = cuda.graphs[graph][:-1]
        return launch(graph, stream)

    with OrtBackend(bundle, num_threads=1) as other, TensorRtRtxBackend(bundle) as backend:
        monkeypatch.setattr(cuda, "cudaGraphLaunch", forgetful)
        backend.warmup()
        assert "denoising steps run one by one: as a CUDA graph they differ" in caplog.text
        for batch in (1, BATCH):
            assert np.abs(roll_out(backend, batch, 0) - roll_out(other, batch, 0)).max() <= 1e-5


def test_engines_share_one_copy_of_their_weights(
    untrained_bundle: Path, bundle_copy: Path, tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_weights, "MIN_SHARED_BYTES", 8192)
    bundle = load_bundle(bundle_copy)
    _, engines = build_engines(bundle, BuildConfig(precision="fp32", weights_as_inputs=True))
    cuda = place(scratch=tmp_path / "scratch")
    with OrtBackend(bundle, num_threads=1) as other, TensorRtRtxBackend(bundle) as backend:
        assert np.abs(roll_out(backend, BATCH, seed=0) - roll_out(other, BATCH, seed=0)).max() <= 1e-5
        sizes = [len(block) for block in cuda.memory.values()]
        assert sizes.count(engines.files["weights.bin"].bytes) == 1
    assert not cuda.memory


def test_close_twice_and_use_after_close(bundle: Bundle, cuda: HostCuda) -> None:
    backend = TensorRtRtxBackend(bundle)
    backend.close()
    for _ in range(2):
        backend.load()
        rollout = backend.rollout()
        rollout.begin(past_of(backend, 0))
        backend.close()
        backend.close()
        assert not cuda.memory
        for call in (rollout.sample, rollout.append):
            with pytest.raises(RuntimeError, match="call load"):
                call(np.zeros((1, CHUNK, *LATENT), np.float32), np.zeros((1, CHUNK, 8), np.float32))
    del rollout  # whose arrays outlive their device
    assert not cuda.memory


@pytest.mark.parametrize("graph", ["encode", "step_0"])
def test_a_wrong_shape_is_refused_before_the_device_reads_beyond_it(
    backend: TensorRtRtxBackend, graph: str
) -> None:
    blank = {name: np.zeros(shape, np.float32) for name, shape in backend.specs[graph].inputs.items()}
    name = next(iter(blank))
    with pytest.raises(ValueError, match=rf"{graph}: {name}: expected shape \(1, .*, found \(1,\)"):
        backend.run(graph, {**blank, name: np.zeros(1, np.float32)})
    if graph == "step_0":
        with pytest.raises(ValueError, match="step_0: noisy_latents: expected shape"):
            backend.sample(1, {**blank, name: np.zeros(1, np.float32)})


def test_a_full_device_is_told_and_left_empty(bundle: Bundle, place: Place) -> None:
    cuda = place(memory_limit=100_000)
    with pytest.raises(BundleError, match=r"cudaMalloc(Host)?: out of memory"):
        TensorRtRtxBackend(bundle).load()
    assert not cuda.memory


def test_precisions_are_those_there_are_engines_of(bundle_copy: Path, cuda: HostCuda) -> None:
    bundle = load_bundle(bundle_copy)
    with pytest.raises(
        BackendError, match=r"expected engines of tensorrt_rtx .* for SM 89, found none; python -m"
    ):
        TensorRtRtxBackend.precisions(bundle)
    for precision in ("fp16", "fp32"):
        write(bundle, version=tensorrt_rtx.__version__, precision=precision)
    assert TensorRtRtxBackend.precisions(bundle) == ("fp32", "fp16")


def test_float16_within_the_tolerance_of_reduced_precision(bundle_copy: Path, place: Place) -> None:
    bundle = load_bundle(bundle_copy)
    build_engines(bundle, BuildConfig(precision="fp16"))
    place("fp16")
    with OrtBackend(bundle, num_threads=1) as other, TensorRtRtxBackend(bundle, precision="fp16") as backend:
        assert backend.precision == "fp16"
        difference = np.abs(roll_out(backend, 1, seed=0) - roll_out(other, 1, seed=0)).max()
    assert 1e-6 < difference < 2e-2
    with pytest.raises(BackendError, match="precision: expected fp32, found fp16"):
        TensorRtRtxBackend(bundle, precision="fp32").load()


def test_a_damaged_engine_does_not_hide_sound_ones(
    bundle: Bundle, tmp_path: Path, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    cuda, root = place(), shutil.copytree(bundle.root, tmp_path / "bundle")
    (sound,) = (root / "engines").iterdir()
    damaged = shutil.copytree(sound, sound.with_name("tensorrt_rtx-0-damaged"))
    flip_a_bit(damaged / "step_1.engine")
    with TensorRtRtxBackend(load_bundle(root)) as backend:
        assert roll_out(backend, 1, seed=0).any()
    assert "engines passed over: " in caplog.text
    assert str(damaged / "step_1.engine") in caplog.text
    flip_a_bit(sound / "step_1.engine")
    with pytest.raises(BundleError, match=r"tensorrt_rtx-0-damaged/step_1.engine: expected sha256"):
        TensorRtRtxBackend(load_bundle(root)).load()
    assert not cuda.memory


def test_without_engines_of_candidates_they_run_one_after_another(bundle_copy: Path, place: Place) -> None:
    bundle = load_bundle(bundle_copy)
    build_engines(bundle, BuildConfig(precision="fp32", candidates=0))
    place()
    plans = 0.3 * np.random.default_rng(0).standard_normal((3, CHUNK, 8), np.float32)
    with OrtBackend(bundle, num_threads=1) as other, TensorRtRtxBackend(bundle) as backend:
        backend.warmup()
        assert backend.manifest.batches == (1,)
        found, expected = (
            [one for one in Candidates(each).roll_out(past_of(each, 0), plans, seed=1) if one]
            for each in (backend, other)
        )
        assert [list(one.plans) for one in found] == [[0], [1], [2]]
        latents = np.concatenate([one.latents for one in found])
        assert np.abs(latents - expected[0].latents).max() <= 1e-5
        with pytest.raises(ValueError, match=r"batch: expected one of \(1,\)"):
            backend.rollout(BATCH)
        with pytest.raises(BackendError, match="step_0_x8: expected an engine, found none; build"):
            backend.run("step_0_x8", backend._blank("step_0_x8"))


def test_a_gpu_that_the_library_does_not_know_is_refused(bundle: Bundle, place: Place) -> None:
    place(sm=90)
    with pytest.raises(
        BackendError,
        match=r"expected a GPU of SM 75, 80, 86, 89, 120, 121 or newer, found SM 90; choose backend 'tensorrt'",
    ):
        TensorRtRtxBackend(bundle).load()


def test_engines_of_other_gpus_are_refused(bundle_copy: Path, place: Place) -> None:
    bundle = load_bundle(bundle_copy)
    write(bundle, version=tensorrt_rtx.__version__, targets=(86, 120))
    place(sm=89)
    with pytest.raises(
        BackendError, match=r"targets: expected SM 89, which is present, found \(86, 120\).* --sm 89$"
    ):
        TensorRtRtxBackend(bundle).load()


def test_an_engine_unlike_its_description_is_refused(
    bundle: Bundle, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = place()
    monkeypatch.setattr(
        "tests.unit.backends.host_cuda.HostEngine.get_tensor_shape", lambda _engine, _name: (1, 2, 3)
    )
    with pytest.raises(
        BackendError,
        match=rf"encode: expected an engine with the tensors .*build the engines again: .* {bundle.root} --runtime",
    ):
        TensorRtRtxBackend(bundle).load()
    assert not cuda.memory


@pytest.mark.skipif(HAS_GPU, reason="there is a CUDA device here")
@pytest.mark.parametrize("call", [TensorRtRtxBackend.precisions, lambda b: TensorRtRtxBackend(b).load()])
def test_without_a_gpu_it_says_so(bundle: Bundle, call: Callable[[Bundle], Any]) -> None:
    with pytest.raises(
        BackendError, match=r"no CUDA device \(CUDA driver .*\); install an NVIDIA driver"
    ) as refusal:
        call(bundle)
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_without_the_library_it_says_so(bundle: Bundle) -> None:
    with pytest.raises(
        BackendError, match=r"tensorrt: expected the package tensorrt, .*; pip install tensorrt"
    ):
        TensorRtBackend(bundle).load()


@pytest.mark.skipif(
    not HAS_GPU, reason="needs a GPU that TensorRT-RTX supports; everything else here runs without"
)
def test_on_a_gpu(bundle_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = load_bundle(bundle_copy)
    for precision in ("fp32", "fp16", "bf16"):
        build_engines(bundle, BuildConfig(precision=precision))
        with (
            caplog.at_level(logging.WARNING, logger=trt.__name__),
            OrtBackend(bundle) as other,
            TensorRtRtxBackend(bundle, precision=precision) as backend,
        ):
            for batch in (1, BATCH):
                found, expected = roll_out(backend, batch, seed=0), roll_out(other, batch, seed=0)
                assert np.abs(found - expected).max() <= {"fp32": 1e-3, "fp16": 2e-2, "bf16": 0.2}[precision]
    assert not caplog.records  # a CUDA graph was captured each time
