"""What a dataset declares about its actions, and the one error a bad episode gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from astra_ros.actions.representations import REPRESENTATIONS
from astra_ros.actions.spec import MODALITIES

CAMERA_POSE_NAMES = tuple(f"{kind}{row}" for row in "xyz" for kind in ("rx_", "ry_", "rz_", "t_"))
CAMERA_POSE_UNITS = ("1", "1", "1", "m") * 3


class EpisodeError(ValueError):
    """An episode that cannot be used. One line: file, field, what was expected, what was found."""

    def __init__(self, file: Path | str, field: str, expected: str, found: str) -> None:
        super().__init__(f"{file}: {field}: expected {expected}, found {' '.join(found.split())}")


@dataclass(frozen=True)
class ActionSchema:
    """One robot's way of acting, without the normalisation that training fits.

    space: name of the action space ("panda_sim", "rc_car"); data sets of one space train one ActionSpec.
    representation: "joint_position" absolute joint targets; "rate" a value that acts during a step; "relative_pose"
    camera poses, recorded as absolute camera-to-world 3x4 matrices, row-major (x right, y down, z forward; metres).
    names, units: one entry per action dimension.
    """

    space: str
    modality: str
    representation: str
    names: tuple[str, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        for field, known in (("modality", MODALITIES), ("representation", tuple(REPRESENTATIONS))):
            if (found := getattr(self, field)) not in known:
                raise ValueError(f"schema.{field}: expected one of {', '.join(known)}, found {found!r}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"schema.names: expected every name once, found {', '.join(self.names)}")
        if len(self.units) != len(self.names):
            raise ValueError(
                f"schema.units: expected {len(self.names)} entries (one per name), found {len(self.units)}"
            )
        if self.representation == "relative_pose" and len(self.names) != len(CAMERA_POSE_NAMES):
            raise ValueError(
                f"schema.names: expected the 12 entries of a 3x4 camera pose, found {len(self.names)}"
            )

    @property
    def dim(self) -> int:
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ActionSchema:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


def camera_schema(space: str) -> ActionSchema:
    """The schema of a moving camera: absolute poses in the recording, relative ones in the model."""
    return ActionSchema(space, "camera", "relative_pose", CAMERA_POSE_NAMES, CAMERA_POSE_UNITS)
