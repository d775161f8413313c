"""Write the tables of docs/gguf.md that come from the code: all keys, and the tensors of a stack.

    python docs/gguf_tables.py

A test says when the page is not what this writes.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from genie_cpp.spec.gguf_keys import KEYS
from genie_cpp.spec.key import Key
from genie_cpp.spec.stack_spec import AFTER, BEFORE, OF_SUBLAYERS, Tensor

PAGE = Path(__file__).with_name("gguf.md")
# When a tensor is there, by its name; the page says it in words.
WHEN = {
    "token_embd.weight": "`dynamics`; the last row is the mask token",
    "action_embd.weight": "`dynamics` with `add` and actions: added to every token of the frame the action produces",
    "input.weight": "all but `dynamics`; N: 3 · patch², in `tokenizer.decoder` L",
    "input_norm.weight": "with `dual`",
    "input_first.weight": "with `first_frame` `input`",
    "input_first_norm.weight": "with that and `dual`",
    "pos_space.weight": "with `separate`",
    "pos_time.weight": "with `separate`",
    "pos.weight": "with `joint`: frame by frame",
    "spatial_bias.weight": "with `relative`",
    "temporal_bias.weight": "with `alibi`: the slopes",
    "norm.weight": "unless `unnormed`; A + 1 in `dynamics` with `film`; bias with `layernorm`",
    "router.weight": "with `expert_count`",
    "up.weight": "M with `expert_count`; bias with `bias`",
    "gate.weight": "as `up`, with `swiglu` and `geglu`",
    "down.weight": "as `up`",
    "q.weight": "bias with `bias`",
    "k.weight": "bias with `bias`",
    "v.weight": "bias with `bias`",
    "out.weight": "bias with `bias`",
    "q_norm.weight": "with `qk_norm`; bias with its kind `layernorm`",
    "k_norm.weight": "with `qk_norm`; bias with its kind `layernorm`",
    "output_norm.weight": "unless `none`; bias with `layernorm`",
    "output.weight": "O: L in encoders, 3 · patch² in `tokenizer.decoder`, V in `dynamics`; not in `lam.encoder` with "
    "the heads `pair` and `joined`",
    "output_first.weight": "with `first_frame` `output`",
    "conv.weight": "",
}


def limits(key: Key) -> str:
    """The range of a key, as the page writes it."""
    if key.choices:
        words = ", ".join(f"`{choice}`" if isinstance(choice, str) else str(choice) for choice in key.choices)
        return f"1–{len(key.choices)} of {words}" if key.type.startswith("array") else words
    if key.low is None or key.high is None:
        return ""
    return f"{key.low:g} < x ≤ {key.high:g}" if key.above else f"{key.low:.10g}…{key.high:.10g}"


def meaning(key: Key) -> str:
    parts = [key.meaning] if key.meaning else []
    parts += ["optional"] if key.optional else []
    default = "" if key.default is None else f"(default `{key.default}`)"
    return " ".join(part for part in ("; ".join(parts), default) if part)


def keys_table() -> str:
    lines = ["| key | type | range | meaning |", "|---|---|---|---|"]
    for (kind, range, said), group in itertools.groupby(KEYS, lambda key: (key.type, limits(key), meaning(key))):
        together = list(group)
        # Those that mean nothing in particular stand alone.
        for names in [together] if said else [[key] for key in together]:
            lines.append(f"| {', '.join(f'`{key.name}`' for key in names)} | {kind} | {range} | {said} |")
    return "\n".join(lines)


def tensors_table() -> str:
    lines = ["| tensor | shape | of | when |", "|---|---|---|---|"]
    bias = {tensor.name: tensor for tensor in (*BEFORE, *OF_SUBLAYERS, *AFTER) if tensor.name.endswith(".bias")}
    for tensor in (*BEFORE, *OF_SUBLAYERS, *AFTER):
        if tensor.name.endswith(".bias"):
            continue
        other = bias.get(tensor.name.replace(".weight", ".bias"))
        shapes = [f"[{', '.join(one.shape.split('|'))}]" for one in (tensor, other) if one]
        called = f"`{full_name(tensor)}`" + (", `.bias`" if other else "")
        lines.append(f"| {called} | {', '.join(dict.fromkeys(shapes))} | {kinds(tensor)} | {WHEN[tensor.name]} |")
    return "\n".join(lines)


def full_name(tensor: Tensor) -> str:
    return f"<stack>.blk.<i>.<sublayer>.{tensor.name}" if tensor.of else f"<stack>.{tensor.name}"


def kinds(tensor: Tensor) -> str:
    return ", ".join(f"`{kind}`" for kind in tensor.of)


def written(page: str) -> str:
    """The page with its tables as the code has them."""
    for name, table in (("keys", keys_table()), ("tensors", tensors_table())):
        begin, end = f"<!-- {name}: written by docs/gguf_tables.py -->", f"<!-- end of {name} -->"
        before, rest = page.split(begin)
        _, after = rest.split(end)
        page = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
