"""Runs a launch file without ROS's own `launch`, which no registry has: play-launch's evaluator says what it would start.

Its library is called by ctypes, which its authors do not document, hence the exact version in requirements/test.in.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "world_model.launch.py"
C_ABI = 9
_Include = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_NO_INCLUDES = ctypes.create_string_buffer(b'{"ok": false, "error": "includes are not evaluated"}')


@functools.cache
def _library() -> ctypes.PyDLL:
    folder = Path(str(distribution("play-launch").locate_file("play_launch")))
    library = ctypes.PyDLL(str(folder / "lib" / "libplay_launch_parser_pyexec.so"))
    assert library.play_launch_py_abi_version() == C_ABI
    library.play_launch_py_exec.argtypes = [ctypes.c_char_p, _Include, _Free, ctypes.c_void_p]
    library.play_launch_py_exec.restype = ctypes.c_void_p
    library.play_launch_py_free.argtypes = [ctypes.c_void_p]
    return library


def evaluate(path: Path = LAUNCH_FILE, pushed: Sequence[str] = (), /, **arguments: str) -> dict[str, Any]:
    """`declared_arguments` and `nodes` of the launch file under these arguments. Raises ValueError.

    pushed: namespaces that a launch file which includes this one has pushed.
    """
    state = {
        "configurations": arguments,
        "namespace_stack": list(pushed),
        "environment": {},
        "current_file": str(path),
    }
    request = json.dumps({"path": str(path), "state": state}).encode()
    include = _Include(lambda _data, _request: ctypes.addressof(_NO_INCLUDES))
    free = _Free(lambda _data, _pointer: None)
    pointer = _library().play_launch_py_exec(request, include, free, None)
    answer = json.loads(ctypes.string_at(pointer))
    _library().play_launch_py_free(pointer)
    if not answer["ok"]:
        raise ValueError(answer["error"])
    produced: dict[str, Any] = answer["result"]["produced"]
    return produced


def start(node: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    """Start a node as `ros2 launch` does. folder: for its parameter file."""
    executable = Path(sys.prefix) / "lib" / node["package"] / node["executable"]
    ros_arguments = [
        *node["ros_arguments"],
        "-r",
        f"__node:={node['name']}",
        "-r",
        f"__ns:={node['namespace'] or '/'}",
    ]
    for path in (*node["params_files"], _parameter_file(node, folder)):
        ros_arguments += ["--params-file", str(path)]
    for name, topic in node["remappings"]:
        ros_arguments += ["-r", f"{name}:={topic}"]
    return subprocess.Popen(
        [sys.executable, str(executable), *node["arguments"], "--ros-args", *ros_arguments],
        env={**os.environ, **dict(node["env_vars"])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def parameters(node: dict[str, Any]) -> dict[str, Any]:
    """What a node is given beside parameter files. The evaluator makes a text of every value: a number, and a string that looks like one,
    are the same here, but not in launch_ros (test_launch.py, typed).
    """
    return {name: yaml.safe_load(text) for name, text in node["parameters"]}


def _parameter_file(node: dict[str, Any], folder: Path) -> Path:
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".yaml", delete=False) as file:
        yaml.safe_dump({"/**": {"ros__parameters": parameters(node)}}, file)
    return Path(file.name)
