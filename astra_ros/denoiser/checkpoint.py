"""Checkpoints: a folder with `config.json` and `weights.safetensors`. Nothing in it is executed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from astra_ros.actions.spec import ActionSpec
from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.denoiser.dit import Denoiser
from astra_ros.denoiser.io import ModelDims
from astra_ros.denoiser.presets import ModelConfig

CONFIG_FILE, WEIGHTS_FILE = "config.json", "weights.safetensors"


@dataclass
class Checkpoint:
    """A trained model and what it was trained for. `provenance`: data, command, seed, measured quality."""

    config: ModelConfig
    action: ActionSpec
    codec: Codec
    denoiser: Denoiser
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def dims(self) -> ModelDims:
        denoiser = self.config.denoiser
        return ModelDims(
            image_height=self.config.image_size,
            image_width=self.config.image_size,
            latent_channels=denoiser.latent_channels,
            latent_height=denoiser.latent_size,
            latent_width=denoiser.latent_size,
            history_slots=denoiser.history_slots,
            chunk_len=denoiser.chunk_len,
            num_features=denoiser.num_features,
            depth=denoiser.depth,
            num_heads=denoiser.num_heads,
            head_dim=denoiser.head_dim,
            tokens_per_frame=denoiser.tokens_per_frame,
        )


def new_checkpoint(config: ModelConfig, action: ActionSpec) -> Checkpoint:
    """An untrained model for this robot."""
    config = config.with_features(action.num_features)
    return Checkpoint(config, action, Codec(config.codec), Denoiser(config.denoiser))


def save_codec(path: Path, codec: Codec) -> None:
    """The codec alone, so that a denoiser can be trained again on the same latents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in codec.state_dict().items()}, path)


def load_codec(path: Path, config: CodecConfig) -> Codec:
    """Strict. Raises ValueError when the file is not a codec of this config."""
    codec = Codec(config)
    _load_strictly(codec, load_file(path), path)
    return codec


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write config.json and weights.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "model": checkpoint.config.to_json(),
        "action": checkpoint.action.to_json(),
        "provenance": checkpoint.provenance,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(fields, indent=2) + "\n")
    weights = {**_named("codec", checkpoint.codec), **_named("denoiser", checkpoint.denoiser)}
    save_file(weights, folder / WEIGHTS_FILE)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Strict: raises FileNotFoundError or ValueError when the weights are not exactly those of the config."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"checkpoint {folder}: expected {name}, found none; train one with `astra train`"
            )
    fields = json.loads((folder / CONFIG_FILE).read_text())
    checkpoint = new_checkpoint(
        ModelConfig.from_json(fields["model"]), ActionSpec.from_json(fields["action"])
    )
    checkpoint.provenance = fields["provenance"]
    weights = load_file(folder / WEIGHTS_FILE)
    for name, module in (("codec", checkpoint.codec), ("denoiser", checkpoint.denoiser)):
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        _load_strictly(module, own, folder / WEIGHTS_FILE)
    return checkpoint


def _load_strictly(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: weights do not fit the {type(module).__name__} of its config: {error}"
        ) from error


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value.contiguous() for key, value in module.state_dict().items()}
