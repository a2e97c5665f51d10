"""A frozen judge of obedience: which movement do two pictures show? Learned from real transitions only.

It never sees a generated picture in training. Real pictures pass through the codec first, so that what it judges differs
from what it learned by the denoiser alone; its score on held-out real pictures is the ceiling of any score.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode
from astra_ros.evaluation.movements import is_cumulative, movements
from astra_ros.types import ByteArray, FloatArray

WARMUP = 100  # steps over which the learning rate rises


@dataclass(frozen=True)
class InverseDynamicsConfig:
    """size: pixels that pictures are fitted to, a multiple of 32. width: channels of the first layer.

    reach: how far a place is looked for in the other picture, in units of 8 pixels.
    max_gap: longest transition learned, in steps, where movements add up; it covers the judged horizon.
    noise: of the pictures in training, grey levels, so that no codec artefact becomes a clue.
    """

    size: int = 128
    width: int = 64
    reach: int = 4
    dropout: float = 0.3
    max_gap: int = 5
    noise: float = 4.0
    batch: int = 32
    learning_rate: float = 1e-3
    steps: int = 3000
    seed: int = 0


class InverseDynamics(nn.Module):
    """Two pictures → the movement between them, (b, m), in the units of the action.

    Beside what each picture shows it is given how each place of the first resembles the places around it in the second:
    a moving camera is then read off in scenes that were never seen.
    """

    def __init__(self, config: InverseDynamicsConfig, num_dims: int) -> None:
        super().__init__()
        width = config.width
        self.size = config.size
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 8, stride=4, padding=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
        )
        self.layers = nn.Sequential(
            nn.Conv2d((2 * config.reach + 1) ** 2 + 2 * width, 2 * width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * width * (config.size // 16) ** 2, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, num_dims),
        )
        neighbours, inside = _neighbours(config.size // 8, config.reach)
        self.register_buffer("neighbours", neighbours, persistent=False)
        self.register_buffer("inside", inside, persistent=False)
        self.register_buffer("mean", torch.zeros(num_dims))
        self.register_buffer("std", torch.ones(num_dims))

    neighbours: Tensor
    inside: Tensor
    mean: Tensor
    std: Tensor

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """before, after: (b, 3, size, size) in [-1, 1]. Returns normalised movements."""
        first, second = self.stem(torch.cat([before, after])).chunk(2)
        return self.layers(torch.cat([first, second - first, self._resemblance(first, second)], dim=1))

    def _resemblance(self, first: Tensor, second: Tensor) -> Tensor:
        """Cosines of each place's features with those up to `reach` places away; (b, (2 reach + 1)^2, h, w)."""
        first, second = (rearrange(F.normalize(x, dim=1), "b c h w -> b (h w) c") for x in (first, second))
        cosines = first @ second.transpose(1, 2)
        near = cosines.gather(2, self.neighbours.expand(len(cosines), -1, -1)) * self.inside
        side = self.size // 8
        return rearrange(near, "b (h w) k -> b k h w", h=side, w=side)

    @torch.inference_mode()
    def recover(self, spec: ActionSpec, observed: ByteArray, frames: ByteArray) -> FloatArray:
        """The movements that futures show.

        observed: (b, h, w, 3); frames: (b, t, h, w, 3) uint8. Returns (b, t, m), as `movements` defines them.
        """
        before = np.broadcast_to(observed[:, None], frames.shape)
        if not is_cumulative(spec):
            before = np.concatenate([observed[:, None], frames[:, :-1]], axis=1)
        recovered = [
            self(_fitted(first, self.size), _fitted(second, self.size)) * self.std + self.mean
            for first, second in zip(before, frames, strict=True)
        ]
        return torch.stack(recovered).numpy()


@dataclass(frozen=True)
class Transitions:
    """Pairs of real pictures: rows of `frames` (n, h, w, 3) uint8 and the movement (p, m) from `before` to `after` (p,)."""

    frames: ByteArray
    before: np.ndarray
    after: np.ndarray
    movement: FloatArray


def transitions(spec: ActionSpec, episodes: Sequence[Episode], max_gap: int) -> Transitions:
    """All transitions within episodes at the model's rate (one row per step).

    Of joints up to max_gap steps, forwards and backwards; of a camera one step, both ways; of rates from one frame to
    the next.
    """
    before, after, moved, offset = [], [], [], 0
    for episode in episodes:
        for gap in _gaps(spec, max_gap):
            first = np.arange(max(0, -gap), len(episode.pixels) - max(0, gap))
            rows = spec.steps(episode.measured, first + gap, gap)
            before.append(offset + first)
            after.append(offset + first + gap)
            moved.append(movements(spec, rows[:, None], episode.measured[first])[:, 0])
        offset += len(episode.pixels)
    frames = np.concatenate([episode.pixels for episode in episodes])
    return Transitions(frames, np.concatenate(before), np.concatenate(after), np.concatenate(moved))


def _gaps(spec: ActionSpec, max_gap: int) -> list[int]:
    if spec.representation == "rate":
        return [1]
    longest = max_gap if is_cumulative(spec) else 1
    return [gap for gap in range(-longest, longest + 1) if gap]


def train_inverse_dynamics(
    data: Transitions, config: InverseDynamicsConfig, report: Callable[[str], None]
) -> InverseDynamics:
    """Mean squared error of normalised movements. The same data, config and machine give the same network."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = InverseDynamics(config, data.movement.shape[1])
    network.mean.copy_(torch.from_numpy(data.movement.mean(axis=0)))
    network.std.copy_(torch.from_numpy(data.movement.std(axis=0) + 1e-6))
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    for step in range(config.steps):
        rate = config.learning_rate * min(1.0, (step + 1) / WARMUP) * (1.0 - step / config.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _loss(network, data, config, rng)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        report(f"inverse dynamics: step {step + 1} of {config.steps}, loss {loss.item():.3f}")
    return network.eval()


def cached_inverse_dynamics(
    path: Path, key: dict[str, str], config: InverseDynamicsConfig, train: Callable[[], InverseDynamics]
) -> InverseDynamics:
    """The network of that file if it was trained for the same key and config, else `train`'s, which is written there."""
    identity = {"key": json.dumps({**key, "config": json.dumps(asdict(config))}, sort_keys=True)}
    if path.is_file():
        with safe_open(path, "pt") as stored:
            known = stored.metadata()
        if known == identity:
            weights = load_file(path)
            network = InverseDynamics(config, len(weights["mean"]))
            network.load_state_dict(weights, strict=True)
            return network.eval()
    network = train()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, partial, identity)
    os.replace(partial, path)
    return network


def fingerprint(module: nn.Module) -> str:
    """16 hexadecimal digits of the weights."""
    digest = sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _neighbours(side: int, reach: int) -> tuple[Tensor, Tensor]:
    """Of each place of a side x side grid those up to `reach` away: their indices (n, k), and 1 where they are inside."""
    rows, columns = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    steps = torch.arange(-reach, reach + 1)
    down, right = (x.flatten() for x in torch.meshgrid(steps, steps, indexing="ij"))
    rows, columns = rows[:, None] + down, columns[:, None] + right
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return (rows * side + columns).clamp(0, side * side - 1), inside.float()


def _loss(
    network: InverseDynamics, data: Transitions, config: InverseDynamicsConfig, rng: np.random.Generator
) -> Tensor:
    chosen = rng.integers(len(data.before), size=config.batch)
    before, after = (_fitted(data.frames[rows[chosen]], config.size) for rows in (data.before, data.after))
    before, after = (x + config.noise / 127.5 * _uniform(x.shape, rng) for x in (before, after))
    target = (torch.from_numpy(data.movement[chosen]) - network.mean) / network.std
    # bfloat16 halves the time where the processor multiplies it, and is never slower.
    with torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.cpu.get_capabilities().get("avx512_bf16"))):
        predicted = network(before, after)
    return F.mse_loss(predicted.float(), target)


def _uniform(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """Uniform noise of unit variance; drawing normal noise would take almost half of the training's time."""
    levels = np.frombuffer(rng.bytes(shape.numel()), np.int8).reshape(shape)
    return torch.from_numpy(levels.astype(np.float32)) / (256 / 12**0.5)


def _fitted(frames: ByteArray, size: int) -> Tensor:
    """(n, h, w, 3) uint8 → (n, 3, size, size) in [-1, 1]."""
    planes = rearrange(torch.tensor(frames), "n h w c -> n c h w").float() / 127.5 - 1.0
    if planes.shape[-2:] == (size, size):
        return planes
    return F.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=True)
