"""Why an input was not used."""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """Causes that are counted in the diagnostics, one counter each."""

    NOT_ACTIVE = "not_active"
    BAD_IMAGE = "bad_image"
    STALE = "stale"
    FUTURE_STAMP = "future_stamp"
    OUT_OF_ORDER = "out_of_order"
    BAD_JOINT_STATE = "bad_joint_state"
    OTHER_JOINTS = "other_joints"
    NO_JOINT_STATE = "no_joint_state"
    BAD_VELOCITY = "bad_velocity"
    NO_VELOCITY = "no_velocity"
    NO_OTHER_PICTURE = "no_other_picture"
    BAD_PLAN = "bad_action_sequence"
    BAD_GOAL = "bad_goal"
    SUPERSEDED = "superseded"
    PREDICTION_FAILED = "prediction_failed"


class Refusal(ValueError):  # noqa: N818 - an answer, not a malfunction
    """An input that is not used. One line: the field, what was expected, what was found, and what fixes it."""

    def __init__(self, cause: Drop, line: str) -> None:
        super().__init__(line)
        self.cause = cause
