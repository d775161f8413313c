"""One key of the format: its type and range. The reader and the writer use the same check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from genie_cpp.errors import ModelError
from genie_cpp.file.gguf_file import Value
from genie_cpp.words import quoted

# A name must be one word in a list for --actions.
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

CONVERT_AGAIN = "convert the checkpoint again with this version's genie-convert"


@dataclass(frozen=True)
class Key:
    """One row of the table in docs/gguf.md. `<stack>` in `name` stands for each of STACKS."""

    name: str
    type: str
    field: str = ""  # of HParams or StackParams; empty if the key belongs to the file, not to the model
    low: float | None = None
    high: float | None = None
    above: bool = False  # `low` itself is excluded
    choices: tuple[str | int, ...] = ()
    default: Value | None = None
    optional: bool = False
    quiet: bool = False  # written only if it is not the default, so that older readers accept the file
    meaning: str = ""  # text for docs/gguf.md, without what the other fields say

    def check(self, name: str, value: object, stored: str | None = None) -> Any:
        """The value in the type of its field. Raises ModelError with the key, what was expected and what was found."""
        ok: bool
        result: Any = value
        if self.type == "uint32":
            ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
        elif self.type == "float32":
            ok = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 3e38
            result = float32(value) if ok else value
        elif self.type == "bool":
            ok = isinstance(value, bool)
        elif self.type == "string":
            ok = isinstance(value, str)
        else:
            ok = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
            result = tuple(value) if ok else value  # type: ignore[arg-type]
        if not ok or stored not in (None, self.type):
            got = f"a {stored}" if stored not in (None, self.type) else shown(value)
            raise ModelError(f"{name} must be {self.expected()}, not {got}", CONVERT_AGAIN)
        if self.type.startswith("array"):
            if self.choices:
                ok = 1 <= len(result) <= 8 and set(result) <= set(self.choices) and len(set(result)) == len(result)
            else:
                ok = all(NAME.fullmatch(item) for item in result)
        elif self.choices:
            ok = result in self.choices
        elif self.low is not None and self.high is not None:
            low, high = (float32(self.low), float32(self.high)) if self.type == "float32" else (self.low, self.high)
            ok = low <= result <= high and not (self.above and result == low)
        if not ok:
            raise ModelError(f"{name} must be {self.expected()}, not {shown(value)}", CONVERT_AGAIN)
        return result

    def expected(self) -> str:
        """The type and range in words."""
        if self.type.startswith("array") and not self.choices:
            return "an array of words of a-z, 0-9 and -, beginning with a letter, of at most 32 characters"
        if self.type.startswith("array"):
            return f"an array of 1 to 8 different strings among {', '.join(map(str, self.choices))}"
        if self.choices:
            return f"a {self.type} " + ("among " if len(self.choices) > 1 else "") + ", ".join(map(str, self.choices))
        if self.low is None:
            return f"a {self.type}"
        return f"a {self.type} " + (
            f"> {self.low:g} and <= {self.high:g}" if self.above else f"in {self.low:.10g}…{self.high:.10g}"
        )


def float32(value: Any) -> float:
    """The float32 nearest to a number, as a Python float."""
    return float(np.float32(value))


def shown(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (list, tuple)):
        return quoted(", ".join(map(str, value[:9])))
    return repr(value)[:80]
