"""Reads native checkpoints (`config.json` with `model.safetensors` or a `.pt`): hyper-parameters and tensors."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.convert.files import INSTALL, as_float32, import_torch, load_pickle
from genie_cpp.convert.reference.config import ConfigError, GenieConfig
from genie_cpp.errors import CheckpointError, GenieError, ModelError
from genie_cpp.file import foreign
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.sampler import Sampler
from genie_cpp.spec.gguf_keys import STACKS
from genie_cpp.spec.hparams import HParams, expected_tensors
from genie_cpp.words import one_line, quoted

# The LAM decoder is used in training only.
TRAINING_PARTS = ("lam.decoder", "lam.action_input")
CARD_KEYS = {
    "name": "general.name",
    "author": "general.author",
    "license": "general.license",
    "description": "general.description",
    "source": "general.source.url",
    "dataset": "general.dataset",
}
_CONFIG_LIMIT = 1 << 20
_INDEX = "model.safetensors.index.json"
_INDEX_LIMIT = 16 << 20
_WEIGHTS = ("model.safetensors", _INDEX, "model.pt")
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint. `read(gguf_name)` returns a tensor as float32, slowest dimension first.

    card: general.* values. tensors: `{GGUF name: (shape fastest first, is it a matrix)}`. files: those read.
    recognised: one sentence with the family and its parts. assumed: what the files do not say, one line each.
    """

    hparams: HParams
    card: dict[str, str]
    tensors: dict[str, tuple[tuple[int, ...], bool]]
    files: tuple[Path, ...]
    read: Callable[[str], NDArray[np.float32]]
    recognised: str = "a native checkpoint"
    assumed: tuple[str, ...] = ()


def native_name(name: str) -> str:
    """The `state_dict` name of the PyTorch reference for a GGUF tensor name."""
    name = re.sub(r"^(.*coder)\.(input|input_first)_norm\.", r"\1_\2.norm.", name)
    name = re.sub(r"^(.*coder)\.(input|input_first)\.", r"\1_\2.", name)
    if name.endswith(".codebook.weight"):
        return name.replace(".codebook.weight", ".vq.codebook")
    if name.endswith((".pos_space.weight", ".pos_time.weight", ".pos.weight", "l_bias.weight")):
        name = name.removesuffix(".weight")
    if name.startswith("dynamics.") and "_embd." not in name:
        name = "dynamics.stack." + name.removeprefix("dynamics.")
    return name


def load(checkpoint: Path) -> Checkpoint:
    """Read and check a folder, or a `.pt` or `.safetensors` that lies beside its `config.json`.

    Nothing in the checkpoint is executed. Raises CheckpointError.
    """
    weights = find_weights(checkpoint)
    config_path = weights.parent / "config.json"
    hparams, card = _hparams(config_path)
    if weights.name == _INDEX:
        shapes, get = _open_shards(weights)
    else:
        shapes, get = _open_safetensors(weights) if weights.suffix == ".safetensors" else _open_pickle(weights)
    shapes, get = _without_wrappers(shapes, get)
    expected = expected_tensors(hparams)
    names = {name: native_name(name) for name in expected}
    hint = "is config.json of this checkpoint?"
    for name, (shape, _) in expected.items():
        native = names[name]
        if native not in shapes:
            raise CheckpointError(f"{quoted(str(weights))}: tensor {native} is missing", hint)
        if shapes[native] != shape[::-1]:
            raise CheckpointError(
                f"{quoted(str(weights))}: tensor {native} must be {list(shape[::-1])}, not {list(shapes[native])}", hint
            )
    wanted = set(names.values())
    for native in shapes:
        if native not in wanted and not native.startswith(TRAINING_PARTS):
            raise CheckpointError(f"{quoted(str(weights))}: unknown tensor {quoted(native)}", hint)

    def read(name: str) -> NDArray[np.float32]:
        values = get(names[name])
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"{quoted(str(weights))}: tensor {names[name]} has NaN or infinite values",
                "the training diverged, or the file is damaged; take an earlier checkpoint",
            )
        return values

    return Checkpoint(hparams, card, expected, (config_path, weights), read)


def find_weights(checkpoint: Path) -> Path:
    """The file with the weights of a native checkpoint. Raises CheckpointError."""
    if checkpoint.is_dir():
        found = [checkpoint / name for name in _WEIGHTS if (checkpoint / name).is_file()]
        found += sorted(path for path in checkpoint.glob("*.pt") if path.is_file() and path not in found)
        if not found:
            raise CheckpointError(
                f"{quoted(str(checkpoint))} has neither model.safetensors nor a .pt file",
                "give the folder that holds config.json and the weights",
            )
        if len(found) > 1 and found[0].name not in _WEIGHTS:
            raise CheckpointError(f"{quoted(str(checkpoint))} has {len(found)} .pt files", "name the one to convert")
        return found[0]
    if not checkpoint.exists():
        raise CheckpointError(f"{quoted(str(checkpoint))} does not exist", "give a checkpoint folder")
    if not checkpoint.is_file() or checkpoint.suffix not in (".pt", ".pth", ".safetensors"):
        raise CheckpointError(
            f"{quoted(str(checkpoint))} is neither a folder nor a .safetensors, .pt or .pth file",
            "give the folder that holds config.json and the weights",
        )
    return checkpoint


def _hparams(path: Path) -> tuple[HParams, dict[str, str]]:
    where = quoted(str(path))
    try:
        if path.stat().st_size > _CONFIG_LIMIT:
            raise CheckpointError(f"{where} is larger than {_CONFIG_LIMIT} bytes", "is it really a config.json?")
        config = GenieConfig.load(path)
        hparams, card = hparams_of(config), _card(config.card)
        # Check every range as the writer will, before any weight is read.
        hparams.to_metadata(TensorType.F32, card)
        return hparams, card
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot read {where}: {reason}", "the hyper-parameters are in config.json") from None
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}", "convert/reference/config.py lists every key") from None
    except ModelError as error:
        raise CheckpointError(f"{where}: {error}", "docs/gguf.md lists every range") from None
    except (GenieError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{where} has a value of a wrong kind: {detail}", "see examples/meadow/config.json"
        ) from None


def hparams_of(config: GenieConfig) -> HParams:
    """The GGUF hyper-parameters of a reference configuration. Raises ConfigError, SamplerError."""
    settings = dict(config.dynamics.sampler)
    policy = settings.pop("window_policy", "half")
    schedule = settings.pop("schedule", "cosine")
    known = [field.name for field in dataclasses.fields(Sampler)]
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(f"config.json has an unknown key {'dynamics.sampler.' + unknown[0]!r}")
    sampler = Sampler(**settings)
    stacks = (config.tokenizer.encoder, config.tokenizer.decoder, config.lam.encoder, config.dynamics.stack)
    return HParams(
        frame_width=config.frame_width,
        frame_height=config.frame_height,
        context_length=config.context_length,
        action_count=config.action_count,
        action_names=tuple(config.action_names) or None,
        window_policy=policy,
        tokenizer_kind=config.tokenizer.kind,
        tokenizer_patch_size=config.tokenizer.patch_size,
        codebook_size=config.tokenizer.codebook_size,
        tokenizer_latent_length=config.tokenizer.latent_length,
        lam_patch_size=config.lam.patch_size,
        lam_latent_length=config.lam.latent_length,
        lam_difference=config.lam.difference,
        sampler_steps=sampler.steps,
        sampler_temperature=sampler.temperature,
        sampler_order=sampler.order,
        sampler_noise=sampler.noise,
        stacks=dict(zip(STACKS, stacks, strict=True)),
        action_conditioning=config.dynamics.conditioning,
        tokenizer_quantizer=config.tokenizer.quantizer,
        lam_quantizer=config.lam.quantizer,
        lam_head=config.lam.head,
        lam_head_length=config.lam.head_length,
        sampler_schedule=schedule,
        prediction=config.dynamics.prediction,
        factor_count=config.dynamics.factor_count,
    )


def _card(card: object) -> dict[str, str]:
    if not isinstance(card, Mapping):
        raise ConfigError("card must be a table of strings")
    for key, value in card.items():
        if key not in CARD_KEYS:
            raise ConfigError(f"config.json has an unknown key {'card.' + str(key)!r}")
        if not isinstance(value, str):
            raise ConfigError(f"card.{key} must be a string, not {value!r}")
    return {CARD_KEYS[key]: value for key, value in card.items() if value}


_Source = tuple[dict[str, tuple[int, ...]], Callable[[str], NDArray[np.float32]]]


def _open_safetensors(path: Path) -> _Source:
    import_torch()
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise CheckpointError("converting needs safetensors, which is not installed", INSTALL) from None
    where = quoted(str(path))
    if found := foreign.of(path):
        raise CheckpointError(f"{where} is {found[0]}", found[1])
    try:
        handle: Any = safe_open(path, framework="pt", device="cpu")
        shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{where} is not a whole safetensors file: {one_line(error)}", "get the file again"
        ) from None

    def get(name: str) -> NDArray[np.float32]:
        try:
            tensor = handle.get_tensor(name)
        except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{where}: tensor {quoted(name)} cannot be read: {one_line(error)}") from None
        return as_float32(tensor, name, where)

    return shapes, get


def _open_shards(index: Path) -> _Source:
    """Weights in several safetensors files, listed in the index beside them. Raises CheckpointError."""
    where = quoted(str(index))
    try:
        table = json.loads(index.read_bytes()[:_INDEX_LIMIT])["weight_map"]
        shards = {name: str(file) for name, file in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{where} does not say which file holds which tensor", "get the file again") from None
    opened: dict[str, _Source] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, file in shards.items():
        if Path(file).name != file or not (index.parent / file).is_file():
            raise CheckpointError(f"{quoted(file)}, which {where} names, is not beside it", "get all files of it")
        if file not in opened:
            opened[file] = _open_safetensors(index.parent / file)
        if name not in opened[file][0]:
            raise CheckpointError(f"{quoted(file)} has no tensor {quoted(name)}, which {where} says", "get it again")
        shapes[name] = opened[file][0][name]
    return shapes, lambda name: opened[shards[name]][1](name)


def _without_wrappers(shapes: dict[str, tuple[int, ...]], get: Callable[[str], NDArray[np.float32]]) -> _Source:
    """Remove the prefix that DataParallel and torch.compile add to all names."""
    plain = {}
    for name in shapes:
        short = name
        while short.startswith(_WRAPPERS):
            short = short.partition(".")[2]
        plain[short] = name
    if len(plain) < len(shapes):
        raise CheckpointError("two tensors have one name but for their prefixes", "save one model's state_dict()")
    return {short: shapes[name] for short, name in plain.items()}, lambda short: get(plain[short])


def _open_pickle(path: Path) -> _Source:
    torch, where = import_torch(), quoted(str(path))
    state = load_pickle(path)
    if isinstance(state, dict):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(state.get(key), dict):
                state = state[key]
                break
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(f"{where} is not a table of tensors by name", "save model.state_dict()")
    tensors: dict[str, Any] = state
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}, lambda name: as_float32(
        tensors[name], name, where
    )
