"""Questions are answered from the newest observation, if it is recent."""

from __future__ import annotations

from astra_ros.ros.live import Match
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.queries import QueryRefusal, Status
from astra_ros.types import NANOSECONDS


def require_recent(match: Match | None, config: NodeConfig, now_ns: int) -> tuple[Match, float]:
    """The newest observation and its age [s]. Raises QueryRefusal."""
    if match is None:
        raise QueryRefusal(
            Status.STALE_OBSERVATION,
            "observation: expected a picture and what the robot did, found none yet; start the camera and the"
            " robot's driver (astra doctor says what is missing)",
        )
    age_s = (now_ns - match.frame.stamp_ns) / NANOSECONDS
    if age_s > config.max_observation_age_s:
        raise QueryRefusal(
            Status.STALE_OBSERVATION,
            f"observation: expected an age of at most {config.max_observation_age_s:g} s (max_observation_age_s), found"
            f" {age_s:.3f} s; the camera or what the robot tells of itself stopped (astra doctor says which)",
        )
    return match, age_s
