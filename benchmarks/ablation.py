"""Does each part of the model earn its place? Trains variants on equal steps and seeds, and measures their obedience.

    python -m benchmarks.ablation --codec-run runs/tiny --out runs/ablation --minutes 6

Every variant and seed leaves OUT/<variant>_<seed>.json; started again, the command does only what is missing. The number
of steps is what the full model does in --minutes, measured once (OUT/steps.json), and the same for all. At the end:
OUT/ablation.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from astra_ros.cli.evaluation_run import on_best_device, plain
from astra_ros.cli.progress import ProgressLine
from astra_ros.data.held_out import held_out
from astra_ros.denoiser.checkpoint import load_checkpoint
from astra_ros.denoiser.rollout import RolloutSettings
from astra_ros.evaluation.inverse_dynamics import InverseDynamicsConfig
from astra_ros.evaluation.machine import describe_machine
from astra_ros.evaluation.plots import Axes, save_curves
from astra_ros.evaluation.sources import open_sources
from astra_ros.evaluation.suite import Suite, SuiteConfig
from astra_ros.history.noise import HISTORY_NOISE
from astra_ros.training.config import load_config
from benchmarks.ablation_summary import FULL, inertia_curves, report, scores, summary

CALIBRATION_MINUTES = 1.0


@dataclass(frozen=True)
class Variant:
    """overrides: words for `astra train`. trained_as: the variant whose weights are used. is_guided: when sampled."""

    overrides: tuple[str, ...] = ()
    trained_as: str | None = None
    is_guided: bool = True


def _history_noise(preset: str) -> tuple[str, ...]:
    return (f"objective.history_noise={json.dumps(asdict(HISTORY_NOISE[preset]))}",)


VARIANTS = {
    FULL: Variant(),
    "no_noise_memory": Variant(_history_noise("clean")),
    "released_noise_memory": Variant(_history_noise("astra_release")),
    "no_guidance": Variant(trained_as=FULL, is_guided=False),
    "cross_attention_adapter": Variant(("denoiser.adapter=cross_attention",)),
    "no_experts": Variant(("denoiser.actions.router=single",)),
}


@dataclass(frozen=True)
class Runs:
    """Where and how. minutes: of one training."""

    config: Path
    codec_run: Path
    out: Path
    seeds: int
    minutes: float
    guidance: float
    windows: int
    judge_steps: int
    variants: tuple[str, ...] = tuple(VARIANTS)
    overrides: tuple[str, ...] = ()

    def train(self, folder: Path, words: Sequence[str]) -> None:
        """`astra train` in a process of its own; raises CalledProcessError when it fails."""
        command = [
            sys.executable,
            "-m",
            "astra_ros.cli.main",
            "train",
            str(self.config),
            "--out",
            str(folder),
        ]
        shared = [f"codec_run={self.codec_run}", *self.overrides]
        subprocess.run([*command, *shared, *words], check=True)

    def num_steps(self) -> int:
        """Optimiser steps of every training."""
        file = self.out / "steps.json"
        if not file.is_file():
            folder = self.out / "calibration"
            self.train(folder, [f"budget.denoiser_minutes={CALIBRATION_MINUTES}"])
            lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
            last = [line for line in lines if line["stage"] == "denoiser"][-1]
            steps = round(60 * self.minutes * last["step"] / last["elapsed_s"])
            file.write_text(json.dumps({"steps": steps, "minutes": self.minutes}) + "\n")
        return int(json.loads(file.read_text())["steps"])

    def checkpoint(self, name: str, seed: int, steps: int) -> Path:
        """Folder of a variant's trained weights; trained here if they are not."""
        name = VARIANTS[name].trained_as or name
        folder = self.out / f"{name}_{seed}"
        if not (folder / "done").is_file():
            self.train(folder, [f"seed={seed}", f"training.max_steps={steps}", *VARIANTS[name].overrides])
            (folder / "done").touch()
        return folder

    def measure(self, name: str, folder: Path) -> dict[str, dict[str, Any]]:
        """Obedience by dataset."""
        progress, checkpoint = ProgressLine(), on_best_device(load_checkpoint(folder))
        data = load_config(self.config, self.overrides).data
        sources = open_sources(
            [Path(one.path) for one in data.sets], held_out(Path(data.held_out)), checkpoint
        )
        served = RolloutSettings(
            checkpoint.config.num_steps, self.guidance if VARIANTS[name].is_guided else 1.0
        )
        judge = InverseDynamicsConfig(
            size=min(128, checkpoint.config.image_height // 32 * 32), steps=self.judge_steps
        )
        config = SuiteConfig(served, self.out / "judge", windows=self.windows, seeds=(0,), judge=judge)
        suite = Suite(checkpoint, sources, config, progress.update)
        inertia = {one.name: one.result for one in suite.inertia()}
        return {one.name: scores(plain(one.result), plain(inertia[one.name])) for one in suite.actions()}


def run_all(runs: Runs, measure: Callable[[str, int], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by variant, one per seed; what is in a file already is not measured again."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in runs.variants}
    for seed in range(runs.seeds):
        for number, name in enumerate(runs.variants, 1):
            file = runs.out / f"{name}_{seed}.json"
            if not file.is_file():
                print(f"seed {seed}: variant {number} of {len(runs.variants)}, {name}", flush=True)
                datasets = measure(name, seed)
                file.write_text(
                    json.dumps({"variant": name, "seed": seed, "datasets": datasets}, indent=1) + "\n"
                )
            results[name].append(json.loads(file.read_text())["datasets"])
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, summarise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--codec-run", type=Path, required=True, help="folder of a run whose codec is taken")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6.0, help="of one training (default: %(default)g)")
    parser.add_argument("--guidance", type=float, default=1.5, help="(default: %(default)g)")
    parser.add_argument("--windows", type=int, default=24, help="moments per dataset (default: %(default)s)")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        metavar="NAME",
        help=f"{FULL} and those to compare with it (default: {' '.join(VARIANTS)})",
    )
    parser.add_argument(
        "--judge-steps",
        type=int,
        default=InverseDynamicsConfig.steps,
        metavar="N",
        help="training of what reads actions off pictures, once per dataset (default: %(default)s)",
    )
    parser.add_argument("overrides", nargs="*", default=(), help="key=value words for `astra train`")
    parsed = vars(parser.parse_args(arguments))
    if FULL not in parsed["variants"]:
        parser.error(f"variants: expected {FULL} among them, found {' '.join(parsed['variants'])}")
    runs = Runs(**{**parsed, **{name: tuple(parsed[name]) for name in ("variants", "overrides")}})
    runs.out.mkdir(parents=True, exist_ok=True)
    steps = runs.num_steps()
    results = run_all(runs, lambda name, seed: runs.measure(name, runs.checkpoint(name, seed, steps)))
    summarised, curves = summary(results), inertia_curves(results)
    how = f"{runs.seeds} seeds, {steps} steps each, guidance {runs.guidance:g}"
    text = report(summarised, how)
    print(text)
    files = {suffix: runs.out / f"ablation.{suffix}" for suffix in ("json", "md", "png")}
    content = {"steps": steps, "seeds": runs.seeds, "summary": plain(summarised), "runs": results}
    machine = describe_machine(("torch", "numpy"))
    files["json"].write_text(json.dumps({**content, "machine": machine}, indent=1, allow_nan=False) + "\n")
    files["md"].write_text(text)
    axes = Axes("Visual inertia", "remembered frames", "right less shuffled plan, dB")
    save_curves([(axes, curves)], files["png"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
