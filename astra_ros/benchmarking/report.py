"""Speeds as Markdown."""

from __future__ import annotations

from typing import Any

from astra_ros.benchmarking.candidates import DECODED
from astra_ros.benchmarking.medians import Median
from astra_ros.benchmarking.results import Goal, Speed, SpeedResult
from astra_ros.evaluation.markdown import table

_FORM = ".4g"
_CHUNK = ("", "runs on", "ms", "times as fast as naive")
_SHARES = ("GFLOP/s", "share of the GEMM peak")


def markdown(result: SpeedResult) -> str:
    """Every table that has a row."""
    sections = (
        ("What was to be reached", ("", "wanted", "measured", "reached"), map(_goal, result.goals)),
        (
            "One chunk, history update included, without the codec",
            (*_CHUNK, *_SHARES),
            [(*_chunk(n, s), *_shares(s)) for n, s in result.group("latents").items()],
        ),
        (
            "One chunk from a new picture to the predicted pictures",
            _CHUNK,
            [_chunk(n, s) for n, s in result.group("pixels").items()],
        ),
        (
            "Each idea alone",
            ("idea", "from", "to", "times as fast"),
            [(gain.idea, gain.before, gain.after, gain.faster.text(_FORM)) for gain in result.ideas],
        ),
        (
            "Each graph alone",
            ("", "runs on", "ms", *_SHARES),
            [(*_named(n, s), *_shares(s)) for n, s in result.group("stages").items()],
        ),
        (
            "Candidates of one observation, per candidate and frame (frames: every separate run ends in pictures, "
            f"the others in those of the best {DECODED})",
            ("", "runs on", "ms", "times as fast as separate runs"),
            [_chunk(n, s) for n, s in result.group("candidates").items()],
        ),
        (
            "Costs of the candidates side by side, against each alone",
            ("largest difference", "from best to worst", "same ranking"),
            [
                (f"{a.cost_difference:.2g}", f"{a.cost_spread:.3g}", "yes" if a.same_ranking else "no")
                for a in (result.agreement,)
                if a is not None
            ],
        ),
        (
            "From a camera's pictures to predicted pictures, by frames per prediction",
            ("", "runs on", "frames/s"),
            [(_short(n), s.runs, s.per_second.text(_FORM)) for n, s in result.group("stream").items()],
        ),
        (
            "A process of its own",
            ("", "runs on", "import s", "load s", "resident MB", "peak MB"),
            [(_short(n), *vars(footprint).values()) for n, footprint in result.footprints.items()],
        ),
        (
            "What this machine can do",
            ("", "how", "best round", "median"),
            [(_short(p.name), p.how, f"{p.best:g} {p.unit}", p.median.text(_FORM)) for p in result.peaks],
        ),
        ("Not measured here", ("", "why"), result.skipped.items()),
    )
    shown = [(title, header, list(rows)) for title, header, rows in sections]
    return "\n\n".join(f"{title}:\n\n{table(header, rows)}" for title, header, rows in shown if rows)


def _goal(goal: Goal) -> tuple[Any, ...]:
    verdict = {None: "not measured", True: "yes", False: "no"}[goal.is_reached]
    return goal.name, goal.wanted, _text(goal.found), verdict


def _named(name: str, speed: Speed) -> tuple[str, ...]:
    return _short(name), speed.runs, speed.milliseconds.text(_FORM)


def _chunk(name: str, speed: Speed) -> tuple[str, ...]:
    return (*_named(name, speed), _text(speed.faster))


def _shares(speed: Speed) -> tuple[str, ...]:
    share = speed.share_of_peak
    return _text(speed.gflops), "" if share is None else share.text(".1%")


def _short(name: str) -> str:
    """Without the group."""
    return name.partition("/")[2]


def _text(value: Median | None) -> str:
    return "" if value is None else value.text(_FORM)
