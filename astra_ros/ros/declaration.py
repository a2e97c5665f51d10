"""Parameters of a node as fields of a dataclass: declared once, with what `ros2 param describe` shows."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar, cast

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

_T = TypeVar("_T")


class ConfigError(ValueError):
    """Parameters that cannot be. One line: name, expected, found."""


@dataclass(frozen=True)
class Limits:
    """What a parameter may be, beside its type.

    lowest, highest: inclusive range. choices: the only texts.
    """

    lowest: float | None = None
    highest: float | None = None
    choices: tuple[str, ...] = ()


def parameter(default: Any, description: str, limits: Limits = Limits(), *, is_live: bool = True) -> Any:
    """is_live: takes effect at the next prediction; otherwise at the next configure, and is refused in between."""
    return field(default=default, metadata={"description": description, "limits": limits, "is_live": is_live})


def require_choices(config: Any, names: Container[str] | None = None) -> None:
    """Raises ConfigError for a text that is none of a field's choices. names: of the fields; None: all."""
    for one in fields(config):
        choices, found = limits_of(one).choices, getattr(config, one.name)
        if choices and found not in choices and (names is None or one.name in names):
            raise ConfigError(f"{one.name}: expected one of {', '.join(choices)}, found {found!r}")


def declare_parameters(node: Node, config: type[Any]) -> None:
    """One per field of a config dataclass; with descriptors, so that rclpy itself refuses a wrong type or range."""
    for one in fields(config):
        node.declare_parameter(one.name, one.default, _descriptor(one))


def read_config(node: Node, config: type[_T], changes: Sequence[Parameter] = ()) -> _T:
    """The node's configuration, or what it would be after changes. Raises ConfigError."""
    names = [one.name for one in fields(cast("Any", config))]
    values = {name: node.get_parameter(name).value for name in names}
    return config(**values | {change.name: change.value for change in changes if change.name in values})


def describe(limits: Limits) -> str:
    """For people: what a parameter may be."""
    if limits.choices:
        return " or ".join(limits.choices)
    return "" if limits.lowest is None else f"{limits.lowest:.10g} … {limits.highest:.10g}"


def limits_of(one: Field[Any]) -> Limits:
    """Of a field made by `parameter`."""
    metadata: Mapping[str, Any] = one.metadata
    limits: Limits = metadata["limits"]
    return limits


def _descriptor(one: Field[Any]) -> ParameterDescriptor:
    limits, when = (
        limits_of(one),
        "at the next prediction" if one.metadata["is_live"] else "at configure",
    )
    descriptor = ParameterDescriptor(
        description=one.metadata["description"],
        additional_constraints=f"Takes effect {when}. {describe(limits)}".strip(),
    )
    if isinstance(one.default, bool) or limits.lowest is None or limits.highest is None:
        return descriptor
    if isinstance(one.default, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(limits.lowest), to_value=int(limits.highest), step=1)
        ]
    else:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=limits.lowest, to_value=limits.highest)
        ]
    return descriptor
