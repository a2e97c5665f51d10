"""Says, before anything is installed, what this machine lacks: `check_system.py [--simulator]`.

Standard library only, and written for any Python 3, because it is run by whatever interpreter the user has. Prints
nothing when all is well; otherwise one line to paste, and exits 1.
"""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.util
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

SUPPORTED = ((3, 11), (3, 12))  # the Pythons that Jazzy's wheels and Jazzy itself share


def missing_packages(*, simulator: bool) -> list[str]:
    """Debian packages that provide what cannot be found here."""
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    needs = {
        "build-essential": all(shutil.which(tool) for tool in ("cc", "c++", "make")),
        f"{python}-venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
        f"{python}-dev": Path(sysconfig.get_path("include"), "Python.h").exists(),
    }
    if simulator:  # MuJoCo renders without a display through EGL; robosuite's OpenCV links to the last two
        needs["libegl1"] = bool(ctypes.util.find_library("EGL"))
        needs["libegl-mesa0"] = bool(ctypes.util.find_library("EGL_mesa"))
        needs["libgl1-mesa-dri"] = any(Path("/usr/lib").glob("*-linux-gnu/dri/*swrast_dri.so"))
        needs["libgl1"] = bool(ctypes.util.find_library("GL"))
        needs["libglib2.0-0"] = bool(ctypes.util.find_library("gthread-2.0"))
    return [package for package, is_there in needs.items() if not is_there]


def main() -> int:
    """Check the interpreter, then the packages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--simulator", action="store_true", help="also check for what recording in MuJoCo needs"
    )
    simulator = parser.parse_args().simulator
    if sys.version_info[:2] not in SUPPORTED:
        found = platform.python_version()
        print(
            f"astra_ros needs Python 3.11 or 3.12, found {found}; run: make PYTHON=python3.12 ...",
            file=sys.stderr,
        )
        return 1
    if platform.machine() != "x86_64" or sys.platform != "linux":
        found = f"{sys.platform} {platform.machine()}"
        print(
            f"ROS 2 comes as wheels for Linux x86_64 only, found {found}; build with colcon instead",
            file=sys.stderr,
        )
        return 1
    packages = missing_packages(simulator=simulator)
    if packages:
        print("Missing on this machine; run this line, then again what you ran:", file=sys.stderr)
        print(f"  sudo apt-get update && sudo apt-get install -y {' '.join(packages)}", file=sys.stderr)
    return 1 if packages else 0


if __name__ == "__main__":
    sys.exit(main())
