"""The Triton kernels against the plain reference, on a GPU (``pytest -m gpu``) or in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import OPS, PATTERNS, call, name, near, pattern, run, tensors
from torch.autograd import gradcheck

from graphssl import ops
from graphssl.ops import CSR, counter, reference

pytest.importorskip("triton", reason="Triton is not installed")
if not torch.cuda.is_available():
    assert os.environ.get("TRITON_INTERPRET") == "1", "conftest.py has to set it before anything imports Triton"

from graphssl.ops.kernels import in_triton

pytestmark = [
    pytest.mark.filterwarnings("ignore:divide by zero encountered in log2:RuntimeWarning"),  # the interpreter's NumPy
    pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True),
]


@pytest.fixture
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    if request.param == "cpu" and torch.cuda.is_available():
        pytest.skip("where there is a GPU, the kernels are tested on it")
    return request.param


@pytest.fixture
def short_tiles(monkeypatch):
    """Rows of a few entries count as long, and few programs as many: small graphs have rows that are cut."""
    monkeypatch.setattr(in_triton, "CHUNK", 4)
    monkeypatch.setattr(in_triton, "SHARES", 1)


def check(op: str, csr: CSR, H: int, D: int, dtype: torch.dtype = torch.float64, tolerance: float = 1e-10) -> None:
    """Output and gradients equal those of the reference in float64 up to ``tolerance`` times the largest value."""
    inputs = tensors(op, csr, H, D, dtype)
    results = run("triton", op, csr, inputs)
    wanted = run("reference", op, csr, [t.detach().double().requires_grad_() for t in inputs])
    near(results, wanted, tolerance)


@pytest.mark.usefixtures("short_tiles")
@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("op", OPS)
def test_equals_the_reference_forward_and_backward(op, kind, device):
    check(op, pattern(*PATTERNS[kind], device=device), 3, 7)


@pytest.mark.usefixtures("short_tiles")
@pytest.mark.parametrize("op", OPS)
def test_the_same_bits_when_repeated(op, device):
    csr = pattern(6, 4, 12, 37, device=device)
    inputs = tensors(op, csr, 2, 7, torch.float32)
    once, again = (run("triton", op, csr, inputs) for _ in range(2))
    assert all(torch.equal(*two) for two in zip(once, again, strict=True))


@pytest.mark.usefixtures("short_tiles")
@pytest.mark.parametrize(("H", "D", "hub"), [(1, 1, 9), (3, 33, 9), (1, 64, 150), (1, 140, 9)])
@pytest.mark.parametrize("op", OPS)
def test_widths_and_heads(op, H, D, hub, device):
    csr = pattern(6, 4, 12, hub, device=device)
    assert in_triton.plan(csr).slots >= hub // 4
    check(op, csr, H, D, torch.float32, 2e-5)


@pytest.mark.usefixtures("short_tiles")
@pytest.mark.parametrize("op", OPS)
def test_half_precision_is_rounded_once(op, device):
    check(op, pattern(6, 4, 12, 9, device=device), 2, 8, torch.bfloat16, 2e-2)


@pytest.mark.usefixtures("short_tiles")
@pytest.mark.parametrize("op", ["spmm max", "segment_softmax", "gatv2_attention", "qkv_attention bias"])
def test_wide_indices(op, device, monkeypatch):
    monkeypatch.setattr(CSR, "_small", property(lambda csr: False))
    csr = pattern(6, 4, 12, 9, device=device)
    assert csr._index[1].dtype == torch.int64
    check(op, csr, 1, 3)


@pytest.mark.usefixtures("short_tiles")
@pytest.mark.parametrize("op", OPS)
def test_gradients_check(op, device):
    csr = pattern(4, 3, 3, 5, device=device)  # row 1 is of two tiles
    inputs = tensors(op, csr, 2, 2, torch.float64)

    with ops.using("triton"):
        assert gradcheck(lambda *a: call(op, csr, a), inputs, nondet_tol=0, fast_mode=True)
    assert ops.backend(name(op)) == "triton"


@pytest.mark.parametrize("op", ["spmm", "gat_attention"])
def test_tiles_of_the_length_that_is_used(op, device):
    check(op, pattern(6, 4, 12, 2 * in_triton.CHUNK + 50, device=device), 1, 16, torch.float32, 2e-5)


def test_a_plan_covers_each_entry_once_and_starts_with_the_longest(device):
    csr = pattern(30, 20, 60, 3 * in_triton.CHUNK, device=device)
    row, start, end, slot = in_triton.plan(csr).tiles.long().cpu()
    assert in_triton.plan(csr) is in_triton.plan(csr)
    length = end - start
    assert length.max() <= in_triton.CHUNK
    assert torch.equal(length, length.sort(descending=True).values)
    entries = torch.cat([torch.arange(s, e) for s, e in zip(start, end, strict=True)])
    assert torch.equal(entries.sort().values, torch.arange(csr.nnz))
    assert torch.equal(csr.row.cpu()[entries], row.repeat_interleave(length))
    assert torch.equal(row.unique(), torch.arange(30))
    assert torch.equal(slot[slot >= 0].sort().values, torch.arange(in_triton.plan(csr).slots))


@pytest.mark.parametrize("p", [0.25, 0.9])
def test_dropout_draws_the_bits_of_the_counter(p, device):
    edges, H, seed = 50, 3, torch.tensor(2**61 + 12345)
    csr = CSR(torch.arange(edges + 1), torch.arange(edges), None, (edges, edges)).to(device)
    ones = torch.ones(edges, H, 1, dtype=torch.float64, device=device)
    out, stats = in_triton.gat(csr, ones, ones[..., 0], ones[..., 0], 0.2, p, seed)
    assert torch.equal(out.flatten(), counter.kept(seed, edges * H, p, ones))
    dx, _, _ = in_triton.gat_back(csr, ones, out, stats, ones, ones[..., 0], ones[..., 0], 0.2, p, seed)
    assert torch.equal(dx, out)


@pytest.mark.usefixtures("short_tiles")
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_equal_and_extreme_scores(size, device):
    csr = pattern(6, 4, 12, 9, device=device)
    x, source, target = (t.detach() for t in tensors("gat_attention", csr, 2, 5, torch.float32))
    source, target = size * source, size * target
    bias = reference.gat_scores(csr, source, target, 0.2)
    none = x.new_zeros(6, 2, 1), x.new_zeros(4, 2, 1)
    weights = reference.segment_softmax(csr, bias)
    want = reference.spmm(csr, x, weights, "sum")
    grad = torch.ones_like(weights)
    torch.testing.assert_close(in_triton.softmax(csr, bias), weights)
    torch.testing.assert_close(in_triton.softmax_back(csr, weights, grad), torch.zeros_like(weights), atol=1e-6, rtol=0)
    out, stats = in_triton.gat(csr, x, source, target, 0.2, 0.0, 0)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(in_triton.qkv(csr, *none, x, bias, 1.0, 0.0, 0)[0], want)
    got = in_triton.gat_back(csr, want, out, stats, x, source, target, 0.2, 0.0, 0)[0]
    torch.testing.assert_close(got, in_triton.spmm_back(csr, want, x, weights, True, False)[0])


@pytest.mark.usefixtures("short_tiles")
def test_of_equally_large_values_the_first_is_taken(device):
    csr = pattern(6, 4, 12, 9, device=device)
    out, place = in_triton.spmm_max(csr, torch.full((4, 1, 2), -torch.inf, device=device), None)
    full = csr.degree > 0
    assert torch.equal(place[:, 0, 0].long(), torch.where(full, csr.ptr[:-1], csr.nnz))
    assert torch.equal(out[:, 0, 0], torch.where(full, -torch.inf, 0.0))


@pytest.mark.usefixtures("short_tiles")
def test_one_bias_of_minus_infinity_hides_an_edge_and_all_hide_a_row(device):
    csr = pattern(6, 4, 12, 9, device=device)
    query, key, value, bias = (t.detach() for t in tensors("qkv_attention bias", csr, 1, 3, torch.float64))
    hidden = torch.arange(csr.nnz, device=device) % 3 == 0
    hidden |= csr.row == 2
    out, stats = in_triton.qkv(csr, query, key, value, bias.masked_fill(hidden[:, None], -torch.inf), 1.0, 0.0, 0)
    kept = ~hidden
    rest = CSR(ops.pointers(csr.row[kept], 6), csr.col[kept], None, csr.shape)
    want, _ = in_triton.qkv(rest, query, key, value, bias[kept], 1.0, 0.0, 0)
    torch.testing.assert_close(out, want)
    bias = bias.masked_fill(hidden[:, None], -torch.inf)
    *_, to_bias = in_triton.qkv_back(csr, torch.ones_like(out), out, stats, query, key, value, bias, 1.0, 0.0, 0)
    assert torch.equal(to_bias[hidden], torch.zeros_like(to_bias[hidden]))


@pytest.mark.parametrize("alpha", [1, 1.5, 2, 3.0])
@pytest.mark.parametrize(("M", "D"), [(5, 7), (0, 3), (40, 64)])
def test_scaled_cosine(M, D, alpha, device):
    g = torch.Generator().manual_seed(0)
    pred, target = (torch.randn(M, D, generator=g).double().to(device).requires_grad_() for _ in range(2))
    grad = torch.randn(M, generator=g).double().to(device)
    results = {}
    for path in ("triton", "reference"):
        with ops.using(path):
            out = ops.scaled_cosine(pred, target, alpha)
        assert ops.backend("scaled_cosine") == path
        results[path] = [out.detach(), *torch.autograd.grad(out, (pred, target), grad)]
    torch.testing.assert_close(results["triton"], results["reference"])
    if M == 5:
        with ops.using("triton"):
            assert gradcheck(lambda *a: ops.scaled_cosine(*a, alpha), (pred, target), nondet_tol=0, fast_mode=True)


def test_scaled_cosine_of_parallel_opposite_and_empty_rows(device):
    pred = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]], device=device)
    target = torch.tensor([[2.0, 4.0], [-6.0, 2.0], [1.0, 1.0]], device=device)
    torch.testing.assert_close(in_triton.scaled_cosine(pred, target, 2.0).cpu(), torch.tensor([0.0, 4.0, 1.0]))


@pytest.mark.parametrize(
    ("N", "M", "d", "skip", "dtype", "tolerance"),
    [
        *(
            (*shape, torch.float64, 1e-10)
            for shape in [(5, 5, 7, 0), (20, 40, 33, 20), (150, 17, 3, None), (6, 12, 200, 6), (1, 1, 2, 0)]
        ),
        (20, 40, 33, 20, torch.float32, 1e-5),
        (1, 1, 2, 0, torch.float32, 1e-5),
    ],
)
def test_lse(N, M, d, skip, dtype, tolerance, device):
    g = torch.Generator().manual_seed(0)
    q, k = (torch.nn.functional.normalize(torch.randn(n, d, generator=g)).to(device) for n in (N, M))
    q, k, grad = (t.to(dtype) for t in (q, k, torch.randn(N, generator=g).to(device)))
    got = in_triton.lse(q, k, 0.1, skip)
    grads = in_triton.lse_back(q, k, 0.1, skip, got, grad)
    assert torch.equal(got, in_triton.lse(q, k, 0.1, skip))
    assert all(torch.equal(*two) for two in zip(grads, in_triton.lse_back(q, k, 0.1, skip, got, grad), strict=True))
    exact_q, exact_k = (t.double().requires_grad_() for t in (q, k))
    logits = exact_q @ exact_k.T / 0.1
    if skip is not None:
        own = torch.arange(M, device=device) == torch.arange(N, device=device)[:, None] + skip
        logits = logits.masked_fill(own, -torch.inf)
    if M == 1:  # nothing is left
        assert torch.equal(got, torch.full_like(got, -torch.inf))
        assert not torch.cat(grads).any()
        return
    want = logits.logsumexp(1)
    wanted = torch.autograd.grad(want, (exact_q, exact_k), grad.double())
    for one, two in zip((got, *grads), (want, *wanted), strict=True):
        torch.testing.assert_close(one.double(), two, rtol=0, atol=tolerance * (1 + two.abs().max().item()))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("intra", [False, True])
def test_info_nce_gradients_check(intra, symmetric, device):
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 3, generator=g).double().to(device).requires_grad_() for _ in range(2))
    with ops.using("triton"):
        assert gradcheck(
            lambda *z: ops.info_nce(*z, 0.4, intra, symmetric), (a, b), nondet_tol=0, fast_mode=True
        )  # fmt: skip
        got = ops.info_nce(a, b, 0.4, intra, symmetric)
    assert ops.backend("info_nce") == "triton"
    with ops.using("reference"):
        torch.testing.assert_close(got, ops.info_nce(a, b, 0.4, intra, symmetric))


def test_every_kernel_compiles_for_hopper_without_atomics(device, tmp_path, request):
    if device == "cuda":
        pytest.skip("the kernels were compiled for the GPU at hand")
    script = Path(__file__).with_name("compile_for_hopper.py")
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    kept = getattr(request.config, "cache", None)  # a kernel whose source is as it was is not compiled again
    folder = kept.mkdir("triton") if kept else tmp_path
    env |= {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
