"""The main job, once, on a recording: node, player and an independent subscriber that writes down what it gets.

The node runs in a process of its own and is brought up through its lifecycle services; everything travels over DDS.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message

from astra_ros.data.bag import BagWriter
from astra_ros.data.playback import PlaybackConfig, PlaybackProgress
from astra_ros.ros.bag_player import BagPlayer
from astra_ros.ros.bag_recorder import Arrival, BagRecorder
from astra_ros.ros.message_types import stamp_ns
from astra_ros.ros.node_process import LifecycleClient, NodeProcess
from astra_ros.ros.session import ros_session
from astra_ros.ros.views import camera_source

NODE = "/world_model"
FUTURE_TOPIC = f"{NODE}/predicted_future"
DIAGNOSTICS_TOPIC = "/diagnostics"
RECORDED_TOPICS = (FUTURE_TOPIC, f"{NODE}/model_info", DIAGNOSTICS_TOPIC)

_CONFIGURE_TIMEOUT_S, _TRANSITION_TIMEOUT_S, _MATCH_TIMEOUT_S = 60.0, 10.0, 15.0
_SPIN_S = 0.05
# After the last message was played: time for the prediction in work and for one more of the 1 Hz diagnostics.
_QUIET_S = 1.5
_CLOCK_HZ = 100.0
# Above the domains that people use, and with ports that Linux does not hand out to others.
_DOMAINS = range(215, 233)
_RESERVATION_PORT = 32768


@dataclass(frozen=True)
class DemoConfig:
    """bag: recording with the input topics. image_topics: of the model's cameras, in its order.

    remaps: the node's other inputs to topics of the recording: what the robot did, and what it was told, which may be missing.
    parameters: further ones of the node.
    bundle: None is the shipped one. out: existing folder for the bag `predicted_futures` and the node's log. duration_s: 0 plays to the end.
    """

    bag: Path
    out: Path
    image_topics: tuple[str, ...]
    remaps: Mapping[str, str]
    parameters: Mapping[str, str] = field(default_factory=dict)
    bundle: Path | None = None
    rate: float = 1.0
    duration_s: float = 0.0


@dataclass
class DemoRun:
    """What the subscriber saw.

    latencies_ms: from the image's stamp to publishing, one per prediction. The publishing time is DDS's source
    timestamp; both are on the system's clock of this machine.
    diagnostics: last values the node published. recording: bag with the camera, the futures and the diagnostics.
    """

    recording: Path
    latencies_ms: list[float] = field(default_factory=list)
    diagnostics: dict[str, str] = field(default_factory=dict)

    def drops(self) -> dict[str, int]:
        """Inputs the node did not use, by cause."""
        prefix = "drops."
        return {k.removeprefix(prefix): int(v) for k, v in self.diagnostics.items() if k.startswith(prefix)}


@contextmanager
def isolated() -> Iterator[None]:
    """Keep this process and its children away from other robots: this machine only, a ROS domain of its own."""
    before = dict(os.environ)
    with _reserve_domain() as domain:
        os.environ |= {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(domain)}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


@contextmanager
def _reserve_domain() -> Iterator[int]:
    """A bound port marks a domain as taken, as ROS's domain_coordinator does for tests."""
    for domain in _DOMAINS:
        with socket.socket() as reservation:
            try:
                reservation.bind(("127.0.0.1", _RESERVATION_PORT + domain))
            except OSError:
                continue
            yield domain
            return
    raise OSError(
        f"no free ROS domain among {_DOMAINS.start} … {_DOMAINS.stop - 1}: end the other demos on this machine"
    )


def run_demo(config: DemoConfig, on_state: Callable[[str], None]) -> DemoRun:
    """Run it. Raises NodeFailedError when the node does, BagError for the recording."""
    recording = config.out / "predicted_futures"
    with ros_session() as stop, NodeProcess(config.out / "world_model.log", _ros_args(config)) as process:
        with BagWriter(recording) as writer:
            run = _Session(config, process, writer, DemoRun(recording), stop, on_state).run()
        if code := process.stop():
            raise process.failure(f"the node ended with exit code {code}")
    if stop.is_set():
        raise KeyboardInterrupt
    return run


class _Session:
    """The client's side, on one thread; only the player has another."""

    def __init__(
        self,
        config: DemoConfig,
        process: NodeProcess,
        writer: BagWriter,
        run: DemoRun,
        stop: threading.Event,
        on_state: Callable[[str], None],
    ) -> None:
        self._config, self._process, self._run, self._stop, self._on_state = (
            config,
            process,
            run,
            stop,
            on_state,
        )
        self._node: Node = rclpy.create_node("demo")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        topics = (*RECORDED_TOPICS, *config.image_topics)
        self._recorder = BagRecorder(self._node, writer, topics, on_arrival=self._on_arrival)
        self._lifecycle = LifecycleClient(self._node, self._executor, process, NODE)
        self._player: BagPlayer | None = None

    def run(self) -> DemoRun:
        self._on_state("the node loads, verifies and warms up the model")
        self._lifecycle.change(Transition.TRANSITION_CONFIGURE, _CONFIGURE_TIMEOUT_S)
        self._lifecycle.change(Transition.TRANSITION_ACTIVATE, _TRANSITION_TIMEOUT_S)
        with BagPlayer(self._node, _playback(self._config), self._stop) as self._player:
            self._spin_until(self._is_connected, _MATCH_TIMEOUT_S)
            self._play(self._player)
        return self._run

    def _play(self, player: BagPlayer) -> None:
        with ThreadPoolExecutor(1, "bag_player") as thread:
            playing = thread.submit(player.play, self._show)
            try:
                while not playing.done():
                    self._spin()
            except BaseException:
                self._stop.set()  # or leaving the block would wait for the end of the recording
                raise
            playing.result()
        self._spin_until(lambda: False, _QUIET_S)

    def _is_connected(self) -> bool:
        """Every played topic reaches the node, and the cameras reach the recorder too."""
        assert self._player is not None
        counts, images = self._player.subscriber_counts(), self._config.image_topics
        recorded = all(topic in self._recorder.tallies for topic in (FUTURE_TOPIC, *images))
        return recorded and all(counts.values()) and all(counts[topic] >= 2 for topic in images)

    def _spin_until(self, is_done: Callable[[], bool], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and not is_done():
            self._spin()

    def _spin(self) -> None:
        self._process.require_alive()
        self._executor.spin_once(timeout_sec=_SPIN_S)

    def _show(self, progress: PlaybackProgress) -> None:
        predictions = len(self._run.latencies_ms)
        self._on_state(
            f"playing {progress.seconds:5.1f} / {progress.total_s:.1f} s   {predictions} predictions"
        )

    def _on_arrival(self, arrival: Arrival) -> None:
        if arrival.topic == FUTURE_TOPIC:
            self._run.latencies_ms.append((arrival.sent_ns - self._image_time_ns(arrival)) / 1e6)
        elif arrival.topic == DIAGNOSTICS_TOPIC:
            for status in deserialize_message(arrival.raw, DiagnosticArray).status:
                if status.name.startswith(NODE):
                    self._run.diagnostics = {value.key: value.value for value in status.values}

    def _image_time_ns(self, future: Arrival) -> int:
        """The observation's stamp on the system's clock."""
        stamp = stamp_ns(future.type, future.raw)
        assert stamp is not None
        assert self._player is not None
        return stamp if _is_real_time(self._config) else self._player.lap.to_system_ns(stamp)


def _is_real_time(config: DemoConfig) -> bool:
    return config.rate == 1.0


def _playback(config: DemoConfig) -> PlaybackConfig:
    """At the recorded speed the robot is as good as live; at another one time itself is simulated."""
    topics = dict.fromkeys([*config.image_topics, *config.remaps.values()])
    return PlaybackConfig(
        bag=config.bag,
        rate=config.rate,
        duration_s=config.duration_s,
        topics=tuple(topics),
        restamp=_is_real_time(config),
        clock_hz=0.0 if _is_real_time(config) else _CLOCK_HZ,
    )


def _ros_args(config: DemoConfig) -> list[str]:
    cameras = {
        camera_source(number): topic.removesuffix("/compressed")
        for number, topic in enumerate(config.image_topics, 1)
    }
    parameters = {
        **config.parameters,
        "image_transport": "compressed",
        "use_sim_time": "false" if _is_real_time(config) else "true",
    }
    if config.bundle:
        parameters["bundle"] = str(config.bundle.resolve())
    return [
        *(
            part
            for name, topic in {**cameras, **config.remaps}.items()
            for part in ("-r", f"{name}:={topic}")
        ),
        *(part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")),
    ]
