"""Bundle → checkpoint: the way back, to train on from a bundle whose checkpoint is gone or was never yours.

Run as `python -m export.to_checkpoint astra_ros/bundles/tiny --out runs/bundled`, then `astra train … start_from=runs/bundled`.

A bundle does not say where a weight is, but the exporter puts it at the same place each time. So a network of the same sizes
is exported whose weights are whole numbers, all different: where a number comes out, the bundle has that weight.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

try:
    import numpy as np
    import onnx
    import torch
    from onnx import TensorProto, numpy_helper
    from torch import Tensor, nn

    from astra_ros.denoiser.checkpoint import Checkpoint, new_checkpoint, save_checkpoint
    from astra_ros.denoiser.dit import NoiseLevelEmbedder, sinusoids
except ImportError as error:
    raise SystemExit(f"error: {error}; in a clone: pip install -e '.[train]'") from error

from astra_ros.backends import golden
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.manifest import BundleError, Manifest
from astra_ros.denoiser.presets import PRESETS
from astra_ros.types import FloatArray
from export.graphs import HISTORY_SIGMA, build_graphs
from export.reference import TorchReference
from export.served import as_served
from export.to_onnx import to_onnx

# float32 tells whole numbers below 2**24 apart. Small ones are left to the constants that a network has anyway.
_FIRST, _LAST = 1_000, 2**24
_CONSTANT = "denoiser.noise_level.constant_"


def checkpoint_of(bundle: Bundle) -> Checkpoint:
    """A checkpoint that answers as the bundle does, for its one action space.

    Exact at the noise levels that are served; what lies between was not exported, and is learned again. Raises BundleError
    for a bundle of sizes that no preset has, or of another exporter.
    """
    checkpoint = _untrained(bundle.manifest)
    served = as_served(checkpoint)
    steps = [f"step_{k}" for k in range(checkpoint.config.num_steps)]
    graphs = build_graphs(served, ["encode", "decode", "remember", *steps], (1,))
    found = {name: _weights_in(bundle, name, graph) for name, graph in graphs.items()}
    with torch.no_grad():
        _fill(checkpoint, found)
        levels = dict(zip(checkpoint.config.sigmas, steps, strict=False)) | {HISTORY_SIGMA: "remember"}
        _fit(checkpoint.denoiser.noise_level, {sigma: found[name] for sigma, name in levels.items()})
    _verify(checkpoint, bundle)
    return checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Write the checkpoint; 0 on success, else 1 and one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m export.to_checkpoint",
        description="Turn a bundle into a checkpoint that a training can begin at.",
        epilog="example: python -m export.to_checkpoint astra_ros/bundles/tiny --out runs/bundled",
    )
    parser.add_argument("bundle", type=Path, help="bundle folder")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    options = parser.parse_args(arguments)
    try:
        save_checkpoint(options.out, checkpoint_of(load_bundle(options.bundle)))
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(f"{options.out}: train on with start_from={options.out}")
    return 0


def _untrained(manifest: Manifest) -> Checkpoint:
    if manifest.preset not in PRESETS:
        raise BundleError(f"preset: expected one of {', '.join(PRESETS)}, found {manifest.preset!r}")
    torch.manual_seed(0)  # a bundle gives the same checkpoint every time
    camera = manifest.camera
    config = PRESETS[manifest.preset]().for_pictures(*camera.size, camera.names)
    checkpoint = new_checkpoint(config, [manifest.action])
    checkpoint.config = replace(checkpoint.config, num_steps=len(manifest.sigmas) - 1)
    checkpoint.provenance = dict(manifest.provenance.get("training", {}))
    if not np.allclose(checkpoint.config.sigmas, manifest.sigmas):
        raise BundleError(f"sigmas: expected {checkpoint.config.sigmas}, found {manifest.sigmas}")
    return checkpoint


def _weights_in(bundle: Bundle, name: str, graph: nn.Module) -> dict[str, Tensor]:
    """What a graph of the bundle has in the place of the module's weights and constants; NaN where it has none."""
    state = {key: value for key, value in graph.state_dict().items() if value.is_floating_point()}
    values = {key: torch.full_like(value, torch.nan) for key, value in state.items()}
    stored = dict(_initializers(bundle.graph(name)))
    for portion in _portions(state):
        numbers = {key: torch.full_like(value, 0.5) for key, value in state.items()} | portion
        probe = copy.deepcopy(graph)
        probe.load_state_dict(numbers, strict=False)
        by_number = np.full(_LAST, np.nan, np.float32)
        for initializer in to_onnx(probe, bundle.manifest.graph_specs[name]).graph.initializer:
            if initializer.data_type == TensorProto.FLOAT and _is_numbered(
                where := numpy_helper.to_array(initializer)
            ):
                by_number[where.astype(int)] = _same_place(stored, initializer.name, where, name)
        for key, number in portion.items():
            values[key] = torch.from_numpy(by_number[number.long().numpy()])
    return values


def _portions(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors, as many at a time as there are numbers, with numbers in them that no sum or mean of theirs looks like."""
    free = torch.randperm(_LAST - _FIRST, generator=torch.Generator().manual_seed(0)) + _FIRST
    portion: dict[str, Tensor] = {}
    used = 0
    for key, value in state.items():
        if used + value.numel() > len(free):
            yield portion
            portion, used = {}, 0
        portion[key] = free[used : used + value.numel()].view(value.shape).float()
        used += value.numel()
    yield portion


def _is_numbered(values: FloatArray) -> bool:
    return bool(np.all((values >= _FIRST) & (values < _LAST) & (values == np.rint(values))))


def _initializers(path: Path) -> Iterator[tuple[str, FloatArray]]:
    for initializer in onnx.load(path).graph.initializer:
        if initializer.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            values = numpy_helper.to_array(initializer).astype(np.float32)
            yield initializer.name.removesuffix(".float16"), values


def _same_place(stored: dict[str, FloatArray], place: str, where: FloatArray, graph: str) -> FloatArray:
    found = stored.get(place)
    if found is None or found.shape != where.shape:
        raise BundleError(
            f"{graph}: {place}: expected {where.shape}, found {None if found is None else found.shape}; "
            "only a bundle of this version's exporter can be turned back"
        )
    return found


def _fill(checkpoint: Checkpoint, found: dict[str, dict[str, Tensor]]) -> None:
    """Every weight but those that a noise level is embedded by. Adapters that were folded away stay the identity."""
    for prefix, module in (("codec", checkpoint.codec), ("denoiser", checkpoint.denoiser)):
        for name, own in module.state_dict().items():
            places = [
                weights[f"{prefix}.{name}"] for weights in found.values() if f"{prefix}.{name}" in weights
            ]
            known = [place for place in places if not place.isnan().any()]
            if known:
                own.copy_(known[0])
            elif places:
                raise BundleError(f"{prefix}.{name}: expected it in the bundle's graphs, found it in none")


def _fit(embedder: NoiseLevelEmbedder, levels: dict[float, dict[str, Tensor]]) -> None:
    """Give an embedder the constants of the noise levels that are known, by the smallest weights that do."""
    depth, parts, _ = embedder.block_table.shape
    known = torch.stack(
        [
            torch.stack([_constants(found, layer, parts) for layer in range(depth)])
            for found in levels.values()
        ]
    )
    # Of the last block the history needs no more than keys and values: the rest of its constants is in no graph.
    shared = known[:, :-1].mean(dim=1)
    table = (known - shared[:, None]).nanmean(dim=0)
    ones = torch.tensor([0.0, 1, 0, 0, 1, 0]).view(parts, 1)
    embedder.block_table.copy_(table)
    embedding = embedder.mlp(sinusoids(1000.0 * torch.tensor([*levels])))
    _solve(embedder.projection, embedding, (shared - ones).flatten(1))
    shown = [sigma for sigma in levels if sigma != HISTORY_SIGMA]
    heads = torch.stack([_constants(levels[sigma], depth, 2) for sigma in shown])
    embedding = embedder.mlp(sinusoids(1000.0 * torch.tensor(shown)))
    _solve(embedder.head, embedding, (heads - torch.tensor([0.0, 1]).view(2, 1)).flatten(1))


def _constants(found: dict[str, Tensor], layer: int, count: int) -> Tensor:
    """(count, width)."""
    return torch.stack([found[f"{_CONSTANT}{layer}_{index}"].flatten() for index in range(count)])


def _solve(layer: nn.Linear, inputs: Tensor, outputs: Tensor) -> None:
    """layer(inputs) = outputs, (n, i) and (n, o): their mean as the bias, the rest by the least weights."""
    mean = outputs.mean(dim=0)
    layer.bias.copy_(mean)
    layer.weight.copy_(torch.linalg.lstsq(inputs, outputs - mean, driver="gelsd").solution.T)


def _verify(checkpoint: Checkpoint, bundle: Bundle) -> None:
    """The bundle's golden vectors, as closely as any runtime must give them."""
    manifest = bundle.manifest
    inputs, expected = golden.load(bundle.file(manifest.golden.file), manifest)
    with TorchReference(as_served(checkpoint), manifest) as reference:
        found = golden.deviation(golden.run_rollout(reference, inputs), expected)
    if max(found.latents) > manifest.golden.latents_tolerance:
        raise BundleError(
            f"golden vectors: expected within {manifest.golden.latents_tolerance:g}, found {max(found.latents):g}; "
            "only a bundle of this version's exporter can be turned back"
        )
    print(f"{manifest.model_id}: within {max(found.latents):.1e} of its golden vectors")


if __name__ == "__main__":
    sys.exit(main())
