"""What was measured, as JSON or as Markdown, and the bars that a bundled world is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .life import Life


@dataclass
class Report:
    """All that `genie-eval` found; parts that were not asked for are None or empty."""

    model: dict[str, Any]
    life: Life | None = None
    truth: dict[str, Any] = field(default_factory=dict)
    sweep: list[dict[str, Any]] = field(default_factory=list)
    against: dict[str, Any] = field(default_factory=dict)
    frames_per_second: float | None = None

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
        """Sections with a table each."""
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
        """(what, its value, the bar, whether it is met) of all that was measured. A place is held to its map, any
        other world to what it shows when an action is held and to the entropy of mixed walks."""
        rows: list[tuple[str, float, str, bool]] = []

        def least(what: str, value: float | None, bar: float) -> None:
            if value is not None:
                rows.append((what, float(value), f">= {bar:g}", bool(value >= bar)))

        def most(what: str, value: float | None, bar: float) -> None:
            if value is not None:
                rows.append((what, float(value), f"<= {bar:g}", bool(value <= bar)))

        life, truth = self.life, self.truth
        if "place_right" in truth:
            least(f"frames {truth['place_frames']} at the true place", truth["place_right"], 0.9)
            least(f"frames {truth['place_frames']} against the true place, dB", truth["place_db"], 20)
            least("landmarks met", truth["landmarks_met"], 0.9)
            most("landmarks missed", len(truth["landmarks_missed"]), 0)
            least("the walker whole and facing his way", truth.get("mover_right"), 0.95)
        if life is not None:
            if "place_right" not in truth:
                walking = [h for h in life.held if not h.name.startswith("turn-")]
                if walking:
                    least("held: distinct backgrounds", min(h.distinct for h in walking), 0.8)
                    most("held: walks with a period", sum(h.period > 0 for h in walking), 0)
                if life.real_entropy and life.mixed:
                    lowest = min(min(w.entropy) for w in life.mixed) / life.real_entropy
                    least("mixed: least entropy of a stretch, share of real play's", lowest, 0.6)
            strays = [h.strays for h in life.held if h.strays is not None]
            if strays:
                most("held: strays", max(strays), 0.01)
            strays = [w.strays for w in life.mixed if w.strays is not None]
            if strays:
                most("mixed: strays", max(strays), 0.01)
            if life.still:
                least("stay: unchanged background", min(life.still), 0.99)
            for back in life.returns:
                if back.name.startswith("full"):
                    least(f"{back.name} ({back.steps} steps), dB", back.db, 20)
            walked = [back.db for back in life.returns if not back.name.startswith("full")]
            if walked:
                least("return of 1 to 7 steps, dB", min(walked), 24)
        least("reconstruction, dB", truth.get("reconstruction_db"), truth.get("reconstruction_bar", 33))
        if "sampled_db" in truth:
            least("next frame over copying, dB", truth["sampled_db"] - truth["copy_db"], 6)
        least("delta4 PSNR", truth.get("delta4_psnr"), 4)
        if "actions_found" in truth:
            least("least share of a true action in its latent", min(truth["actions_found"]), 0.85)
        least("frames per second", self.frames_per_second, 60)
        return rows


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
    return "".join(c if c.isprintable() and c != "|" else "?" for c in str(value))
