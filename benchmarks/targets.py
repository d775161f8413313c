"""The targets, compared with what was measured."""

from __future__ import annotations

from typing import Any, NamedTuple

Results = dict[str, Any]
OURS = "genie_cpp Q8_0"


class Verdict(NamedTuple):
    """missed: the distance from the target as a fraction of it; 0 or less: met; None: nothing to compare with."""

    what: str
    target: str
    measured: str
    missed: float | None

    def text(self) -> str:
        if self.missed is None:
            return "not measured"
        percent = 100 * self.missed
        return "met" if percent <= 0 else f"**missed by {max(percent, 0.1):.{0 if percent >= 10 else 1}f} %**"


def rows_of(results: Results, isa: str | None = None, threads: int | None = None, M: int = 256) -> list[dict[str, Any]]:
    return [
        row for row in results["products"]["rows"]
        if row["M"] == M and isa in (None, row["isa"]) and threads in (None, row["threads"])
    ]  # fmt: skip


def best(found: dict[str, float], *starts: str, most: bool = False) -> tuple[str, float] | None:
    """The least (or most) of the figures whose name starts with one of `starts`."""
    of = {name: value for name, value in found.items() if name.startswith(starts)}
    return None if not of else (max if most else min)(of.items(), key=lambda item: item[1])


def at_least(what: str, target: float, found: dict[str, float], unit: str = "times") -> Verdict:
    """found: figures by case, of which the worst counts."""
    scale, sign = (100, " %") if unit == "%" else (1, " times")
    wanted = f"≥ {scale * target:g}{sign}"
    if not found:
        return Verdict(what, wanted, "-", None)
    case, least = min(found.items(), key=lambda item: item[1])
    digits = 0 if unit == "%" else 2
    span = f"{scale * least:.{digits}f}"
    if len(found) > 1:
        span += f"…{scale * max(found.values()):.{digits}f}"
    return Verdict(what, wanted, f"{span}{sign}; least: {case}", 1 - least / target)


def at_most(what: str, target: float, found: dict[str, float], shown: str = "{:.2f}") -> Verdict:
    wanted = "≤ " + shown.format(target)
    if not found:
        return Verdict(what, wanted, "-", None)
    case, most = max(found.items(), key=lambda item: item[1])
    span = (f"{shown.format(min(found.values()))}…" if len(found) > 1 else "") + shown.format(most)
    return Verdict(what, wanted, f"{span}; most: {case}", most / target - 1)


def case(row: dict[str, Any], of: str = "") -> str:
    return f"{row['K']} → {row['N']}, {row['threads']}t" + (f", {of}" if of else "")


def against(rows: list[dict[str, Any]], mine: str, *starts: str) -> dict[str, float]:
    """Our speed over the best of theirs, by shape."""
    found = {}
    for row in rows:
        if rival := best(row["speed"], *starts, most=True):
            found[case(row, rival[0].split(": ")[1])] = row["speed"][mine] / rival[1]
    return found


def products(results: Results) -> list[Verdict]:
    isas = list(dict.fromkeys(row["isa"] for row in results["products"]["rows"]))
    rows, second, one = rows_of(results, isas[0]), rows_of(results, "avx2"), rows_of(results, isas[0], M=1)
    block, mine = "block: ", "ours: Q8_0"

    def of_peak(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
        return {case(row): row["speed"][name] / row["peak"] for row in rows if row["peak"]}

    errors = {case(row): row["errors"][mine] for row in rows}
    found = [at_least(f"Q8_0 product, M = 256, {isas[0]}: of the int8 peak", 0.84, of_peak(rows, mine), "%")]
    found += [at_most("its error against float", 0.0095, errors, "{:.4f}")]
    found += [at_least("Q8_0 / best 8-bit block-32 engine", 1.5, against(
        rows, mine, *(block + name for name in ("OpenVINO 8", "ONNX Runtime MatMulNBits 8"))))]  # fmt: skip
    found += [
        at_least("Q8_0 / best ggml (native, llamafile, repacked Q4_0 too)", 2.7, against(rows, mine, block + "ggml"))
    ]
    found += [at_least(f"Q4_0 product, M = 256, {isas[0]}: of the int8 peak", 0.82, of_peak(rows, "ours: Q4_0"), "%")]
    found += [at_least("Q4_0, M = 1 / ONNX Runtime MatMulNBits 4-bit, blocks of 32", 1.0, against(
        one, "ours: Q4_0", block + "ONNX Runtime MatMulNBits 4"))]  # fmt: skip
    found += [at_least("Q8_0 / best coarser int8 engine", 0.97, against(rows, mine, "coarse: "))]
    if second and isas[0] != "avx2":
        found += [at_least("AVX2 forced, Q8_0: of that ISA's int8 peak", 0.75, of_peak(second, mine), "%")]
    found += [at_least("AVX2 forced, Q8_0 / ggml limited to AVX2, Q8_0", 1.5, against(
        second, mine, block + "ggml, AVX2 wheel, Q8_0"))]  # fmt: skip
    return [*found, at_least("AVX2 forced, Q4_0 / ggml limited to AVX2, best Q4_0", 1.5, against(
        second, "ours: Q4_0", block + "ggml, AVX2 wheel, Q4_0"))]  # fmt: skip


def attention(results: Results) -> list[Verdict]:
    found = []
    for kind, torch in (("spatial", "torch SDPA fp32"), ("temporal", "torch SDPA")):
        times = results["attention"][kind]["times"]
        mine = best(times, "ours")
        for label, start in ((f"best {torch}", torch), ("best ggml flash attention", "ggml")):
            rival = best(times, start)
            ratios = {rival[0]: rival[1] / mine[1]} if mine and rival else {}
            found.append(at_least(f"{kind} attention, {mine[0] if mine else 'ours'} / {label}", 2.0, ratios))
    return found


def steps(results: Results) -> list[Verdict]:
    parts, rivals = {}, {}
    for row in results["step"]:
        label, mine = f"{row['threads']}t", row["times"][OURS]
        parts[label] = mine / row["products"]
        int8 = {name: t for name, t in row["times"].items() if name != OURS and "int8" in name}
        rival = min(int8.items(), key=lambda item: item[1])
        rivals[f"{label}, {rival[0]}"] = rival[1] / mine
    name = results["step"][0]["model"]
    return [
        at_most(f"MaskGIT step of {name}, Q8_0 / its products alone", 1.25, parts),
        at_least(f"MaskGIT step of {name}, Q8_0 / the best int8 engine", 1.3, rivals),
    ]


def frames(results: Results) -> list[Verdict]:
    found = []
    for target, part, title in (
        (60.0, "all frames", "all frames at each step"),
        (4.0, "cached", "cached as ours, fp32"),
    ):
        ratios = {}
        for row in results["frames"]:
            if row["system"] == OURS:
                same = [r for r in results["frames"] if r["model"] == row["model"] and part in r["system"]]
                ratios[row["model"]] = same[0]["seconds"] / row["seconds"]
        found.append(at_least(f"whole frame, Q8_0 / PyTorch, {title}", target, ratios))
    return found


def verdicts(results: Results) -> list[Verdict]:
    found: list[Verdict] = []
    parts = {"products": products, "attention": attention, "step": steps, "frames": frames}
    for name, part in parts.items():
        if name in results:
            found += part(results)
    if "scaling" in results:
        ratios = {row["what"]: row["one"] / row["two"] for row in results["scaling"]}
        calibration = ratios.pop(next(what for what in ratios if what.startswith("calibration")))
        found.append(at_least(f"two threads / one (registers alone: {calibration:.2f})", 1.85, ratios))
    if "models" in results:
        tiny = {
            f"{r['model']}, {r['threads']}t": r["share"] for r in results["models"] if r["model"].startswith("tiny-q8")
        }
        found.append(at_least("tiny model, Q8_0: products of a step, of the int8 peak", 0.5, tiny, "%"))
    if "memory" in results:
        rows = results["memory"]
        paper = {r["model"]: r["played"] / (r["weights"] + r["states"]) for r in rows}
        found.append(at_most("memory in play / on paper", 1.1, paper))
        found.append(at_most("load / reading and one pass", 1.5, {r["model"]: r["load"] / r["read"] for r in rows}))
    if "window" in results:
        half = {r["kind"]: r["sliding"] / r["seconds"] for r in results["window"] if r["kind"] == "half"}
        found.append(at_most("sliding by half, share of the time", 0.15, half))
    return found
