"""Weights of several tasks, against brute force and the papers' formulas in loops."""

import itertools
import math

import numpy as np
import pytest
import torch

from graphssl.balance import MGDA, CAGrad, Equal, PCGrad, Uncertainty, min_norm


def gram_of(gradients: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(gradients @ gradients.T)


def least_by_brute_force(gram: np.ndarray) -> float:
    """The least w^T G w over the simplex, by solving the equality-constrained problem on every support."""
    best = math.inf
    for count in range(1, len(gram) + 1):
        for support in itertools.combinations(range(len(gram)), count):
            part = gram[np.ix_(support, support)]
            system = np.block([[part, np.ones((count, 1))], [np.ones((1, count)), np.zeros((1, 1))]])
            w = np.linalg.lstsq(system, np.r_[np.zeros(count), 1.0], rcond=None)[0][:-1]
            if (w >= -1e-9).all() and abs(w.sum() - 1) < 1e-6:
                best = min(best, w @ part @ w)
    return best


@pytest.mark.parametrize("tasks", [1, 2, 3, 5, 7])
def test_min_norm_is_the_least_of_all(tasks):
    rng = np.random.default_rng(tasks)
    for width in (1, 2, tasks, 3 * tasks):
        for _ in range(10):
            gradients = rng.normal(size=(tasks, width)) * 10 ** rng.uniform(-2, 2, (tasks, 1))
            gram = gradients @ gradients.T
            w = min_norm(gram)
            assert (w >= 0).all()
            assert w.sum() == pytest.approx(1)
            assert w @ gram @ w == pytest.approx(least_by_brute_force(gram), abs=1e-5 * np.diag(gram).max())


def test_closed_form_of_two():
    assert min_norm(np.array([[1.0, 0.0], [0.0, 3.0]])) == pytest.approx([0.75, 0.25])
    assert min_norm(np.array([[1.0, 2.0], [2.0, 9.0]])) == pytest.approx([1, 0])  # the shorter lies within the longer
    assert min_norm(np.array([[9.0, 2.0], [2.0, 1.0]])) == pytest.approx([0, 1])
    assert min_norm(np.ones((2, 2))) == pytest.approx([0.5, 0.5])  # twice the same


def test_mgda_raises_no_loss():
    rng = np.random.default_rng(3)
    for _ in range(20):
        gradients = rng.normal(size=(4, 6))
        _, w = MGDA(normalize=False)(torch.ones(4, dtype=torch.double), gram_of(gradients))
        assert (gradients @ (w.numpy() @ gradients) >= -1e-4).all()  # a step against the mixture lowers each loss


def test_mgda_on_normalised_gradients_can_raise_one():
    gradients = np.array([[10.0, 0.0], [-0.9, 0.3]])
    for normalize, raised in ((True, True), (False, False)):
        _, w = MGDA(normalize)(torch.ones(2, dtype=torch.double), gram_of(gradients))
        assert ((gradients @ (w.numpy() @ gradients)).min() < 0) == raised


def test_a_task_whose_gradient_is_nan_reaches_no_weight():
    x = torch.zeros(2, requires_grad=True)
    losses = {"root": x[0].sqrt(), "line": (x[1] - 1).square()}  # the slope of a root at 0 is infinite
    rows = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses.values()]
    rows[0] = rows[0] * float("nan")
    gradients = torch.stack(rows)
    total, w = MGDA()(list(losses.values()), gradients @ gradients.t())
    assert w.tolist() == [0, 1]
    assert torch.autograd.grad(total, x)[0].tolist() == [0, -2]


def test_mgda_normalises_lengths_away():
    gradients = np.random.default_rng(4).normal(size=(3, 5))
    scaled = gradients * np.array([[1.0], [100.0], [0.01]])
    losses = torch.ones(3, dtype=torch.double)
    torch.testing.assert_close(MGDA()(losses, gram_of(gradients))[1], MGDA()(losses, gram_of(scaled))[1])
    assert not torch.allclose(MGDA(False)(losses, gram_of(gradients))[1], MGDA(False)(losses, gram_of(scaled))[1])


@pytest.mark.parametrize("balance", [MGDA(), MGDA(False), PCGrad(), CAGrad()])
def test_a_task_without_gradient_weighs_nothing_and_stops_no_other(balance):
    gradients = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    total, w = balance(torch.tensor([2.0, 5.0, 3.0]), gram_of(gradients))
    assert w.isfinite().all()
    assert w[1] == 0
    assert (w[[0, 2]] > 0).all()
    assert total == pytest.approx(float(2 * w[0] + 3 * w[2]))
    assert balance(torch.ones(2), torch.zeros(2, 2))[1].tolist() == [0, 0]


def pcgrad_in_loops(gradients: np.ndarray, orders: list[list[int]]) -> np.ndarray:
    total = np.zeros(gradients.shape[1])
    for i, order in enumerate(orders):
        g = gradients[i].copy()
        for j in order:
            if j != i and g @ gradients[j] < 0:
                g -= (g @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total


def test_pcgrad_is_algorithm_1():
    gradients = np.random.default_rng(5).normal(size=(4, 3))
    torch.manual_seed(0)
    _, w = PCGrad()(torch.ones(4, dtype=torch.double), gram_of(gradients))
    torch.manual_seed(0)
    orders = [torch.randperm(4).tolist() for _ in range(4)]
    assert w.numpy() @ gradients == pytest.approx(pcgrad_in_loops(gradients, orders))


def test_cagrad_is_the_best_within_its_ball():
    """Of many directions within c |g0| of the mean gradient none helps the worst task more: eq. 4."""
    rng = np.random.default_rng(6)
    gradients = rng.normal(size=(3, 3))
    mean = gradients.mean(0)
    _, w = CAGrad(0.5)(torch.ones(3, dtype=torch.double), gram_of(gradients))
    found = w.numpy() @ gradients
    radius = 0.5 * np.linalg.norm(mean)
    assert np.linalg.norm(found - mean) <= radius * (1 + 1e-4)
    tries = rng.normal(size=(20000, 3))
    tries = mean + radius * tries / np.linalg.norm(tries, axis=1, keepdims=True)
    assert (gradients @ found).min() >= (tries @ gradients.T).min(1).max() - 1e-2


def test_cagrad_without_a_ball_is_the_mean():
    gradients = np.random.default_rng(7).normal(size=(3, 4))
    torch.testing.assert_close(
        CAGrad(0.0)(torch.ones(3, dtype=torch.double), gram_of(gradients))[1], torch.full((3,), 1 / 3).double()
    )
    with pytest.raises(ValueError, match="0 up to"):
        CAGrad(1.0)


def test_uncertainty_is_eq_10():
    balance = Uncertainty(2)
    with torch.no_grad():
        balance.log_variance.copy_(torch.tensor([0.5, -1.0]))
    losses = torch.tensor([2.0, 3.0], requires_grad=True)
    total, w = balance(losses)
    expected = sum(math.exp(-s) * loss + s for s, loss in zip((0.5, -1.0), (2.0, 3.0), strict=True))
    assert total.item() == pytest.approx(expected)
    total.backward()
    torch.testing.assert_close(losses.grad, w.detach())
    assert balance.log_variance.grad.tolist() == pytest.approx([1 - 2 * math.exp(-0.5), 1 - 3 * math.e], rel=1e-5)


def test_equal_is_the_sum():
    total, w = Equal()(torch.tensor([1.0, 4.0]))
    assert total == 5
    assert w.tolist() == [1, 1]
