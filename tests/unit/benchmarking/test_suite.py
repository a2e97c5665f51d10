"""A whole run, on bundles that do not tell or hold everything. No time is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from astra_ros.backends.bundle import load_bundle, write_manifest
from astra_ros.benchmarking.interleaving import InterleavingConfig
from astra_ros.benchmarking.suite import BenchConfig, Suite

pytestmark = pytest.mark.slow

RUN = BenchConfig(num_threads=1, only=("stages", "peaks/cpu/*"), interleaving=InterleavingConfig(rounds=1))


def test_what_a_bundle_does_not_tell_or_hold_is_not_measured(bundle_copy: Path) -> None:
    """Its sizes are never guessed from a preset, which may have changed since."""
    silent = write_manifest(
        bundle_copy, replace(load_bundle(bundle_copy).manifest, flops=None, preset="tiny")
    )
    found = Suite(silent, RUN).run()
    assert found.flops == {}
    step = found.speeds["stages/served/step_0"]
    assert (step.gflops, step.share_of_peak) == (None, None)
    export = "python -m export.to_onnx CHECKPOINT --space SPACE --out BUNDLE"
    assert found.skipped == {
        "GFLOP/s and shares of the peak": f"flops: the manifest does not tell them; export the bundle again: {export}",
        "noise level folded into constants": f"the bundle has no graph step_t; export the bundle again: {export} --comparisons",
        "all steps in one graph": f"the bundle has no graph fused; export the bundle again: {export} --comparisons",
    }
