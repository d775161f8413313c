"""The convolutional executors, in C and in MLX, against PyTorch, over instruction sets, shapes and weight types."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from genie_cpp.backends import _native, choose, interface
from genie_cpp.backends._native import ffi, lib
from genie_cpp.convert.quantize import encode
from genie_cpp.convert.reference.conv import ConvNet
from genie_cpp.errors import ModelError, NativeError
from genie_cpp.file.blocks import decode
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.spec.conv_layers import layers, tensors

ISAS = _native.isas()
NETS: dict[str, tuple[tuple[str, ...], tuple[int, int, int]]] = {
    "every-layer": (("conv3-32", "res-32", "res-64", "down-64", "res-32", "up-32", "norm", "conv1-5"), (6, 10, 3)),
    "one-pixel": (("conv3-32", "up-32", "res-32", "norm", "conv3-3"), (1, 1, 2)),
    "one-row": (("conv1-64", "down-64", "norm", "conv3-7"), (2, 34, 7)),
    "odd-channels": (("conv3-33", "norm", "up-3", "res-6", "conv3-1"), (5, 3, 1)),
    "many-strips": (("conv3-32", "res-32", "conv3-3"), (24, 66, 18)),
    "begins-with-a-norm": (("norm", "res-32"), (4, 4, 32)),
}


def groups_of(name: str) -> int:
    return 3 if name == "odd-channels" else 32


def made(name: str) -> ConvNet:
    words, (_, _, channels) = NETS[name]
    torch.manual_seed(1)
    net = ConvNet(words, channels, groups_of(name), 1e-6).eval()
    with torch.no_grad():
        for n, p in net.named_parameters():
            one = "norm" in n and n.endswith("weight")
            p.normal_(1.0 if one else 0.0, 0.1 if p.ndim == 1 else 1.2 / p[0].numel() ** 0.5)
    return net


def rows_of(values: torch.Tensor) -> np.ndarray:
    """[O, I, 3, 3] -> [O, 3 3 I]; vectors as they are."""
    rows = values.permute(0, 2, 3, 1).reshape(len(values), -1) if values.ndim == 4 else values[None]
    return np.ascontiguousarray(rows.detach().numpy())


def loaded(name: str, net: ConvNet, isa: str, kind: TensorType = TensorType.F32, threads: int = 2) -> interface.Conv:
    """The net in the core, or in MLX with the isa "metal". The rounding of a quantized type is applied to `net` too, so
    that both have the same weights."""
    _, shape = NETS[name]
    what = (shape, [(layer.word, layer.channels) for layer in of(name)], groups_of(name), 1e-6)
    conv: interface.Conv
    if isa == "metal":
        conv = choose.choose("metal", None).conv(*what)
    else:
        conv = _native.Conv(isa, _native.Pool(threads), *what)
    state = net.state_dict()
    for i, layer in enumerate(of(name)):
        for part, (_, matrix) in tensors(layer).items():
            values = rows_of(state[f"layer.{i}.{part}"])
            use = kind if matrix and (kind is TensorType.F16 or values.shape[1] % 32 == 0) else TensorType.F32
            raw = encode(values, use) if matrix else values.view(np.uint8)
            if matrix and use is not TensorType.F32:
                p = dict(net.named_parameters())[f"layer.{i}.{part}"]
                out, _, h, w = p.shape
                again = torch.from_numpy(decode(raw, use, values.shape)).reshape(out, h, w, -1)
                with torch.no_grad():
                    p.copy_(again.permute(0, 3, 1, 2))
            conv.set(i, part, int(use), *values.shape, raw)
    conv.seal()
    return conv


def of(name: str) -> list[Any]:
    words, (_, _, channels) = NETS[name]
    return layers("net", words, channels, groups_of(name))


def both(name: str, net: ConvNet, conv: interface.Conv) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of `conv` (run twice with the same state) and of PyTorch for one picture."""
    height, width, channels = NETS[name][1]
    state, rng = conv.state(), np.random.default_rng(2)
    x = rng.standard_normal((height, width, channels)).astype(np.float32)
    state.run(-x)
    got = state.run(x)
    with torch.no_grad():
        want = net(torch.from_numpy(x).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    return got, want


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NETS)
def test_floats(name: str, isa: str) -> None:
    for kind in (TensorType.F32, TensorType.F16):
        net = made(name)
        got, want = both(name, net, loaded(name, net, isa, kind))
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NETS)
def test_integers(name: str, isa: str) -> None:
    """The weights are rounded alike, so the only difference is the rounding of activations, as in scalar kernels."""
    for kind in (TensorType.Q8_0, TensorType.Q4_0):
        net = made(name)
        got, want = both(name, net, loaded(name, net, isa, kind))
        assert np.linalg.norm(got - want) <= 0.03 * np.linalg.norm(want)
        scalar, _ = both(name, net, loaded(name, made(name), "scalar", kind))
        assert np.linalg.norm(got - scalar) <= 2e-3 * np.linalg.norm(want)


@pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")
@pytest.mark.parametrize("kind", list(TensorType), ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", NETS)
def test_in_mlx(name: str, kind: TensorType) -> None:
    """Its activations are floats for every type of weights."""
    net = made(name)
    conv = loaded(name, net, "metal", kind)
    got, want = both(name, net, conv)
    assert got.shape == want.shape == conv.output_shape and conv.n_bytes > 0
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    with pytest.raises(NativeError, match="a picture of shape"):
        conv.state().run(np.ones((1, 2, 3), np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [TensorType.F32, TensorType.Q8_0], ids=lambda kind: kind.name)
def test_any_number_of_threads_gives_the_same_bytes(isa: str, kind: TensorType) -> None:
    for name in NETS:
        net = made(name)
        one = both(name, net, loaded(name, net, isa, kind, 1))[0]
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(both(name, net, loaded(name, net, isa, kind, threads))[0], one)


def test_what_does_not_fit_is_refused() -> None:
    pool = _native.Pool(1)

    def create(shape: tuple[int, int, int], what: list[tuple[str, int]], groups: int = 2, epsilon: float = 1e-6) -> Any:
        return _native.Conv(ISAS[0], pool, shape, what, groups, epsilon)

    create((4, 4, 4), [("conv3", 8), ("res", 6)])
    for arguments in (
        ((4, 4, 4), []),
        ((4, 4, 4), [("conv3", 0)]),
        ((4, 4, 4), [("conv3", 65537)]),
        ((3, 4, 4), [("down", 8)]),  # half of an odd side
        ((4, 4, 3), [("norm", 3)]),  # two groups of three channels
        ((4, 4, 4), [("res", 3)]),
        ((4, 4, 4), [("norm", 6)]),  # a norm that would change channels
        ((4096, 1, 1), [("up", 1)]),  # beyond the largest side
        ((0, 4, 4), [("conv3", 8)]),
        ((4, 4, 4), [("conv3", 8)], 0),
        ((4, 4, 4), [("conv3", 8)], 2, float("nan")),
    ):
        with pytest.raises(NativeError, match="creating a convolutional network"):
            create(*arguments)  # type: ignore[arg-type]
    params, unknown = ffi.new("genie_conv_params *", (4, 4, 4, 2, 1e-6)), ffi.new("genie_conv_layer *", (6, 8))
    status = lib.genie_conv_create(ISAS[0].encode(), params, unknown, 1, ffi.new("genie_conv **"))
    assert status == lib.GENIE_ERROR_ARGUMENT
    conv = create((4, 4, 4), [("conv3", 8)])
    values = np.zeros((8, 36), np.float32)
    with pytest.raises(NativeError, match="checking"):  # a weight is missing
        conv.seal()
    with pytest.raises(NativeError, match="making room"):  # not sealed
        _native.ConvState(conv)
    for layer, name, kind, rows, columns, data in (
        (1, "conv.weight", 0, 8, 36, values),
        (0, "conv2.weight", 0, 8, 36, values),
        (0, "conv.weight", 0, 36, 8, values),
        (0, "conv.weight", 0, 8, 36, values[:7]),
        (0, "conv.bias", 1, 1, 8, np.zeros(8, np.float16)),
        (0, "conv.weight", 8, 8, 36, np.zeros(8 * 36, np.uint8)),  # rows that are not whole blocks
    ):
        with pytest.raises(NativeError, match="loading"):
            conv.set(layer, name, kind, rows, columns, data)
    conv.set(0, "conv.weight", 0, 8, 36, values)
    conv.set(0, "conv.bias", 0, 1, 8, np.arange(8, dtype=np.float32))
    conv.seal()
    state = _native.ConvState(conv)
    assert conv.n_bytes > 0 and state.n_bytes > 0
    np.testing.assert_array_equal(state.run(np.ones((4, 4, 4), np.float32)), np.tile(np.arange(8.0), (4, 4, 1)))
    with pytest.raises(NativeError, match="a picture of shape"):
        state.run(np.ones((4, 4, 5), np.float32))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "1…1024 layers"),
        (("conv3",), "with 1…65536 channels, not conv3"),
        (("conv3-0",), "not conv3-0"),
        (("conv3-99999999999",), "not conv3-9"),
        (("norm-8",), "not norm-8"),
        (("pool-8",), "not pool-8"),
        (("conv3-9", "norm"), "2 groups do not divide"),
        (("res-9",), "2 groups do not divide"),
    ],
)
def test_words_that_are_no_layers(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        layers("net", words, 4, 2)
