"""Strict JSON (or YAML) → frozen dataclasses: no field unknown, each without a default present and of its type.

Every problem is a ValueError that names the field, what was expected and what was found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "an integer",
    (int, float): "a number",
}


def parse(text: str) -> dict[str, Any]:
    """A JSON object; a repeated key, NaN, infinity or bottomless nesting is an error."""
    try:
        document = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except RecursionError as error:
        raise ValueError("expected a JSON object, found one nested too deep") from error
    return dict(_expect(dict, document, ""))


def require_version(document: dict[str, Any], expected: int) -> None:
    """Raise ValueError unless the document's `schema_version` is the expected one."""
    found = document.get("schema_version")
    if found != expected:
        raise ValueError(
            f"schema_version: expected {expected} (the one of this version of astra_ros), found {str(found)[:80]}"
        )


def decode(kind: type[_T], document: dict[str, Any]) -> _T:
    """Fill the dataclass `kind`, nested ones included. Integers are accepted where floats are declared."""
    result: _T = _decode(kind, document, "")
    return result


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin is tuple:
        items = _expect(list, value, where)
        if arguments[-1] is not Ellipsis and len(items) != len(arguments):
            raise ValueError(f"{where}: expected {len(arguments)} values, found {len(items)}")
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        entries = _expect(dict, value, where)
        return {key: _decode(arguments[1], item, f"{where}.{key[:80]}") for key, item in entries.items()}
    if origin is UnionType:  # of one kind and None
        kind = next(argument for argument in arguments if argument is not NoneType)
        return None if value is None else _decode(kind, value, where)
    if origin is Literal:
        return _expect_one_of(arguments, value, where)
    if kind is float:
        return _decode_float(value, where)
    return value if kind is Any else _expect(kind, value, where)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    document = _expect(dict, value, where)
    hints = get_type_hints(kind)
    _refuse_unknown(where, {str(name)[:80] for name in document} - set(hints), hints)
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    require_names(where or "fields", set(document) | (set(hints) - required), set(hints))
    prefix = f"{where}." if where else ""
    arguments = {name: _decode(hints[name], item, prefix + name) for name, item in document.items()}
    try:
        return kind(**arguments)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def _decode_float(value: Any, where: str) -> float:
    try:
        number = float(_expect((int, float), value, where))
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{where}: expected a number, found one beyond float64")
    return number


def _expect_one_of(known: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in known:
        raise ValueError(f"{where}: expected one of {', '.join(map(str, known))}, found {str(value)[:80]!r}")
    return value


def _expect(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where or 'document'}: expected {_JSON_NAMES[kind]}, found {str(value)[:80]!r}")
    return value


def require_names(where: str, found: set[str], expected: set[str]) -> None:
    """Raise ValueError unless both sets are equal, naming what is missing and what is unknown."""
    if found != expected:
        differing = {"missing": expected - found, "unknown": {name[:80] for name in found - expected}}
        problems = ", ".join(f"{what} {sorted(names)}" for what, names in differing.items() if names)
        raise ValueError(f"{where}: expected {sorted(expected)}; {problems}")


def _refuse_unknown(where: str, unknown: set[str], known: Iterable[str]) -> None:
    if unknown:
        name = min(unknown)
        nearest = get_close_matches(name, known, 1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(sorted(known))}"
        raise ValueError(f"{where}: unknown key {name}; {hint}" if where else f"unknown key {name}; {hint}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("expected each field once, found the same field twice in one object")
    return entries


def _refuse_constant(name: str) -> float:
    raise ValueError(f"expected JSON numbers, found {name}")
