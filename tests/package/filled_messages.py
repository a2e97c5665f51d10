"""Messages with something in every field, so that a field that gets lost on the way is noticed."""

from __future__ import annotations

import importlib
import re
from array import array
from typing import Any

import numpy as np


def filled(message_class: Any) -> Any:
    """A message whose fields, nested ones included, all differ from their defaults."""
    message = message_class()
    for name, type_name in message.get_fields_and_field_types().items():
        setattr(message, name, _value(getattr(message, name), type_name))
    return message


def _value(default: Any, type_name: str) -> Any:
    if isinstance(default, np.ndarray):
        return np.arange(1, 1 + default.size, dtype=default.dtype)
    if isinstance(default, array):
        return array(default.typecode, [1, 2, 3])
    if isinstance(default, list):
        return [_element(re.fullmatch(r"sequence<([^,]+)(, \d+)?>", type_name).group(1))] * 2  # type: ignore[union-attr]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 2
    return "text" if isinstance(default, str) else filled(type(default))


def _element(type_name: str) -> Any:
    if "/" not in type_name:
        return {"string": "text", "boolean": True}[type_name]
    package, name = type_name.split("/")
    return filled(getattr(importlib.import_module(f"{package}.msg"), name))
