"""What a run of the node came to, as JSON and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from astra_ros.evaluation.machine import describe_machine
from astra_ros.evaluation.metrics import Percentiles
from astra_ros.evaluation.scoring import StepQuality


@dataclass(frozen=True)
class Report:
    """predictions_without_plan: those among `predictions` made for a robot that holds still.

    drops: inputs the node did not use, by cause.
    latency_ms: from the image's stamp to publishing, both on the system clock of this machine.
    inference_ms: the part of it spent in the network.
    """

    model_id: str
    bag: str
    rate: float
    predictions: int
    predictions_without_plan: int
    drops: dict[str, int]
    latency_ms: Percentiles
    inference_ms: Percentiles
    psnr: tuple[StepQuality, ...]

    def at(self, seconds: float) -> StepQuality | None:
        """Quality at the horizon step nearest to `seconds`; None when nothing could be compared."""
        return min(self.psnr, key=lambda step: abs(step.seconds - seconds), default=None)

    def to_json(self) -> dict[str, Any]:
        """With the machine it was measured on."""
        fields = asdict(self)
        fields["psnr"] = [{**asdict(step), "gain_db": step.gain_db} for step in self.psnr]
        return {**fields, "machine": describe_machine()}

    def table(self) -> str:
        """For people."""
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(self.drops.items()) if count)
        lines = [
            f"Model                   {self.model_id}",
            f"Predictions             {self.predictions}, {self.predictions_without_plan} of them without a plan",
            f"Inputs not used         {sum(self.drops.values())}{': ' if causes else ''}{causes}",
            f"Image stamp to publish  {_milliseconds(self.latency_ms)}  (system clock, DDS source timestamp)",
            f"  of it in the network  {_milliseconds(self.inference_ms)}",
            "",
            "PSNR against what really happened",
            "  horizon     model   copy last       gain   compared",
            *(_row(step) for step in self.psnr),
        ]
        return "\n".join(lines)


def _milliseconds(values: Percentiles) -> str:
    return f"p50 {values.p50:.0f}   p95 {values.p95:.0f}   p99 {values.p99:.0f}   max {values.max:.0f} ms"


def _row(step: StepQuality) -> str:
    return f"  +{step.seconds:.1f} s  {step.model_db:6.2f} dB  {step.copy_db:6.2f} dB  {step.gain_db:+6.2f} dB  {step.count:9d}"
