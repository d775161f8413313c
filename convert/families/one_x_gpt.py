"""1xgpt: STMaskGIT over factored tokens, without actions, and the MAGVIT2 networks that encode and decode pictures.

Constants are folded into tensors here: muP's scales of attention and of the head, the norm that queries and keys share
(into both), zeros for the biases that a file lacks, and the pixel range (into the first and the last convolution).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from genie_cpp.convert.families.part import Part, Read, Told, checkpoint
from genie_cpp.convert.files import import_torch
from genie_cpp.convert.native import Checkpoint
from genie_cpp.errors import CheckpointError, ModelError
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.spec.hparams import HParams
from genie_cpp.spec.stack_spec import StackParams

NAME = "1xgpt"
LOOKED_FOR = "pos_embed_TSC (dynamics), decoder.up.0.block.0.conv1.weight (MAGVIT2 tokenizer)"
# Training settings and progress that Lightning saves with the weights.
INERT: tuple[str, ...] = ("magvit2.config.", "argparse.Namespace", "lightning.", "pytorch_lightning.")
PARTS = {
    "dynamics": ("pos_embed_TSC", "the folder with config.json too"),
    "tokenizer": ("decoder.up.0.block.0.conv1.weight", "magvit2.ckpt too"),
}
# visualize.py does not use the averages (model_ema): it loads the file before there is a place for them.
_TRAINING = ("loss.", "model_ema.")
_HEADS, _GROUPS, _GROUP_EPSILON, _EPSILON = 8, 32, 1e-6, 1e-5
_STEPS = 2
_MUP_WIDTH, _MUP_HEAD = 256, 8  # the base model's width; attention is scaled by 8 / head length

# The layer's word, and its tensors: GGUF name within the layer -> (name in the file, shape).
_Layer = tuple[str, dict[str, tuple[str, tuple[int, ...]]]]


def spare(parts: Mapping[str, Part]) -> tuple[str, ...]:
    """Every part is needed."""
    return ()


def load(parts: Mapping[str, Part], told: Told) -> Checkpoint:
    """Two parts -> a checkpoint with all hyper-parameters. The window has at most as many frames as in training.

    Raises CheckpointError naming what is missing, has a wrong shape or does not fit together.
    """
    told.heads_are_known(NAME)
    assumed: list[str] = []
    dynamics, tokenizer = _Dynamics(parts["dynamics"], assumed), _Tokenizer(parts["tokenizer"])
    hp = _hparams(dynamics, tokenizer, told, assumed)
    read = {**dynamics.tensors(hp.context_length), **tokenizer.tensors()}
    return checkpoint(hp, {"general.name": NAME}, read, parts, NAME, assumed)


class _Dynamics:
    """STMaskGIT: takes its sizes from shapes, and compares them with config.json and every tensor it must have."""

    def __init__(self, part: Part, assumed: list[str]) -> None:
        self.part = part
        _, self.frames, self.tokens, self.width = part.shape("pos_embed_TSC", 4)
        self.hidden = part.shape("decoder.layers.0.mlp.fc1.weight", 2)[0]
        self.factors = sum(1 for name in part.tensors if name.startswith("token_embed.factored_embeds."))
        if not 1 <= self.factors <= 4:
            raise CheckpointError(f"{part.where} has {self.factors} factored vocabularies", "1…4 are possible")
        self.values = part.shape("token_embed.factored_embeds.0.weight", 2)[0]
        layers = {name.split(".")[2] for name in part.tensors if name.startswith("decoder.layers.")}
        self.blocks = part.number("num_layers", len(layers))
        if not 1 <= self.blocks <= 512:
            raise CheckpointError(f"{part.where} has {self.blocks} layers", "512 are the most")
        found = {
            "d_model": self.width,
            "T": self.frames,
            "S": self.tokens,
            "num_factored_vocabs": self.factors,
            "image_vocab_size": self.values**self.factors,
        }
        for key, size in found.items():
            if part.config.get(key, size) != size:
                raise CheckpointError(
                    f"{part.where}: config.json has {key} {part.config[key]!r}, the weights {size}",
                    "is config.json of this checkpoint?",
                )
        if "num_heads" not in part.config:
            assumed.append(f"{_HEADS} attention heads in {part.path.name!r}, which its config.json does not say")
        self.heads = part.number("num_heads", _HEADS)
        if self.width % self.heads:
            raise CheckpointError(
                f"{part.where}: {self.heads} heads do not divide a width of {self.width}",
                "the number of heads is not in the weights",
            )
        self.key_length = self.width // self.heads
        first = "decoder.layers.0."
        self.qk_norm = f"{first}spatial_attn.norm.weight" in part.tensors
        self.biases = {
            name: f"{first}{name}.bias" in part.tensors
            for attention in ("spatial_attn", "temporal_attn")
            for name in (f"{attention}.qkv", f"{attention}.proj")
        }
        self.biases["mlp.fc1"] = self.biases["mlp.fc2"] = f"{first}mlp.fc1.bias" in part.tensors
        mup = part.config.get("use_mup", False)
        self.query_scale = _MUP_HEAD / math.sqrt(self.key_length) if mup else 1.0
        self.head_scale = _MUP_WIDTH / self.width if mup else 1.0
        part.check(self._shapes(), ())

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        E, h, outputs = self.width, self.hidden, self.factors * self.values
        found: dict[str, tuple[int, ...]] = {
            "pos_embed_TSC": (1, self.frames, self.tokens, E),
            "token_embed.mask_token_embed": (1, E),
            "out_x_proj.weight": (outputs, E),
            "out_x_proj.bias": (outputs,),
        }
        found |= {f"token_embed.factored_embeds.{k}.weight": (self.values, E) for k in range(self.factors)}
        for i in range(self.blocks):
            at = f"decoder.layers.{i}."
            linears: dict[str, tuple[int, ...]] = {"mlp.fc1": (h, E), "mlp.fc2": (E, h)}
            for attention in ("spatial_attn", "temporal_attn"):
                linears |= {f"{attention}.qkv": (3 * E, E), f"{attention}.proj": (E, E)}
            found |= {f"{at}{name}.weight": shape for name, shape in linears.items()}
            found |= {f"{at}{name}.bias": shape[:1] for name, shape in linears.items() if self.biases[name]}
            norms = {"norm1": (E,), "norm2": (E,)}
            if self.qk_norm:
                norms = {f"{attention}.norm": (self.key_length,) for attention in ("spatial_attn", "temporal_attn")}
            found |= {f"{at}{name}.{end}": shape for name, shape in norms.items() for end in ("weight", "bias")}
        return found

    def params(self) -> StackParams:
        return StackParams(
            block_count=self.blocks,
            embedding_length=self.width,
            feed_forward_length=self.hidden,
            head_count=self.heads,
            key_length=self.key_length,
            qk_norm=self.qk_norm,
            sublayers=("spatial", "temporal", "ffn"),
            norm="layernorm",
            norm_epsilon=_EPSILON,
            ffn="gelu",
            bias=True,
            output_norm="none",
            qk_norm_kind="layernorm" if self.qk_norm else "rmsnorm",
            unnormed=("spatial", "temporal", "ffn") if self.qk_norm else ("temporal",),
            position="joint",
        )

    def tensors(self, frames: int) -> dict[str, Read]:
        """By GGUF name, for a window of this many frames."""
        part, E = self.part, self.width
        found: dict[str, Read] = {
            "dynamics.pos.weight": lambda: part.tensor("pos_embed_TSC")[0, :frames].reshape(-1, E),
            "dynamics.output.weight": lambda: part.tensor("out_x_proj.weight") * self.head_scale,
            "dynamics.output.bias": lambda: part.tensor("out_x_proj.bias"),
            "dynamics.token_embd.weight": self._embeddings,
        }
        for i in range(self.blocks):
            to, at = f"dynamics.blk.{i}.", f"decoder.layers.{i}."
            for kind, norm in (("spatial", "norm1"), ("temporal", None)):
                attention = f"{at}{kind}_attn."
                for third, name in enumerate(("q", "k", "v")):
                    scale = self.query_scale if name == "q" and not self.qk_norm else 1.0
                    for end in ("weight", "bias"):
                        rows = slice(third * E, (third + 1) * E)
                        found[f"{to}{kind}.{name}.{end}"] = self._linear(f"{attention}qkv.{end}", 3 * E, rows, scale)
                for end in ("weight", "bias"):
                    found[f"{to}{kind}.out.{end}"] = self._linear(f"{attention}proj.{end}", E)
                    if self.qk_norm:
                        found[f"{to}{kind}.q_norm.{end}"] = self._linear(
                            f"{attention}norm.{end}", E, scale=self.query_scale
                        )
                        found[f"{to}{kind}.k_norm.{end}"] = self._linear(f"{attention}norm.{end}", E)
                    elif norm:
                        found[f"{to}{kind}.norm.{end}"] = self._linear(f"{at}{norm}.{end}", E)
            for end in ("weight", "bias"):
                found[f"{to}ffn.up.{end}"] = self._linear(f"{at}mlp.fc1.{end}", self.hidden)
                found[f"{to}ffn.down.{end}"] = self._linear(f"{at}mlp.fc2.{end}", E)
                if not self.qk_norm:
                    found[f"{to}ffn.norm.{end}"] = self._linear(f"{at}norm2.{end}", E)
        return found

    def _linear(self, name: str, length: int, rows: slice = slice(None), scale: float = 1.0) -> Read:
        """Rows of a tensor; for a missing bias, `length` zeros."""

        def read() -> Any:
            if name not in self.part.tensors:
                return import_torch().zeros(length)[rows]
            return self.part.tensor(name)[rows] * scale

        return read

    def _embeddings(self) -> Any:
        names = [f"token_embed.factored_embeds.{k}.weight" for k in range(self.factors)]
        return import_torch().cat([self.part.tensor(name) for name in (*names, "token_embed.mask_token_embed")])


class _Tokenizer:
    """MAGVIT2: derives the layer lists of its encoder and decoder from names and shapes in the file."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.latent, self.levels = part.shape("decoder.conv_in.weight", 4)[1], self._count("decoder.up.", 2)
        if not 1 <= self.levels <= 9:
            raise CheckpointError(f"{part.where} has {self.levels} levels", "1…9 are possible")
        self.layers = {"encoder": list(self._encoder()), "decoder": list(self._decoder())}
        part.check(
            {name: shape for half in self.layers.values() for _, found in half for name, shape in found.values()},
            _TRAINING,
        )
        for half, layers in self.layers.items():
            self._check_chain(layers, 3 if half == "encoder" else self.latent)

    def _check_chain(self, layers: list[_Layer], channels: int) -> None:
        """Each layer must take as many channels as the layer before it outputs."""
        for word, found in layers:
            name, shape = found["norm.weight" if word == "norm" else "conv.weight"]
            taken = shape[0] if word == "norm" else shape[1]
            if taken != channels:
                raise CheckpointError(
                    f"{self.part.where}: tensor {name} must take {channels} channels, not {taken}",
                    "the file is damaged, or of another MAGVIT2",
                )
            channels = channels if word == "norm" else int(word.partition("-")[2])

    def _count(self, prefix: str, place: int) -> int:
        """Number of different words at a place in the dotted names that start with `prefix`."""
        return len({n.split(".")[place] for n in self.part.tensors if n.startswith(prefix)})

    def _conv(self, word: str, name: str, bias: bool = True) -> _Layer:
        shape = self.part.shape(f"{name}.weight", 4)
        side = 1 if word == "conv1" else 3
        channels = shape[0] // 4 if word == "up" else shape[0]
        found: dict[str, tuple[str, tuple[int, ...]]]
        found = {"conv.weight": (f"{name}.weight", (shape[0], shape[1], side, side))}
        if bias:
            found["conv.bias"] = (f"{name}.bias", shape[:1])
        return f"{word}-{channels}", found

    def _residual(self, name: str) -> _Layer:
        out, wide = self.part.shape(f"{name}.conv1.weight", 4)[:2]
        found: dict[str, tuple[str, tuple[int, ...]]] = {
            "conv.weight": (f"{name}.conv1.weight", (out, wide, 3, 3)),
            "conv2.weight": (f"{name}.conv2.weight", (out, out, 3, 3)),
        }
        for end in ("weight", "bias"):
            found[f"norm.{end}"] = (f"{name}.norm1.{end}", (wide,))
            found[f"norm2.{end}"] = (f"{name}.norm2.{end}", (out,))
        if wide != out:
            found["shortcut.weight"] = (f"{name}.nin_shortcut.weight", (out, wide, 1, 1))
        return f"res-{out}", found

    def _residuals(self, prefix: str) -> Iterator[_Layer]:
        for i in range(self._count(prefix, prefix.count("."))):
            yield self._residual(f"{prefix}{i}")

    def _end(self, half: str, word: str) -> Iterator[_Layer]:
        width = self.part.shape(f"{half}.norm_out.weight", 1)
        yield "norm", {f"norm.{end}": (f"{half}.norm_out.{end}", width) for end in ("weight", "bias")}
        yield self._conv(word, f"{half}.conv_out")

    def _encoder(self) -> Iterator[_Layer]:
        yield self._conv("conv3", "encoder.conv_in", bias=False)
        for level in range(self.levels):
            yield from self._residuals(f"encoder.down.{level}.block.")
            if level < self.levels - 1:
                yield self._conv("down", f"encoder.down.{level}.downsample")
        yield from self._residuals("encoder.mid_block.")
        yield from self._end("encoder", "conv1")

    def _decoder(self) -> Iterator[_Layer]:
        yield self._conv("conv3", "decoder.conv_in")
        yield from self._residuals("decoder.mid_block.")
        for level in reversed(range(self.levels)):
            yield from self._residuals(f"decoder.up.{level}.block.")
            if level > 0:
                yield self._conv("up", f"decoder.up.{level}.upsample.conv1")
        yield from self._end("decoder", "conv3")

    def words(self, half: str) -> tuple[str, ...]:
        return tuple(word for word, _ in self.layers[half])

    def tensors(self) -> dict[str, Read]:
        """By GGUF name. MAGVIT2's pixel range is twice as wide as ours."""
        found: dict[str, Read] = {}
        for half, layers in self.layers.items():
            for i, (word, tensors) in enumerate(layers):
                last = half == "decoder" and i == len(layers) - 1
                scale = 2.0 if half == "encoder" and i == 0 else 0.5 if last else 1.0
                to = f"tokenizer.{half}.layer.{i}."
                for name, (theirs, _) in tensors.items():
                    found[to + name] = self._rows(theirs, scale)
                if word.startswith("conv") and "conv.bias" not in tensors:
                    found[f"{to}conv.bias"] = self._no_bias(tensors["conv.weight"][1][0])
        return found

    def _rows(self, name: str, scale: float) -> Read:
        """[O, I, 3, 3] -> [O, 3 3 I]."""

        def read() -> Any:
            values = self.part.tensor(name) * scale
            return values.permute(0, 2, 3, 1).reshape(len(values), -1) if values.ndim == 4 else values

        return read

    def _no_bias(self, length: int) -> Read:
        return lambda: import_torch().zeros(length)


def _hparams(dynamics: _Dynamics, tokenizer: _Tokenizer, told: Told, assumed: list[str]) -> HParams:
    codes, side = dynamics.values**dynamics.factors, math.isqrt(dynamics.tokens)
    if side * side != dynamics.tokens:
        raise CheckpointError(f"{dynamics.part.where} has frames of {dynamics.tokens} tokens", "it must be a square")
    if codes != 2**tokenizer.latent:
        raise CheckpointError(
            f"{dynamics.part.where} predicts {codes} tokens, the tokenizer {tokenizer.part.where} gives "
            f"2^{tokenizer.latent}",
            "the files are of different worlds",
        )
    context_length = told.context_length
    if context_length is not None and context_length > dynamics.frames:
        raise CheckpointError(
            f"{dynamics.part.where} has positions for {dynamics.frames} frames, not {context_length}",
            "leave --context-length out",
        )
    patch = 2 ** (tokenizer.levels - 1)
    if told.frame_size not in (None, side * patch):
        raise CheckpointError(
            f"{dynamics.part.where} has frames of {side * patch} pixels a side, not of {told.frame_size}",
            "leave --frame-size out",
        )
    assumed.append(f"{_STEPS} steps, random order, temperature 0, as generate.py has them")
    assumed.append("pictures in -1…1, and a token's bit c in channel c of the tokenizer, as visualize.py reads them")
    hp = HParams(
        frame_width=side * patch,
        frame_height=side * patch,
        context_length=context_length or dynamics.frames,
        action_count=0,
        window_policy="half",
        tokenizer_kind="conv",
        tokenizer_patch_size=patch,
        codebook_size=codes,
        tokenizer_latent_length=tokenizer.latent,
        lam_patch_size=0,
        lam_latent_length=0,
        lam_difference=False,
        sampler_steps=_STEPS,
        sampler_temperature=0.0,
        sampler_order="random",
        sampler_noise=0.0,
        stacks={"dynamics": dynamics.params()},
        tokenizer_quantizer="fsq",
        sampler_schedule="cosine-ceil",
        factor_count=dynamics.factors,
        conv_encoder=tokenizer.words("encoder"),
        conv_decoder=tokenizer.words("decoder"),
        conv_group_count=_GROUPS,
        conv_norm_epsilon=_GROUP_EPSILON,
    )
    try:
        hp.to_metadata(TensorType.F32)
    except ModelError as error:
        raise CheckpointError(
            f"this {NAME} world is beyond what runs here: {error}", "docs/gguf.md has the limits"
        ) from None
    return hp
