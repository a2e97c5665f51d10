"""A car on a country road: steering and speed in, the view over its hood out.

Positive `steer` turns right, as in the recordings of Donkey Car, so that the spaces of one modality agree. Both values
act at once: the recorded row is what moved the car, exactly.
"""

from __future__ import annotations

import numpy as np

from astra_ros.data.schema import ActionSchema
from astra_ros.data.worlds.base import FRAME_S, NUM_FRAMES, Recording, Style, World
from astra_ros.data.worlds.camera import SceneCamera, upright
from astra_ros.data.worlds.driving_scene import driving_scene
from astra_ros.data.worlds.motion import MOTIONS, HeldActions
from astra_ros.data.worlds.road import HALF_WIDTH_M, LANE_M, SPACING_M, Road, wrap_angle

SCHEMA = ActionSchema("driving_sim", "drive", "rate", ("steer", "speed"), ("1", "m/s"))

WHEELBASE_M = 2.7
MAX_STEER_RAD = 0.5  # of the front wheels at steer = 1
MAX_SPEED_M_S = 12.0
NUM_CARS = 7
CAR_GAP_M, CAR_WIDTH_M = 7.0, 2.3  # a car whose centre is this near in front is not driven into
_SUBSTEPS = 4
_RECOVERY_FRAMES, _RECOVERY_M_S = 15, 4.0


def drive(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """One frame of a kinematic bicycle under (steer, speed).

    state: (x, y, heading) of its rear axle, metres and radians, left turns positive. Returns the next one.
    """
    steer, speed = action
    x, y, heading = state
    turn = -speed / WHEELBASE_M * np.tan(MAX_STEER_RAD * steer) * FRAME_S / _SUBSTEPS
    for _ in range(_SUBSTEPS):
        heading += turn / 2
        x += speed * np.cos(heading) * FRAME_S / _SUBSTEPS
        y += speed * np.sin(heading) * FRAME_S / _SUBSTEPS
        heading += turn / 2
    return np.array([x, y, heading])


class Traffic:
    """Other cars, each in its lane at its own pace; they stop for the ego car instead of driving through it."""

    def __init__(self, rng: np.random.Generator, road: Road, ego_station: int) -> None:
        self._road = road
        self._directions = np.where(np.arange(NUM_CARS) % 2, -1, 1)
        ahead_m = np.concatenate([rng.uniform(16, 45, 2), rng.uniform(45, 200, NUM_CARS - 2)])
        self._stations = ego_station + ahead_m / SPACING_M
        self._speeds = rng.uniform(3.0, 9.0, NUM_CARS)

    def poses(self, after_s: float = 0.0) -> np.ndarray:
        """(n, 3) x, y, heading, now or as expected after some time."""
        stations = self._stations + after_s * self._directions * self._speeds / SPACING_M
        poses = [
            self._road.at(station, -direction * LANE_M)
            for station, direction in zip(stations, self._directions, strict=True)
        ]
        return np.array(poses) + np.array([0, 0, np.pi]) * (self._directions < 0)[:, None]

    def move(self, ego: np.ndarray) -> None:
        """One frame."""
        poses = self.poses()
        forward, left = _seen_from(poses.T, ego[None])
        is_blocked = (forward > 0) & (forward < CAR_GAP_M) & (np.abs(left) < CAR_WIDTH_M)
        self._stations += np.where(is_blocked, 0.0, self._directions * self._speeds * FRAME_S / SPACING_M)


class Driver:
    """Chooses (steer, speed): pure pursuit of the lane with a wandering aim, or random manoeuvres that stay on the road."""

    def __init__(self, rng: np.random.Generator, road: Road, traffic: Traffic, style: Style) -> None:
        self._rng, self._road, self._traffic, self._style = rng, road, traffic, style
        self._ego = np.zeros(3)
        self._action = np.array([0.0, rng.uniform(4, 9)])
        self._wander, self._cruise = 0.0, float(self._action[1])
        self._manoeuvres = HeldActions(
            rng, MOTIONS["abrupt"], self._manoeuvre, self._is_safe, np.zeros(2, bool)
        )

    def act(self, ego: np.ndarray) -> np.ndarray:
        """(steer, speed) of the next frame."""
        self._ego = ego
        if self._style == "abrupt":
            return self._manoeuvres.next()
        self._action = self._glide()
        return self._action

    def _glide(self) -> np.ndarray:
        """Pursuit whose aim and pace wander slowly, with limited change of steering and speed."""
        self._wander = 0.97 * self._wander + self._rng.normal(0, 0.22)
        self._cruise = np.clip(self._cruise + self._rng.normal(0, 0.25), 3, MAX_SPEED_M_S - 1)
        wanted = np.array([self._pursuit(self._ego, self._wander), self._pace(self._cruise)])
        change = np.clip(wanted - self._action, [-0.06, -0.5], [0.06, 0.25])
        return self._action + change

    def _pursuit(self, ego: np.ndarray, aside_m: float) -> float:
        """Steering towards a point of the lane ahead (Coulter, 1992)."""
        station, _ = self._road.locate(ego)
        reach_m = 6.0 + 0.6 * self._action[1]
        goal = self._road.at(station + reach_m / SPACING_M, -LANE_M + np.clip(aside_m, -1.5, 1.5))
        offset = goal[:2] - ego[:2]
        angle = wrap_angle(np.arctan2(offset[1], offset[0]) - ego[2])
        curvature = 2 * np.sin(angle) / np.linalg.norm(offset)
        return float(np.clip(-np.arctan(WHEELBASE_M * curvature) / MAX_STEER_RAD, -1, 1))

    def _pace(self, cruise: float) -> float:
        """Slower behind another car, and in bends."""
        station, _ = self._road.locate(self._ego)
        ahead = self._road.at(station + 14 / SPACING_M, -LANE_M)
        gap = np.linalg.norm(self._traffic.poses()[:, :2] - ahead[:2], axis=1).min()
        bend = abs(wrap_angle(ahead[2] - self._ego[2]))
        return 1.0 if gap < 5 else float(cruise * (1 - 0.5 * min(bend, 1.0)))

    def _manoeuvre(self) -> np.ndarray:
        """Any steering at any speed, more often than not around what the lane asks for."""
        lane = self._pursuit(self._ego, self._rng.normal(0, 1.0))
        steer = lane + self._rng.normal(0, 0.35) if self._rng.random() < 0.7 else self._rng.uniform(-1, 1)
        speed = 0.0 if self._rng.random() < 0.06 else self._rng.uniform(1, MAX_SPEED_M_S)
        return np.array([np.clip(steer, -1, 1), speed])

    def _is_safe(self, actions: np.ndarray) -> bool:
        """Whether the car stays near the road and clear of the others, and can be steered back into its lane then."""
        state = self._ego
        for frame, action in enumerate(actions):
            state = drive(state, action)
            if not self._is_free(state, (frame + 1) * FRAME_S):
                return False
        for _ in range(_RECOVERY_FRAMES):
            state = drive(state, np.array([self._pursuit(state, 0.0), _RECOVERY_M_S]))
            if not self._is_on_road(state):
                return False
        return True

    def _is_free(self, state: np.ndarray, after_s: float) -> bool:
        forward, left = _seen_from(state, self._traffic.poses(after_s))
        is_near = (forward > 0) & (forward < CAR_GAP_M) & (np.abs(left) < CAR_WIDTH_M)
        return not is_near.any() and self._is_on_road(state)

    def _is_on_road(self, state: np.ndarray) -> bool:
        station, left_m = self._road.locate(state)
        astray = wrap_angle(state[2] - self._road.headings[station])
        return -HALF_WIDTH_M - 1.0 < left_m < 2.0 and abs(astray) < 1.0


def simulate(seed: int, style: Style) -> Recording:
    """One episode. Rows: (steer, speed) that acted since the frame before."""
    rng = np.random.default_rng([seed, 1])
    road = Road(rng)
    station = int(rng.integers(road.num_stations))
    ego, traffic = road.at(station, -LANE_M), Traffic(rng, road, station)
    driver = Driver(rng, road, traffic, style)
    pixels, rows = [], []
    with SceneCamera(driving_scene(rng, road, NUM_CARS), "front", has_fog=True) as camera:
        for _ in range(NUM_FRAMES):
            _place(camera, "ego", ego)
            for index, pose in enumerate(traffic.poses()):
                _place(camera, f"car{index}", pose)
            pixels.append(camera.picture())
            rows.append(driver.act(ego))
            ego = drive(ego, rows[-1])
            traffic.move(ego)
    # What is chosen at a frame leads to the next one.
    return Recording(pixels, [rows[0], *rows[:-1]])


def _seen_from(viewer: np.ndarray, things: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far forward and to the left of a viewer (x, y, heading) the things (n, 3) are, metres."""
    x, y, heading = viewer
    east, north = things[:, 0] - x, things[:, 1] - y
    return east * np.cos(heading) + north * np.sin(heading), north * np.cos(heading) - east * np.sin(heading)


def _place(camera: SceneCamera, name: str, state: np.ndarray) -> None:
    camera.place(name, np.array([*state[:2], 0.0]), upright(state[2]))


def activity(seed: int) -> str:
    """The same in every episode."""
    del seed
    return "drive along a country road"


WORLD = World("driving_sim", SCHEMA, simulate, activity)
