"""The table of sparse ops and the table of patterns that their paths are tested on."""

import torch

from graphssl import ops
from graphssl.ops import CSR


def pattern(rows: int, cols: int, edges: int, hub: int = 0, device: str = "cpu") -> CSR:
    """Random, with empty rows and duplicate entries; row 1 has ``hub`` entries more."""
    g = torch.Generator().manual_seed(0)
    target = torch.cat([torch.randint(max(rows // 2, 1), (edges,), generator=g), torch.ones(hub, dtype=torch.long)])
    target = target.sort().values
    source = torch.randint(max(cols, 1), (len(target),), generator=g)
    return CSR(ops.pointers(target, rows), source, None, (rows, cols)).to(device)


PATTERNS = {
    "hub": (6, 4, 12, 37),
    "square": (9, 9, 20),
    "one": (3, 7, 1),
    "no-edges": (5, 5, 0),
    "no-nodes": (0, 0, 0),
}

# op -> the function, shapes of its tensors from (R, C, E, H, D), and its settings
OPS = {
    "spmm": (ops.spmm, lambda R, C, E, H, D: [(C, H, D), (E, H)], {}),
    "spmm mean": (ops.spmm, lambda R, C, E, H, D: [(C, H, D)], {"reduce": "mean"}),
    "spmm max": (ops.spmm, lambda R, C, E, H, D: [(C, H, D), (E, H)], {"reduce": "max"}),
    "segment_reduce max": (ops.segment_reduce, lambda R, C, E, H, D: [(E, H, D)], {"reduce": "max"}),
    "segment_softmax": (ops.segment_softmax, lambda R, C, E, H, D: [(E, H)], {}),
    "gat_attention": (ops.gat_attention, lambda R, C, E, H, D: [(C, H, D), (C, H), (R, H)], {"dropout": 0.3}),
    "gatv2_attention": (ops.gatv2_attention, lambda R, C, E, H, D: [(C, H, D), (R, H, D), (H, D)], {"dropout": 0.3}),
    "qkv_attention": (ops.qkv_attention, lambda R, C, E, H, D: [(R, H, D), (C, H, D), (C, H, D)], {"dropout": 0.3}),
    "qkv_attention bias": (ops.qkv_attention, lambda R, C, E, H, D: [(R, H, 5), (C, H, 5), (C, H, D), (E, H)], {}),
}

# other forms of their arguments, behind which are the same kernels
FORMS = OPS | {
    "spmm plain": (ops.spmm, lambda R, C, E, H, D: [(C, H, D)], {}),
    "spmm mean weight": (ops.spmm, lambda R, C, E, H, D: [(C, H, D), (E, H)], {"reduce": "mean"}),
    "spmm max plain": (ops.spmm, lambda R, C, E, H, D: [(C, H, D)], {"reduce": "max"}),
    "spmm flat": (ops.spmm, lambda R, C, E, H, D: [(C, D), (E,)], {}),
    "spmm flat max": (ops.spmm, lambda R, C, E, H, D: [(C, D), (E,)], {"reduce": "max"}),
    "segment_reduce": (ops.segment_reduce, lambda R, C, E, H, D: [(E,)], {}),
    "segment_reduce mean": (ops.segment_reduce, lambda R, C, E, H, D: [(E, H)], {"reduce": "mean"}),
    "gat_attention sure": (ops.gat_attention, lambda R, C, E, H, D: [(C, H, D), (C, H), (R, H)], {"slope": 0.0}),
    "gatv2_attention sure": (ops.gatv2_attention, lambda R, C, E, H, D: [(C, H, D), (R, H, D), (H, D)], {}),
    "qkv_attention scale": (
        ops.qkv_attention, lambda R, C, E, H, D: [(R, H, 3), (C, H, 3), (C, H, D)], {"scale": 0.3}
    ),
}  # fmt: skip


def name(op: str) -> str:
    """What ``ops.backend`` calls an op of the table."""
    return FORMS[op][0].__name__


def tensors(op: str, csr: CSR, H: int, D: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    shapes = FORMS[op][1](*csr.shape, csr.nnz, H, D)
    return [torch.randn(s, generator=g).to(csr.col.device, dtype).requires_grad_() for s in shapes]


def call(op: str, csr: CSR, inputs: list[torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(2)  # of the dropout
    function, _, settings = FORMS[op]
    return function(csr, *inputs, **settings)


def run(path: str, op: str, csr: CSR, inputs: list[torch.Tensor], expected: str | None = None) -> list[torch.Tensor]:
    """The output and the gradients, on ``path`` or, where the op lacks that, on the ``expected`` one."""
    with ops.using(path):
        out = call(op, csr, inputs)
    assert ops.backend(name(op)) == (expected or path)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    grads = torch.autograd.grad(out, inputs, grad)
    assert [g.dtype for g in grads] == [t.dtype for t in inputs]
    return [out.detach(), *grads]


def near(results: list[torch.Tensor], wanted: list[torch.Tensor], tolerance: float) -> None:
    """Each of ``results`` equals its like in float64 up to ``tolerance`` times the largest value."""
    for got, want in zip(results, wanted, strict=True):
        scale = want.abs().max().item() if want.numel() else 0.0
        torch.testing.assert_close(got.double(), want, rtol=0, atol=tolerance * (1 + scale))
