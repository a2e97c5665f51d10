"""Checkpoint → bundle: one ONNX graph per stage and denoising step, shared weights, golden vectors, manifest.

Run as `python -m export.to_onnx runs/tiny --space panda_sim --out astra_ros/bundles/tiny`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from time import perf_counter

try:
    import onnx
    import torch
    from onnxscript import optimizer
    from torch import nn

    from astra_ros.backends.ort import OrtBackend
    from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint
except ImportError as error:
    raise SystemExit(f"error: {error}; in a clone: pip install -e '.[train]'") from error

from astra_ros.backends import golden
from astra_ros.backends.bundle import Bundle, describe_file, is_bundle, load_bundle, write_manifest
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.manifest import BundleError, Manifest
from astra_ros.cli.signals import ended_by_sigterm
from astra_ros.data.lerobot import Dataset
from astra_ros.data.suitability import require_same
from astra_ros.denoiser.io import GraphSpec
from astra_ros.evaluation.reliving import long_enough
from export.contract import GOLDEN_FILE, OPSET, WEIGHTS_FILE, ExportConfig, draft_manifest
from export.folders import replaced_folder
from export.golden_inputs import patterned, recorded
from export.graphs import build_graphs
from export.recordings import name_skipped
from export.reference import TorchReference
from export.served import as_served
from export.weights import WeightFile, round_to_float16

# How far ONNX Runtime may be from torch on the exporting machine; robots accept a little more.
EXPORT_TOLERANCE = 1e-4


def export_bundle(checkpoint: Checkpoint, out: Path, config: ExportConfig) -> Bundle:
    """Write the bundle `out`, replacing one that is there.

    When ONNX Runtime does not agree with torch nothing is left behind and BundleError is raised.
    """
    out = out.expanduser().resolve()  # what --out=~/x is to a shell, and where a link points to
    if out.exists() and not is_bundle(out):
        raise FileExistsError(
            f"{out}: expected a bundle to replace or nothing, found something else; choose another --out"
        )
    served = as_served(checkpoint, config.space, config.steps)
    draft = draft_manifest(checkpoint, served, config)
    print(f"{draft.model_id}: {draft.provenance['checkpoint']}", flush=True)
    inputs = _golden_inputs(draft, config)
    if draft.weights_dtype == "float16":
        round_to_float16(served)
    with replaced_folder(out) as root:
        _write_graphs(build_graphs(served, list(draft.graphs), draft.batches), draft, root)
        reference = TorchReference(served, draft)
        _write_golden(reference, root / GOLDEN_FILE, inputs)
        _verify(write_manifest(root, _with_files(draft, root)))
        if out.exists():
            _tell_lost(out, kept={path.name for path in root.iterdir()})
    return _report(load_bundle(out))


def main(arguments: list[str] | None = None) -> int:
    """Export; 0 on success, else 1 and one line on stderr."""
    parser = _parser()
    options = parser.parse_args(arguments)
    names = ("space", "steps", "chunks", "candidates", "comparisons", "seed", "data")
    chosen = {name: getattr(options, name) for name in names}
    given = " ".join(
        f"--{name}" if value is True else f"--{name} {getattr(value, 'name', value)}"
        for name, value in chosen.items()
        if value
    )
    config = ExportConfig(**chosen, command=f"{parser.prog} CHECKPOINT --out {options.out.name} {given}")
    try:
        export_bundle(load_checkpoint(options.checkpoint), options.out, config)
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.to_onnx",
        description="Turn a checkpoint into a bundle that a robot runs without torch.",
        epilog="example: python -m export.to_onnx runs/tiny --space panda_sim --out astra_ros/bundles/tiny",
    )
    parser.add_argument("checkpoint", type=Path, help="folder with config.json and weights.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    parser.add_argument(
        "--space", default="", help="action space to serve (default: the checkpoint's only one)"
    )
    parser.add_argument(
        "--steps", type=int, default=0, help="denoising steps of a chunk (default: the preset's)"
    )
    parser.add_argument(
        "--chunks",
        type=int,
        default=ExportConfig.chunks,
        help="chunks that may be asked for (default: %(default)s)",
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=ExportConfig.candidates,
        help="candidates that one run of a step takes, for planners (default: %(default)s)",
    )
    parser.add_argument(
        "--comparisons",
        action="store_true",
        help="also all steps in one graph and a step with the noise level as an input, for astra bench",
    )
    parser.add_argument("--seed", type=int, default=ExportConfig.seed, help="seed of the golden inputs")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the dataset it was trained on: by pictures of its first recording, which the bundle then holds, a robot judges"
        " runtimes and lower precisions (default: by patterns)",
    )
    return parser


def _tell_lost(bundle: Path, kept: set[str]) -> None:
    """What the bundle that is replaced has, and the new one has not."""
    for name in sorted({path.name for path in bundle.iterdir()} - kept):
        print(f"{name}: of the bundle that is replaced, removed", flush=True)


def _with_files(draft: Manifest, root: Path) -> Manifest:
    return replace(draft, files={name: describe_file(root / name) for name in draft.files})


def _write_graphs(graphs: dict[str, nn.Module], manifest: Manifest, root: Path) -> None:
    specs = manifest.graph_specs
    with WeightFile(root / WEIGHTS_FILE, manifest.weights_dtype) as weights:
        for number, (name, graph) in enumerate(graphs.items(), start=1):
            started = perf_counter()
            model = to_onnx(graph, specs[name])
            weights.move_from(model)
            (root / manifest.graphs[name]).write_bytes(model.SerializeToString(deterministic=True))
            nodes, seconds = len(model.graph.node), perf_counter() - started
            print(f"[{number}/{len(graphs)}] {name}: {nodes} nodes, {seconds:.1f} s", flush=True)


def to_onnx(graph: nn.Module, spec: GraphSpec) -> onnx.ModelProto:
    """A graph with the inputs and outputs of `spec`, without the exporter's notes."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            graph,
            tuple(torch.zeros(shape) for shape in spec.inputs.values()),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export: expected a program, found None")
    # The exporter itself leaves alone what depends on large weights, such as the choice of a projector.
    optimizer.optimize_ir(program.model, input_size_limit=sys.maxsize)
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold stack traces with paths of this machine."""
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    for item in [*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _golden_inputs(manifest: Manifest, config: ExportConfig) -> RolloutInputs:
    if config.data is None:
        return patterned(manifest, config.seed)
    dataset = Dataset.open(config.data, manifest.camera.names)
    require_same(config.data, dataset.schema, manifest.action)
    episodes = dataset.stream(sorted(dataset.episode_names), manifest.camera.size, name_skipped)
    first = next(long_enough(episodes, manifest, golden.NUM_CHUNKS * manifest.chunk_len, name_skipped))
    return recorded(manifest, first, config.seed)


def _write_golden(reference: TorchReference, path: Path, inputs: RolloutInputs) -> None:
    with reference:
        golden.save(path, inputs, golden.run_rollout(reference, inputs))


def _verify(bundle: Bundle) -> None:
    """Golden vectors within what an export must reach, which is stricter than what a robot accepts."""
    inputs, expected = golden.load(bundle.file(GOLDEN_FILE), bundle.manifest)
    with OrtBackend(bundle) as backend:
        runs = [golden.run_rollout(backend, inputs, batch) for batch in bundle.manifest.batches]
    found = golden.worst([golden.deviation(run, expected) for run in runs])
    print(f"largest difference to torch: latents {max(found.latents):.1e}, pixels {found.pixels} of 255")
    if max(found.latents) > EXPORT_TOLERANCE:
        raise BundleError(
            f"parity: expected ONNX Runtime within {EXPORT_TOLERANCE:g} of torch, found {max(found.latents):g};"
            " compare step by step with python -m export.check_parity"
        )


def _report(bundle: Bundle) -> Bundle:
    for name, spec in bundle.manifest.files.items():
        print(f"  {spec.bytes / 1e6:8.3f} MB  {name}")
    total = sum(spec.bytes for spec in bundle.manifest.files.values())
    print(
        f"{bundle.manifest.model_id}: {total / 1e6:.1f} MB, weights stored as {bundle.manifest.weights_dtype}"
    )
    return bundle


if __name__ == "__main__":
    with ended_by_sigterm():
        sys.exit(main())
