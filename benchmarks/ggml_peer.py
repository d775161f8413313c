"""Products and attention of ggml's CPU backend, from two builds of the package libggml-python.

`wheel`: as it comes from the package index, limited to AVX2. `native`: its sources compiled for this CPU with the
llamafile kernels (`make bench` does that), as llama.cpp is built.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

import cffi
import gguf
import numpy as np
from timing import System, repeated

GGML = """
struct ggml_init_params { size_t mem_size; void *mem_buffer; bool no_alloc; };
struct ggml_cplan { size_t work_size; uint8_t *work_data; int n_threads; void *threadpool; void *abort_callback;
                    void *abort_callback_data; bool use_ref; };
struct ggml_threadpool_params { bool cpumask[512]; int n_threads; int prio; uint32_t poll; bool strict_cpu;
                                bool paused; };
void *ggml_init(struct ggml_init_params);
void ggml_free(void *);
void *ggml_new_tensor_4d(void *, int, int64_t, int64_t, int64_t, int64_t);
void *ggml_get_data(void *);
size_t ggml_nbytes(void *);
void *ggml_mul_mat(void *, void *, void *);
void *ggml_flash_attn_ext(void *, void *, void *, void *, void *, float, float, float);
void *ggml_new_graph(void *);
void ggml_build_forward_expand(void *, void *);
struct ggml_cplan ggml_graph_plan(void *, int, void *);
int ggml_graph_compute(void *, struct ggml_cplan *);
void ggml_threadpool_params_init(struct ggml_threadpool_params *, int);
void *ggml_threadpool_new(struct ggml_threadpool_params *);
void ggml_threadpool_free(void *);
void ggml_cpu_init(void);
void ggml_log_set(void (*)(int, const char *, void *), void *);
int ggml_cpu_has_avx2(void);
int ggml_cpu_has_avx512(void);
int ggml_cpu_has_avx512_vnni(void);
int ggml_cpu_has_avx512_bf16(void);
int ggml_cpu_has_llamafile(void);
void *ggml_backend_cpu_reg(void);
void *ggml_backend_reg_dev_get(void *, size_t);
void *ggml_backend_reg_get_proc_address(void *, const char *);
const char *ggml_backend_buft_name(void *);
void *ggml_backend_buft_alloc_buffer(void *, size_t);
void ggml_backend_buffer_free(void *);
void *ggml_backend_buffer_get_base(void *);
int ggml_backend_tensor_alloc(void *, void *, void *);
void ggml_backend_tensor_set(void *, const void *, size_t, size_t);
"""
F32, F16 = 0, 1


def folders() -> dict[str, Path]:
    """Library folders by build; only those that exist."""
    found: dict[str, Path] = {}
    spec = importlib.util.find_spec("libggml")
    if spec is not None and spec.origin is not None:
        found["wheel"] = Path(spec.origin).parent
    if (native := Path(sys.prefix) / "ggml-native" / "libggml").is_dir():
        found["native"] = native
    return {build: next(path.parent for path in folder.rglob("libggml-cpu.so")) for build, folder in found.items()}


class Ggml:
    """One build; several may live in one process, each bound to its own symbols."""

    def __init__(self, folder: Path) -> None:
        self.ffi = cffi.FFI()
        self.ffi.cdef(GGML)
        self.base, self.cpu = (
            self.ffi.dlopen(str(folder / f"libggml-{n}.so"), self.ffi.RTLD_NOW) for n in ("base", "cpu")
        )
        self.silent = self.ffi.callback("void(int, const char *, void *)", lambda *_: None)
        self.base.ggml_log_set(self.silent, self.ffi.NULL)
        self.cpu.ggml_cpu_init()

    def features(self) -> list[str]:
        names = ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "llamafile")
        return [name for name in names if getattr(self.cpu, f"ggml_cpu_has_{name}")()]

    def _graph(self, context: Any, y: Any, threads: int, shape: tuple[int, ...], keep: list[Any]) -> System:
        ffi, base, cpu = self.ffi, self.base, self.cpu
        graph = base.ggml_new_graph(context)
        base.ggml_build_forward_expand(graph, y)
        params = ffi.new("struct ggml_threadpool_params *")
        base.ggml_threadpool_params_init(params, threads)
        params.poll = 1  # spins for 1 to 2 ms: long enough between runs, over before the next system runs
        pool = ffi.gc(cpu.ggml_threadpool_new(params), cpu.ggml_threadpool_free)
        plan = ffi.new("struct ggml_cplan *", cpu.ggml_graph_plan(graph, threads, pool))
        work = np.empty(max(plan.work_size, 1), np.uint8)
        plan.work_data = ffi.from_buffer("uint8_t[]", work)
        held = [*keep, ffi.gc(context, base.ggml_free), pool, work]

        def compute(held: list[Any] = held) -> None:
            if cpu.ggml_graph_compute(graph, plan):
                raise RuntimeError("ggml failed")

        def output() -> np.ndarray:
            size = int(np.prod(shape))
            return np.frombuffer(ffi.buffer(base.ggml_get_data(y), size * 4), np.float32).reshape(shape).copy()

        return System(repeated(compute), output)

    def _tensor(self, context: Any, type: int, data: np.ndarray, *lengths: int) -> Any:
        """lengths: fastest first."""
        tensor = self.base.ggml_new_tensor_4d(context, type, *lengths, *[1] * (4 - len(lengths)))
        assert self.base.ggml_nbytes(tensor) == data.nbytes
        self.ffi.memmove(self.base.ggml_get_data(tensor), data.tobytes(), data.nbytes)
        return tensor

    def product(self, type: str, w_NK: np.ndarray, x_MK: np.ndarray, threads: int, repack: bool = False) -> System:
        kind = gguf.GGMLQuantizationType[type]
        w, (N, K), M, keep = gguf.quants.quantize(w_NK, kind), w_NK.shape, len(x_MK), []
        context = self.base.ggml_init({"mem_size": 64 << 20, "mem_buffer": self.ffi.NULL, "no_alloc": False})
        if repack:
            empty = self.base.ggml_init({"mem_size": 1 << 20, "mem_buffer": self.ffi.NULL, "no_alloc": True})
            w_tensor = self.base.ggml_new_tensor_4d(empty, int(kind), K, N, 1, 1)
            room = self.base.ggml_backend_buft_alloc_buffer(self._repack_type(), w.nbytes)
            start = self.base.ggml_backend_buffer_get_base(room)
            self.base.ggml_backend_tensor_alloc(room, w_tensor, start)
            self.base.ggml_backend_tensor_set(w_tensor, self.ffi.from_buffer(w), 0, w.nbytes)
            keep += [self.ffi.gc(empty, self.base.ggml_free), self.ffi.gc(room, self.base.ggml_backend_buffer_free)]
        else:
            w_tensor = self._tensor(context, int(kind), w, K, N)
        y = self.base.ggml_mul_mat(context, w_tensor, self._tensor(context, F32, x_MK, K, M))
        return self._graph(context, y, threads, (M, N), keep)

    def _repack_type(self) -> Any:
        registry = self.cpu.ggml_backend_cpu_reg()
        find = self.base.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
        types = self.ffi.cast("void **(*)(void *)", find)(self.base.ggml_backend_reg_dev_get(registry, 0))
        while types[0] != self.ffi.NULL:
            if self.ffi.string(self.base.ggml_backend_buft_name(types[0])) == b"CPU_REPACK":
                return types[0]
            types += 1
        raise RuntimeError("this ggml does not repack")

    def attention(self, q_BQHD: np.ndarray, k_BKHD: np.ndarray, v_BKHD: np.ndarray, half: bool) -> System:
        """Flash attention, one thread; keys and values in f16 or f32, laid out head by head as ggml likes them."""
        (B, Q, H, D), K = q_BQHD.shape, k_BKHD.shape[1]
        context = self.base.ggml_init({"mem_size": 128 << 20, "mem_buffer": self.ffi.NULL, "no_alloc": False})
        kind = np.float16 if half else np.float32
        q, k, v = (np.ascontiguousarray(a.transpose(0, 2, 1, 3)) for a in (q_BQHD, k_BKHD, v_BKHD))
        k, v = k.astype(kind), v.astype(kind)
        tensors = [self._tensor(context, F32, q, D, Q, H, B)]
        tensors += [self._tensor(context, F16 if half else F32, a, D, K, H, B) for a in (k, v)]
        y = self.base.ggml_flash_attn_ext(context, *tensors, self.ffi.NULL, D**-0.5, 0.0, 0.0)
        return self._graph(context, y, 1, (B, Q, H, D), [])


load = functools.cache(Ggml)  # a library keeps what it was given to log with
