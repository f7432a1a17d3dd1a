"""Compiles every Triton kernel for sm_90, without a GPU: ``python tests/ops/compile_for_hopper.py``.

The calls are real ones in which each launch is compiled instead of run. Fails where a kernel has atomics, asks for more
shared memory than a program can have, or does not read 16 bytes at a time where the width of the rows allows it.
"""

import re
import time
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from graphssl.ops import CSR, pointers
from graphssl.ops.kernels import in_triton

MEMORY = 232448  # bytes of shared memory that a program can have
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32", torch.int64: "i64"}
WIDE = ("_gather", "_spread", "_attend", "_attend_back", "_gatv2_target")
compiled: set[str] = set()


def compile_instead(kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int = 4, **constants: Any) -> None:
    signature, constants, aligned = dict.fromkeys(kernel.arg_names, "constexpr"), dict(constants), {}
    for place, (name, arg) in enumerate(zip(kernel.arg_names, args, strict=False)):
        if arg is None:
            constants[name] = None
        elif isinstance(arg, torch.Tensor):
            signature[name] = f"*{NAMES[arg.dtype]}"
            aligned[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if abs(arg) < 2**31 else "i64"
    variant = f"{kernel.__name__} {signature} {constants}"
    if variant in compiled:
        return
    compiled.add(variant)
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": num_warps, "enable_fp_fusion": True}
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx, shared = built.asm["ptx"], built.metadata.shared
    vectors = len(re.findall(r"ld\.global\S*\.v4\.", ptx))
    print(f"{kernel.__name__} {constants.get('MODE', '')}: {shared} bytes of shared memory, {vectors} wide reads")
    assert not re.search(r"\b(atom|red)\.", ptx), f"atomics in {variant}"
    assert shared <= MEMORY, f"too much shared memory in {variant}"
    narrow = constants.get("V", constants.get("D")) % 4 if kernel.__name__ in WIDE else True
    assert vectors or narrow, f"narrow reads in {variant}"
    assert "cubin" in built.asm, f"not assembled: {variant}"


def calls(dtype: torch.dtype, H: int, D: int, dropout: float) -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randint(50, (2000,), generator=g)
    rows[:700] = 0  # more than a tile holds
    csr = CSR(pointers(rows, 50), torch.randint(40, (2000,), generator=g), None, (50, 40))
    k, seed = in_triton, 2**61

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g).to(dtype)

    x, other, weight, grad = random(40, H, D), random(50, H, D), random(2000, H), random(50, H, D)
    source, target, attention = random(40, H), random(50, H), random(H, D)
    k.spmm(csr, x, None)
    k.spmm(csr, x, weight)
    k.spmm_back(csr, grad, x, weight, True, True)
    k.spmm_max_back(csr, grad, k.spmm_max(csr, x, weight)[1], x, weight, True, True)
    if dtype == torch.float32:
        k.softmax_back(csr, k.softmax(csr, weight), weight)
    for name, factor, inputs in (
        ("gat", 0.2, (x, source, target)),
        ("gatv2", 0.2, (x, other, attention)),
        ("qkv", 0.125, (other, x, x, weight)),
    ):
        results = getattr(k, name)(csr, *inputs, factor, dropout, seed)
        getattr(k, f"{name}_back")(csr, grad, *results, *inputs, factor, dropout, seed)
    if dtype != torch.float32:
        return  # both losses start by widening their rows
    pred, wish = random(300, D), random(300, D)
    k.scaled_cosine_back(k.scaled_cosine(pred, wish, 2.0), pred, wish, 2.0, True)
    k.lse_back(pred, wish, 0.5, 0, k.lse(pred, wish, 0.5, 0), random(300).float())


if __name__ == "__main__":
    setattr(in_triton, "_launch", compile_instead)  # noqa: B010
    start = time.time()
    calls(torch.float32, 4, 64, 0.5)
    calls(torch.bfloat16, 4, 64, 0.0)
    in_triton.spmm(CSR(torch.tensor([0, 1]), torch.tensor([0]), None, (1, 1)), torch.ones(1, 1, 20), None)
    print(f"{len(compiled)} kernels in {time.time() - start:.0f} s")
