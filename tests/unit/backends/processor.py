"""What only some processors can do."""

from __future__ import annotations

import openvino as ov
import pytest
from openvino import properties

has_bf16 = pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", properties.device.capabilities()),
    reason="the processor has no instructions for bfloat16",
)
