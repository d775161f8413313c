"""One whole MaskGIT step, compared with the matrix products in it and with the same cached step in other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ours
import peers
import torch
import torch.nn.functional as F
from timing import System, in_turns, relative_error
from torch import Tensor, nn
from whole_frame import CachedDynamics, converted

from genie_cpp.backends import _native
from genie_cpp.convert.reference.model import Dynamics, Genie
from genie_cpp.model import Model
from genie_cpp.spec.hparams import expected_tensors


class CachedStep(nn.Module):
    """The reference's logits of one new frame. Keys and values of past frames [P, H, t, D] are inputs.

    The new frame's key is scored separately, so that no engine has to copy the window to append it.
    """

    def __init__(self, model: Dynamics, t: int) -> None:
        super().__init__()
        self.model, self.t = model, t

    def forward(self, ids_P: Tensor, action: Tensor, *past: Tensor) -> Tensor:
        stack = self.model.stack
        x = self.model.token_embd(ids_P) + self.model.action_embd(action) + stack.pos_space + stack.pos_time[self.t]
        layer = 0
        for block in stack.blk:
            for name, sublayer in block.items():
                if name == "ffn":
                    x = x + sublayer(sublayer.norm(x), torch.empty(0))
                    continue
                kv = past[2 * layer : 2 * layer + 2] if name == "temporal" else ()
                layer += name == "temporal"
                x = x + self._attention(sublayer, x, *kv)
        return stack.output(stack.output_norm(x))

    def _attention(self, a: Any, x: Tensor, *past_kv: Tensor) -> Tensor:
        y = a.norm(x)
        q, k, v = (linear(y).view(-1, a.head_count, a.key_length) for linear in (a.q, a.k, a.v))
        if a.q_norm is not None:
            q, k = a.q_norm(q), a.k_norm(k)
        if not past_kv:
            apart = (z.transpose(0, 1)[None] for z in (q, k, v))
            return a.out(F.scaled_dot_product_attention(*apart)[0].transpose(0, 1).reshape(len(x), -1))
        past_k, past_v = past_kv
        q, k, v = (z[:, :, None] for z in (q, k, v))
        scores = torch.cat([q @ past_k.transpose(-1, -2), (q * k).sum(-1, keepdim=True)], -1)
        weights = torch.softmax(scores * a.key_length**-0.5, -1)
        out = weights[..., : self.t] @ past_v + weights[..., self.t :] * v
        return a.out(out.reshape(len(x), -1))


def exported(step: CachedStep, inputs: list[Tensor], work: Path) -> tuple[Path, Path]:
    """The step as ONNX in fp32, and with linear layers in dynamic int8 (s8 weights, a scale per channel)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, int8 = work / "step.onnx", work / "step-int8.onnx"
    if int8.exists():
        return plain, int8
    with torch.inference_mode():
        torch.onnx.export(step, tuple(inputs), plain, dynamo=True, opset_version=18, optimize=True, verbose=False)
    quantize_dynamic(plain, int8, weight_type=QuantType.QInt8, per_channel=True)
    return plain, int8


def ov_compressed(path: Path, group: int | None) -> Any:
    """The model with the weights of its linear layers in int8; group None: a scale per channel."""
    import openvino as ov
    import openvino.opset13 as op

    model, count = ov.Core().read_model(path), 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        turned = source.get_type_name() == "Transpose" and source.input_value(0).get_node()
        constant = turned or source
        if constant.get_type_name() != "Constant" or len(constant.get_output_shape(0)) != 2:
            continue
        w = constant.data.T if turned else constant.data
        w_NK = np.ascontiguousarray(w if node.get_attributes()["transpose_b"] else w.T, np.float32)
        new = op.matmul(node.input_value(0), peers.ov_weights(w_NK, group or w_NK.shape[1]), False, True)
        ov.utils.replace_node(node, new)
        count += 1
    if count == 0:
        raise RuntimeError("no linear layer found in the exported step")
    return model


def our_step(model: Model, past_TP: np.ndarray, ids_P: np.ndarray) -> System:
    state = model.state("dynamics")
    for t, ids in enumerate(past_TP):
        state.forward(ids, 0 if t else -1, output=False)
    sampler = _native.sampler_struct(8, 1.0, "confidence", 0.0)

    def run(times: int) -> None:
        for _ in range(times):
            state.maskgit_step(sampler, 0, 0, len(past_TP), 0, ids_P.copy(), None)

    return System(run, lambda: state.forward(ids_P, 0, commit=False))


def shapes(model: Model) -> dict[tuple[int, int], int]:
    """The number of products of each shape (K, N) in a step."""
    found: dict[tuple[int, int], int] = {}
    for name, (shape, matrix) in expected_tensors(model.info).items():
        if matrix and name.startswith("dynamics.") and name != "dynamics.token_embd.weight":
            found[shape[0], shape[1]] = found.get((shape[0], shape[1]), 0) + 1
    return found


def rivals(genie: Genie, past_TP: np.ndarray, ids_P: np.ndarray, threads: int, work: Path) -> dict[str, System]:
    torch.set_num_threads(threads)
    t = len(past_TP)
    cached = CachedDynamics(genie.dynamics)
    with torch.inference_mode():
        for i, past in enumerate(past_TP):
            cached.commit(torch.from_numpy(past).long(), 0 if i else -1)
    past_kv = [a[:, :, :t].contiguous() for pair in cached.kv for a in pair]
    ids = torch.from_numpy(ids_P).long()
    inputs = [ids, torch.tensor(0), *past_kv]
    step = CachedStep(genie.dynamics, t).eval()
    found = {"PyTorch fp32": torch_step(step, inputs)}
    found["PyTorch int8, dynamic"] = torch_step(peers.torch_int8(step), inputs)
    quantized = CachedDynamics(peers.torch_int8(genie.dynamics))
    quantized.kv, quantized.length = cached.kv, t
    found["PyTorch int8, dynamic, SDPA"] = peers.torch_system(lambda: quantized.frame(ids, 0))
    if peers.have("onnx", "onnxscript", "onnxruntime"):
        plain, int8 = exported(step, inputs, work)
        session = peers.ort_session(str(int8), threads)
        names = [value.name for value in session.get_inputs()]
        feeds = dict(zip(names, (a.numpy() for a in inputs), strict=True))
        found["ONNX Runtime int8, dynamic"] = peers.ort_system(session, feeds)
        if peers.have("openvino"):
            values = [np.atleast_1d(a.numpy()).reshape(a.shape) for a in inputs]
            for name, group, dynamic in (("per channel, groups of 128", None, 128), ("groups of 32", 32, 32)):
                found[f"OpenVINO int8, {name}"] = peers.ov_system(ov_compressed(plain, group), values, threads, dynamic)
    return found


def torch_step(module: nn.Module, inputs: list[Tensor]) -> System:
    return peers.torch_system(lambda: module(*inputs))


def part_systems(model: Model, threads: int) -> dict[str, System]:
    """The products of a step by shape, and its attentions on one thread, each alone. Attention takes the windows of all
    blocks in turn, as in a step: if together they exceed the cache, they are read from memory."""
    rng, stack = np.random.default_rng(0), model.info.stacks["dynamics"]
    P, T, head = model.token_count, model.info.context_length, (stack.head_count, stack.key_length)
    isa = model.isa if model.isa in ours.int8_isas() else (ours.int8_isas() or [model.isa])[0]
    pool, systems = _native.Pool(threads), {}
    for K, N in shapes(model):
        w, x = rng.standard_normal((N, K), np.float32), rng.standard_normal((P, K), np.float32)
        systems[f"product {K} -> {N}"] = ours.product(isa, pool, "Q8_0", w, x)
    bf16 = int(model.isa == "avx512bf16" and stack.key_length % 16 == 0)
    windows = rng.standard_normal((stack.block_count * P, T, *head), np.float32)
    q = np.ascontiguousarray(windows[:, 0])
    systems["spatial"] = ours.attention(model.isa, q[:P], q[:P], q[:P], 0, bf16)
    systems["temporal"] = ours.attention(model.isa, q, windows, windows, 2, bf16)
    return systems


def part_times(model: Model, times: dict[str, float]) -> dict[str, float]:
    """Seconds of a step in products, seconds of attention on one thread, and the bytes of its windows."""
    stack, each = model.info.stacks["dynamics"], 2 if model.isa == "avx512bf16" else 4
    head = stack.head_count * stack.key_length
    return {
        "windows": 2 * stack.block_count * model.token_count * model.info.context_length * head * each,
        "products": sum(count * times[f"product {K} -> {N}"] for (K, N), count in shapes(model).items()),
        "spatial": times["spatial"] * stack.block_count * ("spatial" in stack.sublayers),
        "temporal": times["temporal"] * ("temporal" in stack.sublayers),
    }


def window_of(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a full window without its last frame, and that frame masked."""
    codes, T = model.info.codebook_size, model.info.context_length
    past_TP = np.random.default_rng(0).integers(0, codes, (T - 1, model.token_count)).astype(np.int32)
    return past_TP, np.full(model.token_count, codes, np.int32)


def step(genie: Genie, folder: Path, name: str, work: Path, rounds: int, least: float, counts: tuple[int, ...]) -> Any:
    """genie: the reference of the checkpoint in `folder`."""
    path = converted(folder, "q8_0", work / f"{name}-q8_0.gguf")
    rows = []
    for threads in counts:
        model = Model.open(path, threads)
        window = window_of(model)
        systems = {"genie_cpp Q8_0": our_step(model, *window), **rivals(genie, *window, threads, work)}
        parts = part_systems(model, threads)
        times = in_turns(systems | parts, rounds, least, threads)
        truth = systems["PyTorch fp32"].output()  # type: ignore[misc]
        errors = {label: relative_error(s.output(), truth) for label, s in systems.items()}  # type: ignore[misc]
        if strangers := [label for label, error in errors.items() if error > 0.2]:
            raise SystemExit(f"{name}: not the same step: {', '.join(strangers)}")
        rows.append({
            "model": name, "threads": threads, "times": {label: times[label] for label in systems}, "errors": errors,
            **part_times(model, times),
        })  # fmt: skip
        print(f"  {name}, {threads} threads", flush=True)
    return rows


def small_step(path: Path, rounds: int, least: float) -> dict[str, Any]:
    """A step of a model in a GGUF and its parts on one thread, and the time of its products at peak speed."""
    model = Model.open(path, 1)
    systems = {"step": our_step(model, *window_of(model)), **part_systems(model, 1)}
    systems["peak"], operations = ours.peak(model.isa, _native.Pool(1))
    times = in_turns(systems, rounds, least)
    wanted = sum(2 * K * N * count for (K, N), count in shapes(model).items()) * model.token_count
    at_peak = wanted * times["peak"] / operations if operations else 0.0
    return {"model": path.stem, "step": times["step"], "at_peak": at_peak, **part_times(model, times)}
