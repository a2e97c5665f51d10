"""Learns what a robot's driver does between two pictures, so that a planner need not start from nothing.

Goal-conditioned imitation with hindsight: every picture of a recording was reached, so it is the goal of what was commanded
before it. Drivers go different ways between the same pictures, and their mean is none of them. So the network gives `count`
answers, and learns from its best one (winner takes all, Guzman-Rivera et al. 2012), the others a little, and which of them will
be the best. It runs as numpy on the robot (rollout/proposals.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends.manifest import LatentSpec, ProposalsSpec
from astra_ros.rollout.proposals import STRIDES, expected_shapes
from astra_ros.types import FloatArray

# A joint whose commands are so near, in shares of their range, to one of two levels for so much of the time has nothing between.
_NEAR, _MOSTLY = 0.05, 0.9
WARMUP = 200  # steps over which the learning rate rises


@dataclass(frozen=True)
class ProposalsConfig:
    """count: plans per question. horizon: rows of the longest. width: channels of the first layer; features, rank: of the others.

    arrival: share of the loss that is of where the plan ends, and the goal is seen. others: share that the answers learn from
    which are not the best.
    """

    count: int = 64
    horizon: int = 32
    width: int = 32
    features: int = 96
    rank: int = 32
    dropout: float = 0.1
    arrival: float = 0.5
    others: float = 0.05
    judge: float = 0.02
    batch: int = 256
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    steps: int = 6000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "horizon", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, found {getattr(self, name)}")

    def spec(self, file: str, learned_from: tuple[str, ...]) -> ProposalsSpec:
        """For the manifest."""
        return ProposalsSpec(
            file, self.count, self.horizon, self.width, self.features, self.rank, learned_from
        )


@dataclass(frozen=True)
class Drive:
    """One episode, one entry per step of the model. latents: (t, c, h, w) float16. measured, commanded: (t, a).

    commanded[k] led to picture k.
    """

    latents: np.ndarray
    measured: FloatArray
    commanded: FloatArray

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Ways:
    """A batch of what was done. observed, goal: (b, c, h, w). pose: (b, a) normalised. time: (b,) rows, as a share of the longest plan.

    rows: (b, horizon, a) in deviations from rest. last: (b,) index of the row that led to the goal; later rows do not count.
    """

    observed: Tensor
    goal: Tensor
    pose: Tensor
    time: Tensor
    rows: Tensor
    last: Tensor


class ProposalNetwork(nn.Module):
    """Two pictures' latents, where the robot is, and the time it has → `count` plans, and a score for each."""

    def __init__(self, config: ProposalsConfig, shapes: dict[str, tuple[int, ...]]) -> None:
        """shapes: of the weights (rollout.proposals.expected_shapes)."""
        super().__init__()
        sizes = {
            name: shapes[f"{name}.weight"] for name in ("gather", "think", "choose", "go", "draw", "judge")
        }
        for name, (outputs, inputs) in sizes.items():
            setattr(self, name, nn.Linear(inputs, outputs))
        seen = [shapes[f"see.{k}.weight"] for k in range(len(STRIDES))]
        self.see = nn.ModuleList(
            nn.Conv2d(shape[1], shape[0], 3, stride, padding=1)
            for shape, stride in zip(seen, STRIDES, strict=True)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.horizon = config.horizon
        self.ways = nn.Parameter(torch.randn(shapes["ways"]) / 2)
        for name in ("shapes", "switch_low", "switch_high", "latent_mean", "latent_std"):
            self.register_buffer(name, torch.zeros(shapes[name]))

    gather: nn.Linear
    think: nn.Linear
    choose: nn.Linear
    go: nn.Linear
    draw: nn.Linear
    judge: nn.Linear
    shapes: Tensor
    switch_low: Tensor
    switch_high: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def forward(self, batch: Ways) -> tuple[Tensor, Tensor]:
        """Rows (b, count, horizon, a) and scores (b, count)."""
        first, last = ((one - self.latent_mean) / self.latent_std for one in (batch.observed, batch.goal))
        seen = torch.cat([first, last - first], dim=1)
        for layer in self.see:
            seen = F.silu(layer(seen))
        time = batch.time[:, None]
        known = torch.cat([self.dropout(seen.flatten(1)), batch.pose, time, time.square()], dim=1)
        features = F.silu(self.gather(known))
        features = features + F.silu(self.think(features))
        way = F.silu(self.choose(features)[:, None] + self.ways)
        way = way + F.silu(self.go(way))
        rows = self.draw(way) @ self.shapes
        return rows.unflatten(2, (self.horizon, -1)), self.judge(features)


class Hindsight:
    """Draws batches from episodes: two moments of one, up to `horizon` steps apart, and what was commanded between them."""

    def __init__(self, drives: list[Drive], action: ActionSpec, horizon: int) -> None:
        """Raises ValueError where no episode has two steps."""
        self._drives = [drive for drive in drives if len(drive) > 1]
        if not self._drives:
            raise ValueError(
                "episodes: expected some of two steps or more, of those to learn from and of those held out, found none; record more"
            )
        self._action, self._horizon = action, horizon
        lengths = np.array([len(drive) for drive in self._drives], float)
        self._shares = lengths / lengths.sum()
        self._mean, self._std = (np.array(v, np.float32) for v in (action.mean, action.std))

    @property
    def longest(self) -> int:
        """Rows between two moments of the longest episode."""
        return max(len(drive) for drive in self._drives) - 1

    def switches(self) -> tuple[FloatArray, FloatArray]:
        """(a,) lower and upper level of what is told one of two, as most grippers are; 0 and 0 of anything else."""
        commanded = np.concatenate([drive.commanded for drive in self._drives])
        low, high = np.quantile(commanded, (0.001, 0.999), axis=0).astype(np.float32)
        near = (np.abs(commanded - low) < _NEAR * (high - low)) | (
            np.abs(commanded - high) < _NEAR * (high - low)
        )
        is_switch = near.mean(axis=0) > _MOSTLY
        return np.where(is_switch, low, np.float32(0)), np.where(is_switch, high, np.float32(0))

    def draw(self, count: int, rng: np.random.Generator, rows: int | None = None) -> Ways:
        """rows: between the two moments, of episodes that have so many; None: all that there may be."""
        shares = self._shares * [len(drive) > (rows or 1) for drive in self._drives]
        chosen = rng.choice(len(self._drives), count, p=shares / shares.sum())
        ways = [self._way(self._drives[index], rng, rows) for index in chosen]
        observed, goal, pose, time, path, last = (
            torch.from_numpy(np.stack(part)) for part in zip(*ways, strict=True)
        )
        return Ways(observed.float(), goal.float(), pose, time, path, last)

    def _way(self, drive: Drive, rng: np.random.Generator, rows: int | None) -> tuple[np.ndarray, ...]:
        ahead = rows or int(rng.integers(1, min(self._horizon, len(drive) - 1) + 1))
        now = int(rng.integers(len(drive) - ahead))
        measured, path = drive.measured[now], np.zeros((self._horizon, drive.commanded.shape[1]), np.float32)
        path[:ahead] = (drive.commanded[now + 1 : now + 1 + ahead] - self._action.rest(measured)) / self._std
        return (
            drive.latents[now],
            drive.latents[now + ahead],
            ((measured - self._mean) / self._std).astype(np.float32),
            np.array(ahead / self._horizon, np.float32),
            path,
            np.array(ahead - 1, np.int64),
        )


@dataclass(frozen=True)
class Quality:
    """On held-out episodes, at the goal: what is left, as a share of what holding still leaves (squared, in deviations).

    likeliest: of the first plan. best: of the best of all.
    """

    likeliest: float
    best: float


@dataclass(frozen=True)
class Latents:
    """Of the pictures learned from. mean, std: (c, 1, 1), by channel."""

    spec: LatentSpec
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, spec: LatentSpec, drives: list[Drive]) -> Latents:
        some = torch.from_numpy(np.concatenate([drive.latents[::10] for drive in drives])).float()
        return cls(
            spec, some.mean(dim=(0, 2, 3))[:, None, None], some.std(dim=(0, 2, 3))[:, None, None] + 1e-6
        )


def train_proposals(
    learned: Hindsight,
    action: ActionSpec,
    config: ProposalsConfig,
    latents: Latents,
    report: Callable[[str], None],
) -> ProposalNetwork:
    """The same data, config and machine give the same network. latents: what pictures look like, by channel."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = ProposalNetwork(config, expected_shapes(config.spec("", ()), latents.spec, action.dim))
    network.latent_mean.copy_(latents.mean)
    network.latent_std.copy_(latents.std)
    for buffer, levels in zip((network.switch_low, network.switch_high), learned.switches(), strict=True):
        buffer.copy_(torch.from_numpy(levels))
    network.shapes.copy_(_shapes(learned.draw(4096, rng), config.rank))
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
    # Where the processor multiplies bfloat16 it halves the time.
    reduced = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    for step in range(config.steps):
        rate = config.learning_rate * min(1.0, (step + 1) / WARMUP) * (1.0 - step / config.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = learned.draw(config.batch, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            rows, scores = network(batch)
        loss = _loss(rows.float(), scores.float(), batch, action, config)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        report(f"proposals: step {step + 1} of {config.steps}, loss {loss.item():.3f}")
    return network.eval()


@torch.inference_mode()
def quality(
    network: ProposalNetwork,
    unseen: Hindsight,
    action: ActionSpec,
    rows: int,
    count: int = 512,
    seed: int = 0,
) -> Quality:
    """rows: between now and the goal, as many as the longest episode has at most."""
    batch = unseen.draw(count, np.random.default_rng(seed), rows)
    plans, scores = network(batch)
    errors = _on_arrival(plans, batch, action)
    still = _on_arrival(torch.zeros_like(plans[:, :1]), batch, action).mean()
    likeliest = errors.gather(1, scores.argmax(dim=1, keepdim=True)).mean()
    return Quality(float(likeliest / still), float(errors.min(dim=1).values.mean() / still))


def _loss(rows: Tensor, scores: Tensor, batch: Ways, action: ActionSpec, config: ProposalsConfig) -> Tensor:
    squares = (rows - batch.rows[:, None]).square().mean(dim=3)
    counts = _counts(batch)
    over_rows = (squares * counts[:, None]).sum(dim=2) / counts.sum(dim=1)[:, None]
    errors = torch.lerp(over_rows, _on_arrival(rows, batch, action), config.arrival)
    best, winner = errors.min(dim=1)
    learned = (1 - config.others) * best.mean() + config.others * errors.mean()
    return learned + config.judge * F.cross_entropy(scores, winner)


def _on_arrival(rows: Tensor, batch: Ways, action: ActionSpec) -> Tensor:
    """(b, n) mean squared error of where plans (b, n, horizon, a) end: a position is its last row, velocities add up."""
    off = rows - batch.rows[:, None]
    if action.representation != "joint_position":
        counts = _counts(batch)[:, None, :, None]
        return ((off * counts).sum(dim=2) / counts.sum(dim=2).sqrt()).square().mean(dim=2)
    last = batch.last[:, None, None, None].expand(-1, off.shape[1], 1, off.shape[3])
    return off.gather(2, last)[:, :, 0].square().mean(dim=2)


def _counts(batch: Ways) -> Tensor:
    """(b, horizon) rows that led to the goal."""
    return (torch.arange(batch.rows.shape[1]) <= batch.last[:, None]).float()


def _shapes(batch: Ways, rank: int) -> Tensor:
    """(rank, horizon * a): what plans are mixed of, the principal directions of those that were driven, each of its usual size."""
    paths = batch.rows.flatten(1)
    _, sizes, directions = torch.linalg.svd(paths, full_matrices=False)
    return directions[:rank] * (sizes[:rank, None] / len(paths) ** 0.5)
