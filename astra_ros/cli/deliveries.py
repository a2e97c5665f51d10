"""What a run leaves in its folder at every checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.cli.training_samples import TrainingSamples
from astra_ros.denoiser.checkpoint import CONFIG_FILE, Checkpoint, save_checkpoint
from astra_ros.training.curves import GAIN, HELD_OUT, draw_curves
from astra_ros.training.progress import Progress

BEST = "best"  # the folder in a run's folder
LEAST_CHECKPOINTS = 6  # of a stage, so that a short one has a best one too


def checkpoint_every_s(asked_minutes: float, stage_minutes: float) -> float:
    """Seconds between two checkpoints of a stage."""
    return 60.0 * min(asked_minutes, stage_minutes / LEAST_CHECKPOINTS)


class Deliveries:
    """The model as it would be shipped now, with its held-out quality, sample strips and curves; in `best` the best one so far.

    On few recordings a long training makes a model worse, and nobody knows in advance when.
    """

    def __init__(self, out: Path, samples: TrainingSamples) -> None:
        self._out, self._samples = out, samples
        self._log, self._config = out / "log.jsonl", out / BEST / CONFIG_FILE

    def deliver(self, checkpoint: Checkpoint, share: float, provenance: Mapping[str, Any]) -> None:
        """share: of the minutes that are over. provenance: what is known of the checkpoint but for that and its quality."""
        quality = self._samples.evaluate(checkpoint, share)
        if quality:
            Progress(HELD_OUT, self._log).report(share, **quality)
        measured = {"share": round(share, 4), "held_out_db_at_1s": quality}
        checkpoint.provenance = {**provenance, **measured}
        save_checkpoint(self._out, checkpoint)
        if quality and rank(quality) >= rank(self._best()["held_out_db_at_1s"]):
            save_checkpoint(self._out / BEST, checkpoint)
        self.draw_curves()

    def tell_better(self) -> None:
        """Whether an earlier checkpoint was better than the last one."""
        best, last = self._best(), _provenance(self._out / CONFIG_FILE)
        reached, left = (rank(one["held_out_db_at_1s"]) for one in (best, last))
        if reached > left:
            print(
                f"held out: {left[1]:+.2f} dB over copying in the end, {reached[1]:+.2f} after {best['share']:.0%} of the time;"
                f" that model is in {self._out / BEST}"
            )

    def draw_curves(self) -> None:
        """From the log."""
        draw_curves(self._log, self._out / "curves.png")

    def _best(self) -> dict[str, Any]:
        return _provenance(self._config) if self._config.is_file() else {"held_out_db_at_1s": {}}


def rank(quality: Mapping[str, float]) -> tuple[int, float]:
    """Of held-out qualities: a model that could not be sampled in some action space (not finite) comes after all that could be."""
    gains = [value for name, value in quality.items() if name.endswith(GAIN)]
    return len(gains), float(np.mean(gains)) if gains else -np.inf


def _provenance(config: Path) -> dict[str, Any]:
    return dict(json.loads(config.read_text())["provenance"])
