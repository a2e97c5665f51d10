"""TFRecord files of tf.train.Example messages, without TensorFlow.

Formats: tensorflow/core/example/example.proto and the record framing of tensorflow/core/lib/io/record_writer.h.
Checksums are not verified; a truncated file is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.schema import EpisodeError

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


def read_examples(path: Path) -> Iterator[dict[str, Any]]:
    """Features by name, per example: bytes as a list, floats and integers as arrays. Raises EpisodeError when damaged."""
    for number, data in enumerate(_records(path)):
        try:
            yield _example(data)
        except (IndexError, KeyError, ValueError) as error:
            raise EpisodeError(
                path, f"record {number}", "a tf.train.Example", f"{type(error).__name__} {error}"
            ) from None


def _records(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        while header := file.read(_LENGTH_BYTES + _CHECKSUM_BYTES):
            length = int.from_bytes(header[:_LENGTH_BYTES], "little")
            data, checksum = file.read(min(length, size)), file.read(_CHECKSUM_BYTES)
            if len(data) != length or len(checksum) != _CHECKSUM_BYTES:
                raise EpisodeError(path, "record", f"{length} bytes and a checksum", "the end of the file")
            yield data


def _example(data: bytes) -> dict[str, Any]:
    features = {}
    for _, message in _fields(data):
        for _, entry in _fields(message):
            pair = dict(_fields(entry))
            features[bytes(pair[1]).decode()] = _feature(pair.get(2, b""))
    return features


def _feature(data: bytes) -> Any:
    """A Feature: a list of bytes, or a float or integer array; the values are field 1, packed or repeated."""
    for kind, values in _fields(data):
        content = [value for _, value in _fields(values)]
        if kind == _BYTES_LIST:
            return content
        if kind == _FLOAT_LIST:
            return np.frombuffer(b"".join(content), "<f4")
        if kind == _INT64_LIST:
            return np.array([number for packed in content for number in _varints(packed)], np.int64)
    return []


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and contents of a protocol buffer message; numbers as the bytes that encode them."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        end = at
        if wire == _VARINT:
            _, end = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            end = at + length
        else:
            end = at + {_FIXED64: 8, _FIXED32: 4}[wire]
        yield number, data[at:end]
        at = end


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value - (1 << 64) if value >> 63 else value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
