"""What runs a bundle's graphs."""

import sys

# Importing OpenVINO would send usage data, from a fork of a process whose middleware has threads: it takes its stub where it
# finds no such package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
