"""Products in 8-bit integers, which a processor multiplies two to four times as fast as float32.

What goes into a product is rounded to 256 levels between limits that recordings gave (export/quantize.py), its weights to
255 levels per output channel; OpenVINO then runs it in integers. Everything else stays in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from astra_ros.backends import schema
from astra_ros.backends.manifest import BundleError
from astra_ros.backends.quiet_openvino import ops, ov
from astra_ros.types import FloatArray

# An odd number of levels, so that a weight of 0 stays 0.
_ACTIVATION_LEVELS, _WEIGHT_LEVELS = 256, 255


@dataclass(frozen=True)
class Ranges:
    """graphs: of every graph, (low, high) of what goes into each product that is rounded, by the name of its weights."""

    graphs: dict[str, dict[str, tuple[float, ...]]]

    def __post_init__(self) -> None:
        for graph, limits in self.graphs.items():
            for weights, found in limits.items():
                if len(found) != 2 or not found[0] <= 0 <= found[1] or found[0] == found[1]:
                    raise ValueError(
                        f"{graph}.{weights}: expected low <= 0 <= high, and a range, found {found[:9]}"
                    )

    def of_all(self, graphs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        """Ranges for one model that runs all of these graphs: of every product that each graph rounds, the widest range."""
        each = [self.graphs.get(graph, {}) for graph in graphs]
        shared = [name for name in each[0] if all(name in limits for limits in each)]
        return {
            name: (min(limits[name][0] for limits in each), max(limits[name][1] for limits in each))
            for name in shared
        }


@dataclass(frozen=True)
class Product:
    """A matrix product or convolution with constant weights. output_axis: of the weights."""

    node: ov.Node
    weights: ov.Node
    output_axis: int

    @property
    def multiplications(self) -> float:
        """How many one run takes."""
        outputs = self.weights.get_output_shape(0)[self.output_axis]
        return float(
            np.prod(self.node.get_output_shape(0)) * np.prod(self.weights.get_output_shape(0)) / outputs
        )


def read_ranges(path: Path) -> Ranges:
    """Raises BundleError."""
    try:
        return schema.decode(Ranges, schema.parse(path.read_text()))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path.name}: {error}; make it again: python -m export.quantize BUNDLE --data DATASET"
        ) from error


def products(model: ov.Model) -> dict[str, Product]:
    """By the name of their weights in the ONNX file."""
    found: dict[str, Product] = {}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("MatMul", "Convolution"):
            continue
        weights = node.input_value(1).get_node()
        # Weights may be stored in float16 and cast.
        stored = weights.input_value(0).get_node() if weights.get_type_name() == "Convert" else weights
        if stored.get_type_name() == "Constant":
            has_outputs_first = kind == "Convolution" or node.get_attributes()["transpose_b"]
            found[stored.get_friendly_name()] = Product(node, stored, 0 if has_outputs_first else -1)
    return found


def round_products(models: Sequence[ov.Model], limits: Mapping[str, tuple[float, ...]]) -> list[int]:
    """In place; returns how many in each model. Raises BundleError when none has a product of that name."""
    known = [products(model) for model in models]
    if missing := sorted(limits.keys() - set().union(*known)):
        raise BundleError(
            f"int8: expected products with the weights {missing[:3]}, found none in the graph; choose precision fp32, or"
            " python -m export.quantize BUNDLE --data DATASET"
        )
    rounded = [[own[name] for name in limits if name in own] for own in known]
    for product in chain(*rounded):
        low, high = limits[product.weights.get_friendly_name()]
        given = _rounded(product.node.input_value(0), *_around_zero(low, high), _ACTIVATION_LEVELS)
        product.node.input(0).replace_source_output(given.output(0))
        product.node.input(1).replace_source_output(_rounded_weights(product).output(0))
    return list(map(len, rounded))


def _around_zero(low: float, high: float) -> tuple[FloatArray, FloatArray]:
    """The range moved by less than a level, so that 0 is one.

    Activations that are mostly 0, or padded with it, would else all be off by the same amount, which a product adds up.
    """
    step = (high - low) / (_ACTIVATION_LEVELS - 1)
    below = round(-low / step)
    return np.array(-below * step), np.array((_ACTIVATION_LEVELS - 1 - below) * step)


def _rounded_weights(product: Product) -> ov.Node:
    values = product.weights.get_data().astype(np.float32)
    others = tuple(axis for axis in range(values.ndim) if axis != product.output_axis % values.ndim)
    largest = np.abs(values).max(others, keepdims=True)
    largest[largest == 0] = 1  # a channel of zeros has a range too
    return _rounded(ops.constant(values).output(0), -largest, largest, _WEIGHT_LEVELS)


def _rounded(value: ov.Output, low: FloatArray, high: FloatArray, levels: int) -> ov.Node:
    low_node, high_node = ops.constant(low, np.float32), ops.constant(high, np.float32)
    return ops.fake_quantize(value, low_node, high_node, low_node, high_node, levels)
