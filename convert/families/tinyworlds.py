"""tinyworlds: FSQ tokenizer, latent action model and MaskGIT dynamics, each in its own file.

Its norms come after the residual, actions modulate the norms of the dynamics, and positions are fixed sinusoids.
Constants are folded into tensors here: positions, the dynamics' latents (into token embeddings), actions (into rows of
norms), the pixel range and the order of a patch's values (into the first and the last matrix).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genie_cpp.convert.families.part import Part, Read, Told, checkpoint, frame_side
from genie_cpp.convert.files import import_torch
from genie_cpp.convert.native import Checkpoint
from genie_cpp.errors import CheckpointError, ModelError
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.spec.gguf_keys import LAM, NO_LAM, STACKS, fsq_bins
from genie_cpp.spec.hparams import HParams
from genie_cpp.spec.stack_spec import StackParams

NAME = "tinyworlds"
LOOKED_FOR = (
    "encoder.latent_head.1.weight (tokenizer), encoder.action_head.1.weight (latent actions), output_mlp.weight"
)
INERT: tuple[str, ...] = ("utils.config.",)  # enums and settings for distributed training
_ACTIONS = "latent action model"
PARTS = {
    "tokenizer": ("encoder.latent_head.1.weight", "all three files"),
    _ACTIONS: ("encoder.action_head.1.weight", "all three files"),
    "dynamics": ("output_mlp.weight", "all three files"),
}
_TRAINING = ("decoder.",)  # of the latent action model
_EPSILON = 1e-5
# For what the files leave open: the defaults of the published worlds.
_HEADS, _FRAME, _EXPERTS_USED = 8, 64, 2
_CONTEXT, _STEPS, _TEMPERATURE = 2, 10, 0.5  # of its inference script


def spare(parts: Mapping[str, Part]) -> tuple[str, ...]:
    """A dynamics model that was trained without actions needs no latent action model."""
    dynamics = parts.get("dynamics")
    alone = dynamics is not None and (not _modulated(dynamics) or dynamics.config.get("use_actions") is False)
    return (_ACTIONS,) if alone else ()


def load(parts: Mapping[str, Part], told: Told) -> Checkpoint:
    """Three parts, or two without actions -> a checkpoint with all hyper-parameters. The default window is the one of
    its inference script.

    Raises CheckpointError naming what is missing, has a wrong shape or does not fit together.
    """
    tokenizer, lam, dynamics = (parts.get(part) for part in PARTS)
    assert tokenizer is not None and dynamics is not None
    assumed: list[str] = []
    if lam is not None and not _modulated(dynamics):
        assumed.append(f"no use for {lam.where}: the dynamics takes no actions")
        parts = {kind: part for kind, part in parts.items() if part is not lam}
        lam = None
    elif lam is not None and dynamics.config.get("use_actions") is False:
        assumed.append(f"actions, though the settings of {dynamics.path.name!r} say that it was trained without")
    elif lam is None:
        assumed.append("no actions: the world goes on by itself")
    sizes = {
        "tokenizer.encoder": _Stack(tokenizer, "encoder.transformer.", told, assumed),
        "tokenizer.decoder": _Stack(tokenizer, "decoder.transformer.", told, assumed),
        **({} if lam is None else {LAM: _Stack(lam, "encoder.transformer.", told, assumed)}),
        "dynamics": _Stack(dynamics, "transformer.", told, assumed),
    }
    hp = _hparams(tokenizer, lam, dynamics, sizes, told, assumed)
    read = _tensors(hp, tokenizer, lam, dynamics, sizes)
    return checkpoint(hp, _card(dynamics), read, parts, NAME, assumed)


def _modulated(dynamics: Part) -> bool:
    """Whether its norms have weights for actions."""
    return any(name.endswith("ffn.norm.to_gamma_beta.1.weight") for name in dynamics.tensors)


class _Stack:
    """One transformer: takes its sizes from shapes, and checks every tensor it must have."""

    def __init__(self, part: Part, prefix: str, told: Told, assumed: list[str]) -> None:
        self.part, self.prefix = part, prefix
        first = f"{prefix}blocks.0."
        self.experts: int | None = None
        self.used: int | None = None
        if f"{first}ffn.router.weight" in part.tensors:
            self.experts = part.shape(f"{first}ffn.router.weight", 2)[0]
            if part.number("num_experts", self.experts) != self.experts:
                raise CheckpointError(
                    f"{part.where}: {first}ffn.router.weight has {self.experts} rows for "
                    f"{part.number('num_experts', 0)} experts",
                    "do the settings in the file belong to its weights?",
                )
            self.used = part.number("top_k_experts", min(_EXPERTS_USED, self.experts))
            if part.number("top_k_experts", 0) == 0:
                assumed.append(f"{self.used} experts a token in {part.path.name!r}, whose settings do not say")
        self.film = f"{first}ffn.norm.to_gamma_beta.1.weight" in part.tensors
        self.width = part.shape(f"{first}spatial_attn.q_proj.weight", 2)[0]
        one = f"{first}ffn." if self.experts is None else f"{first}ffn.experts.0."
        self.hidden = part.shape(f"{one}w_v.weight", 2)[0]
        self.actions = part.shape(f"{first}ffn.norm.to_gamma_beta.1.weight", 2)[1] if self.film else 0
        self.blocks = part.number("num_blocks", len({n.split(".")[len(prefix.split("."))] for n in self._names()}))
        if not 1 <= self.blocks <= 512:
            raise CheckpointError(f"{part.where} has {self.blocks} blocks", "512 are the most")
        if "num_heads" not in part.config and told.heads is None:
            assumed.append(
                f"{_HEADS} attention heads in {part.path.name!r}, whose settings could not be read (--heads)"
            )
        self.heads = part.number("num_heads", told.heads or _HEADS)
        if told.heads not in (None, self.heads):
            raise CheckpointError(f"{part.where} has {self.heads} heads, not {told.heads}", "leave --heads out")
        if self.width % self.heads:
            raise CheckpointError(
                f"{part.where}: {self.heads} heads do not divide a width of {self.width}",
                "the number of heads is not in the weights",
            )

    def _names(self) -> list[str]:
        return [name for name in self.part.tensors if name.startswith(f"{self.prefix}blocks.")]

    @property
    def padded(self) -> int:
        """The hidden length, padded to whole quantization blocks. The added values are zero and change nothing."""
        return -(-self.hidden // 32) * 32

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the blocks."""
        E, h = self.width, self.hidden
        found: dict[str, tuple[int, ...]] = {}
        for i in range(self.blocks):
            at = f"{self.prefix}blocks.{i}."
            linears: dict[str, tuple[int, ...]]
            linears = {f"{a}_attn.{p}_proj": (E, E) for a in ("spatial", "temporal") for p in ("q", "k", "v", "out")}
            for at_ffn in self._ffns():
                linears |= {f"{at_ffn}w_v": (h, E), f"{at_ffn}w_g": (h, E), f"{at_ffn}w_o": (E, h)}
            if self.experts is not None:
                found[f"{at}ffn.router.weight"] = (self.experts, E)
            for sublayer in ("spatial_attn", "temporal_attn", "ffn"):
                if self.film:
                    linears[f"{sublayer}.norm.to_gamma_beta.1"] = (2 * E, self.actions)
                else:
                    found[f"{at}{sublayer}.norm.rms.weight"] = (E,)
            found |= {f"{at}{name}.weight": shape for name, shape in linears.items()}
            found |= {f"{at}{name}.bias": shape[:1] for name, shape in linears.items()}
        return found

    def _ffns(self) -> list[str]:
        """Prefixes, within a block, of the matrices of its FFN, or of every expert's."""
        return ["ffn."] if self.experts is None else [f"ffn.experts.{e}." for e in range(self.experts)]

    def params(self, output_norm: str) -> StackParams:
        return StackParams(
            block_count=self.blocks,
            embedding_length=self.width,
            feed_forward_length=self.padded,
            head_count=self.heads,
            key_length=self.width // self.heads,
            qk_norm=False,
            sublayers=("spatial", "temporal", "ffn"),
            norm="layernorm" if self.film else "rmsnorm",
            norm_epsilon=_EPSILON,
            ffn="swiglu",
            bias=True,
            norm_position="post",
            output_norm=output_norm,
            expert_count=self.experts,
            expert_used_count=self.used,
        )

    def tensors(self, name: str, codes_AL: Any) -> dict[str, Read]:
        """The blocks by GGUF name. codes_AL: the latent of every action, if actions modulate the norms; None: no
        actions, and the norms stay as they are."""
        found: dict[str, Read] = {}
        for i in range(self.blocks):
            to, at = f"{name}.blk.{i}.", f"{self.prefix}blocks.{i}."
            for kind in ("spatial", "temporal"):
                for part in ("q", "k", "v", "out"):
                    for end in ("weight", "bias"):
                        found[f"{to}{kind}.{part}.{end}"] = self._plain(f"{at}{kind}_attn.{part}_proj.{end}")
            for part, theirs in (("up", "w_g"), ("gate", "w_v"), ("down", "w_o")):
                for end in ("weight", "bias"):
                    every = [self._padded(f"{at}{ffn}{theirs}.{end}") for ffn in self._ffns()]
                    found[f"{to}ffn.{part}.{end}"] = every[0] if self.experts is None else _stacked(every)
            if self.experts is not None:
                found[f"{to}ffn.router.weight"] = self._plain(f"{at}ffn.router.weight")
            for kind, theirs in (("spatial", "spatial_attn"), ("temporal", "temporal_attn"), ("ffn", "ffn")):
                norm = f"{at}{theirs}.norm."
                if not self.film:
                    found[f"{to}{kind}.norm.weight"] = self._plain(f"{norm}rms.weight")
                    continue
                for half, end in enumerate(("weight", "bias")):
                    if codes_AL is None:
                        found[f"{to}{kind}.norm.{end}"] = self._constant(1.0 - half)
                    else:
                        found[f"{to}{kind}.norm.{end}"] = self._modulation(f"{norm}to_gamma_beta.1.", codes_AL, half)
        return found

    def _plain(self, name: str) -> Read:
        return lambda: self.part.tensor(name)

    def _constant(self, value: float) -> Read:
        return lambda: import_torch().full((self.width,), value)

    def _padded(self, name: str) -> Read:
        """A weight or bias of an FFN, padded with zeros to `padded` hidden values."""
        more = self.padded - self.hidden
        if name.endswith("w_o.bias"):
            return self._plain(name)
        ends = (0, more) if name.endswith(("w_o.weight", ".bias")) else (0, 0, 0, more)
        return lambda: import_torch().nn.functional.pad(self.part.tensor(name), ends)

    def _modulation(self, name: str, codes_AL: Any, half: int) -> Read:
        """1 + gamma (half 0) or beta (half 1): a row for every action, then one for no action."""

        def read() -> Any:
            torch = import_torch()
            linear = torch.nn.functional.linear
            both = linear(torch.nn.functional.silu(codes_AL), *(self.part.tensor(name + e) for e in ("weight", "bias")))
            rows = torch.cat([both.chunk(2, dim=-1)[half], both.new_zeros(1, self.width)])
            return rows + 1 if half == 0 else rows

        return read


def _hparams(
    tokenizer: Part,
    lam: Part | None,
    dynamics: Part,
    sizes: Mapping[str, _Stack],
    told: Told,
    assumed: list[str],
) -> HParams:
    encoder, player = sizes["tokenizer.encoder"], sizes["dynamics"]
    patch = _patch(tokenizer)
    latent = tokenizer.shape("encoder.latent_head.1.weight", 2)[0]
    codes = dynamics.shape("output_mlp.weight", 2)[0]
    p3, E = 3 * patch**2, encoder.width
    tokenizer.check(
        {
            **encoder.shapes(),
            **sizes["tokenizer.decoder"].shapes(),
            "encoder.patch_embed.proj.weight": (E, p3, 1, 1),
            "encoder.patch_embed.proj.bias": (E,),
            **{f"encoder.latent_head.0.{end}": (E,) for end in ("weight", "bias")},
            "encoder.latent_head.1.weight": (latent, E),
            "encoder.latent_head.1.bias": (latent,),
            "decoder.latent_embed.weight": (sizes["tokenizer.decoder"].width, latent),
            "decoder.latent_embed.bias": (sizes["tokenizer.decoder"].width,),
            "decoder.frame_head.to_pixels.weight": (p3, sizes["tokenizer.decoder"].width, 1, 1),
            "decoder.frame_head.to_pixels.bias": (p3,),
            "quantizer.basis": (latent,),
        },
        (),
    )
    dynamics.check(
        {
            **player.shapes(),
            "mask_token": (1, 1, 1, dynamics.shape("latent_embed.weight", 2)[1]),
            "latent_embed.weight": (player.width, dynamics.shape("latent_embed.weight", 2)[1]),
            "latent_embed.bias": (player.width,),
            "output_mlp.weight": (codes, player.width),
            "output_mlp.bias": (codes,),
        },
        (),
    )
    theirs = dynamics.shape("latent_embed.weight", 2)[1]
    bins = fsq_bins(codes, latent)
    stored = _stored_bins(tokenizer, latent, bins)
    if theirs != latent or bins is None or stored != bins:
        raise CheckpointError(
            f"{dynamics.where} predicts {codes} tokens and takes {theirs} digits; the tokenizer {tokenizer.where} "
            f"gives {latent} digits of {stored} values",
            "the files are of different worlds",
        )
    actions = _actions(lam, dynamics, player, sizes)
    context_length = told.context_length
    if context_length is None:
        context_length = _CONTEXT + 1
        assumed.append(f"a window of {_CONTEXT} frames and the new one (--context-length)")
    assumed.append(f"{_STEPS} steps, temperature {_TEMPERATURE}, as the inference script has them")
    parts = [part for part in (tokenizer, lam, dynamics) if part is not None]
    side = frame_side({part.where: part.number("frame_size", 0) for part in parts}, told, _FRAME, assumed)
    hp = HParams(
        frame_width=side,
        frame_height=side,
        context_length=context_length,
        window_policy="retokenize",
        tokenizer_kind="st-vivit",
        tokenizer_patch_size=patch,
        codebook_size=codes,
        tokenizer_latent_length=latent,
        sampler_steps=_STEPS,
        sampler_temperature=_TEMPERATURE,
        sampler_order="largest-probability",
        sampler_noise=0.0,
        stacks={
            name: sizes[name].params("layernorm" if name == "tokenizer.encoder" else "none")
            for name in STACKS
            if name in sizes
        },
        tokenizer_quantizer="fsq",
        sampler_schedule="exponential",
        **actions,
    )
    try:
        hp.to_metadata(TensorType.F32)
    except ModelError as error:
        raise CheckpointError(
            f"this {NAME} world is beyond what runs here: {error}", "docs/gguf.md has the limits"
        ) from None
    return hp


def _actions(lam: Part | None, dynamics: Part, player: _Stack, sizes: Mapping[str, _Stack]) -> dict[str, Any]:
    """The fields of HParams about actions and the latent action model, which is checked here."""
    if lam is None:
        return {"action_count": 0, **NO_LAM}
    actor, patch = sizes[LAM], _patch(lam)
    action_latent = lam.shape("encoder.action_head.3.weight", 2)[0]
    hidden = lam.shape("encoder.action_head.1.weight", 2)[0]
    pair = 2 * actor.width
    lam.check(
        {
            **actor.shapes(),
            "encoder.patch_embed.proj.weight": (actor.width, 3 * patch**2, 1, 1),
            "encoder.patch_embed.proj.bias": (actor.width,),
            **{f"encoder.action_head.0.{end}": (pair,) for end in ("weight", "bias")},
            "encoder.action_head.1.weight": (hidden, pair),
            "encoder.action_head.1.bias": (hidden,),
            "encoder.action_head.3.weight": (action_latent, hidden),
            "encoder.action_head.3.bias": (action_latent,),
            "quantizer.basis": (action_latent,),
        },
        _TRAINING,
    )
    if player.actions != action_latent:
        raise CheckpointError(
            f"{dynamics.where} takes actions of {player.actions} digits, {lam.where} gives {action_latent}",
            "the files are of different worlds",
        )
    if action_latent > 12:
        raise CheckpointError(f"{lam.where} has 2^{action_latent} actions", "4096 are the most")
    return {
        "action_count": 2**action_latent,
        "action_conditioning": "film",
        "lam_patch_size": patch,
        "lam_latent_length": action_latent,
        "lam_difference": False,
        "lam_quantizer": "fsq",
        "lam_head": "pair",
        "lam_head_length": hidden,
    }


def _stored_bins(tokenizer: Part, latent: int, otherwise: int | None) -> int | None:
    """Values per digit as stored in the tokenizer's file: the place value of its second digit."""
    basis = tokenizer.tensors["quantizer.basis"]
    if basis.is_floating_point() or basis.is_complex():
        raise CheckpointError(
            f"{tokenizer.where}: tensor quantizer.basis must hold whole numbers, not {basis.dtype}",
            "it is not a weight; save the model as it is",
        )
    return int(basis[1]) if latent > 1 else tokenizer.number("num_bins", otherwise or 0)


def _patch(part: Part) -> int:
    """The side of a patch, derived from the first matrix."""
    values = part.shape("encoder.patch_embed.proj.weight", 4)[1]
    patch = round((values / 3) ** 0.5)
    if 3 * patch * patch != values or part.number("patch_size", patch) != patch:
        raise CheckpointError(
            f"{part.where}: encoder.patch_embed.proj.weight takes {values} values, which is not a patch of "
            f"{part.number('patch_size', max(patch, 1))} pixels",
            "do the settings in the file belong to its weights?",
        )
    return patch


def _card(dynamics: Part) -> dict[str, str]:
    data = dynamics.config.get("dataset")
    card = {"general.name": f"{NAME} {data.lower()}" if isinstance(data, str) and data else NAME}
    if isinstance(data, str) and data:
        card["general.dataset"] = data
    return card


def _tensors(
    hp: HParams, tokenizer: Part, lam: Part | None, dynamics: Part, sizes: Mapping[str, _Stack]
) -> dict[str, Read]:
    actions = None if lam is None else _codes(hp.action_count, hp.lam_latent_length)
    found: dict[str, Read] = {}
    for name, stack in sizes.items():
        found |= stack.tensors(name, actions)
        found |= _positions(hp, name, stack.width)
    encoders = [("tokenizer.encoder", tokenizer, hp.tokenizer_patch_size)]
    for name, part, patch in [*encoders, *([] if lam is None else [(LAM, lam, hp.lam_patch_size)])]:
        # Its pixel range is twice as wide as ours.
        found[f"{name}.input.weight"] = _patch_columns(part, "encoder.patch_embed.proj.weight", patch, 2.0)
        found[f"{name}.input.bias"] = _of(part, "encoder.patch_embed.proj.bias")
    for end in ("weight", "bias"):
        found[f"tokenizer.encoder.output_norm.{end}"] = _of(tokenizer, f"encoder.latent_head.0.{end}")
        found[f"tokenizer.encoder.output.{end}"] = _of(tokenizer, f"encoder.latent_head.1.{end}")
        found[f"tokenizer.decoder.input.{end}"] = _of(tokenizer, f"decoder.latent_embed.{end}")
        to_pixels = f"decoder.frame_head.to_pixels.{end}"
        found[f"tokenizer.decoder.output.{end}"] = _patch_rows(tokenizer, to_pixels, hp.tokenizer_patch_size, 0.5)
        if lam is not None:
            for ours, theirs in (("norm", 0), ("up", 1), ("down", 3)):
                found[f"lam.head.{ours}.{end}"] = _of(lam, f"encoder.action_head.{theirs}.{end}")
        found[f"dynamics.output.{end}"] = _of(dynamics, f"output_mlp.{end}")

    def embeddings() -> Any:
        torch = import_torch()
        codes = _codes(hp.codebook_size, hp.tokenizer_latent_length)
        rows = torch.cat([codes, dynamics.tensor("mask_token").reshape(1, -1)])
        weights = (dynamics.tensor(f"latent_embed.{end}") for end in ("weight", "bias"))
        return torch.nn.functional.linear(rows, *weights)

    found["dynamics.token_embd.weight"] = embeddings
    return found


def _of(part: Part, name: str) -> Read:
    return lambda: part.tensor(name)


def _stacked(reads: Sequence[Read]) -> Read:
    return lambda: import_torch().stack([read() for read in reads])


def _patch_columns(part: Part, name: str, patch: int, scale: float) -> Read:
    """[E, 3 p p, 1, 1] in the order channel, row, column -> [E, p p 3]."""

    def read() -> Any:
        values = part.tensor(name)
        return values.reshape(-1, 3, patch, patch).permute(0, 2, 3, 1).reshape(len(values), -1) * scale

    return read


def _patch_rows(part: Part, name: str, patch: int, scale: float) -> Read:
    """[3 p p, …] -> [p p 3, …]."""

    def read() -> Any:
        values = part.tensor(name)
        rows = values.reshape(3, patch, patch, -1).permute(1, 2, 0, 3).reshape(len(values), -1) * scale
        return rows if name.endswith("weight") else rows.reshape(-1)

    return read


def _codes(count: int, length: int) -> Any:
    """The FSQ values of every index, [count, length]."""
    torch = import_torch()
    bins = fsq_bins(count, length) or 2
    digits = torch.arange(count)[:, None] // bins ** torch.arange(length) % bins
    return 2 * digits / (bins - 1) - 1


def _positions(hp: HParams, name: str, width: int) -> dict[str, Read]:
    """Sinusoids: a third of the width for the column, a third for the row, the rest (even) for time."""
    patch = hp.lam_patch_size if name.startswith("lam.") else hp.tokenizer_patch_size
    across, down = hp.frame_width // patch, hp.frame_height // patch
    time = width // 3 & ~1
    x = (width - time) // 2 & ~1
    y = width - time - x
    if min(time, x, y) < 2 or y % 2:
        raise CheckpointError(f"a width of {width} does not split into even parts for positions", "is it the file's?")

    def space() -> Any:
        torch = import_torch()
        columns, rows = _sinusoids(across, x).repeat(down, 1), _sinusoids(down, y).repeat_interleave(across, 0)
        return torch.cat([columns, rows, torch.zeros(across * down, time)], 1)

    def moments() -> Any:
        torch = import_torch()
        T = hp.context_length
        return torch.cat([torch.zeros(T, width - time), _sinusoids(T, time)], 1)

    return {f"{name}.pos_space.weight": space, f"{name}.pos_time.weight": moments}


def _sinusoids(count: int, width: int) -> Any:
    """sin at even and cos at odd indices, of i / 10000^(2j / width)."""
    torch = import_torch()
    angles = torch.arange(count, dtype=torch.float32)[:, None] / torch.pow(
        torch.tensor(10000.0), 2 * torch.arange(width // 2, dtype=torch.float32) / width
    )
    return torch.stack([angles.sin(), angles.cos()], -1).reshape(count, width)
