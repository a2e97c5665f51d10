"""What every test may use: the untrained bundle, a ROS domain of its own, and skips that say why."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.bundle_fixture", "tests.moving_square"]

# rclpy checks the types of message fields only when asked to; the tests ask.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"


def _why_no_ros() -> str:
    """Empty when ROS and this package's interfaces are here."""
    if importlib.util.find_spec("rclpy") is None:
        return "rclpy is not installed; run: make test"
    if importlib.util.find_spec("astra_ros.msg") is None:
        return "the interfaces of astra_ros are not built; run: make test"
    return ""


WHY_NO_ROS = _why_no_ros()
collect_ignore = ["ros"] if WHY_NO_ROS else []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ros: needs rclpy and the built interfaces")
    config.addinivalue_line("markers", "slow: takes more than 5 seconds on two cores")
    if WHY_NO_ROS and os.environ.get("ASTRA_REQUIRE_ROS") == "1":
        raise pytest.UsageError(f"ASTRA_REQUIRE_ROS=1, but {WHY_NO_ROS}")


def pytest_report_header() -> str:
    return f"ROS 2: {WHY_NO_ROS or 'found'}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if WHY_NO_ROS and item.get_closest_marker("ros"):
        pytest.skip(WHY_NO_ROS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if WHY_NO_ROS:
        terminalreporter.write_line(f"SKIPPED everything in tests/ros: {WHY_NO_ROS}", yellow=True)


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """Keeps what this test process and its children say on DDS on this machine and apart from all others."""
    import domain_coordinator

    with domain_coordinator.domain_id() as domain, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        yield domain
