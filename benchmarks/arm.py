"""Count what the ARM kernels execute per multiply-add and write docs/arm.md: `make arm`.

There is no ARM machine, so nothing is timed. Instead the innermost loop of the int8 tile is found in the cross-compiled
library (of all loops without inner loops, the one with the most products), and its instructions are counted.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ISAS = {
    "neon": {"smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8},
    "dotprod": {"sdot": 16},
    "i8mm": {"smmla": 32},
}  # multiply-adds of one instruction


def functions(library: Path, source: str) -> list[list[tuple[int, str, str]]]:
    """Of one object file: (address, mnemonic, operands) per function."""
    listing = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(next(library.rglob(f"{source}.c.o")))],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found: list[list[tuple[int, str, str]]] = []
    for line in listing.splitlines():
        if re.match(r"[0-9a-f]+ <", line):
            found.append([])
        elif match := re.match(r"\s+([0-9a-f]+):\s+(\S+)\s*(.*)", line):
            found[-1].append((int(match[1], 16), match[2], match[3]))
    return found


def hottest(code: list[tuple[int, str, str]], products: dict[str, int]) -> tuple[int, int, dict[str, int]]:
    """(multiply-adds, instructions, count by mnemonic) of the innermost loop with the most multiply-adds."""
    loops = []
    for address, mnemonic, operands in code:
        target = re.search(r"([0-9a-f]+) <", operands)
        if target and mnemonic.startswith(("b.", "cb", "tb")) and int(target[1], 16) <= address:
            loops.append((int(target[1], 16), address))
    best: tuple[int, int, dict[str, int]] = (0, 0, {})
    for start, end in loops:
        if any(start <= s and e <= end and (s, e) != (start, end) for s, e in loops):
            continue
        names = [mnemonic for address, mnemonic, _ in code if start <= address <= end]
        adds = sum(products.get(name, 0) for name in names)
        if adds > best[0]:
            best = (adds, len(names), {name: names.count(name) for name in sorted(set(names))})
    return best


def main() -> None:
    build, output = Path(sys.argv[1]), Path(sys.argv[2])
    version = subprocess.run(["aarch64-linux-gnu-gcc", "--version"], capture_output=True, text=True, check=True).stdout
    lines = [
        "# ARM",
        "",
        "Made by `make arm`; not edited by hand.",
        "",
        "Three sets of kernels, chosen at run time: `neon` (every ARMv8-A), `dotprod` (Cortex-A76, Apple M1), `i8mm`",
        "(Neoverse V1, Apple M2). They are cross-compiled from the same CMake (`cmake/aarch64-linux-gnu.cmake`) and",
        "tested against the scalar kernels under qemu on `cortex-a53`, `neoverse-n1` and `max`, detection included.",
        "",
        "**Nothing here was timed**: no ARM machine was at hand. What can be counted is the innermost loop of the int8",
        "product (one block of 32 columns, scales included, whole tile):",
        "",
        f"`{version.splitlines()[0]}`",
        "",
        "| ISA | multiply-adds per loop | instructions | of these products | instructions per 64 multiply-adds |",
        "|---|---:|---:|---:|---:|",
    ]
    for isa, products in ISAS.items():
        adds, count, names = max(hottest(code, products) for code in functions(build, f"matmul_{isa}"))
        if adds == 0:
            raise SystemExit(f"no loop with {', '.join(products)} in matmul_{isa}")
        those = sum(names.get(name, 0) for name in products)
        lines.append(f"| {isa} | {adds} | {count} | {those} | {64 * count / adds:.2f} |")
    lines += [
        "",
        "Attention, norms and activations are the vector bodies of the other ISAs at 4 lanes; there is no bf16.",
    ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
