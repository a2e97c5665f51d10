"""The configuration of a training run: one YAML file per preset, any value overridable, nothing accepted by chance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from astra_ros.backends.schema import decode
from astra_ros.data.segments import SegmentConfig
from astra_ros.denoiser.presets import PRESETS, ModelConfig
from astra_ros.history.noise import HISTORY_NOISE
from astra_ros.training.objective import ObjectiveConfig

# Shares of a run's minutes. The denoiser gets what these and the reading of the data leave.
CODEC_SHARE, DECODER_SHARE, EVALUATION_SHARE = 0.15, 0.08, 0.04

_T = TypeVar("_T")


@dataclass(frozen=True)
class DataSource:
    """path: folder of a dataset. weight: its share of the training segments, relative to the other datasets."""

    path: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight: expected more than 0, found {self.weight}")


@dataclass(frozen=True)
class DataConfig:
    """sets: the datasets of the mix. held_out: YAML file, episodes by name that are never trained on.

    cameras: names of several, which all datasets have; their pictures are one below the other in the model's. Empty: the first of each.
    codec_frames: pictures kept in memory for the codec to learn from.
    """

    sets: tuple[DataSource, ...]
    held_out: str = "config/held_out.yaml"
    codec_frames: int = 12_000
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("sets: expected at least one dataset, found none")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras: expected every name once, found {', '.join(self.cameras)}")


@dataclass(frozen=True)
class BudgetConfig:
    """minutes: of the whole run. *_minutes: of one stage, instead of its fixed share."""

    minutes: float = 110.0
    codec_minutes: float | None = None
    denoiser_minutes: float | None = None
    decoder_minutes: float | None = None

    def __post_init__(self) -> None:
        for name, minutes in asdict(self).items():
            if minutes is not None and minutes <= 0:
                raise ValueError(f"{name}: expected more than 0, found {minutes}")


@dataclass(frozen=True)
class OptimisationConfig:
    """How one network is trained.

    batch: of one optimiser step, over all processes. micro_batches: parts it is computed in; rounded up to a multiple
    of the processes. learning_rate: peak. warmup: share of the budget. ema_decay: of the averaged weights, which are
    kept. max_norm: of the gradient. max_steps: ends the stage by steps instead of by the clock.
    """

    batch: int = 16
    micro_batches: int = 1
    learning_rate: float = 2e-3
    warmup: float = 0.02
    ema_decay: float = 0.998
    max_norm: float = 1.0
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "micro_batches", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, found {value}")
        if self.batch % self.micro_batches:
            raise ValueError(
                f"batch: expected a multiple of micro_batches = {self.micro_batches}, found {self.batch}"
            )
        if not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"warmup: expected a share, 0 to less than 1, found {self.warmup}")
        if not 0.0 <= self.ema_decay <= 1.0:
            raise ValueError(f"ema_decay: expected 0 to 1, found {self.ema_decay}")


@dataclass(frozen=True)
class CodecTrainingConfig:
    """emphasis: extra weight of what is not always there in an episode.

    latent_noise: standard deviation of what the refined decoder gets used to; latents have unit variance.
    motion: weight of how far the latents of a moved picture are from moved latents (docs/decisions/0013); 0: as they come.
    """

    optimisation: OptimisationConfig = OptimisationConfig(learning_rate=1.5e-3, ema_decay=0.995)
    emphasis: float = 6.0
    latent_noise: float = 0.08
    motion: float = 0.0

    def __post_init__(self) -> None:
        if self.motion < 0:
            raise ValueError(f"motion: expected 0 or more, found {self.motion}")


@dataclass(frozen=True)
class TrainConfig:
    """A run.

    denoiser, codec, segments: fields of the preset's network and of its segments that differ from it. size: height and width of the
    model's pictures, pixels; by default the preset's.
    start_from: folder of an earlier model, whose encoder and latents are taken as they are and whose denoiser and decoder
    are trained on, for its own action spaces or for others. retrain_codec: of start_from the encoder is trained on, too, before
    all else, and its denoiser learns the new latents. codec_run: folder of an earlier run whose codec and latents
    are taken as they are, so that only a denoiser is trained. video_model: folder of an earlier model of that codec, whose
    denoiser's weights are taken except what reads actions. codec_weights: folder of TAEF2's weight files (codec.kind taef2), taken as they are.
    checkpoint_minutes: how often the averaged model is evaluated and written.
    """

    preset: str
    data: DataConfig
    seed: int = 0
    checkpoint_minutes: float = 8.0
    start_from: str | None = None
    retrain_codec: bool = False
    codec_run: str | None = None
    video_model: str | None = None
    codec_weights: str | None = None
    size: tuple[int, int] | None = None
    denoiser: dict[str, Any] = field(default_factory=dict)
    codec: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, Any] = field(default_factory=dict)
    budget: BudgetConfig = BudgetConfig()
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: OptimisationConfig = OptimisationConfig()
    codec_training: CodecTrainingConfig = CodecTrainingConfig()
    decoder_training: CodecTrainingConfig = CodecTrainingConfig(OptimisationConfig(learning_rate=8e-4))

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, found {self.preset!r}")
        if self.checkpoint_minutes <= 0:
            raise ValueError(f"checkpoint_minutes: expected more than 0, found {self.checkpoint_minutes}")
        # What is wrong is found now, not after the codec is trained.
        chunk_len, found = self.model().denoiser.chunk_len, self.segment().chunk_len
        if found != chunk_len:
            raise ValueError(
                f"segments: chunk_len: expected {chunk_len}, the network's, found {found}; set denoiser.chunk_len"
            )
        if self.start_from is not None and (self.codec_run is not None or self.codec_weights is not None):
            raise ValueError(
                "start_from: expected no codec_run and no codec_weights beside it, found one; drop it"
            )
        if self.retrain_codec and self.start_from is None:
            raise ValueError(
                "retrain_codec: expected the model whose codec is trained on as start_from beside it, found none; drop it,"
                " and a codec is trained from random weights"
            )
        if self.decoder_training.motion:
            raise ValueError(
                f"decoder_training.motion: expected 0, for the encoder stays as it is, found {self.decoder_training.motion};"
                " set codec_training.motion"
            )
        if self.video_model is not None and self.codec_run is None:
            raise ValueError("video_model: expected its codec's run as codec_run beside it, found none")
        if (self.model().codec.kind == "taef2") != (self.codec_weights is not None):
            raise ValueError(
                "codec_weights: expected the folder of TAEF2's weights with codec.kind taef2, and none without, "
                f"found {self.codec_weights} with {self.model().codec.kind}"
            )

    @property
    def trains_codec(self) -> bool:
        """Whether the run trains a codec; otherwise it takes encoder and latents as they are given."""
        return self.retrain_codec or (self.start_from is None and self.refines_decoder)

    @property
    def refines_decoder(self) -> bool:
        """Whether the run trains the decoder on; otherwise it stays as it is in the codec that is given."""
        return self.codec_run is None and self.codec_weights is None

    def codec_folder(self, out: Path) -> Path:
        """Folder of the codec and latents that the run in the folder `out` uses."""
        return out if self.retrain_codec else Path(self.start_from or self.codec_run or out)

    def model(self) -> ModelConfig:
        """The preset with this run's changes."""
        fields = _as_json(PRESETS[self.preset]())
        for part in ("denoiser", "codec"):
            fields[part] = _merged(fields[part], getattr(self, part))
        model = decode(ModelConfig, fields)
        height, width = self.size or (model.image_height, model.image_width)
        return model.for_pictures(height, width, self.data.cameras)

    def segment(self) -> SegmentConfig:
        """How segments are cut."""
        fields = {"chunk_len": self.model().denoiser.chunk_len, **self.segments}
        try:
            return decode(SegmentConfig, fields)
        except ValueError as error:
            raise ValueError(f"segments: {error}") from error

    def to_json(self) -> dict[str, Any]:
        return _as_json(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrainConfig:
        return decode(cls, fields)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Of a training. Raises as read_config."""

    def made(document: dict[str, Any]) -> TrainConfig:
        config = decode(TrainConfig, _with_served_levels(_with_named_noise(_with_whole_sets(document))))
        _require_used(config, _document(overrides))
        return config

    return read_config(path, overrides, made)


def read_config(path: Path, overrides: Sequence[str], made: Callable[[dict[str, Any]], _T]) -> _T:
    """Read a YAML file; overrides are words like `denoiser.width=320`. made: from keys and values to the configuration.

    Raises ValueError, one line with file, key, expected and found.
    """
    source = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    if not path.exists():
        raise ValueError(
            f"config: expected a YAML file, found none at {path}; run in the clone, or give the path of another"
        )
    document = _yaml(path.read_text(), str(path))
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected keys and values, found {str(document)[:80]!r}")
    document = _merged(document, _document(overrides))
    try:
        return made(document)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _document(overrides: Sequence[str]) -> dict[str, Any]:
    """The words as keys and values."""
    document: dict[str, Any] = {}
    for word in overrides:
        key, _, text = word.partition("=")
        value = _yaml(text, word)
        for part in reversed(key.split(".")):
            value = {part: value}
        document = _merged(document, value)
    return document


def _require_used(config: TrainConfig, given: dict[str, Any]) -> None:
    """Raise ValueError for what no stage reads. Only of what is `given` as words, for a preset's file has all stages."""
    if (found := config.codec_training.latent_noise) != CodecTrainingConfig.latent_noise:
        raise ValueError(
            f"codec_training.latent_noise: expected {CodecTrainingConfig.latent_noise:g} as ever, for only the decoder gets used to"
            f" noise, found {found:g}; set decoder_training.latent_noise"
        )
    for stage, is_run in (("codec", config.trains_codec), ("decoder", config.refines_decoder)):
        names = [f"{stage}_training.{name}" for name in given.get(f"{stage}_training", {})]
        names += [f"budget.{name}" for name in given.get("budget", {}) if name == f"{stage}_minutes"]
        if names and not is_run:
            sources = {name: getattr(config, name) for name in ("start_from", "codec_run", "codec_weights")}
            source = next(f"{name}={folder}" for name, folder in sources.items() if folder is not None)
            other = ", or set retrain_codec=true" if config.start_from is not None else ""
            raise ValueError(
                f"{names[0]}: expected no such word beside {source}, whose {stage} is taken as it is, found one; drop it{other}"
            )


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: 2e-3 is one, too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: expected YAML, found {' '.join(str(error).split())}") from error


def _with_whole_sets(document: dict[str, Any]) -> dict[str, Any]:
    """A dataset of `data.sets` may be its path alone, with the weight 1."""
    data = document.get("data")
    sets = data.get("sets") if isinstance(data, dict) else None
    if not isinstance(sets, list):  # which is refused later
        return document
    whole = [{"path": one} if isinstance(one, str) else one for one in sets]
    return _merged(document, {"data": {"sets": whole}})


def _with_named_noise(document: dict[str, Any]) -> dict[str, Any]:
    """`objective.history_noise` may be the name of a preset."""
    objective = document.get("objective")
    name = objective.get("history_noise") if isinstance(objective, dict) else None
    if not isinstance(name, str):
        return document
    if name not in HISTORY_NOISE:
        raise ValueError(
            f"objective.history_noise: expected one of {', '.join(HISTORY_NOISE)}, found {name!r}"
        )
    return _merged(document, {"objective": {"history_noise": _as_json(HISTORY_NOISE[name])}})


def _with_served_levels(document: dict[str, Any]) -> dict[str, Any]:
    """`objective.sigmas` is trained on the levels that the preset serves, unless the file says otherwise."""
    preset = PRESETS.get(str(document.get("preset")))
    if preset is None:  # which is refused later
        return document
    model = preset()
    served = {"shift": model.shift, "served": list(model.sigmas[:-1])}
    return _merged({"objective": {"sigmas": served}}, document)


def _merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Fields with some replaced, at any depth."""
    merged = dict(fields)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _as_json(config: Any) -> dict[str, Any]:
    """Fields as JSON has them: lists instead of tuples."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return fields
