"""C = PyTorch = MLX over the description of a stack (`stack_spec`): every field at every value, at odd sizes.

The values come from the description itself. So a kind that is added there, but not in the core, the reference or MLX,
fails here by its name.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genie_cpp import Model
from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.config import DynamicsConfig, GenieConfig, LamConfig, TokenizerConfig
from genie_cpp.convert.reference.model import Genie
from genie_cpp.convert.writer import convert
from genie_cpp.spec.stack_spec import STACK_KEYS, SUBLAYERS, StackParams

METAL = pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")
TOLERANCE = 2e-5  # of the largest value
# Other fields that a value needs.
NEEDS: dict[str, dict[str, Any]] = {
    "attention.kv_input": {"norm_position": "pre"},
    "attention.qk_norm_kind": {"qk_norm": True},
    "attention.qk_norm_epsilon": {"qk_norm": True},
    "expert_used_count": {"expert_count": 3},
    "expert_count": {"expert_used_count": 1},
}
# Numbers have no list of values, so try some of each, edge cases and odd ones.
NUMBERS: dict[str, tuple[Any, ...]] = {
    "block_count": (1, 3), "embedding_length": (1, 8, 26, 33), "norm_length": (1, 25, 26),
    "feed_forward_length": (1, 19, 64), "attention.head_count": (1, 5), "attention.key_length": (1, 7, 16, 32),
    "attention.qk_norm_epsilon": (1e-6, 0.1), "norm_epsilon": (1e-12, 0.1), "expert_count": (1, 4),
    "expert_used_count": (1, 2, 3),
}  # fmt: skip


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, changes of a stack): every value of every field, then orders of sublayers."""
    for key in STACK_KEYS:
        name = key.name.removeprefix("genie.<stack>.")
        needs = NEEDS.get(name, {})
        if key.type == "bool":
            values: tuple[Any, ...] = (False, True)
        elif key.type.startswith("array"):
            values = () if name == "sublayers" else tuple((value,) for value in key.choices)
        else:
            values = key.choices or NUMBERS[name]
        for value in values:
            yield f"{name}={value}", {**needs, key.field: value}
    for order in itertools.permutations(("spatial", "temporal", "ffn")):
        yield "sublayers=" + ",".join(order), {"sublayers": order}
    for kind in SUBLAYERS:
        order = ("ffn", kind) if kind != "ffn" else ("ffn",)
        yield f"sublayers={','.join(order)}", {"sublayers": order}


CASES = dict(cases())


def config(changes: dict[str, Any]) -> GenieConfig:
    """A Genie in which every stack that allows the change has it."""
    base = {"block_count": 2, "embedding_length": 26, "head_count": 3, "key_length": 8, "feed_forward_length": 19}

    def stack(kinds: tuple[str, ...], dynamics: bool) -> StackParams:
        wanted = {**base, "sublayers": kinds, **changes}
        if dynamics:
            wanted.pop("input_norm", None)
            if wanted.get("first_frame") == "input":
                wanted.pop("first_frame")
        else:  # their kinds say what a tokenizer is
            wanted["sublayers"] = kinds
        unnormed = wanted.get("unnormed")
        if unnormed and not set(unnormed) <= set(wanted["sublayers"]):
            if dynamics:
                wanted["sublayers"] = (*wanted["sublayers"], *unnormed)
            else:
                wanted.pop("unnormed")
        return StackParams(**wanted)

    encoder = stack(("spatial", "temporal", "ffn"), False)
    if changes.get("first_frame") == "output":  # of a stack that gives something out
        encoder = dataclasses.replace(encoder, first_frame="none")
    decoder = encoder if changes.get("first_frame") != "output" else stack(("spatial", "temporal", "ffn"), False)
    return GenieConfig(
        tokenizer=TokenizerConfig(encoder, decoder, patch_size=3, codebook_size=11, latent_length=5),
        lam=LamConfig(encoder, encoder, patch_size=3, latent_length=4),
        dynamics=DynamicsConfig(stack(("spatial", "temporal", "ffn"), True), {"steps": 2, "temperature": 0.0}),
        frame_width=15,
        frame_height=9,
        context_length=4,
        action_count=3,
    )


def looks(run: Callable[[], torch.Tensor], monkeypatch: pytest.MonkeyPatch, T: int, P: int) -> tuple[Any, Any]:
    """(what `run` returns, the share of attention that each token of the last frame gave to each frame [P, T])."""
    found = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor | None = None) -> Any:
        places = torch.eye(k.shape[-2]).expand(*k.shape[:-1], -1)
        share = attend(q, k, places, attn_mask=attn_mask)  # attention to one-hot values is the weights themselves
        if q.shape[-2] == T * P:  # [1, H, T P, T P]
            found.append(share[0, :, -P:].unflatten(-1, (T, P)).sum(-1).mean(0))
        elif q.shape[-2] == T and q.shape[1] == P:  # [1, P, H, T, T]
            found.append(share[0, :, :, -1].mean(1))
        return attend(q, k, v, attn_mask=attn_mask)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        y = run()
    return y, (torch.stack(found).mean(0) if found else torch.zeros(P, T)).numpy()


@pytest.mark.parametrize("backend", ["cpu", pytest.param("metal", marks=METAL)])
@pytest.mark.parametrize("name", CASES)
def test_every_value_is_the_same_everywhere(
    name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    g = config(CASES[name])
    genie = Genie(g).eval()
    with torch.no_grad():
        for of, parameter in genie.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in of else 0.0, 0.1 if parameter.dim() == 1 else 0.2)
    checkpoint.save(genie, tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "world.gguf", "f32")
    model = Model.open(tmp_path / "world.gguf", 2, backend)

    ids = torch.randint(g.tokenizer.codebook_size, (3, g.token_count))
    actions = torch.tensor([-1, 2, 0])
    video = torch.rand(1, 3, g.frame_height, g.frame_width, 3)
    with torch.no_grad():
        dynamics, share_PT = looks(
            lambda: genie.dynamics(ids[None], actions[None])[0], monkeypatch, len(ids), g.token_count
        )
        want = {
            "dynamics": dynamics,
            "tokenizer.encoder": genie.tokenizer.latents(video)[0],
            "tokenizer.decoder": genie.tokenizer.decode(ids[None])[0],
        }
    state = model.state("dynamics")
    looked_PT = np.full((g.token_count, g.context_length), 9, np.float32)
    told = state.watch(looked_PT)
    assert told == (backend == "cpu")
    pairs = zip(ids.numpy().astype(np.int32), actions.tolist(), strict=True)
    got = {"dynamics": np.stack([state.forward(*pair) for pair in pairs])}  # type: ignore[misc]
    if told:
        assert np.abs(looked_PT[:, :3] - share_PT).max() <= 1e-5 and not looked_PT[:, 3:].any()
    state = model.state("tokenizer.encoder")
    patches = [model.patches(np.rint(frame.numpy() * 255).astype(np.uint8), 3) for frame in video[0]]
    with torch.no_grad():  # of frames that bytes can hold
        whole = torch.from_numpy(np.rint(video.numpy() * 255).astype(np.uint8)).float() / 255
        want["tokenizer.encoder"] = genie.tokenizer.latents(whole)[0]
    got["tokenizer.encoder"] = np.stack([state.forward(patch) for patch in patches])  # type: ignore[misc]
    state = model.state("tokenizer.decoder")
    decoded = [state.forward(model.codes(frame.numpy().astype(np.int32))) for frame in ids]
    got["tokenizer.decoder"] = np.stack([model._joined(part) for part in decoded]) + 0.5  # type: ignore[arg-type]
    for part, values in want.items():
        values = values.numpy()
        error = np.abs(got[part] - values).max() / np.abs(values).max()
        assert error <= TOLERANCE, f"{part}: {error:.1e} of the largest"


def test_every_field_is_tried() -> None:
    tried = {name.partition("=")[0] for name in CASES}
    assert tried == {key.name.removeprefix("genie.<stack>.") for key in STACK_KEYS}
