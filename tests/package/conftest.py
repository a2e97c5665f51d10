"""Fixtures of the package's own tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.package.ros_client import RosClient


@pytest.fixture
def ros_client(ros_domain: int) -> Iterator[RosClient]:
    from tests.package.ros_client import RosClient

    client = RosClient()
    yield client
    client.close()
