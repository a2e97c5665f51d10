"""Where a LeRobot dataset keeps each episode: layouts v2.0 and v2.1 (one file per episode) and v3.0 (shared files).

Layouts as in the public library `lerobot`: meta/info.json with path templates; meta/episodes.jsonl (v2) or
meta/episodes/*/*.parquet (v3). `meta/astra.json` is this project's: the action schema, which LeRobot cannot express.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from astra_ros.data.schema import ActionSchema, EpisodeError

STATE, ACTION, STAMP = "observation.state", "action", "observation.stamp_ns"
IMAGES = "observation.images."
INFO, ASTRA = Path("meta/info.json"), Path("meta/astra.json")
EPISODES, TASKS = Path("meta/episodes.jsonl"), Path("meta/tasks.jsonl")
EPISODE_FILES = "meta/episodes/*/*.parquet"
VERSIONS = ("v2.0", "v2.1", "v3.0")
_CHUNK_SIZE = 1000


@dataclass(frozen=True)
class VideoPart:
    """What one camera saw of an episode. start_s: of its first frame in a video that several episodes share; None: it has its own."""

    file: Path
    start_s: float | None = None


@dataclass(frozen=True)
class EpisodeRecord:
    """Where one episode is. index: in the column episode_index; task: what was done, in words.

    videos: one per camera that is used; none when the pictures are in the rows.
    first_command: the command before the first frame, which LeRobot's columns have no row for; None: not recorded.
    """

    name: str
    index: int
    length: int
    task: str
    rows: Path
    videos: tuple[VideoPart, ...]
    first_command: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DatasetIndex:
    """What the meta folder says. cameras: the columns or videos used; measured, commanded: the columns that hold them.

    available: names of all its cameras. stored_size: (height, width) that a writer of this project fitted every camera's pictures
    to; None: they are as others wrote them. camera_sizes: of the used cameras' own pictures, before that; None: not known.
    """

    name: str
    fps: float
    schema: ActionSchema
    cameras: tuple[str, ...]
    available: tuple[str, ...]
    measured: str
    commanded: str
    episodes: tuple[EpisodeRecord, ...]
    stored_size: tuple[int, int] | None
    camera_sizes: tuple[tuple[int, int] | None, ...]


def read_index(path: Path, cameras: Sequence[str] = ()) -> DatasetIndex:
    """Read the meta folder of a dataset. cameras: which of several, in the order wanted; the first one by default.

    Raises EpisodeError when a file is missing or says what cannot be used.
    """
    _require_dataset(path)
    file, info = path / INFO, read_json(path / INFO)
    version = _field(file, info, "codebase_version", str)
    if version not in VERSIONS:
        raise EpisodeError(file, "codebase_version", f"one of {', '.join(VERSIONS)}", version)
    own = read_json(path / ASTRA) if (path / ASTRA).exists() else {}
    features = _field(file, info, "features", dict)
    name, measured, commanded = _names(path, own)
    schema = _schema(path, own, name, commanded, features)
    for column in (measured, commanded):
        _require_dim(file, features, column, schema.dim)
    available = _cameras(file, features)
    keys = [_camera(file, available, wanted) for wanted in cameras] or [*available][:1]
    in_video = _are_videos(file, features, keys)
    records = (_records_v3 if version == "v3.0" else _records_v2)(path, info, keys if in_video else ())
    return DatasetIndex(
        name=name,
        fps=float(_field(file, info, "fps", int | float)),
        schema=schema,
        cameras=tuple(keys),
        available=tuple(available.values()),
        measured=measured,
        commanded=commanded,
        episodes=tuple(records),
        stored_size=_size(path / ASTRA, own, "size"),
        camera_sizes=tuple(_camera_size(path / ASTRA, own, available[key]) for key in keys),
    )


def _require_dataset(path: Path) -> None:
    """Raises EpisodeError where there is no folder, or one of datasets."""
    if not path.is_dir():
        raise EpisodeError(path, "folder", "a dataset", "no such folder")
    inside = sorted(file.parents[1].name for file in path.glob(f"*/{INFO}"))
    if inside and not (path / INFO).exists():
        raise EpisodeError(
            path, "folder", "a dataset", f"a folder of datasets: {', '.join(inside)}; name one"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises EpisodeError when there is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EpisodeError(path, "content", "a JSON object", str(error)) from None
    if not isinstance(value, dict):
        raise EpisodeError(path, "content", "a JSON object", type(value).__name__)
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects of a .jsonl file, one a line; an unfinished last line is left out. Raises EpisodeError."""
    *lines, last = path.read_text().split("\n") if path.exists() else [""]
    try:
        found = [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise EpisodeError(path, "content", "one JSON object per line", str(error)) from None
    try:
        return [*found, json.loads(last)] if last else found
    except ValueError:  # an interruption; other programs leave out the newline after a whole one
        return found


def _records_v2(path: Path, info: dict[str, Any], video_keys: Sequence[str]) -> Iterator[EpisodeRecord]:
    file = path / EPISODES
    if not file.exists():
        raise EpisodeError(file, "content", "one line per episode", "no such file")
    for line in read_lines(file):
        index = _field(file, line, "episode_index", int)
        chunk = index // info.get("chunks_size", _CHUNK_SIZE)
        place = {"episode_index": index, "episode_chunk": chunk}
        files = (_place(path, info, "video_path", {**place, "video_key": key}) for key in video_keys)
        first = line.get("first_command")
        yield EpisodeRecord(
            name=line.get("name", f"episode_{index:06d}"),
            index=index,
            length=_field(file, line, "length", int),
            task="; ".join(line.get("tasks") or ()),
            rows=_place(path, info, "data_path", place),
            videos=tuple(map(VideoPart, files)),
            first_command=None if first is None else tuple(first),
        )


def _records_v3(path: Path, info: dict[str, Any], video_keys: Sequence[str]) -> Iterator[EpisodeRecord]:
    files = sorted(path.glob(EPISODE_FILES))
    if not files:
        raise EpisodeError(path, "content", f"a file {EPISODE_FILES}", "none")
    for file in files:
        for row in _rows(file, video_keys):
            index = _field(file, row, "episode_index", int)
            yield EpisodeRecord(
                name=f"episode_{index:06d}",
                index=index,
                length=_field(file, row, "length", int),
                task="; ".join(row["tasks"] or ()),
                rows=_place(path, info, "data_path", _file_place(file, row, "data")),
                videos=tuple(_video_part(path, info, file, row, key) for key in video_keys),
            )


def _video_part(path: Path, info: dict[str, Any], file: Path, row: dict[str, Any], key: str) -> VideoPart:
    place = {**_file_place(file, row, f"videos/{key}"), "video_key": key}
    start_s = _field(file, row, f"videos/{key}/from_timestamp", float)
    return VideoPart(_place(path, info, "video_path", place), start_s)


def _rows(file: Path, video_keys: Sequence[str]) -> list[dict[str, Any]]:
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    for key in video_keys:
        columns += [f"videos/{key}/{field}" for field in ("chunk_index", "file_index", "from_timestamp")]
    try:
        table = pq.read_table(file, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise EpisodeError(file, "columns", ", ".join(columns), str(error)) from None
    return [dict.fromkeys(columns) | row for row in table.to_pylist()]


def _file_place(file: Path, row: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {field: _field(file, row, f"{prefix}/{field}", int) for field in ("chunk_index", "file_index")}


def _place(path: Path, info: dict[str, Any], template: str, values: dict[str, Any]) -> Path:
    pattern = _field(path / INFO, info, template, str)
    try:
        return path / pattern.format(**values)
    except (KeyError, IndexError, ValueError):
        raise EpisodeError(path / INFO, template, f"fields {', '.join(values)}", pattern) from None


def _cameras(file: Path, features: dict[str, Any]) -> dict[str, str]:
    """Names of all cameras by their columns or videos."""
    keys = [key for key, feature in features.items() if feature.get("dtype") in ("video", "image")]
    if not keys:
        raise EpisodeError(file, "features", "a camera", "none")
    return {key: key.removeprefix(IMAGES) for key in keys}


def _camera(file: Path, available: Mapping[str, str], wanted: str) -> str:
    for key, name in available.items():
        if wanted in (key, name):
            return key
    raise EpisodeError(file, "features", f"camera {wanted}", ", ".join(available))


def _are_videos(file: Path, features: dict[str, Any], keys: Sequence[str]) -> bool:
    """Or pictures in the rows."""
    kinds = {features[key]["dtype"] for key in keys}
    if len(kinds) > 1:
        raise EpisodeError(file, "features", f"{', '.join(keys)} of one dtype", " and ".join(sorted(kinds)))
    return kinds == {"video"}


def _camera_size(file: Path, own: dict[str, Any], camera: str) -> tuple[int, int] | None:
    """That of several, or of the only one."""
    sizes = own.get("cameras") or {}
    return _size(file, sizes if camera in sizes else own, camera if camera in sizes else "camera")


def _names(path: Path, own: dict[str, Any]) -> tuple[str, str, str]:
    """Name of the dataset, column of what was measured, column of what was commanded."""
    return own.get("name", path.resolve().name), own.get("measured", STATE), own.get("commanded", ACTION)


def _size(file: Path, own: dict[str, Any], field: str) -> tuple[int, int] | None:
    if field not in own:
        return None
    try:
        height, width = (int(side) for side in own[field])
    except (TypeError, ValueError):
        raise EpisodeError(file, field, "[height, width]", repr(own[field])) from None
    return height, width


def _schema(
    path: Path, own: dict[str, Any], name: str, commanded: str, features: dict[str, Any]
) -> ActionSchema:
    """The declared one; a data set without is taken for an arm whose columns are joint positions."""
    if "schema" in own:
        return _own_schema(path / ASTRA, own["schema"])
    feature = _field(path / INFO, features, commanded, dict)
    dim = int(_field(path / INFO, feature, "shape", list)[0])
    found = _joint_names(feature.get("names"))
    is_usable = len(found) == len(set(found)) == dim
    names = tuple(found) if is_usable else tuple(f"{commanded}_{i}" for i in range(dim))
    return ActionSchema(name, "arm", "joint_position", names, ("",) * dim)


def _own_schema(file: Path, fields: Any) -> ActionSchema:
    try:
        return ActionSchema.from_json(fields)
    except (TypeError, AttributeError) as error:
        raise EpisodeError(
            file, "schema", "space, modality, representation, names, units", str(error)
        ) from None


def _joint_names(names: Any) -> list[str]:
    """Flat; where groups share a name, every one has its group's before it."""
    flat = _flatten(names)
    if len(set(flat)) == len(flat) or not isinstance(names, dict):
        return flat
    return [f"{group}_{name}" for group, members in names.items() for name in _joint_names(members)]


def _flatten(names: Any) -> list[str]:
    """Names as public data sets write them: a list, a list in a list, or lists by group."""
    if isinstance(names, dict):
        names = list(names.values())
    if isinstance(names, list):
        return [name for entry in names for name in _flatten(entry)]
    return [] if names is None else [str(names)]


def _require_dim(file: Path, features: dict[str, Any], column: str, dim: int) -> None:
    shape = _field(file, features, column, dict).get("shape")
    if list(shape or []) != [dim]:
        fix = f"[{dim}] (or other columns as measured and commanded in {ASTRA})"
        raise EpisodeError(file, f"features.{column}.shape", fix, str(shape))


def _field(file: Path, fields: dict[str, Any], key: str, kind: Any) -> Any:
    """An entry of a kind of value. Raises EpisodeError when it is missing or another."""
    if not isinstance(fields.get(key), kind):
        found = repr(fields[key]) if key in fields else f"only {', '.join(fields) or 'nothing'}"
        raise EpisodeError(file, key, getattr(kind, "__name__", str(kind)), found)
    return fields[key]
