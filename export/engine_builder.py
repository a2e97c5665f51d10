"""One graph → one serialised TensorRT engine, with the API that tensorrt 10.x, 11.x and tensorrt_rtx have in common."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from astra_ros.backends.bundle import Bundle, weight_files
from astra_ros.backends.engines import DType, EngineSpec, Precision, Runtime, TensorSpec, WeightSpec
from astra_ros.backends.manifest import EXPORT_AGAIN
from astra_ros.backends.tensorrt_library import Library
from export.engine_weights import SharedWeights
from export.precision import load_graph

_DTYPES: dict[str, DType] = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
_PRODUCT_DTYPES: dict[Precision, DType] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_PRODUCT_LAYERS = {"CONVOLUTION", "DECONVOLUTION", "EINSUM", "MATRIX_MULTIPLY"}
# For older GPUs than this nobody has bfloat16 products, and TensorRT-RTX no float32 ones either.
FIRST_COMPLETE_SM = 80
# Below this a tensor stays in the ONNX file, so that shapes and indices are seen by whoever reads the graph alone.
_EXTERNAL_BYTES = 1024


@dataclass(frozen=True)
class BuildConfig:
    """How engines are built.

    targets: SMs, 86 for compute capability 8.6; empty: what the library takes by itself.
    weights_as_inputs: large weights are inputs of the networks, so that the engines share one copy on the device.
    candidates: side by side; 0: none; None: the most that the bundle has graphs for.
    """

    runtime: Runtime = "tensorrt_rtx"
    precision: Precision = "fp16"
    targets: tuple[int, ...] = ()
    weights_as_inputs: bool = False
    candidates: int | None = None

    def has_products_in(self, precision: Precision) -> bool:
        """Whether all targets can multiply in a dtype."""
        is_complete = not self.targets or min(self.targets) >= FIRST_COMPLETE_SM
        return is_complete or precision == "fp16" or (precision == "fp32" and self.runtime == "tensorrt")


class EngineBuilder:
    """Builds the engines of one bundle, one after another."""

    def __init__(
        self, library: Library, bundle: Bundle, config: BuildConfig, weights: SharedWeights | None
    ) -> None:
        self._library, self._trt = library, library.module
        self._bundle, self._config, self._weights = bundle, config, weights
        self._builder = self._trt.Builder(library.log)
        self._timings = b""

    def build(self, graph: str) -> tuple[bytes, EngineSpec]:
        """The engine, and what it is. Raises ValueError with the library's reason when it cannot be built."""
        path = self._bundle.graph(graph)
        # The graph's file, and those its weights lie in.
        sources = {
            name: self._bundle.manifest.files[name].sha256
            for name in sorted({path.name, *weight_files(path)})
        }
        model = load_graph(path, self._config.precision, keep_exact=self._config.has_products_in("fp32"))
        weights = self._weights.move_from(model.graph) if self._weights else {}
        network = self._parse(model, graph)
        # Travels inside the engine, whatever its file is called one day.
        network.name = json.dumps({"graph": graph, "onnx_sha256": sources[path.name]})
        spec = EngineSpec(
            file=f"{graph}.engine",
            batch=_batch_of(graph),
            sources=sources,
            products=self._products(graph, network),
            inputs=_tensors(graph, network.num_inputs, network.get_input, without=weights),
            outputs=_tensors(graph, network.num_outputs, network.get_output),
            weights=weights,
        )
        return self._serialise(graph, network), spec

    def _parse(self, model: onnx.ModelProto, graph: str) -> Any:
        flags = self._trt.NetworkDefinitionCreationFlag
        # 10.x wants to be told that dtypes are what the graph says; to the others it is the only way.
        network = self._builder.create_network(1 << int(flags.STRONGLY_TYPED))
        # It owns the weights until the build is over.
        self._parser = parser = self._trt.OnnxParser(network, self._library.log)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{graph}.onnx"
            onnx.save_model(
                model, path, save_as_external_data=True, location="weights", size_threshold=_EXTERNAL_BYTES
            )
            is_parsed = parser.parse_from_file(str(path))
        if not is_parsed:
            reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise ValueError(
                f"{graph}: {self._library.name} cannot read the graph ({'; '.join(reasons)[:300]})"
            )
        return network

    def _products(self, graph: str, network: Any) -> dict[str, int]:
        """Counted in what TensorRT was given, so that the precision on file is the one in the network."""
        layers = (network.get_layer(index) for index in range(network.num_layers))
        products: Counter[str] = Counter(
            _DTYPES[layer.get_output(0).dtype.name] for layer in layers if layer.type.name in _PRODUCT_LAYERS
        )
        expected = _PRODUCT_DTYPES[self._config.precision]
        if products[expected] == 0 or set(products) - {expected, "float32"}:
            raise ValueError(f"{graph}: expected products in {expected}, found {dict(products)}")
        return dict(products)

    def _serialise(self, graph: str, network: Any) -> bytes:
        config, flags = self._builder.create_builder_config(), self._trt.BuilderFlag
        config.clear_flag(flags.TF32)  # else float32 products may be rounded to 10 bits
        if self._library.name == "tensorrt_rtx":
            config.set_flag(flags.REQUIRE_USER_ALLOCATION)  # then a CUDA graph can be captured of it
            self._set_targets(config)
        else:  # kernels that were timed for one denoising step need not be timed again for the next
            timings = config.create_timing_cache(self._timings)  # must outlive the build
            config.set_timing_cache(timings, ignore_mismatch=False)
        self._library.errors.clear()
        serialised = self._builder.build_serialized_network(network, config)
        if serialised is None:
            raise ValueError(
                f"{graph}: {self._library.name} cannot build an engine ({self._library.reason()})"
            )
        if self._library.name == "tensorrt":
            self._timings = bytes(config.get_timing_cache().serialize())
        return bytes(serialised)

    def _set_targets(self, config: Any) -> None:
        capabilities = self._trt.ComputeCapability
        if not self._config.targets:
            return
        config.num_compute_capabilities = len(self._config.targets)
        for index, target in enumerate(self._config.targets):
            capability = capabilities.__members__[f"SM{target}"]
            config.set_compute_capability(capability, index)
            if config.get_compute_capability(index) != capability:  # what it cannot do it forgets silently
                raise ValueError(
                    f"--sm {target}: {self._library.name} {self._library.version} did not take it"
                )


def _batch_of(graph: str) -> int:
    """Candidates side by side: 8 of step_0_x8 (denoiser/io.py)."""
    return int(graph.rpartition("_x")[2]) if "_x" in graph else 1


def _tensors(
    graph: str, count: int, get: Any, without: dict[str, WeightSpec] | None = None
) -> dict[str, TensorSpec]:
    tensors = {}
    for tensor in (get(index) for index in range(count)):
        if tensor.name not in (without or {}):
            shape = tuple(tensor.shape)
            if min(shape, default=1) < 1:
                raise ValueError(
                    f"{graph}: {tensor.name}: expected a static shape, found {shape}; {EXPORT_AGAIN}"
                )
            tensors[tensor.name] = TensorSpec(shape, _DTYPES[tensor.dtype.name])
    return tensors
