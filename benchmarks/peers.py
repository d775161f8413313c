"""Matrix products of ONNX Runtime, OpenVINO and PyTorch. y_MN = x_MK w_NK^T, weights packed before the clock starts.

Three classes: "block" (weights with a scale per 32 columns, like Q8_0 and Q4_0), "coarse" (a scale per output channel
or tensor: fewer instructions, less exact) and "float".
"""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import numpy as np
from timing import System, repeated

NEEDED = {"torch": "PyTorch", "onnx": "ONNX", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "libggml": "ggml"}


def missing() -> list[str]:
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def have(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


# ONNX Runtime


def ort_session(model: Any, threads: int, plain: bool = False) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # no spinning while others are timed
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def ort_system(session: Any, feeds: dict[str, np.ndarray]) -> System:
    import onnxruntime as ort

    name = session.get_outputs()[0].name
    values = {key: ort.OrtValue.ortvalue_from_numpy(value) for key, value in feeds.items()}
    last: list[Any] = [None]

    def call() -> None:
        last[0] = session.run_with_ort_values([name], values)[0]

    return System(repeated(call), lambda: last[0].numpy())


def _onnx(nodes: list[Any], x_MK: np.ndarray, N: int, constants: dict[str, np.ndarray]) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x_MK.shape), ("y", (len(x_MK), N)))
    )
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", [x], [y], weights)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def ort_products(w_NK: np.ndarray, x_MK: np.ndarray, threads: int) -> dict[str, System]:
    from onnx import helper

    N, K = w_NK.shape
    feeds = {"x": x_MK}

    def system(nodes: list[Any], constants: dict[str, np.ndarray], plain: bool = False) -> System:
        return ort_system(ort_session(_onnx(nodes, x_MK, N, constants), threads, plain), feeds)

    node = helper.make_node
    scale_N = np.abs(w_NK).max(1) / 127
    s8_KN = np.ascontiguousarray(np.rint(w_NK / scale_N[:, None]).astype(np.int8).T)
    zeros_N = np.zeros(N, np.int8)
    found = {
        "coarse: ONNX Runtime DynamicQuantizeMatMul": system(
            [node("DynamicQuantizeMatMul", ["x", "w", "s", "z"], ["y"], domain="com.microsoft")],
            {"w": s8_KN, "s": scale_N, "z": zeros_N},
        ),
        "coarse: ONNX Runtime MatMulInteger": system(
            [
                node("DynamicQuantizeLinear", ["x"], ["q", "xs", "xz"]),
                node("MatMulInteger", ["q", "w", "xz"], ["i"]),
                node("Cast", ["i"], ["f"], to=1),
                node("Mul", ["xs", "s"], ["both"]),
                node("Mul", ["f", "both"], ["y"]),
            ],
            {"w": s8_KN, "s": scale_N},
        ),
        "float: ONNX Runtime fp32": system([node("MatMul", ["x", "w"], ["y"])], {"w": np.ascontiguousarray(w_NK.T)}),
    }
    for bits in (8, 4):
        blocks = w_NK.reshape(N, K // 32, 32)
        middle = 1 << (bits - 1)
        scales = np.abs(blocks).max(2) / (middle - 1)
        q = np.clip(np.rint(blocks / scales[..., None]) + middle, 0, 2 * middle - 1).astype(np.uint8)
        packed = q if bits == 8 else q[..., ::2] | q[..., 1::2] << 4
        attributes = {"K": K, "N": N, "bits": bits, "block_size": 32, "accuracy_level": 4}
        found[f"block: ONNX Runtime MatMulNBits {bits}-bit"] = system(
            [node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)],
            {"w": packed, "s": scales.reshape(-1)},
        )
    return found


# OpenVINO


def ov_weights(w_NK: np.ndarray, group: int, bits: int = 8) -> Any:
    """Compressed weights as OpenVINO's plugin recognises them: integers, a conversion, a scale per group."""
    import openvino as ov
    import openvino.opset13 as op

    N, K = w_NK.shape
    blocks, most = w_NK.reshape(N, K // group, group), (1 << (bits - 1)) - 1
    scales = np.maximum(np.abs(blocks).max(2, keepdims=True), 1e-9) / most
    q = np.rint(blocks / scales).astype(np.int8)
    constant = op.constant(q, ov.Type.i8 if bits == 8 else ov.Type.i4)
    scaled = op.multiply(op.convert(constant, "f32"), op.constant(scales.astype(np.float32)))
    return op.reshape(scaled, op.constant(np.array([N, K])), False)


def ov_system(model: Any, inputs: list[np.ndarray], threads: int, group: int | None) -> System:
    import openvino as ov

    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    if group is not None:
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    for i, value in enumerate(inputs):
        request.set_input_tensor(i, ov.Tensor(value, shared_memory=True))
    return System(repeated(request.infer), lambda: request.get_output_tensor(0).data.copy())


def ov_products(w_NK: np.ndarray, x_MK: np.ndarray, threads: int) -> dict[str, System]:
    import openvino as ov
    import openvino.opset13 as op

    def system(weights: Any, group: int | None, quantized: bool = False) -> System:
        x = op.parameter(list(x_MK.shape), np.float32)
        seen = x
        if quantized:
            most = float(np.abs(x_MK).max())
            seen = op.fake_quantize(x, *[op.constant(np.float32(s * most)) for s in (-1, 127 / 128) * 2], 256)
        return ov_system(ov.Model([op.matmul(seen, weights, False, True)], [x]), [x_MK], threads, group)

    channel = np.abs(w_NK).max(1, keepdims=True)
    limits = [op.constant(sign * channel) for sign in (-1, 1, -1, 1)]
    return {
        "block: OpenVINO 8-bit, groups of 32": system(ov_weights(w_NK, 32), 32),
        "block: OpenVINO 4-bit, groups of 32": system(ov_weights(w_NK, 32, 4), 32),
        "coarse: OpenVINO 8-bit per channel, groups of 128": system(ov_weights(w_NK, w_NK.shape[1]), 128),
        "coarse: OpenVINO static int8": system(op.fake_quantize(op.constant(w_NK), *limits, 255), None, True),
        "float: OpenVINO fp32": system(op.constant(w_NK), 0),
    }


# PyTorch


def torch_system(call: Any) -> System:
    import torch

    last: list[Any] = [None]

    def run(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                last[0] = call()

    return System(run, lambda: last[0].float().numpy())


def torch_int8(module: Any, engine: str = "onednn") -> Any:
    """A copy with dynamically quantized linear layers."""
    import torch

    torch.backends.quantized.engine = engine
    config = torch.ao.quantization.per_channel_dynamic_qconfig
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {torch.nn.Linear: config})


def torch_products(w_NK: np.ndarray, x_MK: np.ndarray, threads: int) -> dict[str, System]:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    w, x = torch.from_numpy(w_NK), torch.from_numpy(x_MK)
    linear = torch.nn.Sequential(torch.nn.Linear(w_NK.shape[1], w_NK.shape[0], bias=False))
    linear[0].weight.data = w
    found = {}
    for engine in ("onednn", "x86"):
        if engine in torch.backends.quantized.supported_engines:
            int8 = torch_int8(linear, engine)
            found[f"coarse: PyTorch dynamic int8 ({engine})"] = torch_system(lambda m=int8: m(x))
    w16, x16 = w.bfloat16(), x.bfloat16()
    found["float: PyTorch fp32"] = torch_system(lambda: F.linear(x, w))
    found["float: PyTorch bf16"] = torch_system(lambda: F.linear(x16, w16))
    return found
