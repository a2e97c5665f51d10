"""What `astra train` does: codec, a decoder used to a denoiser's latents, latents, denoiser. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from lightning_fabric import Fabric

from astra_ros.actions.spec import ActionSpec
from astra_ros.cli.deliveries import Deliveries, checkpoint_every_s
from astra_ros.cli.training_samples import TrainingSamples
from astra_ros.codec.autoencoder import Codec
from astra_ros.data.held_out import LEAST_HELD_OUT
from astra_ros.data.suitability import require_same, trained_data, unseen, with_earlier
from astra_ros.denoiser.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    load_checkpoint,
    load_codec,
    load_weights,
    new_checkpoint,
    save_codec,
)
from astra_ros.denoiser.dit import Denoiser
from astra_ros.evaluation.intervals import by_episode
from astra_ros.training.codec import (
    CodecStep,
    DecoderStep,
    MovedCodecStep,
    finished_codec,
    fit_statistics,
)
from astra_ros.training.config import (
    CODEC_SHARE,
    DECODER_SHARE,
    EVALUATION_SHARE,
    OptimisationConfig,
    TrainConfig,
)
from astra_ros.training.denoiser import DenoiserStep
from astra_ros.training.frames import FramePool, gather_frames
from astra_ros.training.latents import EncodedSet, LatentStore, encode_sets
from astra_ros.training.machine import drawing_workers, keep_precision, product_dtype
from astra_ros.training.mix import TrainingSet, as_begun, open_sets, require_usable
from astra_ros.training.optimizers import codec_optimizers, denoiser_optimizers
from astra_ros.training.own_memory import require_whole_share
from astra_ros.training.progress import Progress
from astra_ros.training.segments import fit_specs, kept_specs, segment_sampler
from astra_ros.training.state import begun_with, require_same_run, spent_s
from astra_ros.training.trainer import Trainer, TrainingStep, parts_of
from astra_ros.training.warm_start import start_at, start_at_video_model

STAGES = ("codec", "denoiser", "decoder")  # the place of one, which is not its turn, is part of its seed
SMALLEST_SHARE = 0.3  # of the budget, for the denoiser, however long the data takes to read


class TrainingRun:
    """One run, in the folder `out`. `command` is kept with the result."""

    def __init__(self, config: TrainConfig, out: Path, fabric: Fabric, command: str) -> None:
        self._started = monotonic()
        self._config, self._out, self._fabric, self._command = config, out, fabric, command
        self._model = config.model()
        self._size = (self._model.image_height, self._model.image_width)
        self._codec_folder = config.codec_folder(out)
        self._start = load_checkpoint(Path(config.start_from)) if config.start_from else None
        self._log = out / "log.jsonl" if fabric.is_global_zero else None
        self._earlier = with_earlier({}, *_earlier_data(config.to_json()))
        sets = open_sets(config.data, self._size)
        _require_same_actions(sets, self._known_actions)
        self._require_trainable(sets)
        # Only what can be trained binds the folder.
        identity = {key: value for key, value in config.to_json().items() if key != "checkpoint_minutes"}
        require_same_run(out / "run.json", identity)
        keep_precision(out, fabric)
        self._spent_s = spent_s(out / "state")  # by earlier starts
        self._sets = [
            replace(one, held_out=unseen(one.dataset.name, one.held_out, self._earlier))
            for one in as_begun(sets, out / "split.json", fabric.print)
        ]
        self._tell_few_held_out()
        samples = TrainingSamples(self._sets, self._size, self._model.step_dt, out / "strips")
        self._deliveries = Deliveries(out, samples)
        self._encoded: list[EncodedSet] = []
        self._skipped: dict[str, int] = {}

    def run(self) -> Checkpoint:
        """All stages; what an earlier start of the same run has done is not done again."""
        codec = self._codec()
        # Before the denoiser: the samples of a new robot would show it with an old decoder.
        if self._config.refines_decoder:
            codec = self._refine_decoder(codec)
        checkpoint = self._train_denoiser(codec)
        self._deliver(checkpoint, 1.0)
        self._on_first(self._deliveries.tell_better)
        return checkpoint

    def _tell_few_held_out(self) -> None:
        """What cannot be mended after the training."""
        for one in self._sets:
            if (found := len(by_episode(one.held_out))) < LEAST_HELD_OUT:
                self._fabric.print(
                    f"{one.dataset.name}: {found} recordings held out; a bundle's uncertainty is fitted to {LEAST_HELD_OUT} or more that no"
                    f" training saw (export.calibrate): hold more out now, in {self._config.data.held_out}, or do without"
                )

    def _require_trainable(self, sets: Sequence[TrainingSet]) -> None:
        """What a stage would refuse after the hours of those before it. Raises ValueError."""
        config = self._config
        stages = {
            "training": config.training,
            "codec_training.optimisation": config.codec_training.optimisation,
            "decoder_training.optimisation": config.decoder_training.optimisation,
        }
        for stage, optimisation in stages.items():
            try:
                parts_of(optimisation, self._fabric.world_size)
            except ValueError as error:
                raise ValueError(f"{stage}.{error}") from error
        require_whole_share(config.segment().own, config.training, self._fabric.world_size)
        for one in sets:
            require_usable(one, self._model.step_dt, self._model.denoiser.chunk_len)
        if self._start is not None:
            start_at(new_checkpoint(self._model, list(self._start.actions.values())), self._start)

    def _codec(self) -> Codec:
        """Trained here, or what an earlier start or run left."""
        if self._start is not None and not self._config.retrain_codec:
            self._fabric.to_device(self._start.codec)
            return self._start.codec
        file = self._codec_file()
        if not file.is_file() and self._config.codec_run is None:
            torch.manual_seed(self._config.seed)  # of the initial weights
            codec = self._new_codec()
            self._on_first(lambda: save_codec(file, codec))
        self._fabric.barrier()
        loaded = load_codec(file, self._model.codec)
        self._fabric.to_device(loaded)
        return loaded

    def _codec_file(self) -> Path:
        """Of an earlier run its model's, where there is one yet: its decoder is refined, its latents are the same."""
        model = self._codec_folder / WEIGHTS_FILE
        is_taken = self._config.codec_run is not None and model.is_file()
        return model if is_taken else self._codec_folder / "codec.safetensors"

    def _new_codec(self) -> Codec:
        """Trained, or with weights from elsewhere; with its latent statistics fitted."""
        config, pool = self._config.codec_training, self._pool()
        codec = self._start.codec if self._start is not None else Codec(self._model.codec)
        if self._config.codec_weights is not None:
            codec.load_taef2(Path(self._config.codec_weights))
        else:
            minutes = self._minutes(self._config.budget.codec_minutes, CODEC_SHARE)
            step = (MovedCodecStep if config.motion else CodecStep)(codec, pool, config)
            codec = self._train("codec", step, codec_optimizers(codec), config.optimisation, minutes)
        fit_statistics(codec, pool, self._config.seed)
        return finished_codec(codec)

    def _refine_decoder(self, codec: Codec) -> Codec:
        config = self._config.decoder_training
        minutes = self._minutes(self._config.budget.decoder_minutes, DECODER_SHARE)
        step = DecoderStep(codec, self._pool(), config)
        return finished_codec(
            self._train("decoder", step, codec_optimizers(codec), config.optimisation, minutes)
        )

    def _train_denoiser(self, codec: Codec) -> Checkpoint:
        store = LatentStore(self._codec_folder / "latents", codec, self._fabric, self._model.step_dt)
        self._encoded = encode_sets(store, self._sets, self._size, self._fabric)
        specs = self._specs()
        torch.manual_seed(self._config.seed)  # of the initial weights
        checkpoint = new_checkpoint(self._model, list(specs.values()))
        if self._start is not None:
            start_at(checkpoint, self._start)
        checkpoint.codec = codec  # with its decoder refined, whatever it was started from
        if self._config.video_model is not None:
            start_at_video_model(checkpoint, load_weights(Path(self._config.video_model)))
        segments = segment_sampler(self._encoded, specs, self._config.segment())
        workers = drawing_workers(self._fabric.device)
        step = DenoiserStep(checkpoint.denoiser, segments, self._config.objective, workers)
        blocks, products = checkpoint.denoiser.blocks, product_dtype(self._fabric)
        optimizers = denoiser_optimizers(checkpoint.denoiser, blocks, products)

        def deliver(averaged: Denoiser, share: float) -> None:
            self._deliver(replace(checkpoint, denoiser=averaged), share)

        minutes = self._denoiser_minutes()
        checkpoint.denoiser = self._train(
            "denoiser", step, optimizers, self._config.training, minutes, deliver
        )
        return checkpoint

    def _specs(self) -> dict[str, ActionSpec]:
        """As fitted at the first start: the weights are of that normalisation."""
        fitted = kept_specs(fit_specs(self._encoded, self._model.step_dt), self._known_actions)
        fields = {space: spec.to_json() for space, spec in fitted.items()}
        begun = begun_with(self._out / "actions.json", fields)
        specs = {space: ActionSpec.from_json(spec) for space, spec in begun.items()}
        _require_same_actions(self._sets, specs)
        return specs

    def _train(
        self,
        stage: str,
        step: TrainingStep,
        optimizers: list[torch.optim.Optimizer],
        config: OptimisationConfig,
        minutes: float,
        on_checkpoint: Callable[[Any, float], None] | None = None,
    ) -> Any:
        """The averaged model."""
        trainer = Trainer(
            self._fabric,
            step,
            optimizers,
            config,
            minutes=minutes,
            seed=(self._config.seed, STAGES.index(stage)),
            state_file=self._out / "state" / f"{stage}.safetensors",
            progress=Progress(stage, self._log),
        )
        every_s = checkpoint_every_s(self._config.checkpoint_minutes, minutes)
        averaged = trainer.run(on_checkpoint, every_s)
        self._skipped[stage] = trainer.skipped
        self._on_first(self._deliveries.draw_curves)
        return averaged

    def _deliver(self, checkpoint: Checkpoint, share: float) -> None:
        self._on_first(lambda: self._deliveries.deliver(checkpoint, share, self._provenance()))

    @property
    def _known_actions(self) -> dict[str, ActionSpec]:
        """Of the model that is started from; what is known keeps its meaning."""
        return self._start.actions if self._start is not None else {}

    def _provenance(self) -> dict[str, Any]:
        """Where the model comes from."""
        sets = {
            one.source.dataset.name: {
                "path": str(one.source.dataset.path),
                "weight": one.source.weight,
                "episodes": len(one.episodes),
                "bad_episodes": one.bad,
                "held_out": list(one.source.held_out),
                "training": list(one.source.names),
            }
            for one in self._encoded
        }
        return {
            "command": self._command,
            "processes": self._fabric.world_size,
            "device": self._fabric.device.type,
            "precision": self._fabric.strategy.precision.precision,
            "data": with_earlier(sets, self._earlier),
            "skipped_steps": dict(self._skipped),
            "train_config": self._config.to_json(),
        }

    def _pool(self) -> FramePool:
        """Gathered by the first process, read from its file by all."""
        file, data = self._out / "frames.safetensors", self._config.data
        if self._fabric.is_global_zero and not file.is_file():
            gather_frames(self._sets, self._size, data.codec_frames, self._config.seed).save(file)
        self._fabric.barrier()
        return FramePool.load(file)

    def _minutes(self, given: float | None, share: float) -> float:
        return share * self._config.budget.minutes if given is None else given

    def _denoiser_minutes(self) -> float:
        """What the other stages and the reading of the data leave."""
        budget, spent = self._config.budget, (self._spent_s + monotonic() - self._started) / 60.0
        if budget.denoiser_minutes is not None:
            return budget.denoiser_minutes
        left = (1 - EVALUATION_SHARE) * budget.minutes - spent
        return max(SMALLEST_SHARE * budget.minutes, left)

    def _on_first(self, act: Callable[[], None]) -> None:
        """What one process does for all; the others wait."""
        if self._fabric.is_global_zero:
            act()
        self._fabric.barrier()


def _require_same_actions(sets: Sequence[TrainingSet], known: Mapping[str, ActionSpec]) -> None:
    for dataset in (one.dataset for one in sets):
        if (spec := known.get(dataset.schema.space)) is not None:
            require_same(dataset.path, dataset.schema, spec)


def _earlier_data(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the models that a run of this configuration goes on from were trained on."""
    given = [(name, config.get(name)) for name in ("start_from", "codec_run", "video_model")]
    return [data for name, folder in given if folder for data in _trained_on(name, Path(folder))]


def _trained_on(name: str, folder: Path) -> list[dict[str, Any]]:
    """As its model says, or where there is none yet, as the run was begun. Raises ValueError for a folder that says neither."""
    model, run, split = (folder / file for file in (CONFIG_FILE, "run.json", "split.json"))
    if model.is_file():
        return [trained_data(json.loads(model.read_text())["provenance"])]
    if not (run.is_file() and split.is_file()):
        raise ValueError(
            f"{name}: expected {model.name}, or {run.name} and {split.name}, which say what was trained on, found none in {folder};"
            " give the whole folder of a run"
        )
    return [json.loads(split.read_text()), *_earlier_data(json.loads(run.read_text()))]
