"""What pip builds carries everything that a robot needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTERFACES = ["msg/PredictedFuture.msg", "srv/EvaluateActions.srv", "action/PredictFutures.action"]
SHIPPED = [
    "launch/world_model.launch.py",
    "config/world_model.yaml",
    "config/world_model.rviz",
    "config/fastdds_shm.xml",
    "examples/demo_bag/metadata.yaml",
    "package.xml",
    *INTERFACES,
]


def bundle_files() -> list[str]:
    bundles = ROOT / "astra_ros" / "bundles"
    return sorted(str(path.relative_to(ROOT)) for path in bundles.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    # egg_info's --egg-base keeps the build's leftovers out of the source tree.
    setup = [
        sys.executable,
        "setup.py",
        "-q",
        "egg_info",
        "--egg-base",
        str(folder),
        "sdist",
        "--dist-dir",
        str(folder),
    ]
    subprocess.run(setup, cwd=ROOT, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(
        path for path in folder.iterdir() if (path / "PKG-INFO").is_file() and path.suffix != ".egg-info"
    )


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from the source archive, so that this is known to be complete."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-build-isolation",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(sdist),
    ]
    subprocess.run(pip, check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_bundle_ships() -> None:
    assert "astra_ros/bundles/tiny/manifest.json" in bundle_files()


@pytest.mark.parametrize(
    "path", ["CMakeLists.txt", "setup.py", "LICENSE", "scripts/world_model", *SHIPPED, *bundle_files()]
)
def test_source_archive_has(sdist: Path, path: str) -> None:
    assert (sdist / path).is_file()


def test_source_archive_has_nothing_that_was_built(sdist: Path) -> None:
    built = [*sdist.rglob("*.so"), *sdist.rglob("*.pyc"), *(sdist / "astra_ros" / "msg").glob("*")]
    assert built == []


@pytest.mark.slow
def test_wheel_has_package_interfaces_and_shared_files(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    prefix = next(name.split("/")[0] for name in names if ".data/" in name) + "/data"
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "astra_ros" / "ros").glob("*.py")}
    expected = {f"{prefix}/share/astra_ros/{path}" for path in SHIPPED}
    expected |= {
        f"{prefix}/lib/astra_ros/{name}"
        for name in ("world_model", "bag_player", "planner", "simulated_arm", "simulated_rover")
    }
    expected |= {f"{prefix}/lib/libastra_ros__rosidl_typesupport_fastrtps_c.so"}
    expected |= {f"astra_ros/{path.split('/')[0]}/__init__.py" for path in INTERFACES}
    expected |= {*modules, *bundle_files(), "astra_ros/py.typed"}
    assert sorted(expected - names) == []
    assert f"{prefix}/bin/astra" not in names  # pip makes that one, for its Python


@pytest.mark.slow
def test_wheel_starts_its_nodes(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked beside the environment: the program finds its interfaces in what was shipped, not in this tree."""
    wheel.extractall(tmp_path)
    script = "import astra_ros.msg, sys; print(astra_ros.msg.__file__)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).is_relative_to(tmp_path)
