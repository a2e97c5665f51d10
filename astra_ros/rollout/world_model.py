"""The whole flow on one screen: observations in, a predicted future out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.actions.velocities import UNITS
from astra_ros.backends.base import Backend, Past
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.factory import open_backend
from astra_ros.backends.manifest import BundleError, Manifest
from astra_ros.history.memory import HistoryMemory
from astra_ros.rollout.chunks import roll_out
from astra_ros.rollout.proposals import LEARN, Proposals, Proposed, load_proposals
from astra_ros.rollout.trust import Trust, load_trust
from astra_ros.types import ByteArray, FloatArray, Observation, Prediction

T = TypeVar("T")

# Share of step_dt by which a frame may miss its slot's time: a 10 Hz camera with 10 ms of jitter always finds one
# for the steps of 0.2 s, and a dropped frame leaves its slot empty rather than at a wrong speed.
SLOT_TOLERANCE = 0.3


class _Latest(Generic[T]):
    """What was made of one observation: questions come about the one that the stream, or the question before, began at too."""

    def __init__(self) -> None:
        self._made: tuple[FloatArray, T] | None = None

    def of(self, observed: FloatArray, make: Callable[[], T]) -> T:
        """observed: what the memory keeps of it. The same stamp may come again after a reset, the same array does not."""
        if self._made is None or self._made[0] is not observed:
            self._made = observed, make()
        return self._made[1]


class WorldModel:
    """A loaded world model with its memory. Single-threaded: the thread that calls it owns it."""

    def __init__(
        self, backend: Backend, trust: Trust | None = None, proposals: Proposals | None = None
    ) -> None:
        """backend: loaded; the world model closes it. trust, proposals: of the bundle, if it has them."""
        self._backend = backend
        self.trust, self.proposals = trust, proposals
        self._rollout = backend.rollout()
        self._past, self._novelty = _Latest[Past](), _Latest[float]()
        step_dt = self.manifest.action.step_dt
        self.memory = HistoryMemory(step_dt, SLOT_TOLERANCE * step_dt)

    @classmethod
    def load(
        cls,
        bundle_dir: Path | str,
        backend: str = "auto",
        num_threads: int = 2,
        precision: str = "auto",
        joint_prefix: str = "",
    ) -> WorldModel:
        """Verify a bundle and open it (backends.factory.open_backend). Raises BundleError or BackendError.

        joint_prefix: put before the names in `manifest.action`, for a robot that has the model's arm under other names.
        """
        bundle = _with_joint_prefix(load_bundle(bundle_dir), joint_prefix)
        _require_told(bundle.manifest.action, bundle.manifest.model_id)
        with ExitStack() as undo:
            opened = open_backend(bundle, backend, num_threads, precision)
            undo.callback(opened.close)
            trust, proposals = load_trust(bundle, opened.precision), load_proposals(bundle)
            undo.pop_all()
        return cls(opened, trust, proposals)

    @property
    def manifest(self) -> Manifest:
        return self._backend.manifest

    @property
    def backend(self) -> Backend:
        return self._backend

    def observe(self, observation: Observation) -> None:
        """Remember what the robot sensed. Call it for every camera frame, also for those that nothing is predicted from."""
        self.memory.push(observation)

    def past(self, t0_ns: int) -> Past:
        """What rollouts from a remembered observation begin at. Raises LookupError when t0 is not in memory.

        Asked again before another is, it is the same one, with the history that was in memory then.
        """
        encode = self._backend.encode
        return self._past.of(
            self.memory.encoded(t0_ns, encode),
            lambda: self._backend.remember(self.memory.slots(t0_ns, encode)),
        )

    def novelty(self, t0_ns: int) -> float:
        """Novelty of a remembered observation: above 1 it is unlike all of training. NaN for a bundle that was not calibrated."""
        if self.trust is None:
            return float("nan")
        trust, observed = self.trust, self.memory.encoded(t0_ns, self._backend.encode)
        return self._novelty.of(observed, lambda: trust.novelty(observed))

    def propose(self, t0_ns: int, goal: FloatArray, measured: FloatArray, horizon: int) -> Proposed:
        """Plans that may lead from a remembered observation to a goal, latents (c, h, w), in `horizon` rows.

        measured: (a,) where the robot is, or its velocity. Raises ValueError, also for a bundle without proposals, and LookupError
        when t0 is not in memory.
        """
        if self.proposals is None:
            raise ValueError(
                f"proposals: expected a bundle that has some, found {self.manifest.model_id}, which has none; {LEARN}"
            )
        observed = self.memory.encoded(t0_ns, self._backend.encode)
        return self.proposals.propose(observed, goal, measured, horizon)

    def predict(
        self, t0_ns: int, plan: FloatArray, seed: int, after_chunk: Callable[[], None] = lambda: None
    ) -> Prediction:
        """What the camera will see if the plan is executed.

        t0_ns: stamp of a remembered observation. plan: (horizon, a) commanded joint positions or velocities in the order
        and units of `manifest.action`, row k the position at the end of step k, or the mean velocity of it. They are not clipped here: the caller limits them to
        the trained range (`manifest.action.clip`), because it can tell the user. after_chunk: called after every chunk; an
        exception that it raises ends the prediction.
        The same observations, plan, seed and bundle give the same bytes, from the newest observation; those before it keep the
        history that they were asked for with (`past`), and lose it otherwise. Raises ValueError, and LookupError when t0
        is not in memory.
        """
        started = perf_counter()
        plan = self._checked(plan)
        chunks = []
        for chunk in roll_out(self._rollout, self.past(t0_ns), plan[None], self.manifest, seed):
            chunks.append(chunk[0])
            after_chunk()
        latents = np.concatenate(chunks)[: len(plan)]
        frames = self._backend.decode(latents)
        return Prediction(frames, latents, seed, perf_counter() - started, self.novelty(t0_ns))

    def reconstruct(self, frames: ByteArray) -> ByteArray:
        """What the codec alone leaves of frames (t, h, w, 3): the ceiling of any prediction's quality."""
        return self._backend.decode(np.stack([self._backend.encode(frame) for frame in frames]))

    def reset(self) -> None:
        """Forget every observation."""
        self.memory.reset()
        self._past, self._novelty = _Latest(), _Latest()

    def close(self) -> None:
        """Forget everything and release the backend; may be called twice."""
        self.reset()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, plan: FloatArray) -> FloatArray:
        expected, limit = self.manifest.action.dim, self.manifest.max_horizon
        if plan.ndim != 2 or plan.shape[1] != expected or not len(plan):
            names = ", ".join(self.manifest.action.names)
            raise ValueError(f"plan: expected (horizon, {expected}) rows of {names}; found {plan.shape}")
        if len(plan) > limit:
            raise ValueError(
                f"plan: expected a horizon of at most {limit} frames (manifest.max_horizon), found {len(plan)};"
                f" send the first {limit} rows"
            )
        if not np.isfinite(plan).all():
            raise ValueError(f"plan: expected finite numbers, found {plan[~np.isfinite(plan)][0]}")
        return np.ascontiguousarray(plan, np.float32)


def _with_joint_prefix(bundle: Bundle, prefix: str) -> Bundle:
    action = bundle.manifest.action
    if prefix and action.representation != "joint_position":
        raise BundleError(
            f"joint_prefix: expected none for a model of a vehicle, whose axes ({', '.join(action.names)}) are of no joint, found"
            f" {prefix!r}; start the node without it"
        )
    action = replace(action, names=tuple(prefix + name for name in action.names))
    return replace(bundle, manifest=replace(bundle.manifest, action=action))


def _require_told(action: ActionSpec, model_id: str) -> None:
    """A robot tells its joints' positions, or a vehicle's velocity. Raises BundleError for what it does not tell, such as keys."""
    if action.representation == "joint_position":
        return
    if action.representation != "rate" or not {*action.names} <= {*UNITS}:
        found = f"{action.representation} of {', '.join(action.names)}"
        raise BundleError(
            f"action: expected joint_position, or rate of some of {', '.join(UNITS)}, which a robot tells, found {found}"
            f" (action space {action.space!r} of {model_id}); export another space of the checkpoint: python -m"
            " export.to_onnx CHECKPOINT --space SPACE --out BUNDLE"
        )
