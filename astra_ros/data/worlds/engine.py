"""MuJoCo, told to render without a display: it decides that when it is imported."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco

__all__ = ["mujoco"]
