"""The program `astra`: help, exit codes, and what it imports."""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from astra_ros.backends import factory
from astra_ros.cli.main import SUBCOMMANDS, build_parser, main
from astra_ros.cli.options import add_config, config_from
from astra_ros.cli.progress import ProgressLine
from astra_ros.data.playback import PlaybackConfig


def examples_of(subcommand: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Every command line that its help gives as an example, without the program's name."""
    with pytest.raises(SystemExit) as exit_info:
        main([subcommand, "--help"])
    assert exit_info.value.code == 0
    examples = re.split(r"^examples?:", capsys.readouterr().out, flags=re.MULTILINE)[1]
    return re.findall(rf"^ *astra ({subcommand} .+)$", examples, flags=re.MULTILINE)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_helps_with_examples_that_are_valid(
    subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = examples_of(subcommand, capsys)
    assert examples
    for example in examples:
        assert build_parser().parse_args(example.split()).subcommand == subcommand


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["replay"], ["record"], ["replay", "bag", "--rate", "fast"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2


def test_what_a_subcommand_does_not_know_is_told_with_its_own_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "config/train/tiny.yaml", "--out", "out", "--batch=4"])
    assert exit_info.value.code == 2
    usage, line = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: astra train CONFIG")
    assert line == "astra train: error: unrecognized arguments: --batch=4"


def test_record_wants_to_know_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for topics in ([], ["/x", "--all"]):
        with pytest.raises(SystemExit) as exit_info:
            main(["record", "--out", str(tmp_path / "bag"), *topics])
        assert exit_info.value.code == 2
        assert "exactly one of the three" in capsys.readouterr().err


def test_an_error_is_one_line_and_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "none")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("astra replay: ")
    assert "expected a rosbag2 folder" in line


def test_a_model_that_is_not_there_is_missed_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "mine"), "--data", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine: expected a checkpoint or a bundle, found no such folder; " in line
    assert f"python -m export.to_onnx CHECKPOINT --out {tmp_path}/mine" in line


@pytest.mark.parametrize("test", ["held_out", "trust"])
def test_where_no_backend_runs_the_reason_is_one_line(
    test: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(factory, "find_spec", lambda name: None)
    assert main(["evaluate", "--test", test, "--data", str(tmp_path)]) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it: each backend that was passed over
    assert line.startswith("astra evaluate: backend 'auto': expected one of ")


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "none", "--data", "none"],
        ["train", "none.yaml", "--out", "none"],
        ["distill", "none.yaml", "--out", "none"],
        ["data", "check", "none"],
    ],
)
def test_a_result_that_could_not_be_written_is_refused_before_any_work(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json", str(tmp_path / "missing" / "x.json")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--json: expected a file in an existing folder, found {tmp_path}/missing/x.json; mkdir -p" in line


def test_what_the_package_logs_is_shown_while_a_subcommand_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("astra_ros.backends.factory")

    def run(_: argparse.Namespace) -> int:
        log.info("backend %s not taken: %s", "tensorrt", "no CUDA device")
        return 0

    monkeypatch.setattr("astra_ros.cli.doctor.run", run)
    for _ in range(2):
        assert main(["doctor"]) == 0
        assert capsys.readouterr().err == "backend tensorrt not taken: no CUDA device\n"
    log.info("nobody runs")
    assert capsys.readouterr().err == ""


def test_impossible_options_are_refused_before_ros_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(tmp_path), "--rate", "0"]) == 1
    assert "rate: expected more than 0" in capsys.readouterr().err


def test_help_needs_neither_ros_nor_torch() -> None:
    blocked = (
        "import sys; sys.modules |= dict.fromkeys(('rclpy', 'torch', 'robosuite', 'onnxruntime', 'av'))\n"
    )
    program = blocked + "from astra_ros.cli.main import build_parser; print(build_parser().format_help())"
    result = subprocess.run(
        [sys.executable, "-c", program], check=False, text=True, capture_output=True, env=dict(os.environ)
    )
    assert result.returncode == 0, result.stderr
    assert all(f"    {subcommand} " in result.stdout for subcommand in SUBCOMMANDS)


def test_a_missing_module_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "astra_ros.ros.bag_player", None)
    assert main(["replay", str(tmp_path)]) == 1
    assert "needs the Python module astra_ros.ros.bag_player" in capsys.readouterr().err


def test_options_are_the_fields_of_a_config() -> None:
    parser = argparse.ArgumentParser()
    add_config(parser, PlaybackConfig)
    parsed = parser.parse_args(
        ["--rate", "2", "--topics", "/a", "/b", "--clock", "50", "--duration", "3", "--loop"]
    )
    config = config_from(parsed, PlaybackConfig, bag=Path("x"))
    assert config == PlaybackConfig(
        bag=Path("x"), rate=2, topics=("/a", "/b"), clock_hz=50, duration_s=3, loop=True, restamp=False
    )


class _Terminal:
    def __init__(self, *, is_terminal: bool) -> None:
        self.text, self._is_terminal = "", is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_progress_rewrites_its_line_on_a_terminal() -> None:
    terminal = _Terminal(is_terminal=True)
    line = ProgressLine(terminal)  # type: ignore[arg-type]
    line.update("one")
    line.update("two")
    line.done("three")
    assert terminal.text == "\r\x1b[2Kone\r\x1b[2Ktwo\r\x1b[2Kthree\n"


def test_progress_in_a_log_is_rare_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter([100.0, 101.0, 106.0, 106.0])
    monkeypatch.setattr("astra_ros.cli.progress.time.monotonic", lambda: next(now_s))
    log = _Terminal(is_terminal=False)
    line = ProgressLine(log)  # type: ignore[arg-type]
    for text in ("playing one", "playing two", "playing three"):
        line.update(text)
    line.done("done")
    assert log.text == "playing one\nplaying three\ndone\n"


def test_a_log_gets_every_activity_at_once_and_its_updates_now_and_then() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for text in ("loading the model", "playing 0.1 s", "playing 0.2 s", "drawing"):
        line.update(text)
    assert stream.getvalue().splitlines() == ["loading the model", "playing 0.1 s", "drawing"]
