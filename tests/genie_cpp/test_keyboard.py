"""The default keys."""

from __future__ import annotations

from genie_cpp.play.keyboard import default_keys


def test_without_names_in_order() -> None:
    assert default_keys(2) == {"0": 0, "1": 1, "ArrowLeft": 0, "a": 0, "ArrowRight": 1, "d": 1}
    assert default_keys(12)["9"] == 9 and default_keys(12)["ArrowDown"] == 3 and "10" not in default_keys(12)


def test_who_looks_ahead_turns_and_walks() -> None:
    keys = default_keys(5, ["stay", "forward", "back", "turn-left", "turn-right"])
    assert {key: action for key, action in keys.items() if len(key) > 1} == {
        "ArrowLeft": 3, "ArrowRight": 4, "ArrowUp": 1, "ArrowDown": 2,
    }  # fmt: skip


def test_names_go_to_their_arrows() -> None:
    keys = default_keys(5, ["stay", "right", "right", "jump", "left"])
    assert {key: action for key, action in keys.items() if len(key) > 1} == {
        "ArrowRight": 1,
        "ArrowUp": 3,
        "ArrowLeft": 4,
    }
    assert keys["w"] == 3 and keys["2"] == 2
