"""What an interrupted run goes on from. The state of a stage is one safetensors file whose header carries the counters as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from astra_ros.backends.schema import decode, parse
from astra_ros.denoiser.checkpoint import below


@dataclass(frozen=True)
class Counters:
    """steps: tried. skipped: of them, without a finite gradient. updates: of the average.

    elapsed_s: spent of the stage's minutes.
    """

    steps: int
    skipped: int
    updates: int
    elapsed_s: float
    minutes: float | None = None


def save_state(
    path: Path,
    models: dict[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    counters: Counters,
) -> None:
    """Replace the file at once: whoever interrupts finds the old state or the new one."""
    tensors = {
        f"{name}.{key}": value for name, model in models.items() for key, value in model.state_dict().items()
    }
    for number, optimizer in enumerate(optimizers):
        tensors |= {f"optimizer{number}.{key}": value for key, value in _flat(optimizer).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    contiguous = {key: value.detach().contiguous() for key, value in tensors.items()}
    save_file(contiguous, partial, metadata={"counters": json.dumps(asdict(counters))})
    os.replace(partial, path)


def load_state(
    path: Path, models: dict[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]
) -> Counters:
    """Put a saved state back in place, strictly.

    Raises ValueError when it is of another architecture or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            counters = decode(Counters, parse(file.metadata()["counters"]))
        for name, model in models.items():
            model.load_state_dict(below(name, tensors), strict=True)
        for number, optimizer in enumerate(optimizers):
            _restore(optimizer, below(f"optimizer{number}", tensors))
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: expected the state of this run, found {reason}; use another --out or remove the file"
        ) from error
    return counters


def spent_s(folder: Path) -> float:
    """Seconds that the stages whose states are in `folder` have had. A damaged state counts nothing: its stage refuses it."""
    seconds = 0.0
    for path in folder.glob("*.safetensors"):
        with (
            suppress(SafetensorError, ValueError, KeyError, TypeError),
            safe_open(path, framework="pt") as file,
        ):
            seconds += decode(Counters, parse(file.metadata()["counters"])).elapsed_s
    return seconds


def begun_with(file: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """What the first start of a run wrote to `file`: these fields, if this is the first."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{uuid4()}")  # every process of a run writes, and reads
        partial.write_text(json.dumps(fields, indent=2) + "\n")
        os.replace(partial, file)
    return parse(file.read_text())


def require_same_run(file: Path, fields: dict[str, Any]) -> None:
    """A folder holds one run, which `file` describes. Raises ValueError when it was started with other fields."""
    started = begun_with(file, fields)
    for key, value in fields.items():
        if started.get(key) != value:
            raise ValueError(
                f"{file}: {key}: expected {started.get(key)}, with which this run was started, found {value}; "
                "repeat the first command to go on, or choose another --out"
            )


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, values in state.items() for key, value in values.items()}


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
