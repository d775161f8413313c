"""docs/gguf.md is normative: its tables agree with those of the code."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import re
from pathlib import Path

from genie_cpp.file import gguf_file
from genie_cpp.spec.conv_layers import KINDS
from genie_cpp.spec.gguf_keys import KEYS, STACKS
from genie_cpp.spec.hparams import HParams, expected_tensors
from genie_cpp.spec.stack_spec import StackParams

PAGE = Path(__file__).parents[1] / "docs" / "gguf.md"
# Distinct values, so that a shape tells which symbols it is made of.
E, F, H, D, T, C, A, L, LAM_L, PATCH, LAM_PATCH, N, DIGIT, M = 37, 41, 3, 5, 7, 11, 13, 17, 19, 2, 4, 23, 29, 31
WIDTH, HEIGHT = 8, 16
LENGTHS = {
    "block_count": 2, "embedding_length": E, "feed_forward_length": F, "head_count": H, "key_length": D
}  # fmt: skip


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.read_text(encoding="utf-8").split(f"## {title}\n")[1], flags=re.M)[0]


def rows(title: str) -> list[list[str]]:
    table = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def number(word: str) -> float:
    return float(word.replace(" ", ""))


def page_keys() -> dict[str, tuple[str, str, str]]:
    """name -> (type, range, meaning)."""
    found = {}
    for names, kind, limits, meaning in rows("Keys"):
        for name in re.findall(r"`([^`]+)`", names):
            assert name not in found, f"{name} is on the page twice"
            found[name] = (kind, limits, meaning)
    return found


def test_the_stacks() -> None:
    line = re.search(r"`<stack>` is one of (.*?)\.\s", section("Keys"))
    assert line and tuple(re.findall(r"`([^`]+)`", line[1])) == STACKS


def test_the_keys_are_the_same_in_the_same_order() -> None:
    assert list(page_keys()) == [key.name for key in KEYS]


def test_the_tables_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("gguf_tables", PAGE.with_name("gguf_tables.py"))
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = PAGE.read_text(encoding="utf-8")
    assert page == tables.written(page), "python docs/gguf_tables.py"
    assert tables.limits(KEYS[3]) == "" and tables.limits(next(k for k in KEYS if k.field == "norm_epsilon")) == (
        "0 < x ≤ 0.1"
    )


def page_tensors() -> dict[str, str]:
    """Pattern -> shape text."""
    found: dict[str, str] = {}
    for names, shapes, *_, note in rows("Tensors"):
        full: list[str] = []
        for name in re.findall(r"`([^`]+)`", names):
            if name.startswith("."):  # `.k.weight` stands for the previous name with another ending
                keep = full[0].split(".")[: -name.count(".")]
                name = ".".join(keep) + name
            full.append(name)
        brackets = re.findall(r"\[[^\]]*\]", shapes)
        for i, name in enumerate(full):
            assert name not in found, f"{name} is on the page twice"
            found[name] = brackets[min(i, len(brackets) - 1)]
        if extra := re.search(r"`\.bias` (\[[^\]]*\])", note):
            for name in full:
                found[name.removesuffix("weight") + "bias"] = extra[1]
    return found


def everything(ffn: str, norm: str, qk_norm: bool, bias: bool) -> HParams:
    sublayers = ("spatial", "temporal", "spacetime", "ffn")
    return hparams(StackParams(**LENGTHS, qk_norm=qk_norm, sublayers=sublayers, norm=norm, ffn=ffn, bias=bias))


def hparams(stack: StackParams) -> HParams:
    return HParams(
        frame_width=WIDTH,
        frame_height=HEIGHT,
        context_length=T,
        action_count=A,
        window_policy="half",
        tokenizer_kind="st-vivit",
        tokenizer_patch_size=PATCH,
        codebook_size=C,
        tokenizer_latent_length=L,
        lam_patch_size=LAM_PATCH,
        lam_latent_length=LAM_L,
        lam_difference=True,
        sampler_steps=1,
        sampler_temperature=1.0,
        sampler_order="random",
        sampler_noise=0.0,
        stacks=dict.fromkeys(STACKS, stack),
    )


def biases_and_convolutions() -> HParams:
    """Flags that `everything` leaves at their defaults."""
    sublayers = ("peg", "spatial", "ffn", "peg2", "temporal", "ffn2")
    stack = StackParams(**LENGTHS, qk_norm=True, sublayers=sublayers, norm="layernorm", ffn="geglu", position="joint")
    hp = hparams(dataclasses.replace(stack, spatial_bias="relative", temporal_bias="alibi"))
    patched = dataclasses.replace(stack, position="none", input_norm="dual", first_frame="input")
    decoder = dataclasses.replace(stack, first_frame="output")
    stacks = {**hp.stacks, "tokenizer.encoder": patched, "tokenizer.decoder": decoder, "lam.encoder": patched}
    return dataclasses.replace(hp, stacks=stacks, lam_difference=False, lam_head="joined", lam_head_length=N)


def with_experts(hp: HParams) -> HParams:
    """The same, with experts instead of every FFN."""
    more = {"expert_count": M, "expert_used_count": 2}
    return dataclasses.replace(hp, stacks={n: dataclasses.replace(s, **more) for n, s in hp.stacks.items()})


def with_head(hp: HParams) -> HParams:
    """The same with the LAM's head for pairs."""
    encoder = dataclasses.replace(hp.stacks["lam.encoder"], output_norm="none")
    stacks = {**hp.stacks, "lam.encoder": encoder}
    return dataclasses.replace(hp, lam_head="pair", lam_head_length=N, stacks=stacks)


def convolutional(hp: HParams) -> HParams:
    """The same, with tokens of two digits, tables of positions for both axes, layer norms of heads, and a convolutional
    tokenizer that has every kind of layer."""
    stacks = {name: hp.stacks[name] for name in ("lam.encoder", "dynamics")}
    stacks = {n: dataclasses.replace(s, position="joint", qk_norm_kind="layernorm") for n, s in stacks.items()}
    return dataclasses.replace(
        hp,
        tokenizer_kind="conv",
        codebook_size=DIGIT**2,
        factor_count=2,
        conv_encoder=("conv3-6", "res-9", "down-9", "norm", f"conv1-{L}"),
        conv_decoder=("conv3-6", "up-9", "norm", "conv3-3"),
        conv_group_count=3,
        conv_norm_epsilon=1e-6,
        stacks=stacks,
    )


def pattern(name: str) -> str:
    if found := re.fullmatch(r"tokenizer\.(?:encoder|decoder)\.layer\.\d+\.(.*)", name):
        return f"<conv>.layer.<i>.{found[1]}"
    name = re.sub(r"\.blk\.\d+\.", ".blk.<i>.", name)
    name = re.sub(r"\.<i>\.(spatial|temporal|spacetime|(ffn|peg)2?)\.", ".<i>.<sublayer>.", name)
    for stack in STACKS:
        if name.startswith(f"{stack}."):
            return "<stack>" + name.removeprefix(stack)
    return name


def test_the_tensor_names_are_the_same() -> None:
    hp = everything("swiglu", "layernorm", True, True)
    names = [*expected_tensors(hp), *expected_tensors(with_head(hp)), *expected_tensors(biases_and_convolutions())]
    names += [*expected_tensors(convolutional(hp)), *expected_tensors(with_experts(hp))]
    assert {pattern(name) for name in names} == set(page_tensors())


def test_the_shapes_are_the_same() -> None:
    page = page_tensors()
    hp = everything("geglu", "layernorm", True, True)
    pairs = [*expected_tensors(hp).items(), *expected_tensors(with_head(hp)).items()]
    both = [(n, what[0], C) for n, what in [*pairs, *expected_tensors(biases_and_convolutions()).items()]]
    conv = expected_tensors(convolutional(hp)).items()
    both += [(name, what[0], 2 * DIGIT) for name, what in conv if name.startswith(("lam.", "dynamics."))]
    for name, shape, V in both:
        lam = name.startswith("lam.")
        patch, latent = (LAM_PATCH, LAM_L) if lam else (PATCH, L)
        symbols = {"E": E, "F": F, "H·D": H * D, "D": D, "T": T, "C": C, "V + 1": V + 1, "A": A, "L": latent}
        symbols |= {"2·E": 2 * E, "N": N, "27": 27, "H": H, "2·E or N": shape[0] if shape[0] in (2 * E, N) else 0}
        symbols["N"] = N if name.startswith("lam.head.") else 3 * patch * patch
        if name.startswith("tokenizer.decoder."):
            symbols["N"] = latent
        symbols["P"] = (WIDTH // patch) * (HEIGHT // patch)
        symbols["P·T"] = symbols["P"] * T
        symbols["2·E or P·E"] = shape[0] if shape[0] in (2 * E, symbols["P"] * E) else 0
        symbols["S"] = (2 * WIDTH // patch - 1) * (2 * HEIGHT // patch - 1)
        symbols["O"] = {"tokenizer.decoder": 3 * patch * patch, "dynamics": V}.get(
            next(stack for stack in (*STACKS, "lam", "tokenizer") if name.startswith(stack)), latent
        )
        # The last two exist only with experts and with FiLM.
        words = [word for word in page[pattern(name)].strip("[]").split(", ") if word not in ("M", "A + 1")]
        assert shape == tuple(symbols[word] for word in words), name


def test_the_shapes_of_experts_are_the_same() -> None:
    full = everything("swiglu", "layernorm", True, True)
    before, after = expected_tensors(full), expected_tensors(with_experts(full))
    changed = {name: shape for name, (shape, _) in after.items() if before.get(name, (None,))[0] != shape}
    assert {name.rsplit(".ffn.")[1] for name in changed} == {
        "router.weight", *(f"{part}.{end}" for part in ("up", "gate", "down") for end in ("weight", "bias"))
    }  # fmt: skip
    symbols = {"up": (E, F, M), "gate": (E, F, M), "down": (F, E, M), "router": (E, M)}
    for name, shape in changed.items():
        part, end = name.split(".")[-2:]
        assert shape == (symbols[part] if end == "weight" else symbols[part][1:]), name


def test_the_shapes_of_convolutions_are_the_same() -> None:
    page, hp = page_tensors(), convolutional(everything("gelu", "rmsnorm", False, False))
    assert all(f"`{kind}" in section("Tensors") for kind in KINDS)
    for half in ("encoder", "decoder"):
        for i, layer in enumerate(hp.conv_layers(half)):
            symbols = {"I": layer.channels_in, "J": layer.channels, "9·I": 9 * layer.channels_in}
            symbols["9·J"] = 9 * layer.channels
            for name, (shape, _) in expected_tensors(hp).items():
                if not name.startswith(f"tokenizer.{half}.layer.{i}."):
                    continue
                text = page[pattern(name)]
                if layer.word == "conv1" and name.endswith("conv.weight"):
                    text = "[I, J]"
                words = text.strip("[]").split(", ")
                wanted = [symbols[word] for word in words]
                if layer.word == "up":
                    wanted[-1] *= 4
                assert shape == tuple(wanted), name


def test_the_conditions_are_the_same() -> None:
    """Tensors whose last column names norm, qk_norm, bias or ffn depend on exactly these."""
    full = {pattern(name) for name in expected_tensors(everything("swiglu", "layernorm", True, True))}
    notes = {row[0].split("`")[1]: row[-1] for row in rows("Tensors") if row[0].startswith("`<stack>.blk")}
    for ffn, norm, qk_norm, bias in itertools.product(("gelu", "swiglu"), ("rmsnorm", "layernorm"), (0, 1), (0, 1)):
        now = {pattern(name) for name in expected_tensors(everything(ffn, norm, bool(qk_norm), bool(bias)))}
        for name in full:
            wanted = True
            if "norm.bias" in name:
                wanted = norm == "layernorm"
            elif name.endswith(".bias") and ".blk." in name:
                wanted = bool(bias)
            if ".gate." in name:
                wanted = wanted and ffn == "swiglu"
            if "q_norm" in name or "k_norm" in name:
                wanted = bool(qk_norm)
            assert (name in now) == wanted, name
    for name, note in (("q_norm", "bias with its kind `layernorm`"), ("gate", "with `swiglu` and `geglu`")):
        assert note in notes[f"<stack>.blk.<i>.<sublayer>.{name}.weight"]


def test_what_the_new_flags_change() -> None:
    hp = everything("swiglu", "layernorm", True, True)
    film = dataclasses.replace(hp, action_conditioning="film")
    assert {n for n, shape in expected_tensors(hp).items() if expected_tensors(film).get(n) != shape} == {
        "dynamics.action_embd.weight",
        *(
            f"dynamics.blk.{i}.{s}.norm.{w}"
            for i in (0, 1)
            for s in hp.stacks["dynamics"].sublayers
            for w in ("weight", "bias")
        ),
    }
    assert expected_tensors(film)["dynamics.blk.0.ffn.norm.bias"] == ((E, A + 1), False)
    gone = set(expected_tensors(hp)) - set(expected_tensors(with_head(hp)))
    assert gone == {f"lam.encoder.{n}.{w}" for n in ("output", "output_norm") for w in ("weight", "bias")}
    fsq = dataclasses.replace(hp, tokenizer_quantizer="fsq", lam_quantizer="fsq")
    assert set(expected_tensors(hp)) - set(expected_tensors(fsq)) == {
        "tokenizer.codebook.weight",
        "lam.codebook.weight",
    }


def test_the_matrices_are_the_same() -> None:
    line = re.search(r"Matrices \(`([a-z0-9 ]+)` and `(\w+)`\)", section("Tensors"))
    assert line
    hp = everything("swiglu", "layernorm", True, True)
    found = expected_tensors(hp) | expected_tensors(convolutional(hp))
    assert {name.split(".")[-2] for name, (_, matrix) in found.items() if matrix} == {*line[1].split(), line[2]}


def test_the_container() -> None:
    text = section("Container")
    assert f"GGUF version {gguf_file.VERSION}, little-endian" in text
    assert f"at most {gguf_file.MAX_NAME} bytes for tensor names" in text
    assert f"(default {gguf_file.DEFAULT_ALIGNMENT})" in text
    kinds = re.search(r"at least 1, types (.*?), rows", text.replace("\n", " "))
    assert kinds and set(re.findall(r"\w+\d\w*", kinds[1])) == {kind.name for kind in gguf_file.TensorType}
