"""What each ONNX operator of a bundle is in torch: opset 20, static shapes.

A function takes the operator's inputs in order and its attributes by name, with ONNX's defaults; an attribute it does not
know is thereby refused. Values it cannot do are a ValueError. Nothing here waits for a device or makes a tensor from
Python numbers, so that all of it may be captured in a CUDA graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Ints = Sequence[int]
Operator = Callable[..., Any]

# ONNX's numbers of the types that a graph may cast to.
DTYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
_GRID_MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


def _argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """The first of equal ones."""
    _require("select_last_index", select_last_index, 0)
    return x.argmax(axis, bool(keepdims))


def _average_pool(
    x: Tensor, *, kernel_shape: Ints, strides: Ints, pads: Ints, ceil_mode: int = 0, auto_pad: str = "NOTSET",
    count_include_pad: int = 0,
) -> Tensor:  # fmt: skip
    """In two dimensions, without padding, which therefore cannot count."""
    _require("pads", [*pads], [0, 0, 0, 0])
    _require("ceil_mode", ceil_mode, 0)
    _require("auto_pad", auto_pad, "NOTSET")
    return F.avg_pool2d(x, tuple(kernel_shape), tuple(strides))


def _cast(x: Tensor, *, to: int) -> Tensor:
    """To the type of ONNX's number `to`."""
    return x.to(DTYPES[to])


def _clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    return x.clamp(low, high)


def _concat(*inputs: Tensor, axis: int) -> Tensor:
    return torch.cat(inputs, axis)


def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, pads: Ints, strides: Ints, dilations: Ints,
    group: int = 1, **implied: Any,
) -> Tensor:  # fmt: skip
    """In two dimensions, padded alike on opposite sides."""
    _require("kernel_shape", implied["kernel_shape"], [*weight.shape[2:]])
    _require("auto_pad", implied.get("auto_pad", "NOTSET"), "NOTSET")
    _require("pads", pads[:2], pads[2:])
    return F.conv2d(x, weight, bias, strides, pads[:2], dilations, group)


def _gemm(
    a: Tensor, b: Tensor, c: Tensor, *, alpha: float = 1.0, beta: float = 1.0, **transposed: int
) -> Tensor:
    """alpha * a @ b + beta * c, a and b transposed on request."""
    _require("attributes", transposed.keys() - {"transA", "transB"}, set())
    product = (a.T if transposed.get("transA") else a) @ (b.T if transposed.get("transB") else b)
    return alpha * product + beta * c


def _depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    _require("mode", mode, "CRD")
    return F.pixel_shuffle(x, blocksize)


def _einsum(*inputs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *inputs)


def _expand(x: Tensor, shape: Ints) -> Tensor:
    """A side of 1 fits any other, on either side."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def _gather(x: Tensor, indices: Tensor | int, *, axis: int = 0) -> Tensor:
    """Slices of x along an axis; a single index takes the axis away."""
    if isinstance(indices, int):
        return x.select(axis, indices)
    axis %= x.ndim
    taken = x.index_select(axis, indices.flatten())
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """x[i] for each row i of indices."""
    _require("batch_dims, columns of indices", (batch_dims, indices.shape[-1]), (0, 1))
    return _gather(x, indices.squeeze(-1))


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def _grid_sample(
    x: Tensor, grid: Tensor, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0
) -> Tensor:
    return F.grid_sample(x, grid, _GRID_MODES[mode], padding_mode, bool(align_corners))


def _instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:  # fmt: skip
    _require("stash_type", stash_type, 1)
    return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def _pad(
    x: Tensor, pads: Ints, value: float = 0.0, axes: Ints | None = None, *, mode: str = "constant"
) -> Tensor:
    """Repeats the edge of the last two axes of four."""
    _require("mode", mode, "edge")
    _require("axes", axes, None)
    top, left, bottom, right = pads[2], pads[3], pads[6], pads[7]
    _require("pads", tuple(pads), (0, 0, top, left, 0, 0, bottom, right))
    return F.pad(x, (left, right, top, bottom), "replicate")


def _reduce_l2(x: Tensor, axes: Ints, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    _require("noop_with_empty_axes", noop_with_empty_axes, 0)
    return torch.linalg.vector_norm(x, dim=tuple(axes), keepdim=bool(keepdims))


def _reduce_mean(x: Tensor, axes: Ints, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    _require("noop_with_empty_axes", noop_with_empty_axes, 0)
    return x.mean(tuple(axes), bool(keepdims))


def _reduce_sum(x: Tensor, axes: Ints, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    _require("noop_with_empty_axes", noop_with_empty_axes, 0)
    return x.sum(tuple(axes), bool(keepdims))


def _reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Tensor:
    """0 stands for the side that x has there, unless zeros are allowed."""
    sides = shape if allowzero else [side or x.shape[axis] for axis, side in enumerate(shape)]
    return x.reshape(tuple(sides))


def _resize(
    x: Tensor, roi: None, scales: Sequence[float], *, mode: str = "nearest", nearest_mode: str,
    coordinate_transformation_mode: str, **_irrelevant_to_nearest: Any,
) -> Tensor:  # fmt: skip
    """Each pixel a block of equal ones."""
    found = (roi, mode, nearest_mode, coordinate_transformation_mode)
    _require("roi and modes", found, (None, "nearest", "floor", "asymmetric"))
    _require("scales", tuple(scales), (1.0, 1.0, *map(round, scales[2:])))
    return F.interpolate(x, scale_factor=tuple(scales[2:]), mode="nearest")


def _slice(x: Tensor, starts: Ints, ends: Ints, axes: Ints, steps: Ints | None = None) -> Tensor:
    """Forwards; ends beyond x are its end."""
    parts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
        parts[axis] = slice(start, end, step)
    return x[tuple(parts)]


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return x.softmax(axis)


def _split(
    x: Tensor, sizes: Ints | None = None, *, num_outputs: int = 0, axis: int = 0
) -> tuple[Tensor, ...]:
    """Parts of these sizes, or equal ones."""
    if sizes is None:
        _require("remainder", x.shape[axis] % num_outputs, 0)
        return x.chunk(num_outputs, axis)
    return x.split_with_sizes(tuple(sizes), axis)


def _squeeze(x: Tensor, axes: Ints) -> Tensor:
    _require("sides of axes", {x.shape[axis] for axis in axes}, {1})
    return x.squeeze(tuple(axes))


def _transpose(x: Tensor, *, perm: Ints) -> Tensor:
    return x.permute(tuple(perm))


def _unsqueeze(x: Tensor, axes: Ints) -> Tensor:
    """The axes are those of the result."""
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _require(name: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{name}: expected {expected}, found {found}")


# Operators without attributes.
PLAIN: dict[str, Operator] = {
    "Add": operator.add,
    "Cos": torch.cos,
    "Div": operator.truediv,
    "Equal": operator.eq,
    "Exp": torch.exp,
    "Greater": operator.gt,
    "MatMul": torch.matmul,
    "Mul": operator.mul,
    "Neg": torch.neg,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Sub": operator.sub,
    "Tanh": torch.tanh,
}
# Operators that are told by numbers: their inputs after the first must be constants and arrive as lists.
SHAPED: dict[str, Operator] = {
    "Clip": _clip,
    "Expand": _expand,
    "Pad": _pad,
    "ReduceL2": _reduce_l2,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
OPERATORS: dict[str, Operator] = {
    **PLAIN,
    **SHAPED,
    "ArgMax": _argmax,
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Einsum": _einsum,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "Softmax": _softmax,
    "Transpose": _transpose,
}
