"""Does each part of the model earn its place? Trains variants on equal steps and seeds, and measures their obedience.

    python -m benchmarks.ablation --codec-run runs/tiny --out runs/ablation --jobs 2

As in the paper, every variant goes on from one video model that has never acted: trained here first, with a clean memory
and without plans (OUT/video_model). Every variant and seed leaves OUT/<variant>_<seed>.json; started again, the command
does only what is missing, and refuses what other settings left. At the end: OUT/ablation.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

from astra_ros.cli.evaluation_run import on_best_device, plain
from astra_ros.cli.progress import ProgressLine
from astra_ros.cli.signals import ended_by_sigterm
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

VIDEO_SEED = 100  # of the model that all start from


@dataclass(frozen=True)
class Variant:
    """overrides: words for `astra train`. trained_as: the variant whose weights are used. is_guided: when sampled."""

    overrides: tuple[str, ...] = ()
    trained_as: str | None = None
    is_guided: bool = True


def _history_noise(preset: str) -> tuple[str, ...]:
    return (f"objective.history_noise={json.dumps(asdict(HISTORY_NOISE[preset]))}",)


VIDEO_MODEL = ("objective.action_dropout=1.0", *_history_noise("clean"))
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
    """Where and how. video_steps, steps: of the video model and of each variant. jobs: trainings at once."""

    config: Path
    codec_run: Path
    out: Path
    seeds: int
    video_steps: int
    steps: int
    jobs: int
    guidance: float
    windows: int
    judge_steps: int
    variants: tuple[str, ...] = tuple(VARIANTS)
    overrides: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What every result depends on, whatever its variant and seed. config: digest of the file."""
        names = ("video_steps", "steps", "guidance", "windows", "judge_steps")
        return {
            "config": sha256(self.config.read_bytes()).hexdigest()[:16],
            "codec_run": str(self.codec_run),
            **{name: getattr(self, name) for name in names},
            "overrides": list(self.overrides),
        }

    def require_same(self) -> None:
        """Raises ValueError for a result of other settings. An older one, which does not say, is told and taken as it is."""
        for name, seed in product(self.variants, range(self.seeds)):
            if not (file := self.result(name, seed)).is_file():
                continue
            found = json.loads(file.read_text()).get("settings")
            if found is None:
                print(f"{file}: does not say with which settings it was made; taken as it is", flush=True)
            elif wrong := [key for key, value in self.settings.items() if found.get(key) != value]:
                key = wrong[0]
                raise ValueError(
                    f"{file}: {key}: expected {self.settings[key]}, found {found.get(key)}; take another --out"
                )

    def train(self, folder: Path, words: Sequence[str], jobs: int = 1) -> None:
        """`astra train` in a process of its own, unless it was.

        Raises CalledProcessError when it fails, and ValueError for a folder that was trained otherwise.
        """
        shared = [f"codec_run={self.codec_run}", *self.overrides]
        given, done = shlex.join([f"config={self.settings['config']}", *shared, *words]), folder / "done"
        if done.is_file():
            if not (found := done.read_text()):
                print(f"{done}: does not say how it was trained; taken as it is", flush=True)
            elif found != given:
                raise ValueError(f"{done}: expected {given}, found {found}; take another --out")
            return
        command = [
            sys.executable,
            "-m",
            "astra_ros.cli.main",
            "train",
            str(self.config),
            "--out",
            str(folder),
        ]
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
        subprocess.run([*command, *shared, *words], check=True, env={**os.environ, **threads})
        done.write_text(given)

    def video_model(self) -> Path:
        """Folder of what every variant goes on from; trained here if it is not."""
        folder = self.out / "video_model"
        self.train(folder, [f"seed={VIDEO_SEED}", f"training.max_steps={self.video_steps}", *VIDEO_MODEL])
        return folder

    def checkpoint(self, name: str, seed: int) -> Path:
        """Folder of a variant's trained weights; trained here if they are not."""
        name = VARIANTS[name].trained_as or name
        folder = self.out / f"{name}_{seed}"
        start = f"video_model={self.out / 'video_model'}"
        words = [f"seed={seed}", f"training.max_steps={self.steps}", start, *VARIANTS[name].overrides]
        self.train(folder, words, self.jobs)
        return folder

    def result(self, name: str, seed: int) -> Path:
        """File of a variant's scores."""
        return self.out / f"{name}_{seed}.json"

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
        config = SuiteConfig(
            served,
            self.out / "judge",
            windows=self.windows,
            long_windows=self.windows // 2,
            seeds=(0,),
            judge=judge,
        )
        suite = Suite(checkpoint, sources, config, progress.update)
        asked = (suite.actions, suite.inertia, suite.held_out)
        actions, inertia, held = ({one.name: plain(one.result) for one in test()} for test in asked)
        return {name: scores(actions[name], inertia[name], held[name]) for name in actions}


def run_all(
    runs: Runs,
    train: Callable[[str, int], Path],
    measure: Callable[[str, Path], dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Results by variant, one per seed; what is in a file already is not measured again."""
    measuring = Lock()  # it uses all cores, and what it makes first serves the next

    def one(training: str, seed: int) -> None:
        names = [name for name in runs.variants if (VARIANTS[name].trained_as or name) == training]
        if missing := [name for name in names if not runs.result(name, seed).is_file()]:
            folder = train(training, seed)
            for name in missing:
                print(f"seed {seed}: {name}", flush=True)
                with measuring:
                    found = {"variant": name, "seed": seed, "settings": runs.settings}
                    found["datasets"] = measure(name, folder)
                runs.result(name, seed).write_text(json.dumps(found, indent=1) + "\n")

    trainings = dict.fromkeys(VARIANTS[name].trained_as or name for name in runs.variants)
    with ThreadPoolExecutor(runs.jobs) as pool:
        asked = [pool.submit(one, training, seed) for seed in range(runs.seeds) for training in trainings]
        try:
            for each in asked:
                each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {
        name: [json.loads(runs.result(name, seed).read_text())["datasets"] for seed in range(runs.seeds)]
        for name in runs.variants
    }


def write_results(runs: Runs, results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table; write it, its numbers and the inertia curves into the run's folder."""
    summarised, curves = summary(results), inertia_curves(results)
    how = (
        f"{runs.seeds} seeds, {runs.steps} steps each after {runs.video_steps} of the common video model, "
        f"guidance {runs.guidance:g}"
    )
    text = report(summarised, how)
    print(text)
    files = {suffix: runs.out / f"ablation.{suffix}" for suffix in ("json", "md", "png")}
    content = {"how": how, "summary": plain(summarised), "runs": results}
    machine = describe_machine(("torch", "numpy"))
    files["json"].write_text(json.dumps({**content, "machine": machine}, indent=1, allow_nan=False) + "\n")
    files["md"].write_text(text)
    axes = Axes("Visual inertia", "remembered frames", "right less shuffled plan, dB")
    save_curves([(axes, curves)], files["png"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, summarise."""
    parser = _parser()
    parsed = vars(parser.parse_args(arguments))
    if FULL not in parsed["variants"]:
        parser.error(f"variants: expected {FULL} among them, found {' '.join(parsed['variants'])}")
    runs = Runs(**{**parsed, **{name: tuple(parsed[name]) for name in ("variants", "overrides")}})
    runs.out.mkdir(parents=True, exist_ok=True)
    try:
        runs.require_same()
        runs.video_model()
        results = run_all(runs, runs.checkpoint, runs.measure)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(
            f"error: {shlex.join(error.cmd)}: expected exit code 0, found {error.returncode}; see what it said and run"
            " this again",
            file=sys.stderr,
        )
        return 1
    write_results(runs, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--codec-run", type=Path, required=True, help="folder of a run whose codec is taken")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--video-steps", type=int, default=1500, help="of the video model's training (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=400, help="of each variant's (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once (default: %(default)s)")
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
    return parser


if __name__ == "__main__":
    with ended_by_sigterm():
        sys.exit(main())
