"""Read and write rosbag2 recordings without ROS: folders, lone .mcap and .db3 files (rosbags).

Messages travel as the CDR bytes that DDS carries, so that copying a topic never decodes it; `BagReader.deserialize`
and `BagWriter.write` convert when the content is wanted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection, ConnectionExtRosbag2, Nodetype, Qos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

STORAGE_SUFFIXES = (".mcap", ".db3")


class BagError(ValueError):
    """A recording that cannot be read or written. One line: what was found, and what helps."""


def shared_folder(folder: str, member: str) -> Path:
    """A folder that comes with the package: in the repository, or in share/astra_ros of the installation.

    member: a file that must be in it. Raises BagError when it is not installed.
    """
    for parent in Path(__file__).resolve().parents:
        for candidate in (parent / folder, parent / "share" / "astra_ros" / folder):
            if (candidate / member).is_file():
                return candidate
    raise BagError(f"{folder}/{member} is not installed with astra_ros; reinstall it (pip install .)")


@cache
def typestore() -> Typestore:
    """Jazzy's message types and this package's own."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(shared_folder("msg", "ActionSequence.msg").glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(), f"astra_ros/msg/{path.stem}"))
    return store


def message_type(name: str) -> Any:
    """The dataclass of a message type, for example "sensor_msgs/msg/JointState".

    Raises BagError for a type that is neither Jazzy's, nor this package's, nor of an installed package.
    """
    _learn(name)
    return typestore().types[name]


@dataclass(frozen=True)
class RecordedTopic:
    """type: full name, "sensor_msgs/msg/Image". qos: what each recorded publisher offered; empty when not recorded."""

    name: str
    type: str
    count: int
    qos: tuple[Qos, ...]


@dataclass(frozen=True)
class RecordedMessage:
    """stamp_ns: time of reception, nanoseconds of the recorder's clock. raw: CDR bytes, encapsulation included."""

    topic: str
    type: str
    stamp_ns: int
    raw: bytes


class BagReader:
    """Reads one recording. A context manager.

    path: a rosbag2 folder, or a lone .mcap or .db3 file. Raises BagError when it is none or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = AnyReader([_storage(path)], default_typestore=typestore())
        except (AnyReaderError, FileNotFoundError) as error:
            raise BagError(f"{path}: {error}") from None

    def __enter__(self) -> BagReader:
        try:
            self._reader.open()
        except (AnyReaderError, FileNotFoundError, AssertionError, EOFError) as error:
            hint = "if its recorder was killed, `mcap recover` rebuilds the index"
            raise BagError(f"{self.path}: cannot be read: {error}; {hint}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    @property
    def topics(self) -> dict[str, RecordedTopic]:
        """Topics by name; several recorded publishers of one topic are one entry."""
        topics: dict[str, RecordedTopic] = {}
        for connection in self._reader.connections:
            before = topics.get(connection.topic)
            count, qos = (before.count, before.qos) if before else (0, ())
            topics[connection.topic] = RecordedTopic(
                connection.topic,
                _full_name(connection.msgtype),
                count + connection.msgcount,
                (*qos, *_offered(connection)),
            )
        return topics

    @property
    def start_ns(self) -> int:
        """Stamp of the first message."""
        return self._reader.start_time

    @property
    def end_ns(self) -> int:
        """Stamp of the last message."""
        return self._reader.end_time - 1  # rosbags gives the first instant after it

    def messages(
        self, topics: Collection[str] = (), start_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[RecordedMessage]:
        """Messages in the order of their stamps, start_ns <= stamp < end_ns; all topics when `topics` is empty.

        Raises BagError for a topic that was not recorded, and where the file is damaged.
        """
        if unknown := set(topics) - set(self.topics):
            known = ", ".join(sorted(self.topics))
            raise BagError(f"{self.path}: topic {sorted(unknown)[0]} was not recorded; it holds {known}")
        wanted = [c for c in self._reader.connections if not topics or c.topic in topics]
        messages = self._reader.messages(wanted, start_ns, end_ns) if wanted else iter(())
        while message := self._next(messages):
            connection, stamp_ns, raw = message
            yield RecordedMessage(connection.topic, _full_name(connection.msgtype), stamp_ns, raw)

    def _next(
        self, messages: Iterator[tuple[Connection, int, bytes]]
    ) -> tuple[Connection, int, bytes] | None:
        try:
            return next(messages, None)
        except Exception as error:  # decompression of arbitrary bytes may raise anything
            raise BagError(
                f"{self.path}: damaged: {type(error).__name__}: {error}; record it again"
            ) from error

    def deserialize(self, message: RecordedMessage) -> Any:
        """The message as a dataclass, by the definition recorded with it. Raises BagError when its bytes are damaged."""
        try:
            return self._reader.deserialize(message.raw, message.type)
        except Exception as error:  # of arbitrary bytes
            raise BagError(
                f"{self.path}: {message.topic} at {message.stamp_ns} ns: expected a {message.type}, found "
                f"{len(message.raw)} bytes that are none ({type(error).__name__}: {error}); record it again"
            ) from error


class BagWriter:
    """Writes a rosbag2 folder: metadata.yaml and one MCAP file in zstd chunks. A context manager.

    However the block is left, the file is closed with its index: a recording interrupted by Ctrl-C is whole.
    Raises BagError when `folder` exists.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists():
            raise BagError(f"{folder} exists: choose another --out, or remove it (rm -r {folder})")
        self.folder = folder
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}

    def add_topic(self, topic: str, type_name: str, qos: Sequence[Qos] = ()) -> None:
        """Announce a topic with the profiles its publishers offered. Raises BagError for an unknown type."""
        _learn(type_name)
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=typestore(), offered_qos_profiles=qos
        )

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Append one message of `message_type`; the topic is announced with its type on first use."""
        self.write_raw(
            topic, message.__msgtype__, typestore().serialize_cdr(message, message.__msgtype__), stamp_ns
        )

    def write_raw(self, topic: str, type_name: str, raw: bytes | memoryview, stamp_ns: int) -> None:
        """Append one message as CDR bytes."""
        if topic not in self._connections:
            self.add_topic(topic, type_name)
        self._writer.write(self._connections[topic], stamp_ns, raw)

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _learn(type_name: str) -> None:
    """Make a type known from the .msg files of installed packages, and before it the types of its fields."""
    if type_name in typestore().types:
        return
    package, _, name = type_name.partition("/msg/")
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    paths = (Path(prefix) / "share" / package / "msg" / f"{name}.msg" for prefix in prefixes)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise BagError(f"the definition of {type_name} is not installed; source the workspace of {package}")
    definitions = get_types_from_msg(path.read_text(), type_name)
    for _, description in definitions[type_name][1]:
        is_array = description[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE)
        kind, content = cast("tuple[Nodetype, Any]", description[1][0] if is_array else description)
        if kind == Nodetype.NAME:
            _learn(content)
    typestore().register(definitions)


def is_recording(path: Path) -> bool:
    """Whether it is what `BagReader` takes, by its files' names."""
    try:
        _storage(path)
    except BagError:
        return False
    return True


def _storage(path: Path) -> Path:
    """What rosbags is to open: the folder, or the one storage file of a folder whose recorder never finished."""
    if path.is_file() and path.suffix in STORAGE_SUFFIXES:
        return path
    if (path / "metadata.yaml").is_file():
        return path
    files = (
        [p for suffix in STORAGE_SUFFIXES for p in sorted(path.glob(f"*{suffix}"))] if path.is_dir() else []
    )
    if len(files) == 1:
        return files[0]
    raise BagError(
        f"{path}: expected a rosbag2 folder (with metadata.yaml) or a .mcap or .db3 file, found {_instead(path, len(files))}"
    )


def _instead(path: Path, num_files: int) -> str:
    """Of a recording, and what helps. num_files: of storage in the folder."""
    if not path.exists():
        return "nothing"
    if not path.is_dir():
        return "another kind of file"
    if num_files:
        return f"{num_files} storage files without it; `ros2 bag reindex {path}` writes it"
    deeper = sorted({file.parent for suffix in STORAGE_SUFFIXES for file in path.glob(f"*/*{suffix}")})
    return f"{deeper[0]} in it; give that one" if deeper else "0 storage files"


def _full_name(type_name: str) -> str:
    """Early rosbag2 wrote "sensor_msgs/Image" for "sensor_msgs/msg/Image"."""
    package, _, name = type_name.partition("/")
    return type_name if "/" in name else f"{package}/msg/{name}"


def _offered(connection: Connection) -> tuple[Qos, ...]:
    return (
        tuple(connection.ext.offered_qos_profiles) if isinstance(connection.ext, ConnectionExtRosbag2) else ()
    )
