"""The tensors of a bundle's graphs, as torch tensors. What several graphs share is read, converted and kept once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from torch import Tensor

from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError


class SharedWeights:
    """Lives while a bundle is loaded; afterwards only what the graphs use stays.

    device: where the tensors lie.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self._bundle = bundle
        self._device = device
        self._read: dict[tuple[Any, ...], Tensor] = {}
        # Results by function and arguments. Tensors are told apart by identity and kept, so that it stays theirs.
        self._folded: dict[tuple[Any, ...], tuple[Sequence[Any], Any]] = {}

    def tensor(self, initializer: TensorProto) -> Tensor:
        """An initializer of a graph. Raises BundleError when it is not what the weight file holds."""
        if not uses_external_data(initializer):
            return self._put(numpy_helper.to_array(initializer))
        source = ExternalDataInfo(initializer)
        key = (source.location, source.offset, initializer.data_type, *initializer.dims)
        if key not in self._read:
            self._read[key] = self._put(self._from_file(initializer, source))
        return self._read[key]

    def fold(self, function: Callable[..., Any], inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
        """What a function makes of constants; of the same constants it is the same tensor for all graphs."""
        arguments = (id(value) if isinstance(value, Tensor) else str(value) for value in inputs)
        key = (function, str(sorted(attributes.items())), *arguments)
        if key not in self._folded:
            self._folded[key] = inputs, function(*inputs, **attributes)
        return self._folded[key][1]

    def _put(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(values.copy()).to(self._device)

    def _from_file(self, initializer: TensorProto, source: ExternalDataInfo) -> np.ndarray[Any, Any]:
        name, offset = source.location, source.offset or 0
        dtype = helper.tensor_dtype_to_np_dtype(initializer.data_type)
        count = math.prod(initializer.dims)
        size = count * dtype.itemsize
        if name not in self._bundle.manifest.files:
            raise BundleError(
                f"{initializer.name}: expected weights in a file of the bundle, found {name[:80]!r}; {EXPORT_AGAIN}"
            )
        available = self._bundle.manifest.files[name].bytes - offset
        if min(*initializer.dims, offset) < 0 or size > available or source.length not in (None, size):
            raise BundleError(
                f"{initializer.name}: expected {size} bytes at {offset} of {name}, found {available} there and"
                f" {source.length} in the graph; {EXPORT_AGAIN}"
            )
        values = np.fromfile(self._bundle.file(name), dtype, count, offset=offset)
        return values.reshape(initializer.dims)
