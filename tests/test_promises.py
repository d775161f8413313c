"""The promises in SECURITY.md and docs/promises.md name the tests that check them, and these tests exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def named(text: str) -> list[tuple[str, str]]:
    return NAMED.findall(text)


def missing(text: str) -> list[str]:
    """Tests that a text names and that do not exist."""
    lost = []
    for file, test in named(text):
        path = ROOT / file
        if not path.is_file() or (test and f"def {test}(" not in path.read_text(encoding="utf-8")):
            lost.append(f"{file}::{test}")
    return lost


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/promises.md"])
def test_the_tests_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert named(text) and not missing(text)


def test_every_promise_to_strangers_names_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    untrusted = text.split("## What is untrusted")[1].split("\n## ")[0]
    promises = re.split(r"\n- ", untrusted.split("\n\nA valid file")[0])[1:]
    assert len(promises) >= 8
    assert not [promise[:60] for promise in promises if not any(test for _, test in named(promise))]


def test_every_row_of_the_promises_names_a_test() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    table = text.split("## Promises")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 15
    assert not [row[:60] for row in rows if not any(test for _, test in named(row.split("|")[2]))]


def test_a_test_that_is_not_there_is_noticed() -> None:
    here = "`tests/test_promises.py::test_a_test_that_is_not_there_is_noticed`"
    assert missing(f"{here}, `tests/test_promises.py::test_none`, `tests/none.py`") == [
        "tests/test_promises.py::test_none",
        "tests/none.py::",
    ]
