"""TFRecord files without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.importers.tfrecord import read_examples
from astra_ros.data.lerobot import EpisodeError


# A tf.train.Example by hand: protocol buffer fields are tag (number << 3 | wire), length, content.
def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    value %= 1 << 64
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def example(**features: bytes) -> bytes:
    entries = [field(1, field(1, name.encode()) + field(2, content)) for name, content in features.items()]
    return field(1, b"".join(entries))


def tfrecord(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + b"crc-" + data + b"crc-"


def test_tfrecords_are_read_without_tensorflow(tmp_path: Path) -> None:
    numbers = np.array([1.5, -2.0], "<f4")
    message = example(
        pictures=field(1, field(1, b"one") + field(1, b"two" * 100)),
        action=field(2, field(1, numbers.tobytes())),
        flags=field(3, field(1, varint(300) + varint(-1))),
        empty=b"",
    )
    (tmp_path / "x.tfrecord").write_bytes(tfrecord(message) * 2)
    first, second = read_examples(tmp_path / "x.tfrecord")
    assert first["pictures"] == [b"one", b"two" * 100]
    assert first["action"].tolist() == [1.5, -2.0]
    assert second["flags"].tolist() == [300, -1]
    assert first["empty"] == []


@pytest.mark.parametrize("keep", [-1, -9, 5])
def test_a_truncated_tfrecord_is_noticed(tmp_path: Path, keep: int) -> None:
    (tmp_path / "x.tfrecord").write_bytes(tfrecord(example(a=b""))[:keep])
    with pytest.raises(
        EpisodeError, match=r"x.tfrecord: record: expected .* bytes and a checksum, found the end"
    ):
        list(read_examples(tmp_path / "x.tfrecord"))


def test_a_tfrecord_of_something_else_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "x.tfrecord").write_bytes(tfrecord(b"\xff" * 20))
    with pytest.raises(
        EpisodeError, match=r"x.tfrecord: record 0: expected a tf.train.Example, found IndexError"
    ):
        list(read_examples(tmp_path / "x.tfrecord"))
