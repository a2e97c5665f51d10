"""Makes pip run CMakeLists.txt, the same build as colcon's, so that `pip install .` gives the interfaces too.

What CMake installs into site-packages/astra_ros joins the Python package of the wheel; the rest of the prefix
(lib/*.so, lib/astra_ros/*, share/, include/) becomes data files, which pip puts into the environment's prefix, where
the ROS 2 wheels look for it; but bin/astra, which pip makes itself. Everything declarative is in pyproject.toml.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).resolve().parent
NAME = "astra_ros"
GENERATED = ("msg", "srv", "action")


def ros_wheels_prefix() -> Path:
    """Prefix that the ROS 2 wheels of this Python live in; a ROS that happens to be sourced is not used."""
    try:
        site_packages = distribution("ros-rosidl-cmake").locate_file("")
    except PackageNotFoundError:
        raise SystemExit(
            "astra_ros: the ROS 2 build tools are missing in this environment; run: pip install -r requirements/demo.txt"
        ) from None
    return Path(str(site_packages)).resolve().parents[2]


def cmake_install(build: Path, stage: Path) -> None:
    """Configure, build and install CMakeLists.txt into `stage`."""
    prefix = str(ros_wheels_prefix())
    # cmake and ninja come with this environment, which need not be activated.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    env = {**os.environ, "AMENT_PREFIX_PATH": prefix, "CMAKE_PREFIX_PATH": prefix, "PATH": path}
    configure = [
        *("-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
        *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF", "-DCMAKE_INSTALL_MESSAGE=NEVER"),
        *(f"-DCMAKE_INSTALL_PREFIX={stage}", f"-DPython3_EXECUTABLE={sys.executable}"),
    ]
    for arguments in (configure, ["--build", str(build), "--", "--quiet"], ["--install", str(build)]):
        command = [shutil.which("cmake", path=path) or "cmake", *arguments]
        if subprocess.run(command, check=False, env=env).returncode != 0:
            # Not an Exception: an editable install turns those into a warning and goes on without the interfaces.
            raise SystemExit(f"astra_ros: this command failed, see its output above: {shlex.join(command)}")


class BuildWithInterfaces(build_py):
    """Adds the generated interfaces to the Python package and the rest of the CMake install to the data files."""

    def run(self) -> None:
        super().run()
        build = Path(self.get_finalized_command("build").build_temp).resolve() / "cmake"
        shutil.rmtree(build, ignore_errors=True)  # its cache may name a build environment that is gone
        stage = build / "stage"
        cmake_install(build, stage)
        (package,) = stage.glob(f"**/site-packages/{NAME}")
        self._copy_generated(package)
        self.distribution.data_files[:] = prefix_files(stage)

    def _copy_generated(self, package: Path) -> None:
        target = ROOT / NAME if self.editable_mode else Path(self.build_lib) / NAME
        for name in GENERATED:
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(package / name, target / name)
        for library in package.glob("*.so"):
            shutil.copy2(library, target)


def prefix_files(stage: Path) -> list[tuple[str, list[str]]]:
    """(folder below the prefix, files) of everything outside site-packages and bin, as setuptools' data_files."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(stage.rglob("*")):
        folder = path.relative_to(stage).parent
        if path.is_file() and {"site-packages", "bin"}.isdisjoint(folder.parts):
            folders[str(folder)].append(os.path.relpath(path, ROOT))
    return sorted(folders.items())


class BinaryDistribution(Distribution):
    """The generated interfaces are compiled for one Python on one platform."""

    def has_ext_modules(self) -> bool:
        return True

    def has_data(self) -> bool:
        """True before data_files is filled: an editable install asks before it builds."""
        return True


setup(data_files=[], cmdclass={"build_py": BuildWithInterfaces}, distclass=BinaryDistribution)
