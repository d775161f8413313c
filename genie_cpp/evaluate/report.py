"""The measurements as JSON or Markdown, and the limits (bars) that a bundled world must meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genie_cpp.errors import GenieError
from genie_cpp.evaluate.life import Life
from genie_cpp.words import in_cell, quoted

# Limits for a bundled world. Shares are in 0…1; dB compare a frame with the true frame or the start.
BARS = {
    "place-right": 0.9, "place-db": 20, "landmarks-met": 0.9, "landmarks-missed": 0, "walker-right": 0.95,
    "held-distinct": 0.8, "held-periods": 0, "mixed-entropy": 0.6, "held-strays": 0.01, "mixed-strays": 0.01,
    "stay": 0.99, "full-turn-db": 20, "return-db": 24, "reconstruction": 33, "over-copying-db": 6, "delta4": 4,
    "actions-found": 0.85, "frames-per-second": 60,
}  # fmt: skip
AT_MOST = ("landmarks-missed", "held-periods", "held-strays", "mixed-strays")


def limits(items: Sequence[str]) -> dict[str, float]:
    """["reconstruction=28"] -> {"reconstruction": 28.0}. Raises GenieError."""
    found = {}
    for item in items:
        key, _, text = item.partition("=")
        try:
            found[key] = float(text)
        except ValueError:
            key = ""
        if key not in BARS:
            raise GenieError(f"{quoted(item)} is not a bar", f"write reconstruction=28; there are {', '.join(BARS)}")
    return found


@dataclass
class Report:
    """Everything that `genie-eval` measured. Parts that were not requested are None or empty."""

    model: dict[str, Any]
    life: Life | None = None
    truth: dict[str, Any] = field(default_factory=dict)
    sweep: list[dict[str, Any]] = field(default_factory=list)
    against: dict[str, Any] = field(default_factory=dict)
    frames_per_second: float | None = None
    limits: dict[str, float] = field(default_factory=dict)  # limits of this world that override BARS

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {"model": self.model}
        if self.life is not None:
            found["life"] = self.life.facts()
        for name in ("truth", "sweep", "against"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        if self.frames_per_second is not None:
            found["frames_per_second"] = self.frames_per_second
        if bars := self.bars():
            found["bars"] = [{"what": w, "value": v, "bar": b, "met": met} for w, v, b, met in bars]
        return found

    def markdown(self) -> str:
        """Sections, each with a table."""
        parts = [_table("world", ("", ""), self.model.items())]
        if self.life is not None:
            parts += _life(self.life)
        if self.truth:
            parts += _truth(self.truth)
        if self.sweep:
            keys = [k for k in self.sweep[0] if k != "chosen"]
            rows = [[*(row[k] for k in keys), "<- chosen" if row["chosen"] else ""] for row in self.sweep]
            parts.append(_table("samplers", (*keys, ""), rows))
        if self.against:
            parts.append(_table("against", ("figure", "value"), self.against.items()))
        if bars := self.bars():
            rows = [[w, v, b, "yes" if met else "**no**"] for w, v, b, met in bars]
            parts.append(_table("bars", ("what", "value", "bar", "met"), rows))
        return "\n".join(parts)

    def bars(self) -> list[tuple[str, float, str, bool]]:
        """(name, value, limit, whether it is met) of every measure that has a limit. A place is judged by its map. Any
        other world is judged by its frames under a held action and by the entropy of mixed walks."""
        values = _judged(self)
        limits = {**BARS, **self.limits}
        rows = []
        for key, value in values.items():
            at_most = key in AT_MOST
            met = value <= limits[key] if at_most else value >= limits[key]
            rows.append((key.replace("-", " "), value, f"{'<=' if at_most else '>='} {limits[key]:g}", bool(met)))
        return rows


def _judged(report: Report) -> dict[str, float]:
    """The measures that have a limit, as far as they were taken."""
    life, truth, found = report.life, report.truth, dict[str, float | None]()
    if "place_right" in truth:
        found["place-right"], found["place-db"] = truth["place_right"], truth["place_db"]
        found["landmarks-met"], found["landmarks-missed"] = truth["landmarks_met"], len(truth["landmarks_missed"])
        found["walker-right"] = truth.get("mover_right")
    if life is not None:
        if "place_right" not in truth:
            walking = [h for h in life.held if not h.name.startswith("turn-")]
            found["held-distinct"] = min((h.distinct for h in walking), default=None)
            found["held-periods"] = sum(h.period > 0 for h in walking) if walking else None
            if life.real_entropy and life.mixed:
                found["mixed-entropy"] = min(min(w.entropy) for w in life.mixed) / life.real_entropy
        found["held-strays"] = max((h.strays for h in life.held if h.strays is not None), default=None)
        found["mixed-strays"] = max((w.strays for w in life.mixed if w.strays is not None), default=None)
        found["stay"] = min(life.still, default=None)
        found["full-turn-db"] = min((r.db for r in life.returns if r.name.startswith("full")), default=None)
        found["return-db"] = min((r.db for r in life.returns if not r.name.startswith("full")), default=None)
    found["reconstruction"] = truth.get("reconstruction_db")
    if "sampled_db" in truth:
        found["over-copying-db"] = truth["sampled_db"] - truth["copy_db"]
    found["delta4"] = truth.get("delta4_psnr")
    found["actions-found"] = min(truth.get("actions_found", ()), default=None)
    found["frames-per-second"] = report.frames_per_second
    return {key: float(value) for key, value in found.items() if value is not None}


def _life(life: Life) -> list[str]:
    parts, head = [], tuple[str, ...]()
    rows: list[tuple[Any, ...]]
    if life.held:
        head = ("action", "seed", "distinct", "changed", "period", "strays", "round trip dB")
        parts.append(
            _table(
                "an action held",
                head,
                ((f"{h.action} {h.name}", h.seed, h.distinct, h.changed, h.period or "none", h.strays, h.round_trip_db)
                 for h in life.held),
            )
        )  # fmt: skip
    if life.mixed:
        head = ("seed", "distinct", "changed", "entropy, bits per token, by stretches", "strays", "round trip dB")
        rows = [
            (w.seed, w.distinct, w.changed, " ".join(f"{v:.2f}" for v in w.entropy), w.strays, w.round_trip_db)
            for w in life.mixed
        ]
        if life.real_entropy is not None:
            rows.append(("real play", "", "", f"{life.real_entropy:.2f}", "", ""))
        parts.append(_table("mixed walks", head, rows))
    if life.still:
        parts.append(_table("staying", ("start", "unchanged"), enumerate(life.still)))
    if life.returns:
        parts.append(
            _table(
                "returns",
                ("way", "steps", "dB", "error", "starts"),
                ((r.name, r.steps, r.db, r.error, r.starts) for r in life.returns),
            )
        )
    return parts


def _truth(truth: dict[str, Any]) -> list[str]:
    figures = [(k, v) for k, v in truth.items() if not isinstance(v, list)]
    figures += [(k, ", ".join(v) or "none") for k, v in truth.items() if k == "landmarks_missed"]
    parts = [_table("truth", ("figure", "value"), figures)]
    if "actions" in truth:
        table = np.array(truth["actions"])
        head = ("latent", *(str(k) for k in range(table.shape[1])))
        parts.append(_table("latent x true action", head, ((i, *row) for i, row in enumerate(table.tolist()))))
    return parts


def _table(title: str, head: Sequence[str], rows: Any) -> str:
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "|".join("---" if k == 0 else "---:" for k in range(len(head))) + "|")
    lines += ["| " + " | ".join(_cell(v) for v in row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return in_cell(value)
