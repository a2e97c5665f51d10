"""The stages of a bundle as modules with static shapes: what depends on sigma or on the action space is a constant."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from astra_ros.codec.autoencoder import Codec
from astra_ros.denoiser.blocks import Modulation
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.dit import Chunk, Denoiser, History, NoiseLevelEmbedder
from astra_ros.denoiser.geometry import Cache
from astra_ros.denoiser.io import batched
from astra_ros.flow.schedule import euler_weights

# The robot's history is what the codec made of real frames: the network is told that it is clean.
HISTORY_SIGMA = 0.0


def build_graphs(
    checkpoint: Checkpoint, names: Sequence[str], batches: tuple[int, ...]
) -> dict[str, nn.Module]:
    """The named graphs of denoiser/io.py as modules, inputs in its order, of a checkpoint of one action space.

    The same module serves every batch.
    """
    steps = [Step(checkpoint.denoiser, *levels) for levels in pairwise(checkpoint.config.sigmas)]
    stages = {"append": Append(checkpoint.denoiser), **{f"step_{k}": step for k, step in enumerate(steps)}}
    graphs = {
        "encode": Encode(checkpoint.codec),
        "remember": Remember(checkpoint.denoiser),
        **{batched(stage, batch): graph for batch in batches for stage, graph in stages.items()},
        "decode": Decode(checkpoint.codec),
        "fused": Fused(steps),
        "step_t": StepAtAnyLevel(checkpoint.denoiser),
    }
    return {name: graphs[name].eval().requires_grad_(requires_grad=False) for name in names}


class Encode(nn.Module):
    """Pixels → latents."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, pixels: Tensor) -> Tensor:
        return self.codec.encode(pixels)


class Decode(nn.Module):
    """Latents → pixels."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latents: Tensor) -> Tensor:
        return self.codec.decode(latents)


class FixedNoiseLevel(nn.Module):
    """What a NoiseLevelEmbedder answers at one sigma, as constants."""

    def __init__(self, embedder: NoiseLevelEmbedder, sigma: float) -> None:
        super().__init__()
        with torch.no_grad():
            blocks, head = embedder(torch.tensor([sigma]))
        self.num_blocks = len(blocks)
        # A buffer each, so that the exporter meets plain constants and folds them into the norms.
        for layer, values in enumerate([*blocks, head]):
            for index, value in enumerate(values):
                self.register_buffer(f"constant_{layer}_{index}", value)

    def forward(self, _: Tensor) -> tuple[list[Modulation], tuple[Tensor, Tensor]]:
        blocks = [Modulation(*self._constants(layer, 6)) for layer in range(self.num_blocks)]
        shift, scale = self._constants(self.num_blocks, 2)
        return blocks, (shift, scale)

    def _constants(self, layer: int, count: int) -> list[Tensor]:
        return [self.get_buffer(f"constant_{layer}_{index}") for index in range(count)]


class _AtSigma(nn.Module):
    """A denoiser at one noise level and for the only action space it has."""

    def __init__(self, denoiser: Denoiser, sigma: float) -> None:
        super().__init__()
        self.denoiser = copy.deepcopy(denoiser)
        self.denoiser.noise_level = FixedNoiseLevel(denoiser.noise_level, sigma)  # type: ignore[assignment]
        self.register_buffer("sigma", torch.tensor([sigma]), persistent=False)
        self.register_buffer("space", torch.zeros(1, dtype=torch.long), persistent=False)

    sigma: Tensor
    space: Tensor


class Remember(_AtSigma):
    """History → keys, values and bias."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser, HISTORY_SIGMA)

    def forward(self, history_latents: Tensor, history_actions: Tensor, history_mask: Tensor) -> Cache:
        history = History(history_latents, history_actions, history_mask, self.space)
        return self.denoiser.remember(history, self.sigma)[0]


class Append(_AtSigma):
    """Keys, values and bias before a chunk, and the newest slots after it → those after it."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser, HISTORY_SIGMA)

    def forward(
        self,
        history_keys: Tensor,
        history_values: Tensor,
        history_bias: Tensor,
        history_latents: Tensor,
        history_actions: Tensor,
        history_mask: Tensor,
    ) -> Cache:
        cache = Cache(history_keys, history_values, history_bias)
        newest = History(history_latents, history_actions, history_mask, self.space)
        return self.denoiser.append(cache, newest, self.sigma)


class Step(_AtSigma):
    """Denoising step sigma → sigma_next, the Euler update included."""

    def __init__(self, denoiser: Denoiser, sigma: float, sigma_next: float) -> None:
        super().__init__(denoiser, sigma)
        self.keep, self.take = euler_weights(sigma, sigma_next)

    def forward(
        self,
        noisy_latents: Tensor,
        last_latents: Tensor,
        actions: Tensor,
        history_keys: Tensor,
        history_values: Tensor,
        history_bias: Tensor,
    ) -> Tensor:
        chunk = Chunk(noisy_latents, last_latents, actions, self.space)
        clean = self.denoiser.denoise(
            chunk, self.sigma, Cache(history_keys, history_values, history_bias)
        ).latents
        return self.keep * noisy_latents + self.take * clean if self.keep else clean


class Fused(nn.Module):
    """All denoising steps."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, noisy_latents: Tensor, *given: Tensor) -> Tensor:
        for step in self.steps:
            noisy_latents = step(noisy_latents, *given)
        return noisy_latents


class StepAtAnyLevel(nn.Module):
    """Denoising step between two noise levels that are inputs: nothing of them is folded."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("space", torch.zeros(1, dtype=torch.long), persistent=False)

    space: Tensor

    def forward(self, noisy_latents: Tensor, last_latents: Tensor, actions: Tensor, *given: Tensor) -> Tensor:
        """given: keys, values and bias of the history, sigma, sigma_next."""
        *cache, sigma, sigma_next = given
        chunk = Chunk(noisy_latents, last_latents, actions, self.space)
        clean = self.denoiser.denoise(chunk, sigma, Cache(*cache)).latents
        keep = sigma_next / sigma
        return keep * noisy_latents + (1.0 - keep) * clean
