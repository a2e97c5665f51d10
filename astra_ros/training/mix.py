"""The datasets of a run, and which of their episodes are trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from astra_ros.data.episode import stride_of
from astra_ros.data.held_out import held_out
from astra_ros.data.lerobot import Dataset
from astra_ros.data.suitability import require_own_name
from astra_ros.frames.preprocess import centre_crop, share_of, unenlarged
from astra_ros.training.config import DataConfig
from astra_ros.training.state import begun_with


@dataclass(frozen=True)
class TrainingSet:
    """A dataset of the mix. names: its episodes to train on; held_out: the others. weight: its share of the mix."""

    dataset: Dataset
    names: tuple[str, ...]
    held_out: tuple[str, ...]
    weight: float


def open_sets(config: DataConfig, size: tuple[int, int]) -> list[TrainingSet]:
    """Open every dataset and set its held-out episodes aside. size: height and width of the model's pictures.

    Raises ValueError, one line, when a dataset cannot be read, is called like another one, declares another one's action space
    differently, shows less than the model will see on the robot, or nothing of it is left to train on.
    """
    aside = held_out(Path(config.held_out))
    sets: list[TrainingSet] = []
    for source in config.sets:
        if not Path(source.path).exists():
            raise ValueError(
                f"data.sets: expected the folder of a dataset, found no {source.path}; import it (astra data import), or name"
                " others: 'data.sets=[DIR, ...]'"
            )
        dataset = Dataset.open(Path(source.path), config.cameras)
        others = [one.dataset for one in sets]
        require_own_name(dataset, others)
        _require_same_schema(dataset, others)
        for camera in dataset.camera_sizes:
            _require_whole_view(dataset, camera, size)
        split = aside.split(dataset.name, dataset.episode_names)
        if not split.training:
            raise ValueError(
                f"{source.path}: expected episodes to train on, found {len(split.held_out)}, "
                f"all of them held out by {config.held_out}"
            )
        sets.append(TrainingSet(dataset, split.training, split.held_out, source.weight))
    return sets


def require_usable(one: TrainingSet, step_dt: float, chunk_len: int) -> None:
    """Raise ValueError where no episode can be used: all too short, of a camera whose rate does not fit, or damaged.

    By their rows alone, before anything is made of their pictures.
    """
    longest_s, why = 0.0, ""
    for name in one.names:
        try:
            stamps_ns = one.dataset.stamps_ns(name)
            steps = (len(stamps_ns) - 1) // stride_of(stamps_ns, step_dt, name)
        except ValueError as error:
            why = str(error)
            continue
        if steps >= chunk_len:
            return
        longest_s = max(longest_s, steps * step_dt)
    found = f"{longest_s:.1f} s" if longest_s else f"{len(one.names)} bad ones, the last: {why}"
    raise ValueError(
        f"{one.dataset.path}: expected an episode of {chunk_len * step_dt:.1f} s, a chunk, or longer, found {found}; leave it out of"
        " data.sets, or record longer ones and choose another --out"
    )


def as_begun(sets: Sequence[TrainingSet], file: Path, tell: Callable[[str], None]) -> list[TrainingSet]:
    """The episodes that a run began with, which `file` keeps; weights, normalisation and scores belong to these.

    Others are left out, which is told. Raises ValueError when one is gone.
    """
    now = {one.dataset.name: {"training": list(one.names), "held_out": list(one.held_out)} for one in sets}
    begun = begun_with(file, now)
    if begun.keys() != now.keys():
        raise ValueError(
            f"{file}: expected the datasets {', '.join(begun)}, with which this run was started, found {', '.join(now)}; "
            "choose another --out"
        )
    return [_as_begun(one, file, begun[one.dataset.name], tell) for one in sets]


def _as_begun(
    one: TrainingSet, file: Path, begun: dict[str, list[str]], tell: Callable[[str], None]
) -> TrainingSet:
    name, training, held_out_then = one.dataset.name, tuple(begun["training"]), tuple(begun["held_out"])
    then, now = {*training, *held_out_then}, {*one.names, *one.held_out}
    if gone := sorted(then - now):
        raise ValueError(
            f"{one.dataset.path}: expected the {len(then)} episodes with which the run of {file} was started, "
            f"found {len(gone)} missing, first {gone[0]}; bring them back, or choose another --out"
        )
    if new := now - then:
        tell(f"{name}: left out {len(new)} new; to use them choose another --out, start_from={file.parent}")
    if moved := (then & {*one.held_out}) ^ {*held_out_then}:
        tell(
            f"{name}: held out as at the first start, {len(moved)} differ now; choose another --out to change"
        )
    return replace(one, names=training, held_out=held_out_then)


def _require_same_schema(dataset: Dataset, others: Sequence[Dataset]) -> None:
    """Datasets of one action space are normalised together."""
    space, found = dataset.schema.space, dataset.schema.to_json()
    for other in others:
        if other.schema.space != space:
            continue
        for field, expected in other.schema.to_json().items():
            if found[field] != expected:
                raise ValueError(
                    f"{dataset.path}: {field}: expected {expected} as {other.path} of the same action space {space} has, found "
                    f"{found[field]}; import it again like that one, or into an action space of its own (--space)"
                )


def _require_whole_view(dataset: Dataset, camera: tuple[int, int] | None, size: tuple[int, int]) -> None:
    """camera: size of the own pictures of one of the dataset's, None: not known. size: of the model's, which its cameras share.

    At run time the camera's pictures are cropped once, to the model's shape: so must be those it learns from.

    A small camera's pictures are enlarged, there as here; those that an import made smaller than need be are refused.
    """
    stored, share = dataset.stored_size, (share_of(size[0], len(dataset.camera_sizes)), size[1])
    if stored is None:
        return
    is_view = _same_shape(stored, share) or (camera is not None and _same_shape(camera, stored))
    least, _ = unenlarged(*(camera or stored), *share)
    if is_view and unenlarged(*stored, *share)[0] >= least - 1:
        return
    found = f"{stored[0]} x {stored[1]} of " + (
        f"{camera[0]} x {camera[1]}" if camera else "an unknown shape"
    )
    unknown = (
        "" if camera else f'; if the camera saw no more, add "camera": {list(stored)} to its meta/astra.json'
    )
    raise ValueError(
        f"{dataset.path}: pictures: expected what a model of {size[0]} x {size[1]} pixels sees of the camera's, found {found};"
        f" import it again: astra data import KIND SOURCE --out DIR --size {size[0]} {size[1]}{unknown}"
    )


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether cropping one to the other's aspect ratio leaves all of it, but for rounding."""
    left, top, right, bottom = centre_crop(*one, *other)
    return bottom - top >= one[0] - 1 and right - left >= one[1] - 1
