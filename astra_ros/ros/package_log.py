"""What the package says through Python's logging, in a node's log: which backend was taken, and why others were not."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger


class PackageLog(logging.Handler):
    """Forwards what is logged at INFO and above, until it is closed."""

    def __init__(self, node_logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._node_logger = node_logger
        self._package = logging.getLogger("astra_ros")
        self._package.setLevel(logging.INFO)
        self._package.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if record.levelno >= logging.ERROR:
            self._node_logger.error(line)
        elif record.levelno >= logging.WARNING:
            self._node_logger.warning(line)
        else:
            self._node_logger.info(line)

    def close(self) -> None:
        self._package.removeHandler(self)
        super().close()
