"""Teach a bundle to run in 8-bit integers, from the recordings that its model was made of.

    python -m export.quantize BUNDLE --data DATASET

Some training episodes are lived through again, and what goes into every large matrix product and convolution is watched
(backends/openvino_int8.py says what its range is for). Adds int8.json to the bundle and says what held-out predictions lose.
Runs on OpenVINO; needs no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

try:
    from astra_ros.backends.quiet_openvino import ops, ov
except ImportError as error:
    raise SystemExit(f"error: openvino: {error}; pip install openvino") from error

from astra_ros.backends import golden
from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import (
    Bundle,
    describe_file,
    load_bundle,
    replace_file,
    restored_on_error,
    write_manifest,
)
from astra_ros.backends.manifest import BundleError, FileSpec, Manifest, QuantizationSpec
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.backends.openvino_int8 import Product, Ranges, products
from astra_ros.backends.openvino_runnable import Runnable
from astra_ros.cli.signals import ended_by_sigterm
from astra_ros.denoiser.io import batched
from astra_ros.evaluation.metrics import psnr
from astra_ros.evaluation.reliving import long_enough, relived
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import FloatArray
from export.golden_inputs import patterned
from export.recordings import Recordings, add_arguments, name_skipped

INT8_FILE, INT8_TOLERANCE = "int8.json", 0.04
# Products with less of a graph's multiplications stay in float32: they cost little. All of a block belongs to the others:
# with its 256x256 products in integers a step of the bundled model takes 8 % less time, for another 0.01 dB (decision 0008).
LEAST_SHARE = 0.007
# Share of the tolerance that may be used up here: another processor rounds a little differently.
SOUND = 0.95
# Training episodes that are watched, and camera frames between two predictions.
NUM_EPISODES, EVERY = 10, 40

Limits = Mapping[str, Mapping[str, tuple[float, ...]]]  # by graph and name of the weights


class RangeRecorder(OpenVinoBackend):
    """Runs in float32 and records the range of the input of each large product, by graph and name of the weights."""

    def __init__(self, bundle: Bundle, num_threads: int = 2) -> None:
        super().__init__(bundle, num_threads)
        self.ranges: dict[str, dict[str, tuple[float, ...]]] = {}

    def _runnable(self, graph: str) -> Runnable:
        if graph not in self._runnables:
            model = self._compiler.read(graph)
            large = large_products(model)
            self.ranges[graph] = dict.fromkeys(large, (0.0, 0.0))
            extremes = [output for product in large.values() for output in _extremes(product)]
            watched = ov.Model([*model.get_results(), *extremes], model.get_parameters())
            compiled = ov.Core().compile_model(watched, "CPU", self._compiler.options())
            self._runnables[graph] = Runnable(compiled.create_infer_request(), [*self.specs[graph].inputs])
        return self._runnables[graph]

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, ov.Tensor]:
        outputs = super().run(graph, inputs)
        request, ranges = self._runnables[graph].request, self.ranges[graph]
        found = (float(tensor.data) for tensor in request.output_tensors[len(outputs) :])
        for name, (low, high) in ranges.items():
            ranges[name] = (min(low, next(found)), max(high, next(found)))
        return outputs

    def limits(self) -> Limits:
        """Of the products that saw more than one number."""
        return {
            graph: {name: found for name, found in ranges.items() if found[0] < found[1]}
            for graph, ranges in self.ranges.items()
        }


def large_products(model: ov.Model) -> dict[str, Product]:
    """Those that are worth rounding, by the name of their weights."""
    known = products(model)
    total = sum(product.multiplications for product in known.values())
    return {name: one for name, one in known.items() if one.multiplications >= LEAST_SHARE * total}


class Trial(OpenVinoBackend):
    """Runs in integers by ranges that are in no bundle yet, whatever it answers."""

    def __init__(self, bundle: Bundle, precision: str, limits: Limits) -> None:
        super().__init__(bundle, precision=precision)
        self._compiler.ranges = Ranges({graph: dict(found) for graph, found in limits.items()})

    def _check(self, batch: int) -> None:
        """How far it is from the golden vectors is what is asked."""

    def errors(self) -> list[float]:
        """Relative error of every stage on the golden vectors."""
        inputs, expected = golden.load(self._bundle.file(self.manifest.golden.file), self.manifest)
        return [*golden.relative_errors(golden.run_rollout(self, inputs), expected, inputs).values()]


def sound_products(bundle: Bundle, limits: Limits) -> Limits:
    """The ranges of the products to round: all but the fewest that must stay exact to keep errors within the tolerance.

    Left out first are those whose rounding errs most. A precision that misses the tolerance even with no product rounded is
    ignored: leaving products out cannot mend it.
    """
    names = sorted(set().union(*limits.values()))

    def errors_without(left: Collection[str], precision: str) -> list[float]:
        with Trial(bundle, precision, _without(limits, left)) as trial:
            return trial.errors()

    def is_sound(left: Collection[str], precision: str) -> bool:
        return max(errors_without(left, precision)) <= SOUND * INT8_TOLERANCE

    native = OpenVinoBackend.precisions(bundle)
    asked = ("int8_bf16", "int8") if "bf16" in native else ("int8",)
    precisions = [one for one in asked if is_sound(names, one)]
    if not precisions or all(is_sound((), one) for one in precisions):
        return limits
    # Of all stages together: by the worst one alone, what is left unrounded in another gains nothing.
    errors = {
        name: sum(errors_without([name], precisions[0]))
        for name in _counted(names, "products left unrounded")
    }
    by_gain = sorted(names, key=errors.__getitem__)
    for count in range(1, len(names)):
        if all(is_sound(by_gain[:count], one) for one in precisions):
            print(f"not rounded, for they err most: {', '.join(by_gain[:count])}", flush=True)
            return _without(limits, by_gain[:count])
    return limits  # which are refused, with the error, when they are written


def _without(limits: Limits, names: Collection[str]) -> Limits:
    return {
        graph: {name: one for name, one in found.items() if name not in names}
        for graph, found in limits.items()
    }


def _counted(names: Sequence[str], what: str) -> Iterator[str]:
    for number, name in enumerate(names, start=1):
        print(f"{what} {number}/{len(names)}: {name}", flush=True)
        yield name


@dataclass(frozen=True)
class Loss:
    """PSNR [dB] of the last frame of every held-out prediction, in float32 and in int8."""

    exact: FloatArray
    rounded: FloatArray


def quantize(bundle: Path, recordings: Recordings) -> Loss:
    """Write int8.json and the manifest that names it.

    Raises ValueError, BundleError or BackendError; then the bundle is what it was.
    """
    name_once = cache(name_skipped)  # the same episodes are predicted twice
    with WorldModel.load(bundle, "openvino", precision="fp32") as world_model:
        exact = _quality(world_model, recordings, recordings.held_out, "predicted in fp32", name_once)
    watched = recordings.training[:: -(-len(recordings.training) // NUM_EPISODES)]
    loaded = load_bundle(bundle)
    recorder = RangeRecorder(loaded)
    recorder.load()
    # Pictures unlike all recordings: what an unusual one holds is not to be clipped to what they hold.
    golden.run_rollout(recorder, patterned(loaded.manifest, seed=0))
    with WorldModel(recorder) as world_model:
        _quality(world_model, recordings, watched, "watched", name_once)
    write_ranges(loaded, sound_products(loaded, recorder.limits()), watched)
    with WorldModel.load(bundle, "openvino", precision="int8") as world_model:
        rounded = _quality(world_model, recordings, recordings.held_out, "predicted in int8", name_once)
    return Loss(exact, rounded)


def write_ranges(watched: Bundle, ranges: Limits, fitted_on: tuple[str, ...]) -> None:
    """ranges: of the graphs for one candidate; those for several see the same values. What was calibrated with others is dropped.

    Raises BundleError or BackendError when the answers would be too coarse, or the graphs are not those that were watched; after
    any error the bundle is what it was.
    """
    loaded = load_bundle(watched.root)  # to which something may have been added meanwhile
    manifest, file = loaded.manifest, loaded.file(INT8_FILE)
    if _network(manifest) != _network(watched.manifest):
        raise BundleError(
            f"{loaded.root}: expected the graphs that were watched, found others; quantise again"
        )
    of_all = {
        batched(stage, batch): dict(limits)
        for stage, limits in ranges.items()
        for batch in manifest.batches
        if batched(stage, batch) in manifest.graphs
    }
    spec = QuantizationSpec(INT8_FILE, INT8_TOLERANCE, fitted_on)
    with restored_on_error(loaded, INT8_FILE):
        replace_file(file, json.dumps(asdict(Ranges(of_all))).encode() + b"\n")
        fitted = manifest.trust_integers
        files = manifest.files | {INT8_FILE: describe_file(file)}
        files = {name: one for name, one in files.items() if fitted is None or name != fitted.file}
        written = replace(manifest, files=files, quantization=spec, trust_integers=None)
        with OpenVinoBackend(write_manifest(loaded.root, written), precision="int8") as backend:
            for batch in manifest.batches:  # which checks the golden vectors
                backend.rollout(batch)
    if fitted is not None:
        loaded.file(fitted.file).unlink()


def _network(manifest: Manifest) -> dict[str, FileSpec]:
    """Files that say what it computes."""
    return {name: one for name, one in manifest.files.items() if name.endswith((".onnx", ".bin"))}


def _quality(
    world_model: WorldModel,
    recordings: Recordings,
    names: tuple[str, ...],
    done: str,
    on_skip: Callable[[str], None],
) -> FloatArray:
    """PSNR [dB] of the last frame of every prediction; they append a chunk where the bundle allows it."""
    manifest = world_model.manifest
    horizon = min(manifest.chunk_len + 1, manifest.max_horizon)
    episodes = long_enough(recordings.read(manifest, names, done), manifest, horizon, on_skip)
    found = [
        psnr(world_model.predict(moment.t0_ns, moment.plan, seed=0).frames[-1:], moment.happened[-1:])
        for episode in episodes
        for moment in relived(world_model, episode, horizon, EVERY)
    ]
    return np.concatenate(found)


def _extremes(product: Product) -> list[ov.Node]:
    value = product.node.input_value(0)
    axes = ops.constant(np.arange(len(value.get_shape())))
    return [ops.result(reduce(value, axes, keep_dims=False)) for reduce in (ops.reduce_min, ops.reduce_max)]


def main(arguments: list[str] | None = None) -> int:
    """Quantise and say what it costs."""
    parser = argparse.ArgumentParser(
        prog="python -m export.quantize",
        description="Let a bundle run in 8-bit integers, fitted to recordings.",
        epilog="example: python -m export.quantize astra_ros/bundles/tiny --data runs/data/panda_sim",
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        recordings = Recordings.open(options)
        loss = quantize(options.bundle, recordings)
    except (OSError, ValueError, BackendError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(
        f"{options.bundle}: {len(loss.exact)} held-out predictions, PSNR of the last frame: {loss.exact.mean():.2f} dB in fp32,"
        f" {loss.rounded.mean():.2f} in int8; compare their speed: astra bench {options.bundle}"
    )
    return 0


if __name__ == "__main__":
    with ended_by_sigterm():
        sys.exit(main())
