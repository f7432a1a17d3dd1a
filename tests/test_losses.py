"""Losses against slow loops, closed forms and symmetry."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import generator

from graphssl.losses import (
    bootstrap,
    edge_bce,
    gaussian_kl,
    info_nce,
    mean_square,
    scaled_cosine,
    soft_edge_ce,
)


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


def log_sigmoid(x):
    """log(1 / (1 + e^-x)) of a Python number."""
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def test_edge_bce_equals_the_paper_as_loops():
    present, absent = 3 * torch.randn(7, generator=generator(1)), 3 * torch.randn(4, generator=generator(2))
    one = -sum(log_sigmoid(x) for x in present.tolist()) / 7  # MaskGAE eq. 4: -log h(u, v) of edges,
    two = -sum(log_sigmoid(-x) for x in absent.tolist()) / 4  # -log(1 - h(u, v)) of pairs that are none
    assert edge_bce(present, absent).item() == pytest.approx(one + two, rel=1e-5)
    logits, truth = torch.cat([present, absent[:3]]), torch.tensor([1.0] * 7 + [0.0] * 3)
    weight = torch.tensor([1 / 7] * 7 + [1 / 3] * 3)
    torch.testing.assert_close(
        edge_bce(present, absent[:3]),
        F.binary_cross_entropy_with_logits(logits, truth, weight, reduction="sum"),
    )


def test_soft_edge_ce_equals_the_paper_as_loops():
    g = generator(3)
    present, absent, weight = torch.randn(5, 2, generator=g), torch.randn(9, 2, generator=g), torch.rand(5, generator=g)
    one = two = 0.0
    for (joined, apart), width in zip(present.tolist(), weight.tolist(), strict=True):  # Bandana eq. 10
        one -= width * math.log(math.exp(joined) / (math.exp(joined) + math.exp(apart))) / 5
    for joined, apart in absent.tolist():
        two -= math.log(math.exp(apart) / (math.exp(joined) + math.exp(apart))) / 9
    assert soft_edge_ce(present, absent, weight).item() == pytest.approx(one + two, rel=1e-5)


def test_two_classes_of_weight_one_are_the_cross_entropy_of_their_difference():
    present, absent = torch.randn(6, 2), torch.randn(6, 2)
    both = soft_edge_ce(present, absent, torch.ones(6))
    torch.testing.assert_close(both, edge_bce(present[:, 0] - present[:, 1], absent[:, 0] - absent[:, 1]))


def test_gaussian_kl_equals_that_of_torch_distributions():
    from torch.distributions import Normal, kl_divergence

    mean, log_std = torch.randn(6, 4, generator=generator(4)), torch.randn(6, 4, generator=generator(5))
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_std), expected)
    assert gaussian_kl(torch.zeros(3, 2), torch.zeros(3, 2)).item() == 0


def test_mean_square_equals_a_loop():
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    assert mean_square(a, b).item() == pytest.approx(sum((x - y) ** 2 for x, y in pairs) / 12, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (edge_bce, [(0,), (0,)]),
        (soft_edge_ce, [(0, 2), (0, 2), (0,)]),
        (mean_square, [(0,), (0,)]),
    ],
)
def test_losses_of_no_pairs_are_zero_and_can_be_differentiated(loss, shapes):
    rows = [torch.empty(shape, requires_grad=True) for shape in shapes]
    found = loss(*rows)
    assert found.item() == 0
    found.backward()
    assert all(row.grad.shape == row.shape for row in rows)


def test_where_one_kind_of_pairs_is_missing_the_other_counts_alone():
    x, two = torch.randn(5), torch.randn(5, 2)
    torch.testing.assert_close(edge_bce(x, x[:0]), F.softplus(-x).mean())
    torch.testing.assert_close(edge_bce(x[:0], x), F.softplus(x).mean())
    torch.testing.assert_close(soft_edge_ce(two, two[:0], torch.ones(5)), -two.log_softmax(1)[:, 0].mean())
    torch.testing.assert_close(soft_edge_ce(two[:0], two, torch.ones(0)), -two.log_softmax(1)[:, 1].mean())


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_gradients_of_huge_logits_are_finite(scale):
    present, absent = torch.full((3,), scale, requires_grad=True), torch.full((3,), -scale, requires_grad=True)
    loss = edge_bce(present, absent)
    loss.backward()
    assert loss.item() == pytest.approx(0 if scale > 0 else 2e4)
    assert present.grad.tolist() == pytest.approx([0 if scale > 0 else -1 / 3] * 3)
    assert absent.grad.tolist() == pytest.approx([0 if scale > 0 else 1 / 3] * 3)
    joined = torch.tensor([[scale, -scale]] * 3, requires_grad=True)
    apart = torch.tensor([[-scale, scale]] * 3, requires_grad=True)
    loss = soft_edge_ce(joined, apart, torch.ones(3))
    loss.backward()
    assert loss.item() == pytest.approx(0 if scale > 0 else 4e4)
    assert joined.grad.isfinite().all()
    assert apart.grad.isfinite().all()


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (edge_bce, [(5,), (3,)]),
        (soft_edge_ce, [(4, 2), (3, 2), (4,)]),
        (gaussian_kl, [(3, 4), (3, 4)]),
        (mean_square, [(3, 4), (3, 4)]),
    ],
)
def test_gradients_equal_those_of_small_differences(loss, shapes):
    rows = [torch.randn(shape, dtype=torch.float64, generator=generator(6)).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(loss, rows)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [(edge_bce, [(50,), (50,)]), (soft_edge_ce, [(50, 2), (50, 2), (50,)]), (mean_square, [(50,)] * 2)],
)
def test_losses_of_pairs_are_in_float32_under_autocast(loss, shapes):
    rows = [torch.rand(shape) for shape in shapes]
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(*(row.bfloat16() for row in rows))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss(*(row.bfloat16().float() for row in rows)))
