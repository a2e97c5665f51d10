"""`astra evaluate`: a checkpoint's or a bundle's predictions of recordings it has not seen, against what happened."""

from __future__ import annotations

import argparse
from pathlib import Path

from astra_ros.cli.options import TOPIC_OPTIONS, add_held_out, add_json, add_topics

TESTS = {
    "held_out": "PSNR, SSIM and perceptual distance after one second and over ten times the training horizon",
    "actions": "right against shuffled plans, plans read off the pictures, opposite plans",
    "inertia": "right against shuffled plans, by length of the history",
    "drift": "loss of quality up to 50 s beyond the scene's own change, and ten minutes without end",
    "steps": "quality by number of denoising steps, and the share of a teacher's",
    "router": "which expert takes which modality",
    "trust": "bundle: whether real errors are as expected, and unusual pictures noticed",
}
_OF_BUNDLES = ("held_out", "trust")
_SERVED = ("steps", "guidance", "history_sigma")
# Options that not all read: by what is judged, of all its tests ("") and of single ones.
_READ: dict[str, dict[str, tuple[str, ...]]] = {
    "checkpoint": {
        "": ("space", "windows"),
        "held_out": (*_SERVED, "seeds"),
        "actions": (*_SERVED, "seeds", "judge_steps", "judge_frames", "judge_data"),
        "inertia": _SERVED,
        "drift": (*_SERVED, "free_run_minutes"),
        "steps": ("guidance", "history_sigma", "teacher", "teacher_guidance"),
    },
    "bundle": {
        "": ("every", "precision", *TOPIC_OPTIONS),
        "held_out": ("horizon",),
        "trust": ("others",),
    },
}
_LEAST = {
    "seeds": 1,
    "windows": 1,
    "steps": 1,
    "judge_steps": 1,
    "judge_frames": 1,
    "free_run_minutes": 0,
    "horizon": 1,
    "every": 1,
}
DESCRIPTION = "Measure predictions of held-out recordings.\n\n" + "\n".join(
    f"{k:9} {v}" for k, v in TESTS.items()
)
EXAMPLE = "example: astra evaluate runs/tiny --test held_out --data runs/data/panda_sim runs/data/g1 --json held_out.json"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model's predictions of held-out recordings",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        help="checkpoint, or bundle for held_out and trust (default: the shipped one)",
    )
    parser.add_argument("--test", choices=list(TESTS), default="held_out", help="(default: %(default)s)")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="datasets; for a bundle also folders of bags",
    )
    add_held_out(parser)
    parser.add_argument("--space", help="only datasets of this action space (default: all)")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="held_out, actions: of the model's noise (default: %(default)s)",
    )
    parser.add_argument(
        "--windows",
        type=int,
        default=24,
        metavar="N",
        help="moments per dataset (default: %(default)s; long ones: a sixth)",
    )
    _add_serving(parser)
    _add_tests(parser)
    _add_bundles(parser)
    add_topics(parser)
    add_json(parser)
    parser.set_defaults(run=run, default_of=parser.get_default)


def run(arguments: argparse.Namespace) -> int:
    """Prints a table; with --json FILE also writes FILE, and FILE.md and a picture FILE.png beside it."""
    from astra_ros.backends.bundle import MANIFEST_FILE, shipped_bundle

    model: Path = arguments.model or shipped_bundle()
    if not model.is_dir():
        raise ValueError(
            f"{model}: expected a checkpoint or a bundle, found no such folder; train the one (astra train), or export the"
            f" other (python -m export.to_onnx CHECKPOINT --out {model})"
        )
    kind = "bundle" if (model / MANIFEST_FILE).is_file() else "checkpoint"
    _require_test(model, kind, arguments.test)
    _require_read(kind, arguments)
    _require_range(arguments)
    if kind == "checkpoint":
        from astra_ros.cli.evaluation_run import run_checkpoint

        return run_checkpoint(model, arguments)
    from astra_ros.cli.bundle_evaluation import run_bundle, run_trust

    return (run_trust if arguments.test == "trust" else run_bundle)(model, arguments)


def _require_test(model: Path, kind: str, test: str) -> None:
    """What cannot be asked of it. Raises ValueError."""
    if kind == "bundle" and test not in _OF_BUNDLES:
        raise ValueError(
            f"{model}: expected a checkpoint for --test {test}, found a bundle; it can do"
            f" {' and '.join(_OF_BUNDLES)}"
        )
    if kind == "checkpoint" and test == "trust":
        raise ValueError(
            f"{model}: expected a calibrated bundle for --test trust, found none; see python -m export.calibrate"
        )


def _require_read(kind: str, arguments: argparse.Namespace) -> None:
    """Raises ValueError for an option that would have no effect."""
    known = {name for by_test in _READ.values() for names in by_test.values() for name in names}
    for name in sorted(known - read(kind, arguments.test)):
        if getattr(arguments, name) != arguments.default_of(name):
            raise ValueError(
                f"--{name.replace('_', '-')}: expected options that --test {arguments.test} of a {kind} reads, found one that it "
                "does not; leave it out, or see --help"
            )


def read(kind: str, test: str) -> set[str]:
    """Those options, of the ones that not all read, that have an effect."""
    return {*_READ[kind][""], *_READ[kind].get(test, ())}


def _require_range(arguments: argparse.Namespace) -> None:
    """Raises ValueError, before any work."""
    for name, least in _LEAST.items():
        found = getattr(arguments, name)
        if found is not None and found < least:
            raise ValueError(f"--{name.replace('_', '-')}: expected {least} or more, found {found}")


def _add_tests(parser: argparse.ArgumentParser) -> None:
    """What single tests of a checkpoint need."""
    parser.add_argument(
        "--teacher", type=Path, metavar="DIR", help="steps: checkpoint of the teacher (default: the model)"
    )
    parser.add_argument(
        "--teacher-guidance",
        type=float,
        default=1.0,
        metavar="G",
        help="steps: of the teacher (default: %(default)s)",
    )
    parser.add_argument(
        "--judge-steps",
        type=int,
        default=3000,
        metavar="N",
        help="actions: training of the judge, 3 to 6 minutes per dataset (default: %(default)s)",
    )
    parser.add_argument(
        "--judge-frames",
        type=int,
        default=8000,
        metavar="N",
        help="actions: real pictures that the judge learns from, about (default: %(default)s)",
    )
    parser.add_argument(
        "--judge-data",
        type=Path,
        nargs="+",
        default=(),
        metavar="DIR",
        help="actions: further datasets that the judge learns from",
    )
    parser.add_argument(
        "--free-run-minutes",
        type=float,
        default=10.0,
        metavar="MIN",
        help="drift: 0 for none (default: %(default)g)",
    )


def _add_bundles(parser: argparse.ArgumentParser) -> None:
    """What a bundle's tests need."""
    parser.add_argument(
        "--others",
        type=Path,
        nargs="+",
        default=(),
        metavar="DIR",
        help="trust: datasets of other cameras, which should be noticed",
    )
    parser.add_argument(
        "--horizon", type=int, default=10, help="held_out of a bundle: frames (default: %(default)s)"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=5,
        help="bundle: camera frames between two predictions (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        default="auto",
        metavar="NAME",
        help="bundle: of the arithmetic, as the node's parameter (default: %(default)s)",
    )


def _add_serving(parser: argparse.ArgumentParser) -> None:
    """How a checkpoint is sampled."""
    parser.add_argument("--steps", type=int, metavar="K", help="of denoising (default: the checkpoint's)")
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        metavar="G",
        help="action-free guidance, 1: none (default: %(default)s)",
    )
    parser.add_argument(
        "--history-sigma",
        type=float,
        default=0.0,
        metavar="S",
        help="noise added to the memory (default: %(default)s)",
    )
