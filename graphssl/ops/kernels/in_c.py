"""The path ``c``: ``kernels.c``, compiled once by the machine's own compiler and called through ctypes.

C because what makes these loops fast, sums held in registers and the next rows fetched ahead, is what torch's own
sparse products lack on wide rows and numba does not let one say; compiled here and not shipped, because then one file
serves every processor and every torch, and nothing links against torch. It takes seconds once and is kept in the user's
cache. OpenMP is torch's own, so that ``torch.set_num_threads`` holds and no second pool of threads waits beside it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphssl.errors import UserError
from graphssl.ops import counter
from graphssl.ops.csr import CSR

SOURCE = Path(__file__).with_name("kernels.c")
PARTS = (SOURCE, SOURCE.with_name("samplers.c"))
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fno-math-errno")
BLOCKS = 64  # partial sums of an attention vector's gradient: a fixed number, so that their order is fixed
SMALL = 1 << 15  # numbers to move below which a second thread costs more than it brings


class Heads(ctypes.Structure):
    """``Heads`` of kernels.c."""

    _fields_ = [  # noqa: RUF012
        ("mode", ctypes.c_int64), ("H", ctypes.c_int64), ("K", ctypes.c_int64), ("D", ctypes.c_int64),
        ("key", ctypes.c_void_p), ("query", ctypes.c_void_p), ("attention", ctypes.c_void_p), ("bias", ctypes.c_void_p),
        ("value", ctypes.c_void_p), ("slope", ctypes.c_double), ("drop", ctypes.c_double), ("seed", ctypes.c_uint64),
    ]  # fmt: skip


GAT, V2, QKV = range(3)


def missing() -> str:
    """Why the kernels cannot be had on this machine; empty where they can."""
    return _library()[1]


@cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    """The compiled kernels, or None and why."""
    compiler = shlex.split(os.environ.get("CC", "")) or [c for c in ("cc", "gcc", "clang") if shutil.which(c)][:1]
    if not compiler:
        return None, "no C compiler was found (cc, gcc, clang or $CC); install one, and the fast CPU path is built"
    try:
        return _build(compiler), ""
    except (OSError, subprocess.SubprocessError) as error:
        told = str(getattr(error, "stderr", None) or error).strip().splitlines()
        why = next((line for line in told if "error" in line.lower()), told[0] if told else type(error).__name__)
        return None, f"{shlex.join(compiler)} could not build the fast CPU path ({why})"


def _build(compiler: list[str]) -> ctypes.CDLL:
    """The shared library for this source, compiler and processor; built where the cache lacks it."""
    asked = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True, timeout=60)
    texts = [part.read_text() for part in PARTS]
    about = [*texts, asked.stdout, " ".join(FLAGS), platform.machine(), _processor(), torch.__version__]
    name = f"kernels-{hashlib.sha256('|'.join(about).encode()).hexdigest()[:16]}.so"
    failure: OSError | None = None
    for folder in _caches():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _ours(folder):  # what is loaded from there runs as this user
                continue
            with suppress(OSError):
                return ctypes.CDLL(str(folder / name))
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = _compile(compiler, Path(scratch))
                os.replace(built, folder / name)  # whole or not at all, whoever else builds it now
            return ctypes.CDLL(str(folder / name))
        except OSError as error:  # read-only, full, not to be executed from: the next one
            failure = error
    raise failure or OSError("error: found no folder of the user's own to build it in; set XDG_CACHE_HOME")


def _ours(folder: Path) -> bool:
    """Whether nobody else can write to ``folder``."""
    if not hasattr(os, "getuid"):
        return True
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _compile(compiler: list[str], folder: Path) -> Path:
    """Compiles into ``folder``; the first set of flags that the compiler takes and that loads."""
    tuned = ["-march=native"] if platform.machine().lower() in ("x86_64", "amd64") else ["-mcpu=native"]
    error: Exception | None = None
    # without -fopenmp at the link, the calls to OpenMP are resolved by what torch has loaded, if it has
    attempts = [([*tuned, "-fopenmp"], []), ([*tuned, "-fopenmp"], ["-fopenmp"]), (tuned, []), ([], [])]
    for flags, link in attempts:
        built = folder / f"kernels{sysconfig.get_config_var('SHLIB_SUFFIX') or '.so'}"
        try:
            for command in (
                [*compiler, *FLAGS, *flags, "-c", str(SOURCE), "-o", str(folder / "kernels.o")],
                [*compiler, "-shared", *link, str(folder / "kernels.o"), "-o", str(built), "-lm"],
            ):
                subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            ctypes.CDLL(str(built), mode=os.RTLD_NOW)
            return built
        except (OSError, subprocess.SubprocessError) as failure:
            error = error or failure
    assert error is not None
    raise error


def _processor() -> str:
    """What -march=native depends on: a cache in a home that machines share must not mix them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return platform.processor()


def _caches() -> Iterator[Path]:
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphssl" / "kernels"
    yield Path(tempfile.gettempdir()) / f"graphssl-{os.getuid() if hasattr(os, 'getuid') else 'kernels'}"


# arguments of kernels.c after the number of threads: n integer, p address, d float64
SIGNATURES = {
    "spmm": "nppnnpppp", "sddmm": "nppnnpppp", "spmm_max": "nppnnpppp", "spmm_max_back": "nppnnppppppp",
    "softmax": "npnpp", "softmax_back": "npnppp", "inner": "nnnppp", "attend": "npppppp",
    "attend_back": "nppppppppppp", "attend_back_rows": "npppppnp", "keep": "nnndp", "cosine": "nnppp",
    "cosine_back": "nnppppp",
}  # fmt: skip
HUNGRY = "spmm", "softmax", "attend", "attend_back"  # those that say whether memory ran out
KINDS = {"n": ctypes.c_int64, "p": ctypes.c_void_p, "d": ctypes.c_double}


@cache
def _function(name: str, bits: int, index_bits: int) -> Any:
    """A function of kernels.c for numbers and indices of so many bits."""
    function = getattr(_library()[0], f"{name}_f{bits}_i{index_bits}")
    function.restype = ctypes.c_int if name in HUNGRY else None
    function.argtypes = [ctypes.c_int, *(KINDS[kind] for kind in SIGNATURES[name])]
    return function


def _run(name: str, like: Tensor, index: Tensor | None, work: int, *args: Any) -> None:
    """Calls ``name`` of kernels.c for the types of ``like`` and ``index``; tensors are passed by address."""
    function = _function(name, 8 * like.itemsize, 32 if index is None else 8 * index.itemsize)
    threads = torch.get_num_threads() if work > SMALL else 1
    if function(threads, *[a.data_ptr() if isinstance(a, Tensor) else a for a in args]):
        raise MemoryError(f"memory ran out in {name}, which needs room for the longest row of the graph in each thread")


def _numbers(*tensors: Tensor | None) -> list[Any]:
    """``tensors`` as the kernels take them: contiguous, all in float64 if one is, else in float32."""
    dtype = torch.float32
    for t in tensors:
        if t is not None and t.dtype is torch.float64:
            dtype = torch.float64
    return [t if t is None or (t.dtype is dtype and t.is_contiguous()) else t.to(dtype).contiguous() for t in tensors]


def spmm(csr: CSR, x: Tensor, weight: Tensor | None) -> Tensor:
    """``x`` [C, H, D] and ``weight`` [E, H] to [R, H, D]."""
    return _spmm(csr, x, weight, None)


def _spmm(csr: CSR, x: Tensor, weight: Tensor | None, perm: Tensor | None) -> Tensor:
    (ptr, col), (_, H, D), dtype = csr._index, x.shape, x.dtype
    x, weight = _numbers(x, weight)
    out = x.new_empty(csr.shape[0], H, D)
    _run("spmm", x, col, csr.nnz * H * D, csr.shape[0], ptr, col, H, D, x, weight, perm, out)
    return out.to(dtype)


def spmm_back(
    csr: CSR, grad: Tensor, x: Tensor, weight: Tensor | None, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients to ``x`` [C, H, D] and ``weight`` [E, H]."""
    to_x = None
    if need_x:
        back = csr.transpose
        to_x = _spmm(back, grad, weight, back._narrow_perm).to(x.dtype)
    if not need_weight or weight is None:
        return to_x, None
    (ptr, col), (_, H, D), dtype = csr._index, x.shape, weight.dtype
    a, b = _numbers(grad, x)
    to_weight = a.new_empty(csr.nnz, H)
    _run("sddmm", a, col, csr.nnz * H * D, csr.shape[0], ptr, col, H, D, a, b, None, to_weight)
    return to_x, to_weight.to(dtype)


def spmm_max(csr: CSR, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest weighted ``x`` [C, H, D] of each row and the first entry that has it, both [R, H, D]."""
    (ptr, col), (_, H, D), dtype = csr._index, x.shape, x.dtype
    x, weight = _numbers(x, weight)
    out = x.new_empty(csr.shape[0], H, D)
    place = torch.empty(out.shape, dtype=col.dtype)
    _run("spmm_max", x, col, csr.nnz * H * D, csr.shape[0], ptr, col, H, D, x, weight, out, place)
    return out.to(dtype), place


def spmm_max_back(
    csr: CSR, grad: Tensor, place: Tensor, x: Tensor, weight: Tensor | None, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients to ``x`` [C, H, D] and ``weight`` [E, H]."""
    back, (_, H, D) = csr.transpose, x.shape
    ptr, col = back._index
    grad, rows, w = _numbers(grad, x, weight)
    to_x = torch.empty_like(rows)
    to_w = rows.new_empty(csr.nnz, H) if need_weight else None
    _run("spmm_max_back", rows, col, csr.nnz * H * D, back.shape[0], ptr, col, H, D, grad, place, rows, w,
         back._narrow_perm, to_x, to_w)  # fmt: skip
    return to_x.to(x.dtype), None if to_w is None or weight is None else to_w.to(weight.dtype)


def softmax(csr: CSR, scores: Tensor) -> Tensor:
    """``scores`` [E, H] to weights [E, H]."""
    (s,), (ptr, col) = _numbers(scores), csr._index
    out = torch.empty_like(s)
    _run("softmax", s, col, 8 * s.numel(), csr.shape[0], ptr, s.size(1), s, out)
    return out.to(scores.dtype)


def softmax_back(csr: CSR, weights: Tensor, grad: Tensor) -> Tensor:
    """Gradient to the scores [E, H]."""
    (w, g), (ptr, col) = _numbers(weights, grad), csr._index
    out = torch.empty_like(w)
    _run("softmax_back", w, col, 8 * w.numel(), csr.shape[0], ptr, w.size(1), w, g, out)
    return out.to(weights.dtype)


def gat(csr: CSR, x: Tensor, source: Tensor, target: Tensor, slope: float, p: float, seed: Tensor):
    """``x`` [C, H, D], ``source`` [C, H], ``target`` [R, H] to [R, H, D] and two numbers of a softmax [2, R, H]."""
    return _attend(csr, GAT, source, target, None, None, x, slope, p, seed)


def gat_back(csr: CSR, grad, out, stats, x, source, target, slope: float, p: float, seed: Tensor):
    """Gradients to ``x``, ``source`` and ``target``."""
    _, to_x, to_source, to_target, _ = _attend_back(
        csr, GAT, grad, out, stats, source, target, None, None, x, slope, p, seed
    )
    return to_x, to_source, to_target


def gatv2(csr: CSR, x: Tensor, target: Tensor, attention: Tensor, slope: float, p: float, seed: Tensor):
    """``x`` [C, H, D], ``target`` [R, H, D] and ``attention`` [H, D] to [R, H, D] and those of its scores [2, R, H]."""
    return _attend(csr, V2, x, target, attention, None, x, slope, p, seed)


def gatv2_back(csr: CSR, grad, out, stats, x, target, attention, slope: float, p: float, seed: Tensor):
    """Gradients to ``x``, ``target`` and ``attention``."""
    _, to_value, to_key, to_target, to_attention = _attend_back(
        csr, V2, grad, out, stats, x, target, attention, None, x, slope, p, seed
    )
    return to_value + to_key, to_target, to_attention


def qkv(csr: CSR, query, key, value, bias: Tensor | None, scale: float, p: float, seed: Tensor):
    """``query`` [R, H, K], ``key`` [C, H, K], ``value`` [C, H, D] and ``bias`` [E, H] to [R, H, D] and [2, R, H]."""
    return _attend(csr, QKV, key, query, None, bias, value, scale, p, seed)


def qkv_back(csr: CSR, grad, out, stats, query, key, value, bias, scale: float, p: float, seed: Tensor):
    """Gradients to ``query``, ``key``, ``value`` and ``bias``."""
    to_scores, to_value, to_key, to_query, _ = _attend_back(
        csr, QKV, grad, out, stats, key, query, None, bias, value, scale, p, seed
    )
    return to_query, to_key, to_value, None if bias is None else to_scores.to(bias.dtype)


def _heads(mode: int, key, query, attention, bias, value, slope: float, p: float, seed: Tensor) -> Heads:
    _, H, D = value.shape
    address = [None if t is None else t.data_ptr() for t in (key, query, attention, bias, value)]
    return Heads(mode, H, key.size(-1) if mode != GAT else 1, D, *address, slope, p, int(seed))


def _attend(csr: CSR, mode: int, key, query, attention, bias, value, slope, p, seed) -> tuple[Tensor, Tensor]:
    (ptr, col), (_, H, D), dtype = csr._index, value.shape, value.dtype
    key, query, attention, bias, value = _numbers(key, query, attention, bias, value)
    heads = _heads(mode, key, query, attention, bias, value, slope, p, seed)
    out, stats = value.new_empty(csr.shape[0], H, D), value.new_empty(2, csr.shape[0], H)
    _run("attend", value, col, csr.nnz * H * D, csr.shape[0], ptr, col, ctypes.byref(heads), out, *stats)
    return out.to(dtype), stats


def _attend_back(csr: CSR, mode: int, grad, out, stats, key, query, attention, bias, value, slope, p, seed):
    """Gradients to scores [E, H], value, key, query and attention, in the types that these came in."""
    dtypes = [t.dtype if t is not None else None for t in (value, key, query, attention)]
    given = (grad, out, stats, key, query, attention, bias, value)
    grad, out, stats, key, query, attention, bias, value = _numbers(*given)
    heads = _heads(mode, key, query, attention, bias, value, slope, p, seed)
    work = csr.nnz * value.size(1) * value.size(2)
    back, delta = csr.transpose, torch.empty_like(stats[0])
    _run("inner", value, None, grad.numel(), csr.shape[0], *grad.shape[1:], grad, out, delta)
    (ptr, col), (back_ptr, back_col) = csr._index, back._index
    to_scores = value.new_empty(csr.nnz, value.size(1))
    to_value, to_key, to_query = (torch.empty_like(t) for t in (value, key, query))
    _run("attend_back", value, col, work, back.shape[0], back_ptr, back_col, back._narrow_perm, ctypes.byref(heads),
         grad, *stats, delta, to_scores, to_value, to_key)  # fmt: skip
    parts = None if attention is None else value.new_empty(BLOCKS, *attention.shape)
    _run("attend_back_rows", value, col, work, csr.shape[0], ptr, col, ctypes.byref(heads),
         to_scores, to_query, BLOCKS, parts)  # fmt: skip
    to_attention = None if parts is None else parts.sum(0)
    grads = [
        t if t is None else t.to(d) for t, d in zip((to_value, to_key, to_query, to_attention), dtypes, strict=True)
    ]
    return to_scores, *grads


def kept(seed: Tensor, count: int, p: float, dtype: torch.dtype) -> Tensor:
    """What ``counter.kept`` computes, [count]."""
    out = torch.empty(count, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    scale = 1 / (1 - p) if p < 1 else 0.0
    _run("keep", out, None, count, count, int(seed), counter.threshold(p), scale, out)
    return out.to(dtype)


def cosine(one: Tensor, two: Tensor) -> Tensor:
    """Sums of ``one`` * ``two``, ``one`` squared and ``two`` squared over each row of [M, D], [3, M]."""
    sums = one.new_empty(3, len(one))
    _run("cosine", one, None, one.numel(), *one.shape, one, two, sums)
    return sums


def cosine_back(one: Tensor, two: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """``one`` [M, D] times ``along`` [M] plus ``two`` [M, D] times ``across`` [M]."""
    out = torch.empty_like(one)
    _run("cosine_back", one, None, one.numel(), *one.shape, one, two, along, across, out)
    return out


# arguments of samplers.c
SAMPLERS = {
    "ends": "pnnpnnp", "neighbors": "ppnpnnpppp", "meet": "npnpp", "assemble": "npnpnppppppp",
    "induced": "nppnpnpnnpp", "near": "nppnpnpnddppp",
}  # fmt: skip
_own = threading.local()


@cache
def _sampler(name: str, suffix: str) -> Any:
    """A function of samplers.c; all return a number that is negative where they failed."""
    function = getattr(_library()[0], name + suffix)
    function.restype = ctypes.c_int64
    function.argtypes = [KINDS[kind] for kind in SAMPLERS[name]]
    return function


def _sample(name: str, index: Tensor | None, *args: Any) -> int:
    """Calls ``name`` of samplers.c for the type of ``index``; tensors are passed by address."""
    function = _sampler(name, "" if index is None else f"_i{8 * index.itemsize}")
    result = function(*[a.data_ptr() if isinstance(a, Tensor) else a for a in args])
    if result == -1:
        raise UserError(
            "this CSR is no pattern of a graph: ptr has to rise to the entries of col, and col to hold nodes"
        )
    if result == -2:
        raise MemoryError(f"memory ran out in {name}, which needs room for the nodes that it meets")
    return int(result)


@contextmanager
def _map(nodes: int) -> Iterator[Tensor]:
    """A number for each node, all zero, for one at a time in this thread, who leaves them so; made once a thread."""
    held = _own.__dict__.pop("map", None)
    if held is None or len(held) < nodes:
        held = torch.from_numpy(np.zeros(nodes, np.int32))  # pages that nobody touches take no memory
    yield held
    _own.map = held  # not after an error, which may leave others


def neighbors(csr: CSR, seeds: Tensor, fanout: int, uniform: Tensor | None, replace: bool) -> tuple[Tensor, ...]:
    """Where the draws of each seed end [S + 1], where in ``csr.col`` they stand and what they hold there."""
    ends = torch.empty(len(seeds) + 1, dtype=torch.long)
    replace = replace and uniform is not None
    drawn = _sample("ends", None, csr.ptr, csr.nnz, len(seeds), seeds, fanout, replace, ends)
    place, source = torch.empty(drawn, dtype=torch.long), csr.col.new_empty(drawn)
    _sample("neighbors", csr.col, csr.ptr, csr.col, len(seeds), seeds, fanout, replace, uniform, ends, place, source)
    return ends, place, source


def hops(
    csr: CSR, seeds: Tensor, fanouts: Sequence[int], draw: Callable[[int, int], Tensor | None]
) -> tuple[Tensor, ...]:
    """The nodes, the places of ``seeds``, ascending, among them, edges and their places, by uniform ``draw``s."""
    N = csr.shape[0]

    def meet(ids: Tensor) -> Tensor:
        fresh = torch.empty(len(ids), dtype=torch.long)
        return fresh[: _sample("meet", ids, N, known, len(ids), ids, fresh)]

    with _map(N) as known:
        met, drawn = [meet(seeds)], []
        for fanout in fanouts:
            drawn.append(neighbors(csr, met[-1], fanout, draw(len(met[-1]), fanout), False))
            met.append(meet(drawn[-1][2]))
        T, all_met = sum(map(len, met[:-1])), torch.cat(met)
        count = torch.cat([ends.diff() for ends, _, _ in drawn])
        ends = torch.cat([count.new_zeros(1), count.cumsum(0)])
        place, source = (torch.cat([hop[i] for hop in drawn]) for i in (1, 2))
        nodes, local = torch.empty_like(all_met), torch.empty_like(all_met)
        edges, ordered = place.new_empty(2, len(place)), torch.empty_like(place)
        _sample("assemble", source, N, known, len(nodes), all_met, T, ends, source, place, nodes, local, edges, ordered)
    return nodes, local[: len(seeds)], edges, ordered


def induced(csr: CSR, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The edges [2, e] among ``nodes``, ascending, and their places."""
    N = csr.shape[0]
    with _map(N) as known:
        given = (N, csr.ptr, csr.col, csr.nnz, known, len(nodes), nodes)
        count = _sample("induced", csr.col, *given, False, 0, None, None)
        edges, place = nodes.new_empty(2, count), nodes.new_empty(count)
        _sample("induced", csr.col, *given, True, count, edges, place)
    return edges, place


def near(csr: CSR, seeds: Tensor, count: int, restart: float, enough: float) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes near each seed and their scores, both [S, count], and how many they are [S]."""
    N = csr.shape[0]
    found, size = seeds.new_empty(len(seeds), count), torch.empty_like(seeds)
    score = torch.empty(found.shape, dtype=torch.float64)
    with _map(N) as known:
        _sample("near", csr.col, N, csr.ptr, csr.col, csr.nnz, known, len(seeds), seeds, count, restart, enough,
                found, score, size)  # fmt: skip
    return found, score, size
