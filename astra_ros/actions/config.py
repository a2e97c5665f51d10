"""Sizes of the action encoder. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RouterKind = Literal["learned", "hard", "single"]


@dataclass(frozen=True)
class ActionEncoderConfig:
    """num_features, modality_of: one entry per action space. modality_of: number of its modality.

    num_experts: modality m begins at expert m % num_experts, so several share an expert when there are fewer experts.
    unified: width of the shared action space. octaves: of the sines of the features.
    router: learned top-1, hard (the modality chooses), or single (one expert for everything, the ablation).
    """

    num_features: tuple[int, ...] = (25,)
    modality_of: tuple[int, ...] = (0,)
    num_experts: int = 4
    unified: int = 128
    octaves: int = 3
    router: RouterKind = "learned"
