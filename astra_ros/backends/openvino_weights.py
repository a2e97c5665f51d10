"""A bundle's weights in memory once, however many graphs read them.

A compiled model keeps the constants it was made from, beside the order that its products want them in. A bundle's graphs read
the same weights, which files hold in float16.
"""

from __future__ import annotations

import hashlib

import numpy as np

from astra_ros.backends.quiet_openvino import ov

_DECOMPRESSION = "decompression_0"  # OpenVINO's mark of a conversion that it must not compute in advance
_SMALLEST = 4096  # bytes


class Weights:
    """Of one bundle's graphs.

    keep_float16: as the file has them, instead of in float32. Only where products run in bfloat16: in float32 OpenVINO would
    multiply such weights in float16.
    """

    def __init__(self, *, keep_float16: bool) -> None:
        self._keep_float16 = keep_float16
        self._known: dict[tuple[str, tuple[int, ...], bytes], ov.Tensor] = {}

    def share(self, model: ov.Model) -> None:
        """In place: large constants become those of graphs that read the same numbers. Their names stay."""
        for node in model.get_ordered_ops():
            if node.get_type_name() != "Constant" or node.get_byte_size() < _SMALLEST:
                continue
            if _is_rounded(node):
                continue  # to integers, and forgotten
            conversions = _conversions(node)
            if conversions and self._keep_float16:
                for conversion in conversions:
                    conversion.get_rt_info()[_DECOMPRESSION] = ""
                self._replace(node, node.output(0))
            else:
                for output in [one.output(0) for one in conversions] or [node.output(0)]:
                    self._replace(node, output)

    def _replace(self, constant: ov.Node, output: ov.Output) -> None:
        """Who reads this output reads the shared weights of its type."""
        shared = ov.op.Constant(self._tensor(constant, output.get_element_type()), shared_memory=True)
        shared.set_friendly_name(constant.get_friendly_name())
        for reader in output.get_target_inputs():
            reader.replace_source_output(shared.output(0))

    def _tensor(self, constant: ov.Node, kind: ov.Type) -> ov.Tensor:
        values = np.ascontiguousarray(constant.data)
        key = str(kind), values.shape, hashlib.blake2b(values.data.cast("B")).digest()
        if key not in self._known:
            tensor = self._known[key] = ov.Tensor(kind, values.shape)
            tensor.data[:] = values
        return self._known[key]


def _readers(constant: ov.Node) -> list[ov.Node]:
    return [place.get_node() for place in constant.output(0).get_target_inputs()]


def _is_rounded(constant: ov.Node) -> bool:
    return any(reader.get_type_name() == "FakeQuantize" for reader in _readers(constant))


def _conversions(constant: ov.Node) -> list[ov.Node]:
    """All who read it, if each makes float32 of float16."""
    readers = _readers(constant)
    converts = constant.get_element_type() == ov.Type.f16 and all(
        one.get_type_name() == "Convert" and one.get_element_type() == ov.Type.f32 for one in readers
    )
    return readers if converts else []
