"""How a checkpoint's router treats the actions of held-out moments."""

from __future__ import annotations

import numpy as np
import torch

from astra_ros.actions.encoder import Routing
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.evaluation.scenes import Scenes
from astra_ros.types import FloatArray


@torch.inference_mode()
def routed(checkpoint: Checkpoint, space: str, scenes: Scenes) -> tuple[FloatArray, np.ndarray]:
    """The router's probabilities (n, e) and the chosen experts (n,) for past and planned actions of all moments."""
    spec, index = checkpoint.actions[space], checkpoint.space_index(space)
    past = np.stack([history_features(spec, rows) for rows in scenes.history.actions])
    told = zip(scenes.plan, scenes.last_action, strict=True)
    planned = np.stack([chunk_features(spec, rows, last) for rows, last in told])
    filled = scenes.history.mask > 0
    features = np.concatenate([past[filled], planned.reshape(-1, planned.shape[-1])])
    encoder = checkpoint.denoiser.action_encoder
    widest = max(checkpoint.config.denoiser.actions.num_features)
    features = np.pad(features, ((0, 0), (0, widest - features.shape[1])))
    device = next(encoder.parameters()).device
    spaces = torch.full((len(features),), index, device=device)
    routing: Routing = encoder(torch.from_numpy(features)[:, None].to(device), spaces)[1]
    return routing.probabilities[:, 0].cpu().numpy(), routing.chosen[:, 0].cpu().numpy()
