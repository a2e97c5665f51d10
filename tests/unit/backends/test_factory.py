"""Which backend runs a bundle, in which precision, and that whoever asks for one gets that one."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import onnx
import onnxruntime
import pytest

from astra_ros.backends import factory, ort
from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle, BundleError, describe_file, load_bundle
from astra_ros.backends.factory import open_backend
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.backends.ort import OrtBackend
from astra_ros.backends.probe import load_fastest

Run = Callable[[Any, str, Mapping[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(autouse=True)
def _log_everything(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the test runs: pytest sets the configured level anew when a fixture has ended."""
    monkeypatch.setattr(pytestconfig.pluginmanager.get_plugin("logging-plugin"), "log_level", logging.INFO)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Packages, as on a machine where they are not installed."""

    def hide(*packages: str) -> None:
        monkeypatch.setattr(factory, "find_spec", lambda name: None if name in packages else find_spec(name))

    return hide


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    assert not any("\n" in message for message in found)
    return found


def scaled(run: Run, factor: float) -> Run:
    """A runtime that computes every value a little too large."""

    def run_differently(backend: Any, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = run(backend, graph, inputs)
        for value in outputs.values():
            backend.fetch(value)[...] *= factor
        return outputs

    return run_differently


def test_auto_takes_the_first_that_runs_here(
    bundle: Bundle, caplog: pytest.LogCaptureFixture, hide: Callable[..., None]
) -> None:
    hide("tensorrt", "tensorrt_rtx")
    with open_backend(bundle, num_threads=1, precision="fp32") as backend:
        assert backend.name == "openvino"
    assert messages(caplog) == [
        "backend tensorrt not taken: backend 'tensorrt': expected the package tensorrt, found none; pip install tensorrt",
        "backend tensorrt_rtx not taken: backend 'tensorrt_rtx': expected the package tensorrt_rtx, found none;"
        " pip install tensorrt-rtx-cu12",
        f"backend openvino (auto: the first that runs here, {backend.version}, fp32 on cpu, 1 threads)",
    ]


def test_auto_passes_over_what_answers_wrong(
    bundle: Bundle,
    caplog: pytest.LogCaptureFixture,
    hide: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide("tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(OpenVinoBackend, "run", scaled(OpenVinoBackend.run, 1.05))
    with open_backend(bundle, num_threads=1, precision="fp32") as backend:
        assert backend.name == "onnxruntime"
    reason = messages(caplog)[2]
    assert reason.startswith("backend openvino not taken: ")
    assert "golden vectors, batch 1: expected at most 0.001 in latents" in reason


def test_auto_passes_over_what_cannot_run_here(
    bundle: Bundle,
    caplog: pytest.LogCaptureFixture,
    hide: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_instructions(_: Bundle) -> tuple[str, ...]:
        raise BackendError("processor: expected\nAVX2, found none; choose another backend")

    hide("tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(OpenVinoBackend, "precisions", no_instructions)
    with open_backend(bundle, num_threads=1) as backend:
        assert backend.name == "onnxruntime"
    assert messages(caplog)[2] == (
        "backend openvino not taken: processor: expected AVX2, found none; choose another backend"
    )


@pytest.mark.parametrize("moment", ["precisions", "__init__"])
def test_auto_passes_over_what_fails_in_the_words_of_its_driver(
    bundle: Bundle,
    caplog: pytest.LogCaptureFixture,
    hide: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    def fail(*_: object, **__: object) -> tuple[str, ...]:
        raise RuntimeError("libcuda.so.1: cannot open\nshared object file")

    hide("tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(OpenVinoBackend, moment, fail)
    with open_backend(bundle, num_threads=1, precision="fp32") as backend:
        assert backend.name == "onnxruntime"
    reason = (
        "backend 'openvino': expected a runtime that works here, found RuntimeError: libcuda.so.1: cannot open shared object"
        " file; choose another backend, or install it and its driver again"
    )
    assert messages(caplog)[2] == f"backend openvino not taken: {reason}"
    with pytest.raises(BackendError, match="expected a runtime that works here, found RuntimeError"):
        open_backend(bundle, "openvino", precision="fp32")


@pytest.mark.parametrize("num_threads", [0, -1])
def test_threads_are_counted_from_one(bundle: Bundle, num_threads: int) -> None:
    with pytest.raises(BackendError, match=rf"^num_threads: expected 1 or more, found {num_threads}$"):
        open_backend(bundle, num_threads=num_threads)


def test_auto_passes_over_what_fails_when_it_warms_up(
    bundle: Bundle,
    caplog: pytest.LogCaptureFixture,
    hide: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released: list[OpenVinoBackend] = []
    release = OpenVinoBackend._release

    def watched(backend: OpenVinoBackend) -> None:
        released.append(backend)
        release(backend)

    def out_of_memory(_: OpenVinoBackend) -> None:
        raise RuntimeError("cudaMalloc: out of memory")

    hide("tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(OpenVinoBackend, "_warm_up", out_of_memory)
    monkeypatch.setattr(OpenVinoBackend, "_release", watched)
    with open_backend(bundle, num_threads=1, precision="fp32") as backend:
        assert backend.name == "onnxruntime"
    assert len(released) == 1
    assert messages(caplog)[2] == f"backend openvino not taken: {bundle.root}: cudaMalloc: out of memory"
    with pytest.raises(BundleError, match="cudaMalloc: out of memory"):
        open_backend(bundle, "openvino", num_threads=1, precision="fp32")


def test_auto_without_any_says_why_for_each(bundle: Bundle, hide: Callable[..., None]) -> None:
    hide("tensorrt", "tensorrt_rtx", "openvino", "torch")
    with pytest.raises(
        BackendError,
        match=r"backend 'auto': expected one of \[.*\] to run /.*, found none; choose precision 'auto'"
        r" \(tensorrt: .*; openvino: .*; onnxruntime: precision: expected one of \['auto', 'fp32'\] \(what backend"
        r" 'onnxruntime' has here\), found 'bf16'; choose 'auto'; torch: .*\)",
    ):
        open_backend(bundle, "auto", precision="bf16")
    hide("tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "torch")
    with pytest.raises(BackendError, match=r"found none; pip install onnxruntime \(tensorrt: "):
        open_backend(bundle, "auto", precision="bf16")


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime:CPUExecutionProvider", "openvino"])
def test_a_name_is_that_backend(bundle: Bundle, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_backend(bundle, name, num_threads=1, precision="fp32") as backend:
        assert backend.name == name.partition(":")[0]
    assert messages(caplog) == [
        f"backend {name} (asked for by name, {backend.version}, fp32 on cpu, 1 threads)"
    ]


def test_a_name_is_never_replaced(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVinoBackend, "run", scaled(OpenVinoBackend.run, 1.05))
    with pytest.raises(BundleError, match="golden vectors, batch 1"):
        open_backend(bundle, "openvino", num_threads=1)


@pytest.mark.parametrize(
    "name", ["abacus", "ORT", "", "openvino:CPU", "onnxruntime:", ":CPUExecutionProvider", "auto:cpu"]
)
def test_other_names_are_refused(bundle: Bundle, name: str) -> None:
    with pytest.raises(
        BackendError,
        match=rf"backend '{name}': expected one of \['auto', 'tensorrt', 'tensorrt_rtx', 'openvino', 'onnxruntime',"
        r" 'torch', 'onnxruntime:PROVIDER', 'torch:DEVICE'\], found another; choose 'auto'",
    ):
        open_backend(bundle, name)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_a_missing_runtime_is_named(bundle: Bundle, name: str, hide: Callable[..., None]) -> None:
    hide(name)
    with pytest.raises(
        BackendError, match=f"backend '{name}': expected the package {name}, found none; pip install {name}"
    ):
        open_backend(bundle, name)


@pytest.mark.parametrize(
    ("name", "missing", "told"),
    [
        (
            "openvino",
            "openvino.properties",
            "a package openvino that loads, found .*; pip install --force-reinstall openvino",
        ),
        ("torch", "onnx", "the package onnx, found none; pip install onnx"),
        ("torch", "onnx.external_data_helper", "the package onnx, found none; pip install onnx"),
    ],
)
def test_a_runtime_that_does_not_load_is_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, missing: str, told: str
) -> None:
    """Its own package is broken, or another one that it needs is not there."""
    of_openvino = ("openvino", "openvino_compiler", "quiet_openvino")
    for module in (*of_openvino, "eager", "torch_graph", "torch_ops", "torch_weights"):
        monkeypatch.delitem(
            sys.modules, f"astra_ros.backends.{module}", raising=False
        )  # so that it is imported again
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BackendError, match=f"^backend '{name}': expected {told}$"):
        open_backend(bundle, name)


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider", "Cuda"])
def test_getting_another_provider_than_asked_for_is_an_error(bundle: Bundle, provider: str) -> None:
    with pytest.raises(
        BackendError, match=f"provider: expected {provider}, found .*CPUExecutionProvider; install the onnxr"
    ):
        open_backend(bundle, f"onnxruntime:{provider}")


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(), reason="not in this onnxruntime"
)
def test_a_provider_that_leaves_work_to_the_cpu_is_an_error(bundle: Bundle) -> None:
    """Azure's takes none of a graph's operators: ONNX Runtime would run all of them on the CPU and report Azure's."""
    with pytest.raises(
        BackendError,
        match=r"provider: expected AzureExecutionProvider to run all of encode.onnx, found that onnxruntime [\d.]+ cannot"
        r" \(.*assigned to the default CPU EP.*\); choose another backend",
    ):
        open_backend(bundle, "onnxruntime:AzureExecutionProvider")


def test_a_provider_that_fails_is_not_retried_on_another(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own reason is told. ONNX Runtime would open the graph on the CPU otherwise."""
    create = onnxruntime.InferenceSession._create_inference_session

    def fail(session: Any, providers: Any, *given: Any, **options: Any) -> None:
        if "Azure" in str(providers):
            raise RuntimeError("libcudnn.so.9: cannot open shared object file")
        create(session, providers, *given, **options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", fail)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider"])
    with pytest.raises(BackendError, match=r"expected AzureExecutionProvider .*\(libcudnn.so.9: cannot open"):
        open_backend(bundle, "onnxruntime:AzureExecutionProvider")


def test_on_a_gpu_float32_is_float32(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's libraries read the variable; TensorRT's provider has no other way."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")  # so that it is as before when the test ends
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    open_backend(bundle, "onnxruntime", num_threads=1).close()
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    with pytest.raises(BackendError, match="provider: expected TensorrtExecutionProvider"):
        open_backend(bundle, "onnxruntime:TensorrtExecutionProvider")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_a_plugin_is_registered_once_and_given_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an attempt that found no GPU."""
    provider, registered = "NvTensorRTRTXExecutionProvider", list[str]()
    package = SimpleNamespace(get_library_path=lambda: "plugin.so")
    gpus = [SimpleNamespace(ep_name=provider) for _ in range(2)]
    found: list[SimpleNamespace] = []
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", package)
    monkeypatch.setattr(
        onnxruntime, "register_execution_provider_library", lambda *names: registered.append(names[0])
    )
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [SimpleNamespace(ep_name="CPU"), *found])
    ort._register.cache_clear()
    with pytest.raises(BackendError, match=f"provider: expected a GPU that {provider} can use, found none"):
        ort._plugin_devices(provider)
    found += gpus
    assert ort._plugin_devices(provider) == gpus[:1]
    assert registered == [provider]
    ort._register.cache_clear()


@pytest.mark.skipif(
    find_spec("onnxruntime_ep_nv_tensorrt_rtx") is not None, reason="the plugin is installed here"
)
def test_a_provider_whose_plugin_is_missing_is_named(bundle: Bundle) -> None:
    with pytest.raises(
        BackendError,
        match=r"provider: expected NvTensorRTRTXExecutionProvider, found none that loads \(No module named"
        r" 'onnxruntime_ep_nv_tensorrt_rtx'\); pip install onnxruntime-ep-nv-tensorrt-rtx-cu12 and NVIDIA's driver",
    ):
        open_backend(bundle, "onnxruntime:NvTensorRTRTXExecutionProvider")


@pytest.mark.parametrize("name", ["auto", "openvino"])
def test_an_unknown_precision_is_refused_by_name(bundle: Bundle, name: str) -> None:
    with pytest.raises(BackendError, match=r"precision 'int3': expected one of \['auto', 'fp32', 'bf16', "):
        open_backend(bundle, name, precision="int3")


def test_a_precision_that_a_backend_does_not_have_is_refused(bundle: Bundle) -> None:
    with pytest.raises(
        BackendError, match=r"precision: expected one of \['auto', 'fp32'\] \(what .*, found 'fp16'; choose"
    ):
        open_backend(bundle, "onnxruntime", precision="fp16")


class Rounded(OrtBackend):
    """ONNX Runtime with an error and a duration as another precision would have them.

    errors: relative, of every value. delays: seconds of a step, in addition.
    """

    errors: ClassVar[Mapping[str, float]] = {"fp32": 0.0, "bf16": 1e-3}
    delays: ClassVar[Mapping[str, float]] = {}

    def __init__(self, bundle: Bundle, precision: str) -> None:
        super().__init__(bundle, num_threads=1)
        self.precision = precision

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        time.sleep(self.delays.get(self.precision, 0.0))
        return scaled(OrtBackend.run, 1.0 + self.errors[self.precision])(self, graph, inputs)


def both(kind: type[Rounded], bundle: Bundle) -> list[Backend]:
    return [kind(bundle, "fp32"), kind(bundle, "bf16")]


@pytest.mark.parametrize(("slow", "expected"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_the_fastest_precision_is_kept(
    bundle: Bundle, slow: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Slowed(Rounded):
        delays: ClassVar = {slow: 0.03}

    with load_fastest(both(Slowed, bundle)) as backend:
        assert backend.precision == expected
    (message,) = messages(caplog)
    assert message.startswith("a denoising step takes onnxruntime: fp32 ")
    assert ", bf16 " in message


def test_the_fastest_precision_is_not_kept_when_it_answers_wrong(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Rounded):
        errors: ClassVar = {"fp32": 0.0, "bf16": 0.05}
        delays: ClassVar = {"fp32": 0.03}

    with load_fastest(both(Wrong, bundle)) as backend:
        assert backend.precision == "fp32"
    assert "backend onnxruntime not taken in bf16: " in caplog.text
    assert (
        "golden vectors, batch 1: expected a relative error of at most 0.02, found encode 0.05" in caplog.text
    )


def test_an_error_that_bfloat16_may_have_is_too_large_for_float32(bundle: Bundle) -> None:
    class Rough(Rounded):
        errors: ClassVar = {"fp32": 1e-3}

    with pytest.raises(BundleError, match=r"expected at most 0\.001 in latents"):
        Rough(bundle, "fp32").load()


class Timed(Rounded):
    """Steps that take as long as told."""

    times: ClassVar[dict[str, float]] = {}
    turns: ClassVar[list[str]] = []

    def _time(self, graph: str, inputs: Mapping[str, Any]) -> float:
        self.turns.append(self.precision)
        return self.times[self.precision]


def test_a_precision_that_gains_nothing_is_not_taken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for bf16_s, expected in ((0.0095, "fp32"), (0.008, "bf16")):
        monkeypatch.setattr(Timed, "times", {"fp32": 0.01, "bf16": bf16_s})
        with load_fastest(both(Timed, bundle)) as backend:
            assert backend.precision == expected


@pytest.mark.parametrize(("int8_s", "expected"), [(0.0075, "bf16"), (0.0065, "int8")])
def test_integers_are_taken_where_they_gain_on_floating_point_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, int8_s: float, expected: str
) -> None:
    """They cost more than it: 0.9 of its time is no gain, and noise would decide."""
    monkeypatch.setattr(Timed, "times", {"fp32": 0.01, "bf16": 0.008, "int8": int8_s})
    monkeypatch.setattr(Timed, "errors", dict.fromkeys(Timed.times, 0.0))
    with load_fastest([*both(Timed, bundle), Timed(bundle, "int8")]) as backend:
        assert backend.precision == expected


def test_a_busy_moment_befalls_every_precision(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timed one after another, the one whose turn it was in that moment would look slow."""
    turns: list[str] = []
    monkeypatch.setattr(Timed, "times", {"fp32": 0.01, "bf16": 0.005})
    monkeypatch.setattr(Timed, "turns", turns)
    load_fastest(both(Timed, bundle)).close()
    assert len(turns) > 10
    assert turns == ["fp32", "bf16"] * (len(turns) // 2)


def test_when_no_precision_answers_right_the_reason_of_the_first_is_raised(bundle: Bundle) -> None:
    class Wrong(Rounded):
        errors: ClassVar = {"fp32": 0.2, "bf16": 0.2}
        delays: ClassVar = {"bf16": 0.03}

    with pytest.raises(BundleError, match=r"expected at most 0\.001 in latents"):
        load_fastest(both(Wrong, bundle))


def test_timing_a_slow_precision_ends_soon(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic that a processor emulates; the other precisions go on being timed."""
    turns: list[str] = []
    monkeypatch.setattr(Timed, "times", {"fp32": 0.01, "bf16": 0.6})
    monkeypatch.setattr(Timed, "turns", turns)
    load_fastest(both(Timed, bundle)).close()
    assert turns.count("bf16") == 2
    assert turns.count("fp32") > 10


def test_a_step_that_fails_is_a_refusal(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Rounded):
        def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
            if self.precision == "bf16":
                raise RuntimeError("illegal instruction")
            return super().run(graph, inputs)

    with load_fastest(both(Failing, bundle)) as backend:
        assert backend.precision == "fp32"
    assert f"backend onnxruntime not taken in bf16: {bundle.root}: illegal instruction" in caplog.text


def test_a_graph_opened_alone_leaves_nothing_open(bundle: Bundle) -> None:
    backend = Rounded(bundle, "fp32")
    with backend.only("step_0") as step:
        assert set(backend._sessions) == {"step_0"}
        assert step() > 0.0
    with pytest.raises(RuntimeError, match=r"expected load\(\) first"):
        backend.rollout()
    assert set(backend.specs) == set(bundle.manifest.graphs)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_a_graph_with_a_dynamic_shape_is_refused(bundle_copy: Path, name: str) -> None:
    """Its digest is right: whoever exported it let a size open."""
    file, manifest = bundle_copy / "step_0.onnx", bundle_copy / "manifest.json"
    graph = onnx.load(file, load_external_data=False)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    file.write_bytes(graph.SerializeToString())
    document = json.loads(manifest.read_text())
    document["files"]["step_0.onnx"] = asdict(describe_file(file))
    manifest.write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"step_0 inputs: expected .*; export the bundle again") as refusal:
        open_backend(load_bundle(bundle_copy), name, num_threads=1, precision="fp32")
    assert "\n" not in str(refusal.value)
