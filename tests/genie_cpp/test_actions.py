"""The action language."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_cpp.actions import format_actions, parse_actions, random_actions, read_actions
from genie_cpp.errors import ActionError


@given(st.lists(st.integers(0, 7), min_size=1, max_size=200))
def test_round_trip(actions: list[int]) -> None:
    assert parse_actions(format_actions(actions), 8) == actions


def test_forms(tmp_path: Path) -> None:
    assert parse_actions("0,3*8, 1\n2", 8) == [0, *[3] * 8, 1, 2]
    (tmp_path / "moves").write_text("1*2\n0\n")
    assert read_actions(str(tmp_path / "moves"), 8, None, 0) == [1, 1, 0]
    assert read_actions("1,2", 8, 5, 0) == [1, 2, 1, 2, 1]
    assert read_actions("1*9", 8, 2, 0) == [1, 1]
    assert read_actions("random", 8, None, 3) == random_actions(8, 32, 3) != random_actions(8, 32, 4)
    assert len(random_actions(8, 7, 0)) == 7


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["right", "stay", "left", "left"]
    assert parse_actions("left*2,0 stay", 4, names) == [2, 2, 0, 1]
    assert read_actions("right*2, left", 4, None, 0, names) == [0, 0, 2]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "left").write_text("3")
    assert read_actions("left", 4, None, 0, names) == [2]
    assert read_actions("left", 4, None, 0) == [3]
    with pytest.raises(ActionError, match="is not an action"):
        parse_actions("left,jump", 4, names)
    with pytest.raises(ActionError, match="neither a list of actions nor"):
        read_actions("left,jump", 4, None, 0, names)


BAD = ["8", "-1", "x", "1*", "*3", "1*0", "1*x", "", " ", ",", "1.5", "1*99999999", "٣", "9" * 5000]


@pytest.mark.parametrize("text", BAD)
def test_refused(text: str) -> None:
    with pytest.raises(ActionError) as caught:
        parse_actions(text, 8)
    assert len(str(caught.value)) < 200


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ActionError):
        read_actions("moves.txt", 8, None, 0)


def test_a_list_longer_than_a_file_name_is_a_list() -> None:
    assert read_actions(",".join("01" * 2000), 8, None, 0) == [0, 1] * 2000


def test_a_file_cannot_pass_for_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").write_text("7")
    assert read_actions("1", 8, None, 0) == [1]
    assert read_actions("./1", 8, None, 0) == [7]


@pytest.mark.parametrize("data", [b"\xff\xfe\0", b"", b"GGUF"])
def test_files_that_hold_no_actions(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "moves").write_bytes(data)
    with pytest.raises(ActionError):
        read_actions(str(tmp_path / "moves"), 8, None, 0)
    for name in (str(tmp_path), "a\0b", "/dev/zero" if Path("/dev/zero").exists() else "none"):
        with pytest.raises(ActionError):
            read_actions(name, 8, None, 0)
