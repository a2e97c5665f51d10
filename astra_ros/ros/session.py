"""rclpy for the length of a program, stopped by Ctrl-C at a place of the program's choosing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import rclpy
from rclpy.action.server import RCLError
from rclpy.exceptions import NameValidationException
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown


@contextmanager
def ros_session(args: Sequence[str] = ()) -> Iterator[threading.Event]:
    """Initialise rclpy; yields an event that SIGINT and SIGTERM set. A second signal raises KeyboardInterrupt.

    rclpy's own handlers would raise in the middle of whatever runs, writing a record of a bag for example.
    args: a command line, for example ("bag_player", "--ros-args", "-r", "image:=/camera/image_raw").
    For the main thread only, the one that Python gives signals to. Raises ValueError, one line, for arguments and names that
    ROS does not take.
    """
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, request_stop) for number in signals}
    try:
        _init(args)
        yield stop
    except NameValidationException as error:
        *words, _caret = str(error).split()
        raise ValueError(" ".join(words)) from error
    finally:
        try_shutdown()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _init(args: Sequence[str]) -> None:
    try:
        rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
    except RCLError as error:
        raise ValueError(
            f"ROS arguments: expected a remapping as FROM:=TO, without blanks in names, found {' '.join(args)}: {error}"
        ) from error
