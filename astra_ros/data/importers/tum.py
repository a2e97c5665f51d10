"""A handheld camera with motion-capture poses (TUM RGB-D benchmark): pictures and poses.npz."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from astra_ros.data.episode import Episode, IntArray
from astra_ros.data.importers.source import Source, files, gaps, load_arrays, segments
from astra_ros.data.schema import EpisodeError, camera_schema
from astra_ros.data.video import decode_picture
from astra_ros.types import NANOSECONDS, FloatArray

_EVERY = 3  # of 30 frames a second
FPS = 10.0
PICTURE_SIZE = (240, 320)
_LONGEST_GAP_S = 0.1


def open_source(path: Path, cuts_s: tuple[float, ...] = ()) -> Source:
    """path: the folder with poses.npz (timestamp, pose_xyz_qxyzw camera-to-world) and rgb/.

    cuts_s: where to cut beside the recording's own gaps, seconds.
    """
    seconds, poses = load_arrays(path / "poses.npz", "timestamp", "pose_xyz_qxyzw")
    pictures = files(path, "rgb/*.jpg")
    if not len(pictures) == len(seconds) == len(poses):
        found = f"{len(seconds)} stamps, {len(poses)} poses"
        raise EpisodeError(path / "poses.npz", "rows", f"{len(pictures)} (one per picture)", found)
    stamps = np.rint((seconds - seconds[0]) * NANOSECONDS).astype(np.int64)
    cuts = sorted({*np.searchsorted(seconds - seconds[0], cuts_s).tolist(), *gaps(stamps, _LONGEST_GAP_S)})
    matrices = pose_matrices(poses)
    episodes = {
        name: partial(_load, name, pictures[part][::_EVERY], stamps[part][::_EVERY], matrices[part][::_EVERY])
        for name, part in segments(len(pictures), cuts).items()
    }
    return Source(camera_schema("handheld"), FPS, PICTURE_SIZE, episodes)


def _load(name: str, pictures: list[Path], stamps: IntArray, matrices: FloatArray) -> Episode:
    pixels = np.stack([decode_picture(file.read_bytes(), file) for file in pictures])
    return Episode(name, stamps, pixels, matrices, matrices)


def pose_matrices(poses: np.ndarray) -> FloatArray:
    """(t, 7) position and quaternion x y z w → (t, 12) 3x4 matrices [rotation | position], row-major."""
    x, y, z, w = (poses[:, 3:] / np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)).T
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), poses[:, 0]),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), poses[:, 1]),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), poses[:, 2]),
    ]
    return np.stack([value for row in rows for value in row], axis=1).astype(np.float32)
