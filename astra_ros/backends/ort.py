"""ONNX Runtime backend: one session per graph, the history's keys and values never leave the runtime's memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import BundleError
from astra_ros.denoiser.io import GraphSpec
from astra_ros.types import FloatArray

_ERRORS_ONLY = 3


class OrtBackend(Backend):
    """Runs on the CPU.

    num_threads: threads of one inference; graphs run one after another, never together.
    provider: execution provider that must run the graphs; getting another one is an error.
    """

    name = "onnxruntime"
    version = f"onnxruntime {ort.__version__}"
    device = "cpu"

    def __init__(self, bundle: Bundle, num_threads: int = 2, provider: str = "CPUExecutionProvider") -> None:
        super().__init__(bundle)
        self.precision = bundle.manifest.precision
        self._num_threads = num_threads
        self._provider = provider
        self._sessions: dict[str, ort.InferenceSession] = {}

    def _open(self) -> None:
        for graph, spec in self.specs.items():
            session = self._open_session(self._bundle.graph(graph))
            _require_io(graph, session, spec)
            self._sessions[graph] = session

    def _open_session(self, path: Path) -> ort.InferenceSession:
        try:
            session = ort.InferenceSession(path, self._options(), providers=[self._provider])
        except Exception as error:  # the runtime's exceptions share no base class
            raise BundleError(
                f"{path.name}: onnxruntime {ort.__version__} cannot open it ({error})"
            ) from error
        found = session.get_providers()[0]
        if found != self._provider:
            raise BackendError(
                f"provider: expected {self._provider}, found {found}; install the onnxruntime package that has it"
                f" (available here: {ort.get_available_providers()})"
            )
        return session

    def _options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.use_deterministic_compute = True
        # Idle threads must sleep: with a session per graph, spinning ones take the cores from the running graph.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, ort.OrtValue]:
        session = self._sessions[graph]
        values = {name: _to_value(value) for name, value in inputs.items()}
        names = list(self.specs[graph].outputs)
        return dict(zip(names, session.run_with_ort_values(names, values), strict=True))

    def fetch(self, value: ort.OrtValue) -> FloatArray:
        return np.asarray(value.numpy(), np.float32)

    def repeat(self, value: ort.OrtValue, count: int, axis: int) -> ort.OrtValue:
        return _to_value(super().repeat(value, count, axis))

    def _release(self) -> None:
        self._sessions.clear()


def _require_io(graph: str, session: ort.InferenceSession, spec: GraphSpec) -> None:
    for side, values, expected in (
        ("inputs", session.get_inputs(), spec.inputs),
        ("outputs", session.get_outputs(), spec.outputs),
    ):
        found = {value.name: tuple(value.shape) for value in values if value.type == "tensor(float)"}
        if found != expected or len(values) != len(expected):
            raise BundleError(
                f"{graph} {side}: expected float32 {expected}, found {found}; export the bundle again"
            )


def _to_value(value: Any) -> ort.OrtValue:
    if isinstance(value, ort.OrtValue):
        return value
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value, np.float32))
