"""Camera pictures in, predicted pictures out, through the same WorldModel that the node uses."""

from __future__ import annotations

from astra_ros.backends.base import Backend
from astra_ros.benchmarking.interleaving import Subject
from astra_ros.benchmarking.scene import Scene
from astra_ros.history.layout import slot_ages
from astra_ros.rollout.world_model import WorldModel

UNITS = 2  # predictions in a row, each after one new picture


def stream_subject(name: str, backend: Backend, scene: Scene, horizon: int) -> Subject:
    """Seconds per predicted frame at a horizon of so many frames."""
    world_model, camera = WorldModel(backend), scene.observations()
    for _ in slot_ages():
        world_model.observe(next(camera))
    plan = scene.plans(2, horizon)[1]

    def run() -> None:
        for _ in range(UNITS):
            observation = next(camera)
            world_model.observe(observation)
            world_model.predict(observation.stamp_ns, plan, seed=0)

    return Subject(name, run, UNITS * horizon)
