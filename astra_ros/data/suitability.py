"""Whether datasets suit a model and each other: the same actions, names of their own, episodes that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.lerobot import Dataset
from astra_ros.data.schema import ActionSchema


def require_own_name(dataset: Dataset, others: Sequence[Dataset]) -> None:
    """Held-out episodes, latents and results go by a dataset's name. Raises ValueError for one that another has too."""
    for other in others:
        if other.name == dataset.name:
            raise ValueError(
                f"{dataset.path}: name: expected one of its own, found {dataset.name}, which {other.path} has too; import one"
                ' into a folder of another name (or change "name" in its meta/astra.json)'
            )


def require_same(folder: Path, schema: ActionSchema, spec: ActionSpec) -> None:
    """Raise ValueError unless the actions of the dataset in `folder` mean what the model's do, in the same order."""
    expected, found = _meaning(spec), _meaning(schema)
    if found != expected:
        raise ValueError(
            f"{folder}: actions: expected {expected}, as the model has them, found {found}; give recordings of that robot"
        )


def require_unseen(dataset: str, episodes: Sequence[str], provenance: Mapping[str, Any]) -> None:
    """Raise ValueError when a model of that provenance was trained on one of the episodes."""
    if seen := sorted({*episodes} - {*unseen(dataset, episodes, trained_data(provenance))}):
        raise ValueError(
            f"{dataset}: expected held-out episodes that the model was not trained on, found {len(seen)} that it was, "
            f"first {seen[0]}; use the file of held-out episodes of its training (recordings that came since, of a model that"
            " does not say what it was trained on: import them into a dataset of another name)"
        )


def trained_data(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The datasets by name that a model was trained on, with what was held out; empty where nothing is said of them."""
    data = provenance.get("data")
    entries = data.items() if isinstance(data, dict) else ()
    return {name: one for name, one in entries if isinstance(one, dict) and "held_out" in one}


def unseen(dataset: str, episodes: Sequence[str], trained: Mapping[str, Any]) -> tuple[str, ...]:
    """Those episodes that a model of that `trained_data` does not know.

    Of its own datasets what it was not trained on; where it does not say what that was, as versions before did not, what was
    held out then.
    """
    known = trained.get(dataset, {"training": ()})
    if "training" in known:
        taught = {*known["training"]}
        return tuple(episode for episode in episodes if episode not in taught)
    held_out = {*known["held_out"]}
    return tuple(episode for episode in episodes if episode in held_out)


def with_earlier(own: Mapping[str, Any], *earlier: Mapping[str, Any]) -> dict[str, Any]:
    """`trained_data` of a run together with that of the models it goes on from, whose other datasets have no weight in it.

    An episode stays held out only where none of them was trained on it.
    """
    merged = dict(own)
    for trained in earlier:
        for name, before in trained.items():
            now = merged.get(name, {**before, "weight": 0.0})
            merged[name] = {**now, "held_out": list(unseen(name, now["held_out"], trained))}
            taught = [one.get("training") for one in (now, before)]
            merged[name].pop("training", None)
            if all(names is not None for names in taught):
                merged[name]["training"] = sorted({*taught[0], *taught[1]})
    return merged


def _meaning(actions: ActionSchema | ActionSpec) -> str:
    """Without units: importers assume them."""
    return f"{actions.modality}, {actions.representation} of {', '.join(actions.names)}"
