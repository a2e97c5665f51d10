"""OpenVINO, which would send usage data when it is imported, from a fork of a process whose middleware has threads.

It takes its stub where it finds no package for that. So whoever needs OpenVINO imports it from here.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import opset13 as ops  # noqa: E402
from openvino import properties  # noqa: E402
from openvino.preprocess import PrePostProcessor  # noqa: E402
from openvino.properties import hint  # noqa: E402

__all__ = ["PrePostProcessor", "hint", "ops", "ov", "properties"]
