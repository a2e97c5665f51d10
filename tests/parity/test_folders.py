"""Folders that are replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.folders import replaced_folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    place.mkdir()
    (place / "old").write_text("precious")
    return place


def test_the_new_one_takes_the_place_of_the_old_one(place: Path) -> None:
    with replaced_folder(place) as made:
        (made / "new").write_text("better")
        assert (place / "old").read_text() == "precious"
    assert [path.name for path in place.iterdir()] == ["new"]
    assert [*place.parent.iterdir()] == [place]


def test_a_first_one_needs_no_other(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "a" / "b") as made:
        (made / "new").write_text("first")
    assert (tmp_path / "a" / "b" / "new").read_text() == "first"


def fill_and_fail(place: Path) -> None:
    with replaced_folder(place) as made:
        (made / "new").write_text("half")
        raise ValueError("no space left")


def test_an_error_while_it_is_made_leaves_the_old_one(place: Path) -> None:
    with pytest.raises(ValueError, match="no space left"):
        fill_and_fail(place)
    assert (place / "old").read_text() == "precious"
    assert [*place.parent.iterdir()] == [place]


def replace(place: Path) -> None:
    with replaced_folder(place) as made:
        (made / "new").write_text("better")


@pytest.mark.parametrize("error", [OSError("device busy"), KeyboardInterrupt()])
def test_an_error_while_it_is_put_in_place_leaves_the_old_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    rename, is_first = Path.rename, iter([True])

    def fails_once(self: Path, target: Path) -> Path:
        if target == place and next(is_first, False):
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(type(error)):
        replace(place)
    assert (place / "old").read_text() == "precious"
    assert [*place.parent.iterdir()] == [place]
