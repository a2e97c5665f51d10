"""`astra evaluate BUNDLE` on datasets: which recordings are independent, what is compared, and what computed it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from astra_ros.cli.main import main
from astra_ros.data.lerobot import DatasetWriter
from astra_ros.history.layout import NUM_SLOTS
from tests.bundle_fixture import HEIGHT, WIDTH
from tests.moving_square import ARM, FPS, episode, write_dataset

HORIZON = 3
ONE_MOMENT = NUM_SLOTS + HORIZON


def evaluate(bundle: Path, held_out_file: Path, *data: Path, every: int = 20) -> tuple[dict[str, Any], str]:
    """The JSON, and the text beside it."""
    file = held_out_file.with_name("result.json")
    words = ["--held-out", str(held_out_file), "--horizon", str(HORIZON), "--every", str(every)]
    assert main(["evaluate", str(bundle), "--data", *map(str, data), *words, "--json", str(file)]) == 0
    return json.loads(file.read_text()), file.with_suffix(".md").read_text()


def write_lengths(path: Path, **lengths: int) -> Path:
    with DatasetWriter(path, path.name, ARM, FPS, (HEIGHT, WIDTH)) as writer:
        for name, count in lengths.items():
            writer.append(episode(name, len(name), count=count), "task")
    return path


def test_equal_names_in_two_folders_are_two_episodes(
    untrained_bundle: Path, held_out_file: Path, tmp_path: Path
) -> None:
    held_out_file.write_text('own: ["held_?"]\nother: ["held_?"]\n')
    own, other = (write_dataset(tmp_path / name, ["train_0", "held_0"]) for name in ("own", "other"))
    both, _ = evaluate(untrained_bundle, held_out_file, own, other)
    assert both["episodes"] == [f"{own}/held_0", f"{other}/held_0"]
    assert both["gain"][0]["low"] is not None
    alone, _ = evaluate(untrained_bundle, held_out_file, own)
    assert alone["episodes"] == ["held_0"]
    assert alone["gain"][0]["low"] is None


def test_a_recording_of_one_moment_has_no_other_actions(
    untrained_bundle: Path, held_out_file: Path, tmp_path: Path
) -> None:
    """The right plan is not another one: it would look as if the actions were ignored."""
    short = write_lengths(tmp_path / "a/own", train_0=8, held_0=ONE_MOMENT, held_1=ONE_MOMENT)
    result, text = evaluate(untrained_bundle, held_out_file, short)
    assert result["other_actions"] == []
    assert len(result["predicted"]) == HORIZON
    assert re.search(r"^\| \+0\.2 s \| .* dB \|  \| \d+\.\d\d dB \|$", text, re.MULTILINE)
    mixed = write_lengths(tmp_path / "b/own", train_0=8, held_0=ONE_MOMENT, held_1=ONE_MOMENT + 20)
    result, _ = evaluate(untrained_bundle, held_out_file, mixed)
    assert result["predictions"] == 3
    assert result["other_actions"][0]["low"] is None  # of one of the two
    assert result["predicted"][0]["low"] is not None


def test_a_result_says_what_computed_it(untrained_bundle: Path, held_out_file: Path, tmp_path: Path) -> None:
    own = write_lengths(tmp_path / "own", train_0=8, held_0=ONE_MOMENT)
    result, text = evaluate(untrained_bundle, held_out_file, own)
    assert re.fullmatch(r"(openvino|onnxruntime) [\d.]+, (fp32|bf16), cpu", result["backend"])
    assert result["threads"] == 2
    assert result["unchecked"] == []
    assert "Not checked" not in text
    assert f"\n{result['backend']}, 2 threads\n" in text
