"""Sparse and covered rows against the dense rows that they stand for."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from graphssl import ops
from graphssl.errors import UserError
from graphssl.ops import Rows


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


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_dropout_takes_probabilities_only(p):
    with pytest.raises(UserError, match="choose a probability"):
        ops.dropout(torch.ones(2, 2), p)


@pytest.mark.parametrize("slope", [0.25, 0.0, -0.5, 1.5])
def test_prelu_is_that_of_torch_to_the_second_derivative(slope):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 4, dtype=torch.double, generator=generator)
    x[0] = 0
    said = []
    for path in ("reference", "torch"):
        with ops.using(path):
            given, weight = x.clone().requires_grad_(), torch.full((1,), slope, dtype=torch.double, requires_grad=True)
            out = ops.prelu(given.transpose(0, 2), weight)  # not contiguous
            assert ops.backend("prelu") == path
            first = torch.autograd.grad(out.square().sum(), [given, weight], create_graph=True)
            second = torch.autograd.grad(sum(part.square().sum() for part in first), [given, weight])
            plain = torch.autograd.grad(ops.prelu(given, weight).square().sum(), [given, weight])
            of_one = torch.func.vmap(torch.func.grad(lambda row, w=weight: ops.prelu(row, w).square().sum()))(x)
            said.append([out, *first, *second, *plain, of_one])
    torch.testing.assert_close(*said)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.prelu(x.float(), weight.float()).dtype == F.prelu(x.float(), weight.float()).dtype
