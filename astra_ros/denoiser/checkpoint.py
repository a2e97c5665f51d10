"""Checkpoints: a folder with `config.json` and `weights.safetensors`. Nothing in it is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from astra_ros.actions.spec import ActionSpec
from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.denoiser.dit import Denoiser
from astra_ros.denoiser.io import ModelDims
from astra_ros.denoiser.presets import ModelConfig

CONFIG_FILE, WEIGHTS_FILE = "config.json", "weights.safetensors"
# What weights of earlier versions lack, and since when the network has it.
_LATER = {
    "action_encoder.router_prior": "action experts began one per modality",
    "pose_map.painter": "an action drew a sketch",
    "head.gate": "an action drew a sketch",
}


@dataclass(frozen=True)
class Weights:
    """Tensors of a checkpoint by name, not held against its networks."""

    codec: dict[str, Tensor]
    denoiser: dict[str, Tensor]


@dataclass
class Checkpoint:
    """A trained model and what it was trained for.

    actions: its action spaces by name, in the order the network numbers them.
    provenance: data, command, seed, measured quality.
    """

    config: ModelConfig
    actions: dict[str, ActionSpec]
    codec: Codec
    denoiser: Denoiser
    provenance: dict[str, Any] = field(default_factory=dict)

    def space_index(self, space: str) -> int:
        """Number of an action space in the network. Raises ValueError."""
        if space not in self.actions:
            raise ValueError(f"space: expected one of {', '.join(self.actions)}, found {space!r}")
        return list(self.actions).index(space)

    def dims(self, space: str) -> ModelDims:
        """The sizes of this model for one of its action spaces."""
        denoiser = self.config.denoiser
        return ModelDims(
            image_height=self.config.image_height,
            image_width=self.config.image_width,
            latent_channels=denoiser.latent_channels,
            latent_height=denoiser.latent_height,
            latent_width=denoiser.latent_width,
            chunk_len=denoiser.chunk_len,
            num_features=self.actions[space].num_features,
            depth=denoiser.depth,
            num_heads=denoiser.num_heads,
            head_dim=denoiser.head_dim,
            history_tokens=denoiser.history_tokens,
        )


def new_checkpoint(config: ModelConfig, specs: Sequence[ActionSpec]) -> Checkpoint:
    """An untrained model for these action spaces."""
    config = config.for_actions(specs)
    actions = {spec.space: spec for spec in specs}
    if len(actions) != len(specs):
        raise ValueError(f"space: expected a name of its own for each, found {[s.space for s in specs]}")
    return Checkpoint(config, actions, Codec(config.codec), Denoiser(config.denoiser))


def save_codec(path: Path, codec: Codec) -> None:
    """The codec alone, so that a denoiser can be trained again on the same latents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, {key: value.contiguous() for key, value in codec.state_dict().items()})


def load_codec(path: Path, config: CodecConfig) -> Codec:
    """Read a codec from a file of `save_codec` or `save_checkpoint`. Raises ValueError when it is not one of this config."""
    codec, weights = Codec(config), _load_file(path)
    _load_strictly(codec, below("codec", weights) or weights, path)
    return codec


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write weights.safetensors and config.json. An interruption leaves the old file or the new one, never a part of one."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(
        folder / WEIGHTS_FILE,
        {**_named("codec", checkpoint.codec), **_named("denoiser", checkpoint.denoiser)},
    )
    fields = {
        "model": checkpoint.config.to_json(),
        "actions": [spec.to_json() for spec in checkpoint.actions.values()],
        "provenance": checkpoint.provenance,
    }
    partial = (folder / CONFIG_FILE).with_suffix(".partial")
    partial.write_text(json.dumps(fields, indent=2) + "\n")
    os.replace(partial, folder / CONFIG_FILE)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Strict: raises FileNotFoundError or ValueError when the weights are not exactly those of the config."""
    checkpoint, weights = _from_config(_found(folder, CONFIG_FILE)), load_weights(folder)
    file = folder / WEIGHTS_FILE
    missing = {*checkpoint.denoiser.state_dict()} - {*weights.denoiser}
    if missing and all(name.startswith(tuple(_LATER)) for name in missing):
        part = next(part for part in _LATER if any(name.startswith(part) for name in missing))
        raise ValueError(
            f"{file}: {part}: expected weights of it, found none: trained before {_LATER[part]}; "
            "train again, or take it as video_model"
        )
    _load_strictly(checkpoint.codec, weights.codec, file)
    _load_strictly(checkpoint.denoiser, weights.denoiser, file)
    return checkpoint


def load_weights(folder: Path) -> Weights:
    """What a checkpoint's file holds, of any version. Raises FileNotFoundError, or ValueError for a damaged one."""
    weights = _load_file(_found(folder, WEIGHTS_FILE))
    return Weights(below("codec", weights), below("denoiser", weights))


def _found(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"checkpoint {folder}: expected {name}, found none; train one with `astra train`"
        )
    return folder / name


def _from_config(path: Path) -> Checkpoint:
    try:
        fields = json.loads(path.read_text())
        specs = [ActionSpec.from_json(spec) for spec in fields["actions"]]
        checkpoint = new_checkpoint(ModelConfig.from_json(fields["model"]), specs)
        checkpoint.provenance = fields["provenance"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the config of a checkpoint of this version, found {type(error).__name__}: {error};"
            " train again with `astra train`"
        ) from error
    return checkpoint


def _load_strictly(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        found = " ".join(str(error).split())
        raise ValueError(
            f"{path}: weights do not fit the {type(module).__name__} of its config: {found}"
        ) from error


def _load_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a whole safetensors file, found {error}; copy it again, or train again with `astra train`"
        ) from error


def _replace(path: Path, weights: dict[str, Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file(weights, partial)
    os.replace(partial, path)


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value.contiguous() for key, value in module.state_dict().items()}


def below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin with "prefix.", under the rest of their names."""
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
