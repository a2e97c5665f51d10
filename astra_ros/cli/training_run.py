"""What `astra train` does: codec, denoiser, then a decoder used to the denoiser's latents. Imports torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from astra_ros.codec.pictures import encode_episode
from astra_ros.data.episode import Episode, EpisodeTopics, fit_action_spec, joint_names, read_episode
from astra_ros.data.segments import SegmentConfig, SegmentSampler
from astra_ros.denoiser.checkpoint import load_codec, new_checkpoint, save_checkpoint, save_codec
from astra_ros.denoiser.dit import Denoiser
from astra_ros.denoiser.presets import PRESETS
from astra_ros.evaluation.held_out import held_out_rollouts, summarise
from astra_ros.evaluation.strips import save_strips
from astra_ros.training.codec import CodecTrainingConfig, refine_decoder, train_codec
from astra_ros.training.denoiser import DenoiserTrainingConfig, train_denoiser
from astra_ros.training.progress import Progress

NUM_STRIPS = 6


@dataclass(frozen=True)
class TrainingRunConfig:
    """data, heldout: folders of bags. out: folder of the results. *_minutes: budget of each stage."""

    data: Path
    heldout: Path
    out: Path
    topics: EpisodeTopics
    preset: str = "tiny"
    codec_minutes: float = 12.0
    denoiser_minutes: float = 60.0
    decoder_minutes: float = 6.0
    batch: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    threads: int = 2


class TrainingRun:
    """One run. `command` is kept with the result."""

    def __init__(self, config: TrainingRunConfig, command: str) -> None:
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        self._config = config
        self._out = config.out
        preset = PRESETS[config.preset]()
        names = joint_names(_bags(config.data)[0], config.topics.joint_states)
        self._training = _read(config.data, names, preset.image_size, config.topics)
        self._held_out = _read(config.heldout, names, preset.image_size, config.topics)
        action = fit_action_spec(self._training, names, _units(names), preset.step_dt)
        self._checkpoint = new_checkpoint(preset, action)
        self._checkpoint.provenance = {
            "command": command,
            "seed": config.seed,
            "episodes": len(self._training),
            "held_out_episodes": [episode.name for episode in self._held_out],
        }

    def run(self) -> None:
        """All stages; a codec that an earlier run left in `out` is kept."""
        codec_file = self._out / "codec.safetensors"
        if codec_file.is_file():
            self._checkpoint.codec = load_codec(codec_file, self._checkpoint.config.codec)
        else:
            self._train_codec()
            save_codec(codec_file, self._checkpoint.codec)
        self._train_denoiser()
        self._refine_decoder()
        self._evaluate_and_save(self._checkpoint.denoiser, 1.0, every=10)

    def _train_codec(self) -> None:
        config = CodecTrainingConfig(minutes=self._config.codec_minutes, seed=self._config.seed)
        progress = self._progress("codec")
        self._checkpoint.codec = train_codec(self._checkpoint.codec, self._training, config, progress)

    def _train_denoiser(self) -> None:
        sizes = self._checkpoint.config.denoiser
        latents = [encode_episode(self._checkpoint.codec, episode.pixels) for episode in self._training]
        segment_config = SegmentConfig(sizes.history_slots, sizes.chunk_len)
        segments = SegmentSampler(self._training, latents, self._checkpoint.action, segment_config)
        config = DenoiserTrainingConfig(
            minutes=self._config.denoiser_minutes,
            batch=self._config.batch,
            learning_rate=self._config.learning_rate,
            seed=self._config.seed,
        )
        self._checkpoint.denoiser = train_denoiser(
            self._checkpoint.denoiser, segments, config, self._progress("denoiser"), self._evaluate_and_save
        )

    def _refine_decoder(self) -> None:
        minutes, seed = self._config.decoder_minutes, self._config.seed + 1
        config = CodecTrainingConfig(minutes=minutes, learning_rate=8e-4, seed=seed)
        progress = self._progress("decoder")
        self._checkpoint.codec = refine_decoder(self._checkpoint.codec, self._training, config, progress)

    def _evaluate_and_save(self, denoiser: Denoiser, share: float, every: int = 60) -> None:
        """Held-out PSNR into the log, sample strips, and the checkpoint as it would be shipped now."""
        checkpoint = self._checkpoint
        checkpoint.denoiser = denoiser
        rollouts = held_out_rollouts(checkpoint, self._held_out, 2 * denoiser.config.chunk_len, every)
        table = summarise(rollouts)
        one_second = round(1.0 / checkpoint.config.step_dt) - 1
        at_one_second = {f"{name}_db_at_1s": values[one_second] for name, values in table.items()}
        self._progress("held out").report(share, **at_one_second)
        shown = rollouts[:: max(1, len(rollouts) // NUM_STRIPS)][:NUM_STRIPS]
        save_strips(shown, self._out / "strips" / f"{round(100 * share):03d}.png")
        checkpoint.provenance["held_out_psnr_db"] = {**table, "rollouts": len(rollouts)}
        save_checkpoint(self._out, checkpoint)
        (self._out / "held_out.json").write_text(json.dumps(checkpoint.provenance, indent=2) + "\n")

    def _progress(self, stage: str) -> Progress:
        return Progress(stage, self._out / "log.jsonl")


def _bags(folder: Path) -> list[Path]:
    bags = [path.parent for path in sorted(folder.glob("*/metadata.yaml"))]
    if not bags:
        raise ValueError(f"{folder}: expected rosbag2 folders, found none; record some with `astra record`")
    return bags


def _read(folder: Path, names: tuple[str, ...], size: int, topics: EpisodeTopics) -> list[Episode]:
    bags = _bags(folder)
    episodes = []
    for count, bag in enumerate(bags, 1):
        episodes.append(read_episode(bag, names, size, topics))
        if count % 20 == 0 or count == len(bags):
            print(f"{folder}: {count} of {len(bags)} bags read", flush=True)
    return episodes


def _units(names: tuple[str, ...]) -> tuple[str, ...]:
    """Recordings do not say units; by REP-103 a finger slides in metres and every other joint turns in radians."""
    return tuple("m" if "finger" in name or "gripper" in name else "rad" for name in names)
