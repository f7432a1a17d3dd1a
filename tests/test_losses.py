"""Losses against slow loops, closed forms and symmetry."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import generator

from graphssl.losses import bootstrap, info_nce, scaled_cosine


def test_scaled_cosine_closed_forms():
    a = torch.randn(5, 4)
    assert scaled_cosine(a, 3 * a) == pytest.approx(0, abs=1e-6)
    assert scaled_cosine(a, -a, alpha=2) == pytest.approx(4, rel=1e-6)
    assert scaled_cosine(torch.tensor([[1.0, 0]]), torch.tensor([[0, 2.0]]), alpha=3) == pytest.approx(1)
    assert scaled_cosine(torch.randn(3, 4), torch.zeros(3, 4)) == pytest.approx(1)  # a target without words


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.5])
def test_scaled_cosine_of_equal_rows_is_finite_for_any_exponent(alpha):
    a = torch.randn(200, 7, requires_grad=True)
    loss = scaled_cosine(a, a.detach().clone(), alpha=alpha)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("loss", [scaled_cosine, bootstrap, lambda a, b: info_nce(a, b, 0.5)])
def test_losses_are_exact_under_autocast(loss):
    a, b = torch.randn(50, 16), torch.randn(50, 16)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(a, b)
    torch.testing.assert_close(half, loss(a, b))


def test_scaled_cosine_equals_a_loop():
    a, b = torch.randn(6, 5), torch.randn(6, 5)
    total = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        norms = math.sqrt(sum(p * p for p in x)) * math.sqrt(sum(q * q for q in y))
        total += (1 - dot / norms) ** 3
    assert scaled_cosine(a, b) == pytest.approx(total / 6, rel=1e-5)


def test_info_nce_equals_the_paper_as_loops():
    a, b, tau = torch.randn(5, 3), torch.randn(5, 3), 0.4

    def sim(x, y):
        return float(torch.dot(x, y) / (x.norm() * y.norm())) / tau

    total = 0.0
    for i in range(5):
        others = sum(math.exp(sim(a[i], b[j])) for j in range(5))
        others += sum(math.exp(sim(a[i], a[j])) for j in range(5) if j != i)
        total -= math.log(math.exp(sim(a[i], b[i])) / others)
    assert info_nce(a, b, tau) == pytest.approx(total / 5, rel=1e-5)


def test_info_nce_does_not_depend_on_length_or_order_of_rows():
    a, b = torch.randn(7, 3), torch.randn(7, 3)
    order = torch.randperm(7)
    torch.testing.assert_close(info_nce(a[order], b[order], 0.5), info_nce(a, b, 0.5))
    torch.testing.assert_close(info_nce(5 * a, b / 3, 0.5), info_nce(a, b, 0.5))


def eager(a, b, tau):
    """The loss as it was before it was tiled: the whole matrix at once."""
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    same = torch.eye(len(a), dtype=torch.bool)
    logits = torch.cat([a @ b.T, (a @ a.T).masked_fill(same, -torch.inf)], dim=1) / tau
    return F.cross_entropy(logits, torch.arange(len(a)))


def test_symmetric_info_nce_is_the_mean_of_both_directions():
    a, b = torch.randn(1100, 16, requires_grad=True), torch.randn(1100, 16, requires_grad=True)
    loss, expected = info_nce(a, b, 0.5, symmetric=True), (eager(a, b, 0.5) + eager(b, a, 0.5)) / 2
    torch.testing.assert_close(loss, expected)
    for one, two in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-8)


def test_info_nce_of_drawn_negatives_is_near_that_of_all_and_follows_its_generator():
    a = torch.randn(3000, 16)
    b = a + torch.randn(3000, 16)
    drawn = [info_nce(a, b, 0.5, symmetric=True, negatives=300, generator=generator(s)) for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0].item() == pytest.approx(info_nce(a, b, 0.5, symmetric=True).item(), rel=1e-2)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch itself, where it goes on after a graph break
@pytest.mark.parametrize("loss", [scaled_cosine, lambda a, b: info_nce(a, b, 0.5, symmetric=True)])
def test_losses_go_through_torch_compile(loss):
    a, b = torch.randn(20, 4, requires_grad=True), torch.randn(20, 4)
    torch._dynamo.reset()
    compiled = torch.compile(lambda a, b: loss(2 * a, b), backend="aot_eager")(a, b)
    torch.testing.assert_close(compiled, loss(2 * a, b))
    grads = [torch.autograd.grad(out, a)[0] for out in (compiled, loss(2 * a, b))]
    torch.testing.assert_close(*grads)


def test_bootstrap_closed_forms_and_stop_gradient():
    a = torch.randn(4, 3, requires_grad=True)
    target = torch.randn(4, 3, requires_grad=True)
    assert bootstrap(a, a).item() == pytest.approx(0, abs=1e-6)
    assert bootstrap(a, -a).item() == pytest.approx(4, rel=1e-5)
    bootstrap(a, target).backward()
    assert target.grad is None
    assert a.grad.any()
