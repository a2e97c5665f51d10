"""What the node publishes, built from the model's values. Stamps: docs/ros_interface.md."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from std_msgs.msg import Header
from unique_identifier_msgs.msg import UUID

from astra_ros.action import PredictFutures
from astra_ros.backends.base import Backend
from astra_ros.backends.manifest import Manifest
from astra_ros.msg import ActionSequence, ModelInfo, PredictedFuture, PredictionError
from astra_ros.planning.evaluation import Answer, Future
from astra_ros.ros.conversions import to_image, to_jpeg
from astra_ros.ros.hindsight import Comparison, psnr
from astra_ros.ros.inbox import Frame
from astra_ros.ros.live import Forecast
from astra_ros.ros.parameters import NodeConfig, why_uncalibrated
from astra_ros.ros.plans import REPRESENTATIONS, Commands
from astra_ros.ros.stamps import to_duration, to_time
from astra_ros.ros.tickets import Progress, Reply
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray


def predicted_future(
    forecast: Forecast, backend: Backend, config: NodeConfig, first_frame: int = 0
) -> PredictedFuture:
    """The message but for total_latency, which ends when it is sent. first_frame: which one the first of the forecast's is."""
    manifest, timing, commands = backend.manifest, forecast.timing, forecast.commands
    step_dt = to_duration(manifest.action.step_dt)
    message = PredictedFuture(
        header=_header(forecast, 0),
        id=_uuid(commands.plan_id),
        actions=_action_sequence(forecast, manifest),
        step_dt=step_dt,
        score=float("nan"),
        uncertainty=float("nan"),
        flags=commands.flags | observation_flags(timing.observation_age, forecast.prediction.novelty, config),
        model_id=manifest.model_id,
        bundle_sha256=backend.bundle_sha256,
        denoising_steps=manifest.num_steps,
        seed=forecast.prediction.seed,
        observation_age=to_duration(max(timing.observation_age, 0.0)),
        preprocess_time=to_duration(timing.preprocess),
        inference_time=to_duration(timing.inference),
    )
    if forecast.goal_distance is not None:
        message.goal_distance = _numbers(forecast.goal_distance)
    step_ns = round(manifest.action.step_dt * NANOSECONDS)
    frames = forecast.prediction.frames
    headers = [_header(forecast, (first_frame + k + 1) * step_ns) for k in range(len(frames))]
    _fill_frames(message, frames, headers, config)
    return message


def candidate_future(
    forecast: Forecast, future: Future, answer: Answer, backend: Backend, config: NodeConfig
) -> PredictedFuture:
    """One of the futures that answer a question. forecast: with the last frames of it, or all, or none."""
    first_frame = len(future.latents) - len(forecast.prediction.frames)
    message = predicted_future(forecast, backend, config, first_frame)
    message.denoising_steps = future.num_steps
    message.score = float(answer.scores[future.plan])
    message.uncertainty = float(answer.uncertainty[future.plan])
    message.frame_uncertainty = _numbers(future.uncertainty)
    message.goal_distance = _numbers(future.goal_distance)
    return message


def observation_flags(age_s: float, novelty: float, config: NodeConfig) -> int:
    """PredictedFuture.FLAG_* about the observation. novelty: Prediction.novelty."""
    flags = 0
    if age_s > config.max_observation_age_s:
        flags |= PredictedFuture.FLAG_STALE_OBSERVATION
    if novelty > 1:
        flags |= PredictedFuture.FLAG_OUT_OF_DISTRIBUTION
    return flags


def prediction_error(picture: Frame, comparisons: Sequence[Comparison]) -> PredictionError:
    """What a picture says about the predictions of its time."""
    return PredictionError(
        header=Header(stamp=to_time(picture.stamp_ns), frame_id=picture.frame_id),
        observation_stamps=[to_time(one.t0_ns) for one in comparisons],
        seconds_ahead=array("f", [one.seconds_ahead for one in comparisons]),
        predicted_psnr=array("f", [psnr(one.predicted) for one in comparisons]),
        copied_psnr=array("f", [psnr(one.copied) for one in comparisons]),
    )


def fill_reply(message: Any, reply: Reply) -> Any:
    """message: an empty EvaluateActions.Response or PredictFutures.Result, which have the same fields."""
    message.status, message.message = int(reply.status), reply.message
    message.observation_stamp = to_time(reply.observation_ns)
    message.total_latency = to_duration(reply.latency_s)
    message.futures = list(reply.futures)
    message.flags = array("I", reply.flags)
    if answer := reply.answer:
        message.ranking = array("I", answer.ranking.tolist())
        message.scores = array("f", answer.scores)
        message.final_goal_distance = array("f", answer.final_goal_distance)
        message.uncertainty = array("f", answer.uncertainty)
        message.evaluated = answer.evaluated.tolist()
    return message


def feedback(progress: Progress) -> PredictFutures.Feedback:
    """How far a question is."""
    return PredictFutures.Feedback(
        candidates_done=progress.num_done,
        candidates_total=progress.num_candidates,
        best_index=progress.best_index,
        best_score=progress.best_score,
    )


def model_info(backend: Backend, config: NodeConfig, stamp_ns: int) -> ModelInfo:
    """What is loaded and what it expects. stamp_ns: when it was loaded."""
    manifest = backend.manifest
    camera, action = manifest.camera, manifest.action
    is_told = not why_uncalibrated(config, manifest, backend.precision)
    trust = manifest.trust_for(backend.precision) if is_told else None
    return ModelInfo(
        header=Header(stamp=to_time(stamp_ns)),
        model_id=manifest.model_id,
        preset=manifest.preset,
        bundle_sha256=backend.bundle_sha256,
        backend=backend.name,
        backend_version=backend.version,
        precision=backend.precision,
        device=backend.device,
        image_height=camera.height,
        image_width=camera.width,
        image_encoding=camera.encoding,
        image_fit=camera.fit,
        camera_names=list(camera.names),
        step_dt=to_duration(action.step_dt),
        num_history_slots=manifest.history.num_slots,
        chunk_len=manifest.chunk_len,
        max_horizon=manifest.max_horizon,
        max_batch=backend.batches[-1],
        action_modality=action.modality,
        action_representation=REPRESENTATIONS[action.representation],
        action_names=list(action.names),
        action_units=list(action.units),
        action_lower=array("f", action.lower),
        action_upper=array("f", action.upper),
        action_step_std=array("f", action.delta_std),
        denoising_steps=array("I", [manifest.num_steps]),
        max_proposals=manifest.proposals.count if manifest.proposals else 0,
        max_proposal_rows=manifest.proposals.horizon if manifest.proposals else 0,
        uncertainty_interval=array("f", (trust.interval_low, trust.interval_high) if trust else ()),
    )


def _numbers(per_frame: FloatArray) -> array[float]:
    """Empty when there are none."""
    return array("f", per_frame if np.isfinite(per_frame).any() else ())


def _header(forecast: Forecast, offset_ns: int) -> Header:
    return Header(stamp=to_time(forecast.frame.stamp_ns + offset_ns), frame_id=forecast.frame.frame_id)


def _uuid(plan_id: Sequence[int]) -> UUID:
    return UUID(uuid=np.array(plan_id, np.uint8))


def _action_sequence(forecast: Forecast, manifest: Manifest) -> ActionSequence:
    commands: Commands = forecast.commands
    return ActionSequence(
        header=Header(stamp=to_time(forecast.frame.stamp_ns)),
        id=_uuid(commands.plan_id),
        representation=REPRESENTATIONS[manifest.action.representation],
        step_dt=to_duration(manifest.action.step_dt),
        horizon=len(commands.rows),
        names=list(manifest.action.names),
        data=array("f", np.ascontiguousarray(commands.rows, np.float32).tobytes()),
    )


def _fill_frames(
    message: PredictedFuture, frames: ByteArray, headers: Sequence[Header], config: NodeConfig
) -> None:
    if config.compress_frames:
        message.compressed_frames = [
            to_jpeg(frame, header, config.jpeg_quality) for frame, header in zip(frames, headers, strict=True)
        ]
    else:
        message.frames = [to_image(frame, header) for frame, header in zip(frames, headers, strict=True)]
