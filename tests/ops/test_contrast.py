"""Losses by cosines against loops, between their paths, and in what they hold in memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from graphssl import ops
from graphssl.errors import UserError
from graphssl.ops import choose, contrast, reference

PATHS = ["reference", "torch"] + ["triton"] * (choose.interpreted() and not choose.missing("triton"))
KINDS = [(intra, symmetric) for intra in (True, False) for symmetric in (True, False)]


@pytest.fixture(params=PATHS)
def path(request):
    with ops.using(request.param):
        yield request.param


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(contrast, "_tile", lambda x: 4)
    monkeypatch.setattr(contrast, "CHUNK", 100)


def pair(N, D=3, dtype=torch.double, seed=0, grad=True):
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(N, D, generator=g, dtype=dtype).requires_grad_(grad) for _ in range(2))
    return a, b


def loop(a, b, tau, intra, symmetric):
    """The paper's sums, one anchor and one other node at a time."""

    def sim(x, y):
        return float(torch.dot(x, y) / (x.norm() * y.norm())) / tau

    def one(a, b, i):
        terms = [sim(a[i], b[j]) for j in range(len(a))]
        terms += [sim(a[i], a[j]) for j in range(len(a)) if j != i] if intra else []
        top = max(terms)
        return top + math.log(sum(math.exp(t - top) for t in terms)) - sim(a[i], b[i])

    a, b = a.detach(), b.detach()
    losses = [one(a, b, i) for i in range(len(a))]
    if symmetric:
        losses = [(x + one(b, a, i)) / 2 for i, x in enumerate(losses)]
    return torch.tensor(losses, dtype=torch.double)


@pytest.mark.parametrize(("intra", "symmetric"), KINDS)
@pytest.mark.parametrize("tau", [0.01, 0.4, 7.0])
@pytest.mark.parametrize("N", [1, 2, 4, 11])
def test_info_nce_equals_the_paper_as_loops_and_its_gradients_check(path, small_tiles, N, tau, intra, symmetric):
    a, b = pair(N)
    torch.testing.assert_close(ops.info_nce(a, b, tau, intra, symmetric), loop(a, b, tau, intra, symmetric))
    assert ops.backend("info_nce") == path
    slow = path == "triton"  # its interpreter: one random direction, of several tiles
    if not slow or N == 11:

        def losses(a, b):
            return ops.info_nce(a, b, tau, intra, symmetric)

        assert gradcheck(losses, (a, b), nondet_tol=0, atol=1e-4, fast_mode=slow)
    assert ops.backend("info_nce") == path


@pytest.mark.parametrize(("intra", "symmetric"), KINDS)
@pytest.mark.parametrize("tau", [0.01, 0.5])
def test_info_nce_in_float32_is_near_the_reference_in_float64(path, tau, intra, symmetric):
    N = 70 if path == "triton" else 700
    a, b = pair(N, 20, torch.float, grad=False)
    exact, near = [], []
    for out, dtype in ((exact, torch.double), (near, torch.float)):
        x, y = (t.to(dtype, copy=True).requires_grad_() for t in (a, a + b))
        with ops.using("reference" if dtype == torch.double else path):
            losses = ops.info_nce(x, y, tau, intra, symmetric)
        assert ops.backend("info_nce") == ("reference" if dtype == torch.double else path)
        out += [losses, *torch.autograd.grad(losses.mean(), (x, y))]
    for one, two in zip(near, exact, strict=True):
        assert one.dtype == torch.float
        assert (one - two).abs().max() < 2e-5 * two.abs().max().clamp(min=1)


def test_rows_of_zeros_have_the_gradients_of_the_reference(path):
    a, b = pair(6, 5)
    a.data[2] = 0
    b.data[4] = 0
    for loss in (
        lambda: ops.info_nce(a, b, 0.5, symmetric=True).sum(),
        lambda: ops.scaled_cosine(a, b, 2.5).sum(),
    ):
        grads = torch.autograd.grad(loss(), (a, b))
        with ops.using("reference"):
            expected = torch.autograd.grad(loss(), (a, b))
        for one, two in zip(grads, expected, strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, two)


def test_non_contiguous_rows_and_two_runs_are_bit_equal(path):
    N = 40 if path == "triton" else 1100  # several tiles
    base = torch.randn(6, N, requires_grad=True), torch.randn(N, 12, requires_grad=True)

    def run(contiguous):
        a, b = base[0].t(), base[1][:, ::2]
        a, b = (a.contiguous(), b.contiguous()) if contiguous else (a, b)
        losses = [ops.info_nce(a, b, 0.5, symmetric=True), ops.scaled_cosine(a, b, 3.0)]
        return *losses, *torch.autograd.grad(losses[0].mean() + losses[1].mean(), base)

    first = run(False)
    assert ops.backend("info_nce") == ops.backend("scaled_cosine") == path
    for one, two, three in zip(first, run(False), run(True), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, three)


class Largest(TorchDispatchMode):
    """Remembers the elements of the largest storage that an operation returned."""

    seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.seen = max(self.seen, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return out


@pytest.mark.parametrize("negatives", [None, 50])
@pytest.mark.parametrize(("intra", "symmetric"), KINDS)
def test_no_matrix_of_all_pairs_is_ever_made(intra, symmetric, negatives):
    N, D = 1000, 8
    a, b = pair(N, D, torch.float)

    def step():
        return torch.autograd.grad(ops.info_nce(a, b, 0.5, intra, symmetric, negatives).mean(), (a, b))

    with ops.using("torch"), Largest() as largest:
        step()
    assert ops.backend("info_nce") == "torch"
    assert largest.seen <= max(512 * 512, 2 * N * D)
    with ops.using("reference"), Largest() as largest:  # the spy sees such a matrix where there is one
        step()
    assert largest.seen >= N * N


@pytest.mark.parametrize(("intra", "symmetric"), KINDS)
def test_sampled_negatives_are_right_on_average_and_check(small_tiles, intra, symmetric):
    a, b = pair(11)
    g = torch.Generator()
    with ops.using("reference"):
        exact = ops.info_nce(a, b, 0.5, intra, False)
    shares = []
    for seed in range(600):
        with torch.no_grad():
            losses = ops.info_nce(a, b, 0.5, intra, False, negatives=3, generator=g.manual_seed(seed))
        shares.append(losses.exp())
    assert ops.backend("info_nce") == "torch"
    shares = torch.stack(shares)
    error = shares.std(0) / 600**0.5
    assert ((shares.mean(0) - exact.exp()).abs() < 4 * error).all()  # of 11 means, one in 1500 runs is farther off

    def sampled(a, b):
        return ops.info_nce(a, b, 0.5, intra, symmetric, negatives=5, generator=g.manual_seed(1))

    assert gradcheck(sampled, (a, b), nondet_tol=0)
    results = {}
    for name in ("reference", "torch"):
        with ops.using(name):
            out = sampled(a, b)
            assert ops.backend("info_nce") == name
            results[name] = [out, *torch.autograd.grad(out.sum(), (a, b))]
    for one, two in zip(*results.values(), strict=True):
        torch.testing.assert_close(one, two)
    with ops.using("torch"):  # as many as there are: all
        torch.testing.assert_close(ops.info_nce(a, b, 0.5, intra, symmetric, 10), loop(a, b, 0.5, intra, symmetric))


@pytest.mark.parametrize("negatives", [1, 3, 8, 9])
def test_each_anchor_meets_as_many_others_as_asked_and_never_itself(small_tiles, negatives):
    N = 11
    met = torch.zeros(2 * N, 2 * N, dtype=torch.long)
    for rows, cols in contrast._some_pairs(N, 4, negatives, intra=True, symmetric=True):
        met[rows, cols] += 1
    assert met.max() == 1
    assert (met[:, :N].sum(1) == negatives).all()
    assert (met[:, N:].sum(1) == negatives).all()
    assert not met.view(2, N, 2, N).sum((0, 2)).diagonal().any()


@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5, 3.0])
@pytest.mark.parametrize(("M", "D"), [(1, 1), (7, 5), (11, 3), (0, 4)])
def test_scaled_cosine_is_the_reference_and_its_gradients_check(path, small_tiles, M, D, alpha):
    pred, target = pair(M, D)
    losses = ops.scaled_cosine(pred, target, alpha)
    assert ops.backend("scaled_cosine") == path
    pairs = zip(pred.detach(), target.detach(), strict=True)
    expected = [(1 - float(F.cosine_similarity(p, t, 0))) ** alpha for p, t in pairs]
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.double), atol=1e-9, rtol=1e-7)
    if M and D > 1:  # in one dimension the cosine is 1 or -1, where rounding decides
        fast = path == "triton"  # its interpreter is slow
        assert gradcheck(lambda p, t: ops.scaled_cosine(p, t, alpha), (pred, target), nondet_tol=0, fast_mode=fast)
        weights = torch.linspace(-1, 2, M, dtype=torch.double)
        both = torch.autograd.grad(ops.scaled_cosine(pred, target, alpha), (pred, target), weights)
        (one,) = torch.autograd.grad(ops.scaled_cosine(pred, target.detach(), alpha), pred, weights)
        (two,) = torch.autograd.grad(ops.scaled_cosine(pred.detach(), target, alpha), target, weights)
        torch.testing.assert_close((one, two), both)


def test_half_precision_and_autocast_compute_in_float32(path):
    a, b = pair(20, 16, torch.bfloat16)
    for loss in (lambda a, b: ops.info_nce(a, b, 0.5, symmetric=True), lambda a, b: ops.scaled_cosine(a, b, 3.0)):
        losses = loss(a, b)
        assert losses.dtype == torch.float
        assert torch.autograd.grad(losses.sum(), a)[0].dtype == torch.bfloat16
        x = a.detach().float().requires_grad_()
        plain = loss(x, b.detach().float())
        torch.testing.assert_close(losses, plain)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(loss(x, b), plain)
            inside = torch.autograd.grad(loss(x, b).sum(), x)[0]
        if path != "reference":  # torch's own backward of a product follows the autocast around it
            torch.testing.assert_close(inside, torch.autograd.grad(plain.sum(), x)[0])


def test_wrong_shapes_and_settings_are_refused():
    a, b = pair(4)
    with pytest.raises(UserError, match="one row a node"):
        ops.info_nce(a, b[:3], 0.5)
    with pytest.raises(UserError, match="one row a node"):
        ops.scaled_cosine(a[0], b[0], 2.0)
    with pytest.raises(UserError, match="tau is 0"):
        ops.info_nce(a, b, 0.0)
    with pytest.raises(UserError, match="negatives is 0"):
        ops.info_nce(a, b, 0.5, negatives=0)


def test_reference_of_both_directions_is_their_mean():
    a, b = pair(9)
    with ops.using("torch"):
        both = ops.info_nce(a, b, 0.5, symmetric=True)
    torch.testing.assert_close(both, (reference.info_nce(a, b, 0.5, True) + reference.info_nce(b, a, 0.5, True)) / 2)
