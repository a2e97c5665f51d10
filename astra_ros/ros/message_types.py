"""Message types by name, and the stamps inside serialized messages."""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message

from astra_ros.types import NANOSECONDS

HEADER = "std_msgs/Header"
_NESTED = re.compile(r"\w+/\w+")
_STAMP_OFFSET = 4  # of a leading header, after the CDR encapsulation


class UnknownMessageTypeError(ValueError):
    """A type that is no message's, or whose package is not installed. One line, with the command that installs it."""


@cache
def message_class(type_name: str) -> Any:
    """The class of a type such as "sensor_msgs/msg/Image". Raises UnknownMessageTypeError."""
    package, _, name = type_name.partition("/msg/")
    if not name:
        raise UnknownMessageTypeError(
            f"message type: expected PACKAGE/msg/NAME, found {type_name}; only messages have topics of their own"
        )
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError, ValueError):
        wheel = f"ros-jazzy-{package.replace('_', '-')}"
        raise UnknownMessageTypeError(
            f"message type {type_name} is not installed: source the workspace that has it, or pip install {wheel}"
        ) from None


@cache
def has_leading_header(type_name: str) -> bool:
    """Whether the first field is a std_msgs/Header, so that the stamp is at a fixed place in the bytes."""
    fields = message_class(type_name).get_fields_and_field_types()
    return next(iter(fields.values()), None) == HEADER


def stamp_ns(type_name: str, raw: bytes) -> int | None:
    """Header stamp of a serialized message, nanoseconds; None for types that do not begin with a header."""
    if not has_leading_header(type_name):
        return None
    seconds, nanoseconds = struct.unpack_from(_stamp_format(raw), raw, _STAMP_OFFSET)
    return int(seconds) * NANOSECONDS + int(nanoseconds)


def restamp(type_name: str, raw: bytes, new_stamp_ns: Callable[[int], int]) -> bytes:
    """The same serialized message with every std_msgs/Header stamp in it mapped; other times are left alone.

    A zero stamp means "not set" and stays zero.
    """
    if has_leading_header(type_name) and _num_headers(type_name) == 1:
        return _restamp_leading(type_name, raw, new_stamp_ns)
    if _num_headers(type_name) == 0:
        return raw
    message = deserialize_message(raw, message_class(type_name))
    for header in _headers(message):
        before_ns = header.stamp.sec * NANOSECONDS + header.stamp.nanosec
        if before_ns:
            header.stamp.sec, header.stamp.nanosec = divmod(new_stamp_ns(before_ns), NANOSECONDS)
    return bytes(serialize_message(message))


def _restamp_leading(type_name: str, raw: bytes, new_stamp_ns: Callable[[int], int]) -> bytes:
    before_ns = stamp_ns(type_name, raw)
    if not before_ns:
        return raw
    patched = bytearray(raw)
    struct.pack_into(
        _stamp_format(raw), patched, _STAMP_OFFSET, *divmod(new_stamp_ns(before_ns), NANOSECONDS)
    )
    return bytes(patched)


def _stamp_format(raw: bytes) -> str:
    """Little or big endian, as the encapsulation says."""
    return "<iI" if raw[1] & 1 else ">iI"


@cache
def _num_headers(type_name: str) -> int:
    """Fields anywhere inside the type that are headers; a sequence counts once."""
    count = 0
    for nested in _nested_types(message_class(type_name)):
        count += 1 if nested == HEADER else _num_headers(nested.replace("/", "/msg/"))
    return count


def _nested_types(cls: Any) -> Iterator[str]:
    for field_type in cls.get_fields_and_field_types().values():
        yield from _NESTED.findall(field_type)


def _headers(message: Any) -> Iterator[Any]:
    for field, field_type in message.get_fields_and_field_types().items():
        nested = _NESTED.search(field_type)
        if nested is None:
            continue
        value = getattr(message, field)
        for item in value if isinstance(value, list) else [value]:
            yield from [item] if nested.group() == HEADER else _headers(item)
