"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astra_ros.evaluation.markdown import table
from astra_ros.evaluation.quality import PSNR, Quality
from astra_ros.evaluation.results import Judged
from astra_ros.evaluation.routing import Load, RoutingReport
from astra_ros.evaluation.similarity import PerceptualDistance


def held_out(judged: Sequence[Judged]) -> str:
    """At one second, then over the long horizon."""
    header = (
        "dataset", "modality", "episodes, moments", "predicted dB", "copy last dB", "gain dB", "history only dB",
        "codec alone dB", "share of possible", "SSIM (copy last)", f"{PerceptualDistance.name} (copy last)",
    )  # fmt: skip
    near = [(one.name, one.modality, *_quality_cells(one.result.one_second[-1])) for one in judged]
    far = [
        (one.name, f"{point.seconds:g} s", *_quality_cells(point))
        for one in judged
        for point in one.result.long
    ]
    return (
        f"After {judged[0].result.one_second[-1].seconds:g} s:\n\n{table(header, near)}\n\n"
        f"Over ten times the training horizon, or as far as half of the recordings go:\n\n"
        f"{table(('dataset', 'after', *header[2:]), far)}"
    )


def actions(judged: Sequence[Judged]) -> str:
    """Gap, recovery and counterfactual."""
    header = (
        "dataset", "modality", "moments", "right plan dB", "shuffled plan dB", "gap dB", "gap, same place dB",
        "R² predicted", "R² real (ceiling)", "R² copies", "opposite plan: right sign",
    )  # fmt: skip
    rows = []
    for one in judged:
        gap, read, contrary = one.result.gap, one.result.recovery, one.result.counterfactual
        decibels = (gap.right_db, gap.shuffled_db, gap.gap_db, gap.moved_gap_db)
        shares = (read.predicted.text(), read.real.text(), f"{read.copied.mean:.2f}")
        sign = (
            f"{contrary.share.text('.1%')} of {contrary.judged}"
            if contrary
            else f"not judged: {one.result.why_no_counterfactual}"
        )
        rows.append((one.name, one.modality, gap.moments, *(d.text() for d in decibels), *shares, sign))
    return (
        "PSNR on moving pixels, mean over the first second; R² of the movement as executed; of the right sign the interval is"
        f" Wilson's, over moments, not over resampled episodes:\n\n{table(header, rows)}"
    )


def inertia(judged: Sequence[Judged]) -> str:
    """Gap by history length."""
    lengths = [point.history_length for point in judged[0].result]
    rows = [(one.name, one.modality, *(p.gap.gap_db.text() for p in one.result)) for one in judged]
    header = ("dataset", "modality", *(f"{length} remembered" for length in lengths))
    return f"Right less shuffled plan, PSNR on moving pixels, dB:\n\n{table(header, rows)}"


def drift(judged: Sequence[Judged]) -> str:
    """Drift by time, then the free runs."""
    header = (
        "dataset", "after", "predicted dB", "copy last dB", "drift beyond the scene's dB", "colour shift",
        "contrast", "sharpness",
    )  # fmt: skip
    rows = [
        (
            one.name,
            f"{p.seconds:g} s",
            *(value.text() for value in (p.predicted_db, p.copy_last_db, p.drift_db, p.colour_shift)),
            *(value.text() for value in (p.contrast_ratio, p.sharpness_ratio)),
        )
        for one in judged
        for p in one.result.points
    ]
    short = [f"\n{one.result.why_no_points}" for one in judged if one.result.why_no_points]
    runs = [(one.name, one.result.free_run) for one in judged if one.result.free_run is not None]
    free = table(
        ("dataset", "free run", "finite", "colours of this world", "sharpness at the end (real)"),
        [
            (name, f"{run.seconds / 60:g} min", run.finite, run.in_colour, _sharpness_at_end(run))
            for name, run in runs
        ],
    )
    return "\n".join([table(header, rows), *short, f"\n{free}"])


def steps(judged: Sequence[Judged]) -> str:
    """PSNR by number of steps, and the share of the teacher's."""
    counts = [point.num_steps for point in judged[0].result.points]
    header = ("dataset", "teacher dB", *(f"K = {count}" for count in counts))
    rows = [
        (
            one.name,
            f"{one.result.teacher[PSNR].mean:.2f}",
            *(f"{p.metrics[PSNR].mean:.2f} dB, {p.kept.text('.1%')}" for p in one.result.points),
        )
        for one in judged
    ]
    return f"PSNR after one second, and the share of the teacher's:\n\n{table(header, rows)}"


def router(report: RoutingReport, spaces: Mapping[str, Load]) -> str:
    """Loads by modality and by dataset."""
    experts = range(len(next(iter(report.loads.values())).share))
    header = ("", *(f"expert {e}" for e in experts), "entropy bits", "decision bits", "frames")

    def row(name: str, load: Load) -> tuple[Any, ...]:
        return (name, *(f"{s:.1%}" for s in load.share), load.entropy_bits, load.decision_bits, load.frames)

    summary = (
        f"Purity {report.purity:.3f} (by chance {report.chance_purity:.3f}), used {report.used_bits:.2f} bits, imbalance "
        f"{report.imbalance:.2f} (1 = even), uneven because of: {', '.join(report.unbalanced) or 'nothing'}."
    )
    by_modality = table(header, [row(name, one) for name, one in report.loads.items()])
    by_dataset = table(header, [row(name, one) for name, one in spaces.items()])
    return f"{summary}\n\n{by_modality}\n\nBy dataset:\n\n{by_dataset}"


def _quality_cells(point: Quality) -> tuple[str, ...]:
    db, share = point.metrics[PSNR], point.share_of_possible
    return (
        f"{point.episodes}, {point.moments}",
        db["predicted"].text(),
        f"{db['copy_last'].mean:.2f}",
        point.gain_db.text("+.2f"),
        f"{db['history_only'].mean:.2f}",
        f"{db['ceiling'].mean:.2f}",
        "codec too weak" if share is None else share.text(".0%"),
        *(_beside_copy(point, name) for name in ("ssim", PerceptualDistance.name)),
    )


def _beside_copy(point: Quality, name: str) -> str:
    if name not in point.metrics:
        return "not installed"
    series = point.metrics[name]
    return f"{series['predicted'].mean:.3f} ({series['copy_last'].mean:.3f})"


def _sharpness_at_end(run: Any) -> str:
    end = f"{run.shown[-1].sharpness:.0f}" if run.shown else "none"
    return f"{end} ({run.real_sharpness:.0f})"
