"""ONNX Runtime backend: one session per graph, the history's keys and values never leave the runtime's memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError
from astra_ros.denoiser.io import GraphSpec
from astra_ros.types import FloatArray

_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"
# Otherwise products of float32 are computed in TF32, which is another precision. TensorRT's provider has no such option:
# NVIDIA's libraries look for this variable when they are first used.
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_NO_TF32 = ("NVIDIA_TF32_OVERRIDE", "0")
# Providers that come in a package of their own: how it is imported.
_PLUGINS = {"NvTensorRTRTXExecutionProvider": "onnxruntime_ep_nv_tensorrt_rtx"}
GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", *_PLUGINS)


class OrtBackend(Backend):
    """Runs on the CPU, or on a GPU by another execution provider.

    num_threads: CPU threads of one inference; graphs run one after another, never together.
    provider: execution provider that must run the graphs, every operator of them, for example one of GPU_PROVIDERS; getting
    another one, and be it for one operator, is an error.
    """

    name = "onnxruntime"
    version = f"onnxruntime {ort.__version__}"

    def __init__(self, bundle: Bundle, num_threads: int = 2, provider: str = _CPU) -> None:
        super().__init__(bundle)
        self.precision = bundle.manifest.precision
        self.device = "cpu" if provider == _CPU else "cuda"
        self._num_threads = num_threads
        self._provider = provider
        self._sessions: dict[str, ort.InferenceSession] = {}

    def _open(self) -> None:
        if self.device != "cpu":
            os.environ.setdefault(*_NO_TF32)
        for graph in self._always_needed:
            self._session(graph)

    def _session(self, graph: str) -> ort.InferenceSession:
        if graph not in self._sessions:
            session = self._open_session(self._bundle.graph(graph))
            _require_io(graph, session, self.specs[graph])
            self._sessions[graph] = session
        return self._sessions[graph]

    def _open_session(self, path: Path) -> ort.InferenceSession:
        options, providers = self._options(), []
        if self._provider in _PLUGINS:
            options.add_provider_for_devices(_plugin_devices(self._provider), {})
        else:
            _require_available(self._provider)
            providers.append((self._provider, _PROVIDER_OPTIONS.get(self._provider, {})))
        try:
            # Without its retry, which would open the graph on other providers and say nothing of why.
            return ort.InferenceSession(path, options, providers=providers, enable_fallback=0)
        except Exception as error:  # the runtime's exceptions share no base class
            if self._provider == _CPU:
                raise BundleError(
                    f"{path.name}: onnxruntime {ort.__version__} cannot open it ({error})"
                ) from error
            raise BackendError(
                f"provider: expected {self._provider} to run all of {path.name}, found that onnxruntime {ort.__version__}"
                f" cannot ({error}); choose another backend"
            ) from error

    def _options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.use_deterministic_compute = True
        # Idle threads must sleep: with a session per graph, spinning ones take the cores from the running graph.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._provider != _CPU:  # else the CPU runs, unasked, what the provider cannot
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, ort.OrtValue]:
        session, names = self._session(graph), self.specs[graph].outputs
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, _to_value(value))
        for name in names:
            binding.bind_output(name, self.device)  # where it runs, so that a GPU's values stay there
        session.run_with_iobinding(binding)
        return dict(zip(names, binding.get_outputs(), strict=True))

    def fetch(self, value: ort.OrtValue) -> FloatArray:
        return np.asarray(value.numpy(), np.float32)

    def repeat(self, value: ort.OrtValue, count: int, axis: int) -> ort.OrtValue:
        if self.device != "cpu":
            return ort.OrtValue.ortvalue_from_numpy(super().repeat(value, count, axis), self.device)
        shape = list(value.shape())
        shape[axis] = count
        repeated = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
        np.copyto(repeated.numpy(), value.numpy())  # both are views of the runtime's memory
        return repeated

    def _release(self) -> None:
        self._sessions.clear()


def _require_available(provider: str) -> None:
    available = ort.get_available_providers()
    if provider not in available:
        raise BackendError(
            f"provider: expected {provider}, found {', '.join(available)}; install the onnxruntime package that has it"
        )


def _plugin_devices(provider: str) -> list[Any]:
    """The first GPU that the provider can use: a session takes no more than one."""
    _register(provider)
    devices = [device for device in ort.get_ep_devices() if device.ep_name == provider]
    if not devices:
        raise BackendError(f"provider: expected a GPU that {provider} can use, found none; choose another")
    return devices[:1]


@cache
def _register(provider: str) -> None:
    """Makes a provider of another package known, which a process may do once."""
    package = _PLUGINS[provider]
    try:
        ort.register_execution_provider_library(provider, import_module(package).get_library_path())
    except Exception as error:  # the runtime's exceptions share no base class
        raise BackendError(
            f"provider: expected {provider}, found none that loads ({error}); pip install"
            f" {package.replace('_', '-')}-cu12 and NVIDIA's driver"
        ) from error


def _require_io(graph: str, session: ort.InferenceSession, spec: GraphSpec) -> None:
    for side, values, expected in (
        ("inputs", session.get_inputs(), spec.inputs),
        ("outputs", session.get_outputs(), spec.outputs),
    ):
        found = {value.name: tuple(value.shape) for value in values if value.type == "tensor(float)"}
        if found != expected or len(values) != len(expected):
            raise BundleError(f"{graph} {side}: expected float32 {expected}, found {found}; {EXPORT_AGAIN}")


def _to_value(value: Any) -> ort.OrtValue:
    if isinstance(value, ort.OrtValue):
        return value
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value, np.float32))
