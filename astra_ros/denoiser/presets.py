"""Named model sizes. A preset fixes the architecture; what the robot's joints are is fitted to its recordings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from astra_ros.codec.autoencoder import CodecConfig
from astra_ros.denoiser.dit import DenoiserConfig
from astra_ros.flow.schedule import shifted_sigmas


@dataclass(frozen=True)
class ModelConfig:
    """Codec and denoiser and how they are sampled.

    image_size: pixels, square. step_dt: seconds between latent frames. num_steps, shift: the served noise levels.
    """

    preset: str
    image_size: int = 128
    step_dt: float = 0.2
    num_steps: int = 2
    shift: float = 3.0
    codec: CodecConfig = field(default_factory=CodecConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)

    def __post_init__(self) -> None:
        if self.image_size != self.codec.factor * self.denoiser.latent_size:
            raise ValueError(
                f"image_size: expected codec.factor * denoiser.latent_size = "
                f"{self.codec.factor} * {self.denoiser.latent_size}, found {self.image_size}"
            )
        if self.codec.latent_channels != self.denoiser.latent_channels:
            raise ValueError(
                f"latent_channels: codec has {self.codec.latent_channels}, denoiser {self.denoiser.latent_channels}"
            )

    @property
    def sigmas(self) -> tuple[float, ...]:
        return shifted_sigmas(self.num_steps, self.shift)

    def with_features(self, num_features: int) -> ModelConfig:
        """The same model for a robot with another number of action features."""
        return replace(self, denoiser=replace(self.denoiser, num_features=num_features))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ModelConfig:
        codec = dict(fields["codec"], widths=tuple(fields["codec"]["widths"]))
        return cls(
            **{**fields, "codec": CodecConfig(**codec), "denoiser": DenoiserConfig(**fields["denoiser"])}
        )


def tiny() -> ModelConfig:
    """128x128, 5 Hz, chunks of one second: for a CPU."""
    return ModelConfig(preset="tiny")


PRESETS = {"tiny": tiny}
