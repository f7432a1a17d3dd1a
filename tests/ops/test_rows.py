"""Each op against a plain Python or dense computation, its gradients in float64, and odd shapes."""

import pytest
import torch
from torch.autograd import gradcheck

from graphssl import ops
from graphssl.errors import UserError
from graphssl.ops import CSR, Rows


def pattern(rows, cols, edges, seed=0):
    """A random bipartite pattern with empty rows and duplicates."""
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(max(rows - 1, 1), (edges,), generator=g).sort().values
    source = torch.randint(cols, (edges,), generator=g)
    return CSR(ops.pointers(target, rows), source, None, (rows, cols))


SHAPES = [(6, 4, 20), (1, 1, 5), (5, 5, 0), (3, 7, 1), (40, 40, 500)]


def loop(csr, x, weight, reduce):
    out = torch.zeros(csr.shape[0], x.size(1), dtype=x.dtype)
    for r in range(csr.shape[0]):
        messages = [weight[e] * x[csr.col[e]] for e in range(int(csr.ptr[r]), int(csr.ptr[r + 1]))]
        if messages:
            stacked = torch.stack(messages)
            out[r] = {"sum": stacked.sum(0), "mean": stacked.mean(0), "max": stacked.amax(0)}[reduce]
    return out


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("shape", SHAPES)
def test_spmm_equals_a_loop_and_its_gradients_check(shape, reduce):
    csr = pattern(*shape)
    x = torch.randn(shape[1], 3, dtype=torch.double, requires_grad=True)
    weight = torch.randn(csr.nnz, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(ops.spmm(csr, x, weight, reduce), loop(csr, x, weight, reduce))
    assert gradcheck(lambda x, w: ops.spmm(csr, x, w, reduce), (x, weight))


@pytest.mark.parametrize("shape", SHAPES)
def test_segment_softmax_sums_to_one_and_stands_large_scores(shape):
    csr = pattern(*shape)
    scores = torch.randn(csr.nnz, 2, dtype=torch.double) * 1e4
    weights = ops.segment_softmax(csr, scores)
    sums = ops.segment_reduce(csr, weights)
    torch.testing.assert_close(sums, (csr.degree > 0).double()[:, None].expand_as(sums))
    small = (torch.randn(csr.nnz, 2, dtype=torch.double)).requires_grad_()
    assert gradcheck(lambda s: ops.segment_softmax(csr, s), (small,))


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_equals_a_loop_and_its_gradients_check(shape):
    csr = pattern(*shape)
    x = torch.randn(shape[1], 2, 3, dtype=torch.double, requires_grad=True)
    source = torch.randn(shape[1], 2, dtype=torch.double, requires_grad=True)
    target = torch.randn(shape[0], 2, dtype=torch.double, requires_grad=True)
    expected = torch.zeros(shape[0], 2, 3, dtype=torch.double)
    for r in range(shape[0]):
        entries = csr.col[int(csr.ptr[r]) : int(csr.ptr[r + 1])]
        if len(entries):
            scores = torch.nn.functional.leaky_relu(source[entries] + target[r], 0.2).softmax(0)
            expected[r] = (scores[:, :, None] * x[entries]).sum(0)
    torch.testing.assert_close(ops.gat_attention(csr, x, source, target), expected)
    assert gradcheck(lambda *a: ops.gat_attention(csr, *a), (x, source, target))


def bags(rows, width, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, dtype=torch.double, generator=g) * (torch.rand(rows, width, generator=g) < 0.3)
    x[0] = 0
    return x


@pytest.mark.parametrize("hidden", [[0, 3], [], [0, 1, 2, 3, 4]])
def test_linear_takes_sparse_and_covered_rows(hidden):
    x = bags(5, 7)
    weight = torch.randn(3, 7, dtype=torch.double, requires_grad=True)
    token = torch.randn(7, dtype=torch.double, requires_grad=True)
    mask = torch.zeros(5, dtype=torch.bool)
    mask[hidden] = True
    expected = torch.where(mask[:, None], token, x) @ weight.t()
    torch.testing.assert_close(ops.linear(Rows.from_dense(x), weight, mask, token), expected)
    torch.testing.assert_close(ops.linear(x, weight, mask, token), expected)
    torch.testing.assert_close(ops.linear(Rows.from_dense(x), weight), x @ weight.t())
    rows = Rows.from_dense(x)
    assert gradcheck(lambda w, t: ops.linear(rows, w, mask, t), (weight, token))


def test_dropout_of_covered_rows_is_that_of_the_dense_rows_it_stands_for():
    x = bags(40, 30)
    mask = torch.arange(40) % 2 == 0
    token = torch.rand(30, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 30, dtype=torch.double, requires_grad=True)
    torch.manual_seed(0)
    covered = ops.dropout(ops.cover(Rows.from_dense(x), mask, token), 0.4)
    out = ops.linear(covered, weight)
    torch.testing.assert_close(out, covered.to_dense() @ weight.t())
    grads = torch.autograd.grad(out.square().sum(), (weight, token), retain_graph=True)
    expected = torch.autograd.grad((covered.to_dense() @ weight.t()).square().sum(), (weight, token))
    for one, two in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, two)
    kept = covered.to_dense()[mask] / token
    assert set(kept.unique().round(decimals=6).tolist()) == {0.0, round(1 / 0.6, 6)}
    assert 0.3 < (kept == 0).double().mean() < 0.5


def test_dropout_keeps_the_mean():
    rows = Rows.from_dense(torch.ones(200, 50))
    torch.manual_seed(0)
    assert abs(ops.dropout(rows, 0.3).value.mean() - 1) < 0.02
    assert ops.dropout(rows, 0.0) is rows


def test_rows_behave_as_the_dense_rows_they_stand_for():
    x = bags(6, 5)
    rows = Rows.from_dense(x)
    index = torch.tensor([4, 0, 0, 2])
    torch.testing.assert_close(rows[index].to_dense(), x[index])
    torch.testing.assert_close(rows[x[:, 1] > 0].to_dense(), x[x[:, 1] > 0])
    torch.testing.assert_close((rows * torch.arange(5.0, dtype=torch.double)).to_dense(), x * torch.arange(5.0))
    heights = torch.arange(6.0, dtype=torch.double)[:, None]
    torch.testing.assert_close((rows * heights).to_dense(), x * heights)
    torch.testing.assert_close(Rows.cat([rows, rows[index]]).to_dense(), torch.cat([x, x[index]]))
    torch.testing.assert_close(rows.row_sum, x.sum(1, keepdim=True))


def test_half_precision_goes_through():
    csr = pattern(40, 40, 300)
    x = torch.randn(40, 8)
    out = ops.spmm(csr, x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), ops.spmm(csr, x), rtol=2e-2, atol=6e-2)


def test_two_runs_are_bit_equal():
    csr = pattern(200, 200, 4000)
    x, weight = torch.randn(200, 64), torch.randn(4000)
    grads = []
    for _ in range(2):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        ops.spmm(csr, a, b).square().sum().backward()
        grads.append((a.grad, b.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


def test_non_contiguous_input():
    csr = pattern(20, 20, 100)
    x = torch.randn(8, 20, dtype=torch.double).t()
    torch.testing.assert_close(ops.spmm(csr, x), ops.spmm(csr, x.contiguous()))


def test_unknown_reduction_is_refused():
    with pytest.raises(UserError, match="did you mean 'mean'"):
        ops.spmm(pattern(3, 3, 3), torch.ones(3, 1), reduce="median")
