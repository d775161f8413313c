"""GenieRedux and GenieRedux-G: the tokenizer in one file, dynamics (and the latent action model) in another.

Two versions of its code write files with equal tensor names. The later version (CVPR 2025) saves `config.yaml` beside
them, which tells what the tensors mean. Without it, the files count as the first version's (NeurIPS 2024 workshop).

A block has two halves, each a convolution, an attention and an FFN. Positions come from the convolutions and from
biases on the attention scores. Logits are for the frame after the input. What depends only on the grid is computed
here: the position-bias network becomes a table, the norm weights of a patch's values go into the first matrix, actions
become embeddings. Widths and lengths are padded with zeros to whole quantization blocks, which changes no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from genie_cpp.convert.families.part import Part, Read, Told, checkpoint, frame_side
from genie_cpp.convert.files import import_torch
from genie_cpp.convert.native import Checkpoint
from genie_cpp.errors import CheckpointError, ModelError
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.spec.gguf_keys import LAM
from genie_cpp.spec.hparams import HParams
from genie_cpp.spec.stack_spec import StackParams

NAME = "genieredux"
LOOKED_FOR = "to_patch_emb_first_frame.2.weight (tokenizer), dynamics.maskgit.token_emb.weight (dynamics)"
INERT: tuple[str, ...] = ()
PARTS = {
    "tokenizer": ("to_patch_emb_first_frame.2.weight", "both files"),
    "dynamics": ("dynamics.maskgit.token_emb.weight", "both files"),
}
_SETTINGS = "config.yaml"
_ACTIONS = "latent_action_model."
_TRAINING = tuple(f"{_ACTIONS}{name}" for name in ("decoder.", "to_pixels.", "to_pixels_first_frame."))
_EPSILON, _QK_EPSILON = 1e-5, 1e-20
# Not in any file: the defaults of its constructors and settings.
_SCALE, _FRAME, _WINDOW = 8, 64, 16
_CODES = 10  # with use_token: a token's embedding gets this many times the embedding of its code
_ALIKE = "do the files belong together, and are they whole?"


def spare(parts: Mapping[str, Part]) -> tuple[str, ...]:
    """Every part is needed."""
    return ()


def load(parts: Mapping[str, Part], told: Told) -> Checkpoint:
    """Two parts -> a checkpoint with all hyper-parameters. The default window is the one of the training.

    Raises CheckpointError naming what is missing, has a wrong shape or does not fit together.
    """
    told.heads_are_known(NAME)
    parts = {kind: part.with_settings(_SETTINGS) for kind, part in parts.items()}
    tokenizer, dynamics = _Codec(parts["tokenizer"], ""), _Dynamics(parts["dynamics"])
    parts["tokenizer"].check({**tokenizer.shapes(), **tokenizer.decoder.shapes(), **tokenizer.pixels()}, ())
    assumed = [f"attention scores times {_SCALE}"]
    if dynamics.adds_codes is None:
        assumed.append(f"tokens as before {_SETTINGS} was written, without their codes (use_token: false)")
    hp = _hparams(tokenizer, dynamics, told, assumed)
    read = _tensors(hp, tokenizer, dynamics)
    kind = "GenieRedux, with its latent action model" if dynamics.lam else "GenieRedux-G"
    return checkpoint(hp, {"general.name": kind.split(",")[0]}, read, parts, kind, assumed)


def _padded(length: int) -> int:
    return -(-length // 32) * 32


def _pad(values: Any, rows: int, columns: int) -> Any:
    """[r, c] -> [rows, columns], or [c] -> [columns], padded with zeros."""
    grow = (0, columns - values.shape[-1])
    return import_torch().nn.functional.pad(values, grow if values.ndim == 1 else (*grow, 0, rows - len(values)))


class _Blocks:
    """One transformer: takes its sizes from shapes, and checks every tensor it must have."""

    def __init__(self, part: Part, prefix: str, halves: tuple[str, str]) -> None:
        self.part, self.prefix, self.halves = part, prefix, halves
        first = f"{prefix}layers.0.0."
        self.inner, self.width = part.shape(f"{first}spatial_attention.to_q.weight", 2)
        self.key_length = part.shape(f"{first}spatial_attention.q_scale", 1)[0]
        self.hidden = part.shape(f"{first}spatial_ff.4.weight", 2)[1]
        depth = len(prefix.split("."))
        numbers = {name.split(".")[depth] for name in part.tensors if name.startswith(f"{prefix}layers.")}
        self.blocks, self.heads = len(numbers), self.inner // self.key_length
        if self.inner % self.key_length or not 1 <= self.blocks <= 512:
            raise CheckpointError(
                f"{part.where}: {prefix}layers has {self.blocks} blocks, whose queries of {self.inner} values are not "
                f"heads of {self.key_length}",
                _ALIKE,
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        E, HD, D, F = self.width, self.inner, self.key_length, self.hidden
        found: dict[str, tuple[int, ...]] = {}
        for i in range(self.blocks):
            for half in self.halves:
                at = f"{self.prefix}layers.{i}.0.{half}_"
                found |= {f"{at}peg.dsconv.weight": (E, 1, 3, 3, 3), f"{at}peg.dsconv.bias": (E,)}
                for norm in ("norm", "context_norm"):
                    found |= {f"{at}attention.{norm}.{end}": (E,) for end in ("gamma", "beta")}
                found |= {f"{at}attention.{name}_scale": (D,) for name in ("q", "k")}
                found |= {f"{at}attention.to_q.weight": (HD, E), f"{at}attention.to_kv.weight": (2 * HD, E)}
                found |= {f"{at}attention.to_out.weight": (E, HD), f"{at}ff.0.weight": (E,), f"{at}ff.0.bias": (E,)}
                found |= {f"{at}ff.1.weight": (2 * F, E), f"{at}ff.4.weight": (E, F)}
        return found | {f"{self.prefix}norm_out.{end}": (E,) for end in ("gamma", "beta")}

    def params(self, **flags: Any) -> StackParams:
        wide = _padded(self.width)
        return StackParams(
            block_count=self.blocks,
            embedding_length=wide,
            feed_forward_length=_padded(self.hidden),
            head_count=self.heads,
            key_length=self.key_length,
            qk_norm=True,
            sublayers=("peg", self.halves[0], "ffn", "peg2", self.halves[1], "ffn2"),
            norm="layernorm",
            norm_epsilon=_EPSILON,
            ffn="geglu",
            bias=False,
            norm_length=None if wide == self.width else self.width,
            qk_norm_epsilon=_QK_EPSILON,
            kv_input="residual",
            spatial_bias="relative",
            temporal_bias="alibi",
            **flags,
        )

    def tensors(self, name: str) -> dict[str, Read]:
        """The blocks, the final norm and the temporal slopes, by GGUF name."""
        E, HD, F = _padded(self.width), self.inner, _padded(self.hidden)
        found: dict[str, Read] = {}
        for i in range(self.blocks):
            for half, again in zip(self.halves, ("", "2"), strict=True):
                at, to = f"{self.prefix}layers.{i}.0.{half}_", f"{name}.blk.{i}."
                attention, peg, ffn = f"{to}{half}", f"{to}peg{again}", f"{to}ffn{again}"
                found[f"{peg}.conv.weight"] = self._of(f"{at}peg.dsconv.weight", 27, E, lambda w: w.flatten(1).T)
                found[f"{peg}.conv.bias"] = self._of(f"{at}peg.dsconv.bias", 1, E)
                found[f"{attention}.norm.weight"] = self._of(f"{at}attention.norm.gamma", 1, E)
                found[f"{attention}.norm.bias"] = self._of(f"{at}attention.norm.beta", 1, E)
                found[f"{attention}.q.weight"] = self._of(f"{at}attention.to_q.weight", HD, E)
                for part, half_of in (("k", 0), ("v", 1)):
                    found[f"{attention}.{part}.weight"] = self._half(f"{at}attention.to_kv.weight", half_of, HD, E)
                found[f"{attention}.out.weight"] = self._of(f"{at}attention.to_out.weight", E, HD)
                # GenieRedux: unit-length q and k, scores times 8. RMS norms and 1 / sqrt(D) give sqrt(D), not 8.
                found[f"{attention}.q_norm.weight"] = self._scaled(f"{at}attention.q_scale")
                found[f"{attention}.k_norm.weight"] = self._of(f"{at}attention.k_scale", 1, self.key_length)
                for end in ("weight", "bias"):
                    found[f"{ffn}.norm.{end}"] = self._of(f"{at}ff.0.{end}", 1, E)
                for part, half_of in (("up", 0), ("gate", 1)):
                    found[f"{ffn}.{part}.weight"] = self._half(f"{at}ff.1.weight", half_of, F, E)
                found[f"{ffn}.down.weight"] = self._of(f"{at}ff.4.weight", E, F)
        for end, theirs in (("weight", "gamma"), ("bias", "beta")):
            found[f"{name}.output_norm.{end}"] = self._of(f"{self.prefix}norm_out.{theirs}", 1, E)
        found[f"{name}.temporal_bias.weight"] = lambda: _slopes(self.heads)
        return found

    def _of(self, name: str, rows: int, columns: int, change: Callable[[Any], Any] = lambda w: w) -> Read:
        return lambda: _pad(change(self.part.tensor(name)), rows, columns)

    def _half(self, name: str, half: int, rows: int, columns: int) -> Read:
        return lambda: _pad(self.part.tensor(name).chunk(2)[half], rows, columns)

    def _scaled(self, name: str) -> Read:
        return lambda: self.part.tensor(name) * (_SCALE / math.sqrt(self.key_length))


class _Bias:
    """The network that computes the bias of two tokens from their offset."""

    def __init__(self, part: Part, prefix: str, heads: int) -> None:
        self.part, self.prefix, self.heads = part, prefix, heads
        self.hidden = part.shape(f"{prefix}net.0.0.weight", 2)[0]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        n = self.hidden
        layers = {"net.0.0": (n, 2), "net.1.0": (n, n), "net.2": (self.heads, n)}
        found: dict[str, tuple[int, ...]] = {f"{self.prefix}{name}.weight": shape for name, shape in layers.items()}
        return found | {f"{self.prefix}{name}.bias": shape[:1] for name, shape in layers.items()}

    def table(self, columns: int, rows: int) -> Read:
        """[H, (2 rows - 1)(2 columns - 1)], by offset from the query to the key: rows down, columns right."""

        def read() -> Any:
            torch = import_torch()
            down, right = torch.arange(1 - rows, rows), torch.arange(1 - columns, columns)
            from_key = -torch.stack(torch.meshgrid(down, right, indexing="ij"), -1).reshape(-1, 2).float()
            x = torch.sign(from_key) * torch.log(from_key.abs() + 1)
            for name in ("net.0.0", "net.1.0", "net.2"):
                weights = (self.part.tensor(f"{self.prefix}{name}.{end}") for end in ("weight", "bias"))
                x = torch.nn.functional.linear(x, *weights)
                if name != "net.2":
                    x = torch.nn.functional.leaky_relu(x, 0.1)
            return x.T

        return read


class _Codec:
    """A tokenizer or latent action model: encoder, quantizer, decoder."""

    def __init__(self, part: Part, prefix: str) -> None:
        self.part, self.prefix = part, prefix
        self.encoder = _Blocks(part, f"{prefix}encoder.", ("spatial", "temporal"))
        self.decoder = _Blocks(part, f"{prefix}decoder.", ("temporal", "spatial")) if not prefix else self.encoder
        self.bias = _Bias(part, f"{prefix}spatial_rel_pos_bias.", self.encoder.heads)
        first, rest = (part.shape(f"{prefix}{name}.2.weight", 2)[1] for name in _EMBEDDERS)
        self.patch = math.isqrt(first // 3)
        if 3 * self.patch**2 != first:
            raise CheckpointError(f"{part.where}: {first} values are not a square patch of three colours", _ALIKE)
        if rest != first:
            raise CheckpointError(
                f"{part.where} takes patches of {rest / first:g} frames, which this version does not run",
                "train it with temporal_patch_size: 1",
            )
        _, self.codes, self.latent = part.shape(f"{prefix}vq._codebook.embed", 3)
        # Codes as long as the embeddings have no projection (codebook_dim == dim).
        self.projected = self.latent != self.encoder.width or f"{prefix}vq.project_in.weight" in part.tensors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        E, X, p, L = self.encoder.width, 3 * self.patch**2, self.prefix, self.latent
        found = self.encoder.shapes() | self.bias.shapes()
        for name in _EMBEDDERS:
            found |= {f"{p}{name}.1.{end}": (X,) for end in ("weight", "bias")}
            found |= {f"{p}{name}.2.weight": (E, X), f"{p}{name}.2.bias": (E,)}
            found |= {f"{p}{name}.3.{end}": (E,) for end in ("weight", "bias")}
        if self.projected:
            found |= {f"{p}vq.project_in.weight": (L, E), f"{p}vq.project_in.bias": (L,)}
            found |= {f"{p}vq.project_out.weight": (E, L), f"{p}vq.project_out.bias": (E,)}
        found |= {f"{p}vq._codebook.{name}": (1, self.codes, L) for name in ("embed", "embed_avg")}
        return found | {f"{p}vq._codebook.cluster_size": (1, self.codes), f"{p}vq._codebook.initted": (1,)}

    def pixels(self) -> dict[str, tuple[int, ...]]:
        X, E = 3 * self.patch**2, self.decoder.width
        found: dict[str, tuple[int, ...]] = {f"{name}.0.weight": (X, E) for name in _PIXELS}
        return found | {f"{name}.0.bias": (X,) for name in _PIXELS}

    def of(self, name: str) -> Any:
        return self.part.tensor(f"{self.prefix}{name}")

    def input(self, to: str, name: str) -> dict[str, Read]:
        """LayerNorm, matrix, LayerNorm of a frame's patches. The first norm's weights are folded into the matrix."""
        E, p = _padded(self.encoder.width), self.patch

        def weight() -> Any:
            folded = self.of(f"{name}.2.weight") * self.of(f"{name}.1.weight")
            return _pad(folded.reshape(-1, 3, p, p).permute(0, 2, 3, 1).reshape(len(folded), -1), E, 3 * p * p)

        def bias() -> Any:
            return _pad(self.of(f"{name}.2.bias") + self.of(f"{name}.2.weight") @ self.of(f"{name}.1.bias"), 1, E)

        found: dict[str, Read] = {f"{to}.weight": weight, f"{to}.bias": bias}
        for end in ("weight", "bias"):
            found[f"{to}_norm.{end}"] = lambda end=end: _pad(self.of(f"{name}.3.{end}"), 1, E)  # type: ignore[misc]
        return found

    def output(self, to: str, name: str) -> dict[str, Read]:
        """The last matrix, for pixels around 0 instead of 0…1, and for our order of a patch's values."""
        E, p = _padded(self.decoder.width), self.patch

        def rows(values: Any) -> Any:
            return values.reshape(3, p, p, -1).permute(1, 2, 0, 3).reshape(3 * p * p, -1)

        return {
            f"{to}.weight": lambda: _pad(rows(self.of(f"{name}.0.weight")), 3 * p * p, E),
            f"{to}.bias": lambda: rows(self.of(f"{name}.0.bias")).reshape(-1) - 0.5,
        }

    def codebook(self) -> Any:
        return self.of("vq._codebook.embed")[0]

    def projection(self, way: str, end: str) -> Any:
        """The "weight" or "bias" of the projection "in" (embeddings to codes) or "out" (codes to embeddings)."""
        if self.projected:
            return self.of(f"vq.project_{way}.{end}")
        torch = import_torch()
        return torch.eye(self.latent) if end == "weight" else torch.zeros(self.latent)

    def code_embeddings(self) -> Any:
        weights = (self.projection("out", end) for end in ("weight", "bias"))
        return import_torch().nn.functional.linear(self.codebook(), *weights)


_EMBEDDERS = ("to_patch_emb_first_frame", "to_patch_emb")
_PIXELS = ("to_pixels_first_frame", "to_pixels")


class _Dynamics:
    """MaskGit of either kind, and the latent action model if there is one."""

    def __init__(self, part: Part) -> None:
        self.part, self.at = part, "dynamics.maskgit."
        self.blocks = _Blocks(part, f"{self.at}transformer.", ("spatial", "temporal"))
        self.bias = _Bias(part, f"{self.at}continuous_pos_bias.", self.blocks.heads)
        self.rows, self.token_width = part.shape(f"{self.at}token_emb.weight", 2)
        self.positions = part.shape(f"{self.at}pos_emb.weight", 2)[0]
        one_hot = self.blocks.width - self.token_width
        self.adds_codes = part.flag("dynamics.use_token")
        embedded = part.flag("dynamics.use_action_embeddings") and part.flag("dynamics.is_guided") is not False
        # Without settings, the width reveals it: a one-hot action is never as wide as a token.
        if one_hot > 0 and (embedded or one_hot == self.token_width):
            raise CheckpointError(
                f"{part.where} was trained with embedded actions (use_action_embeddings), which its trainer does not "
                "save: the file holds no actions",
                "a file trained with use_action_embeddings: false can be converted",
            )
        has_lam = any(name.startswith(_ACTIONS) for name in part.tensors)
        self.lam = _Codec(part, _ACTIONS) if has_lam and one_hot == 0 else None
        self.actions = self.lam.codes if self.lam else one_hot
        if self.actions < 1:
            raise CheckpointError(
                f"{part.where}: a dynamics of width {self.blocks.width} with tokens of {self.token_width} has no action"
                " beside them, and there is no latent action model",
                "the trainer saves both in one file",
            )
        wanted = {
            **self.blocks.shapes(),
            **self.bias.shapes(),
            f"{self.at}token_emb.weight": (self.rows, self.token_width),
            f"{self.at}pos_emb.weight": (self.positions, self.token_width),
            f"{self.at}to_logits.weight": (self.rows - 1, self.blocks.width),
            f"{self.at}to_logits.bias": (self.rows - 1,),
        }
        if self.lam:
            E = self.lam.encoder.width
            columns = part.shape(f"{_ACTIONS}to_action_emb.1.weight", 2)[1]
            self.lam_side = math.isqrt(columns // E)
            if E * self.lam_side**2 != columns or E != self.token_width:
                raise CheckpointError(
                    f"{part.where}: {_ACTIONS}to_action_emb.1.weight takes {columns} values, which are not a square of "
                    f"tokens of {E}, and actions are added to tokens of {self.token_width}",
                    _ALIKE,
                )
            head = {f"{_ACTIONS}to_action_emb.1.bias": (E,), f"{_ACTIONS}to_action_emb.1.weight": (E, columns)}
            wanted |= self.lam.shapes() | head
            wanted |= {f"{_ACTIONS}to_action_emb.2.{end}": (E,) for end in ("weight", "bias")}
        part.check(wanted, _TRAINING if self.lam else ())

    def tensors(self, T: int, P: int, tokenizer: _Codec) -> dict[str, Read]:
        E = _padded(self.blocks.width)

        def of(name: str) -> Any:
            return self.part.tensor(f"{self.at}{name}")

        def tokens() -> Any:
            rows = of("token_emb.weight")
            if self.adds_codes:
                rows[:-1] += _CODES * tokenizer.code_embeddings()  # the last row, the mask, has no code
            return _pad(rows, self.rows, E)

        def actions() -> Any:
            torch = import_torch()
            if self.lam:
                return _pad(self.lam.code_embeddings(), self.actions, E)
            one_hot = torch.eye(self.actions)
            return _pad(torch.cat([torch.zeros(self.actions, self.token_width), one_hot], 1), self.actions, E)

        return self.blocks.tensors("dynamics") | {
            "dynamics.token_embd.weight": tokens,
            "dynamics.action_embd.weight": actions,
            # A full window's newest frame is only predicted, never an input, so no more positions than these are used.
            "dynamics.pos.weight": lambda: _pad(of("pos_emb.weight")[: T * P], T * P, E),
            "dynamics.output.weight": lambda: _pad(of("to_logits.weight"), self.rows - 1, E),
            "dynamics.output.bias": lambda: of("to_logits.bias"),
        }


def _hparams(tokenizer: _Codec, dynamics: _Dynamics, told: Told, assumed: list[str]) -> HParams:
    where, lam = dynamics.part.where, dynamics.lam
    if dynamics.rows != tokenizer.codes + 1:
        raise CheckpointError(
            f"{where} predicts {dynamics.rows - 1} tokens; the tokenizer {tokenizer.part.where} has {tokenizer.codes} "
            "codes",
            "the files are of different worlds",
        )
    if dynamics.adds_codes and dynamics.token_width != tokenizer.encoder.width:
        raise CheckpointError(
            f"{where} adds codes of the tokenizer {tokenizer.part.where} (use_token) to tokens of "
            f"{dynamics.token_width} values; they have {tokenizer.encoder.width}",
            "the files are of different worlds",
        )
    known = {
        f"{part.where} ({name})": part.number(name, 0)
        for part in (tokenizer.part, dynamics.part)
        for name in ("tokenizer.image_size", "dynamics.image_size")
    }
    if lam:
        known[where] = dynamics.lam_side * lam.patch
    side = frame_side(known, told, _FRAME, assumed)
    if side % tokenizer.patch:
        raise CheckpointError(
            f"the tokenizer {tokenizer.part.where} has patches of {tokenizer.patch} pixels, {where} frames of {side}",
            "the files are of different worlds",
        )
    seen = dynamics.positions // (side // tokenizer.patch) ** 2
    context_length = told.context_length
    if context_length is None:
        context_length = min(_WINDOW, seen + 1)
        assumed.append(f"a window of {context_length - 1} frames and the new one (--context-length)")
    if not 2 <= context_length <= seen + 1:
        raise CheckpointError(
            f"{where} has positions for {seen} frames, not for {context_length - 1}",
            f"give a --context-length of at most {seen + 1}",
        )
    assumed.append("1 step at temperature 0, as its scripts run whatever they are told")
    patched = {"position": "none", "input_norm": "dual", "first_frame": "input"}
    stacks = {
        "tokenizer.encoder": tokenizer.encoder.params(**patched),
        "tokenizer.decoder": tokenizer.decoder.params(position="none", first_frame="output"),
        **({LAM: lam.encoder.params(**patched)} if lam else {}),
        "dynamics": dynamics.blocks.params(position="joint"),
    }
    hp = HParams(
        frame_width=side,
        frame_height=side,
        context_length=context_length,
        action_count=dynamics.actions,
        window_policy="half",
        tokenizer_kind="st-vivit",
        tokenizer_patch_size=tokenizer.patch,
        codebook_size=tokenizer.codes,
        tokenizer_latent_length=tokenizer.latent,
        lam_patch_size=lam.patch if lam else 0,
        lam_latent_length=lam.latent if lam else 0,
        lam_difference=False,
        sampler_steps=1,
        sampler_temperature=0.0,
        sampler_order="confidence",
        sampler_noise=0.0,
        stacks=stacks,
        lam_head="joined" if lam else "mean",
        lam_head_length=lam.encoder.width if lam else None,
        prediction="next-frame",
    )
    try:
        hp.to_metadata(TensorType.F32)
    except ModelError as error:
        raise CheckpointError(
            f"this {NAME} world is beyond what runs here: {error}", "docs/gguf.md has the limits"
        ) from None
    return hp


def _tensors(hp: HParams, tokenizer: _Codec, dynamics: _Dynamics) -> dict[str, Read]:
    E = _padded(tokenizer.encoder.width)
    found = tokenizer.encoder.tensors("tokenizer.encoder") | tokenizer.decoder.tensors("tokenizer.decoder")
    found |= dynamics.tensors(hp.context_length, hp.token_count("dynamics"), tokenizer)
    encoders = {"tokenizer.encoder": tokenizer, **({LAM: dynamics.lam} if dynamics.lam else {})}
    for name, codec in encoders.items():
        for to, theirs in (("input_first", _EMBEDDERS[0]), ("input", _EMBEDDERS[1])):
            found |= codec.input(f"{name}.{to}", theirs)
    for to, theirs in (("output_first", _PIXELS[0]), ("output", _PIXELS[1])):
        found |= tokenizer.output(f"tokenizer.decoder.{to}", theirs)
    biases = {name: codec.bias for name, codec in encoders.items()}
    biases |= {"tokenizer.decoder": tokenizer.bias, "dynamics": dynamics.bias}
    for name, bias in biases.items():
        found[f"{name}.spatial_bias.weight"] = bias.table(*hp.grid(name))
    found |= {
        "tokenizer.encoder.output.weight": lambda: _pad(tokenizer.projection("in", "weight"), tokenizer.latent, E),
        "tokenizer.encoder.output.bias": lambda: tokenizer.projection("in", "bias"),
        "tokenizer.decoder.input.weight": lambda: _pad(tokenizer.projection("out", "weight"), E, tokenizer.latent),
        "tokenizer.decoder.input.bias": lambda: _pad(tokenizer.projection("out", "bias"), 1, E),
        "tokenizer.codebook.weight": tokenizer.codebook,
    }
    if dynamics.lam:
        found |= _lam_tensors(dynamics.lam, dynamics.lam_side**2)
    return found


def _lam_tensors(lam: _Codec, tokens: int) -> dict[str, Read]:
    E = _padded(lam.encoder.width)
    found = lam.encoder.tensors(LAM) | {
        "lam.head.up.weight": lambda: _pad_tokens(lam.of("to_action_emb.1.weight"), tokens, E),
        "lam.head.up.bias": lambda: lam.of("to_action_emb.1.bias"),
        "lam.head.norm.weight": lambda: lam.of("to_action_emb.2.weight"),
        "lam.head.norm.bias": lambda: lam.of("to_action_emb.2.bias"),
        "lam.head.down.weight": lambda: lam.projection("in", "weight"),
        "lam.head.down.bias": lambda: lam.projection("in", "bias"),
        "lam.codebook.weight": lam.codebook,
    }
    return found


def _pad_tokens(values: Any, tokens: int, width: int) -> Any:
    """[N, tokens * E] -> [N, tokens * width]"""
    apart = values.reshape(len(values) * tokens, -1)
    return _pad(apart, len(apart), width).reshape(len(values), -1)


def _slopes(heads: int) -> Any:
    from genie_cpp.convert.reference.stack import alibi_slopes

    return alibi_slopes(heads)
