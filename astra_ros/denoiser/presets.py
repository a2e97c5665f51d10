"""Named model sizes. A preset fixes the architecture; what a robot's actions are is fitted to its recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from astra_ros.actions.config import ActionEncoderConfig
from astra_ros.actions.spec import MODALITIES, ActionSpec
from astra_ros.codec.autoencoder import CodecConfig
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.flow.schedule import shifted_sigmas


@dataclass(frozen=True)
class ModelConfig:
    """Codec and denoiser and how they are sampled.

    image_height, image_width: pixels. step_dt: seconds between latent frames. num_steps, shift: the served noise levels.
    cameras: names of several, whose pictures are one below the other in the model's; empty for one.
    """

    preset: str
    image_height: int = 128
    image_width: int = 128
    step_dt: float = 0.2
    num_steps: int = 2
    shift: float = 3.0
    codec: CodecConfig = field(default_factory=CodecConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            latent, found = getattr(self.denoiser, f"latent_{side}"), getattr(self, f"image_{side}")
            if found != self.codec.factor * latent:
                raise ValueError(
                    f"image_{side}: expected codec.factor * denoiser.latent_{side} = "
                    f"{self.codec.factor} * {latent}, found {found}"
                )
        if self.codec.latent_channels != self.denoiser.latent_channels:
            raise ValueError(
                f"latent_channels: codec has {self.codec.latent_channels}, denoiser {self.denoiser.latent_channels}"
            )
        rows = self.codec.factor * self.denoiser.patch * max(1, len(self.cameras))
        if self.image_height % rows:
            raise ValueError(
                f"image_height: expected a multiple of {rows}, codec.factor * denoiser.patch of each camera, so that no token"
                f" sees two, found {self.image_height}"
            )

    @property
    def sigmas(self) -> tuple[float, ...]:
        return shifted_sigmas(self.num_steps, self.shift)

    def for_pictures(self, height: int, width: int, cameras: Sequence[str] = ()) -> ModelConfig:
        """The same model for pictures of another size [pixels], or of several cameras one below the other. Raises ValueError."""
        factor = self.codec.factor
        for side, found in (("height", height), ("width", width)):
            if found < 1 or found % factor:
                raise ValueError(f"size: expected a {side} that is a multiple of {factor}, found {found}")
        denoiser = replace(self.denoiser, latent_height=height // factor, latent_width=width // factor)
        return replace(
            self, image_height=height, image_width=width, denoiser=denoiser, cameras=tuple(cameras)
        )

    def for_actions(self, specs: Sequence[ActionSpec]) -> ModelConfig:
        """The same model for these action spaces, in this order."""
        features = tuple(spec.num_features for spec in specs)
        modality_of = tuple(MODALITIES.index(spec.modality) for spec in specs)
        actions = replace(self.denoiser.actions, num_features=features, modality_of=modality_of)
        return replace(self, denoiser=replace(self.denoiser, actions=actions))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ModelConfig:
        """Inverse of to_json. Raises ValueError or TypeError for fields of another version."""
        codec = {**fields["codec"], "widths": tuple(fields["codec"]["widths"])}
        actions: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in fields["denoiser"]["actions"].items()
        }
        denoiser = DenoiserConfig(**{**fields["denoiser"], "actions": ActionEncoderConfig(**actions)})
        cameras = tuple(fields.get("cameras", ()))
        return cls(**{**fields, "codec": CodecConfig(**codec), "denoiser": denoiser, "cameras": cameras})


def tiny() -> ModelConfig:
    """128x128, for a CPU: tokens of 32x32 pixels, finished by convolutions."""
    return ModelConfig("tiny", denoiser=DenoiserConfig(patch=4, refiner=64, pose_rank=128))


def small() -> ModelConfig:
    """192x320, about 70 M parameters: for a laptop's GPU."""
    denoiser = DenoiserConfig(
        latent_channels=16, latent_height=24, latent_width=40, width=576, depth=12, num_heads=9
    )
    return ModelConfig(
        "small", 192, 320, codec=CodecConfig(latent_channels=16, widths=(64, 192)), denoiser=denoiser
    )


def base() -> ModelConfig:
    """256x448, about 320 M parameters: for a workstation."""
    denoiser = DenoiserConfig(
        latent_channels=16, latent_height=32, latent_width=56, width=1024, depth=19, num_heads=16
    )
    return ModelConfig(
        "base",
        256,
        448,
        num_steps=4,
        codec=CodecConfig(latent_channels=16, widths=(96, 256)),
        denoiser=denoiser,
    )


def astra_1b3() -> ModelConfig:
    """The paper's sizes at 480x832: Wan2.1-1.3B's width, depth and heads, 50 steps, shift 5 (A.1, C)."""
    denoiser = DenoiserConfig(
        latent_channels=16,
        latent_height=60,
        latent_width=104,
        width=1536,
        depth=30,
        num_heads=12,
        mlp_hidden=8960,
        pose_rank=0,
        actions=ActionEncoderConfig(num_experts=3),
    )
    return ModelConfig(
        "astra_1b3",
        480,
        832,
        num_steps=50,
        shift=5.0,
        codec=CodecConfig(latent_channels=16, widths=(96, 256)),
        denoiser=denoiser,
    )


PRESETS = {"tiny": tiny, "small": small, "base": base, "astra_1b3": astra_1b3}
