"""ROS times and durations as integers of nanoseconds, and which stamps are believed.

Ages are taken on the node's clock (simulated time included), durations on the monotonic clock.
"""

from __future__ import annotations

from builtin_interfaces.msg import Duration, Time

from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.types import NANOSECONDS

# A stamp this far behind its predecessor is not a late message: time was reset (a bag that loops, a simulator that
# restarts).
TIME_RESET_NS = NANOSECONDS


def to_ns(stamp: Time | Duration) -> int:
    """Nanoseconds of a ROS time or duration."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def to_time(ns: int) -> Time:
    """ROS time of nanoseconds."""
    return Time(sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS)


def to_duration(seconds: float) -> Duration:
    """ROS duration of seconds, to the nanosecond."""
    ns = round(seconds * NANOSECONDS)
    return Duration(sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS)


def require_recent(stamp_ns: int, now_ns: int, max_age_s: float, future_tolerance_s: float) -> None:
    """Refuse an observation whose stamp cannot be one of the last moments on the node's clock."""
    if now_ns == 0:
        raise Refusal(
            Drop.FUTURE_STAMP,
            "header.stamp: use_sim_time is true and no /clock was received; play the bag with --clock,"
            " or set use_sim_time:=false",
        )
    if stamp_ns == 0:
        raise Refusal(
            Drop.STALE,
            "header.stamp: expected the time of the measurement, found 0; make the driver stamp its messages",
        )
    age_s = (now_ns - stamp_ns) / NANOSECONDS
    if age_s > max_age_s:
        raise Refusal(
            Drop.STALE,
            f"header.stamp: expected an age of at most {max_age_s:g} s (max_observation_age_s), found {age_s:.3f} s;"
            " synchronise the clocks, or for a bag set use_sim_time:=true and play it with --clock",
        )
    if -age_s > future_tolerance_s:
        raise Refusal(
            Drop.FUTURE_STAMP,
            f"header.stamp: expected at most {future_tolerance_s:g} s ahead of the node's clock (future_tolerance_s),"
            f" found {-age_s:.3f} s; synchronise the clocks, or set use_sim_time as the publisher has it",
        )
