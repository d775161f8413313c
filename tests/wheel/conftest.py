"""Accepts a wheel that was made before (--wheel)."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wheel", help="the wheel to test, instead of one made now")
