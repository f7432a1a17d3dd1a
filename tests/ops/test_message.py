"""Sparse ops on every path that a CPU has, against loops over the edges, the reference, and PyG."""

import copy
import math
import pickle

import pytest
import torch
from cases import FORMS, PATTERNS, call, name, near, pattern, run, tensors
from conftest import random_graph
from torch.autograd import gradcheck
from torch.nn.functional import leaky_relu

from graphssl import ops
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import CSR, choose, counter
from graphssl.ops.kernels import in_c

NO_C = choose.missing("c")
PATHS = ["reference", "torch", pytest.param("c", marks=pytest.mark.skipif(bool(NO_C), reason=NO_C or "-"))]
FAST = PATHS[1:]
SMALL = PATTERNS | {
    "long hub": (5, 4, 12, 300),
    "bipartite": (3, 30, 40),
    "no-targets": (0, 4, 0),
    "no-sources": (4, 0, 0),
}
# op -> which of its tensors the scores are proportional to
SCORES = {"segment_softmax": [0], "gat_attention": [1, 2], "gatv2_attention": [2], "qkv_attention": [0],
          "qkv_attention bias": [0, 3]}  # fmt: skip


@pytest.fixture(params=PATHS)
def path(request) -> str:
    return request.param


@pytest.fixture(params=FAST)
def fast(request) -> str:
    return request.param


def taken(path: str, op: str) -> str:
    """The path that ``op`` takes where ``path`` is forced: torch has no maxima and no softmax of its own."""
    lacks = path == "torch" and ("max" in op or "softmax" in op)
    return ("reference" if NO_C else "c") if lacks else path


def both(path: str, op: str, csr: CSR, inputs: list[torch.Tensor]):
    """Output and gradients on ``path``, and those of the reference in float64."""
    exact = [t.detach().double().requires_grad_() for t in inputs]
    return run(path, op, csr, inputs, taken(path, op)), run("reference", op, csr, exact)


def draw(seed: int, count: int) -> int:
    """Draw ``count`` of SplitMix64 in Python's integers; a mix serves two draws."""
    z = (seed + (count // 2 + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return z >> 40 if count % 2 == 0 else z >> 8 & 0xFFFFFF


def loop(op: str, csr: CSR, inputs: list[torch.Tensor]) -> torch.Tensor:
    """What the docstring of ``op`` says, one edge at a time."""
    settings, kind = FORMS[op][2], name(op)
    attends = kind.endswith("attention")
    torch.manual_seed(2)
    seed = int(counter.seed())

    def score(e: int, c: int, r: int) -> torch.Tensor:
        if kind == "segment_softmax":
            return inputs[0][e]
        if kind == "gat_attention":
            return leaky_relu(inputs[1][c] + inputs[2][r], settings.get("slope", 0.2))
        if kind == "gatv2_attention":
            return (inputs[2] * leaky_relu(inputs[0][c] + inputs[1][r], 0.2)).sum(-1)
        scale = settings.get("scale", 1 / math.sqrt(inputs[0].size(-1)))
        product = scale * (inputs[0][r] * inputs[1][c]).sum(-1)
        return product + inputs[3][e] if len(inputs) == 4 else product

    def message(e: int, c: int) -> torch.Tensor:
        if kind == "segment_reduce":
            return inputs[0][e]
        if kind == "spmm":
            return inputs[0][c] * inputs[1][e][..., None] if len(inputs) == 2 else inputs[0][c]
        return inputs[2 if kind == "qkv_attention" else 0][c]

    def kept(e: int, H: int) -> torch.Tensor:
        p = settings.get("dropout", 0.0)
        return torch.tensor([0.0 if draw(seed, e * H + h) < p * 2**24 else 1 / (1 - p) for h in range(H)]).double()

    out = torch.zeros_like(FORMS[op][0](csr, *inputs))
    for r in range(csr.shape[0]):
        entries = [(e, int(csr.col[e])) for e in range(int(csr.ptr[r]), int(csr.ptr[r + 1]))]
        if attends or kind == "segment_softmax":
            weights = [score(e, c, r).exp() for e, c in entries]
            weights = [w / sum(weights) for w in weights]
        for k, (e, _) in enumerate(entries):
            if kind == "segment_softmax":
                out[e] = weights[k]
            elif attends:
                weights[k] = weights[k] * kept(e, len(weights[k]))
        if kind == "segment_softmax" or not entries:
            continue
        got = [weights[k][:, None] * message(*entry) if attends else message(*entry) for k, entry in enumerate(entries)]
        how = settings.get("reduce", "sum")
        out[r] = torch.stack(got).amax(0) if how == "max" else sum(got) / (len(got) if how == "mean" else 1)
    return out


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("op", FORMS)
def test_equals_a_loop_and_the_gradients_check(op, kind, path):
    csr = pattern(*SMALL[kind])
    inputs = tensors(op, csr, 2, 3)
    out = run(path, op, csr, inputs, taken(path, op))[0]
    with torch.no_grad():
        torch.testing.assert_close(out, loop(op, csr, inputs))
    with ops.using(path):
        assert gradcheck(lambda *a: call(op, csr, a), inputs, nondet_tol=0, fast_mode=True)


@pytest.mark.parametrize("op", FORMS)
def test_every_entry_of_the_gradients_checks(op, path):
    csr = pattern(4, 3, 3, 3)
    with ops.using(path):
        assert gradcheck(lambda *a: call(op, csr, a), tensors(op, csr, 2, 3), nondet_tol=0)


@pytest.mark.parametrize(("H", "D"), [(1, 1), (2, 7), (3, 33), (4, 64), (2, 300)])
@pytest.mark.parametrize("op", FORMS)
def test_widths_and_heads(op, H, D, fast):
    csr = pattern(6, 7, 20, 300)
    near(*both(fast, op, csr, tensors(op, csr, H, D)), tolerance=1e-12)
    near(*both(fast, op, csr, tensors(op, csr, H, D, torch.float32)), tolerance=2e-5)


@pytest.mark.parametrize("op", FORMS)
def test_half_precision(op, path):
    csr = pattern(6, 7, 20, 9)
    inputs = tensors(op, csr, 2, 16, torch.bfloat16)
    near(*both(path, op, csr, inputs), tolerance=2e-2)
    single = [t.detach().float().requires_grad_() for t in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        near(*both(path, op, csr, single), tolerance=2e-2)


@pytest.mark.parametrize("types", [("double", "float"), ("float", "double"), ("bfloat16", "float"), ("float", "half")])
@pytest.mark.parametrize("op", ["spmm", "spmm mean weight", "spmm max", "gat_attention", "qkv_attention bias"])
def test_inputs_of_several_types_are_taken_in_the_type_that_holds_them_all(op, types, path):
    csr, (first, rest) = pattern(6, 7, 20, 9), (getattr(torch, t) for t in types)
    inputs = [t.detach().to(rest if k else first) for k, t in enumerate(tensors(op, csr, 2, 8))]
    inputs = [t.requires_grad_() for t in inputs]
    results, wanted = both(path, op, csr, inputs)
    assert results[0].dtype == torch.promote_types(first, rest)
    near(results, wanted, 2e-2)


def test_integers_are_summed_as_such(path):
    csr, x = pattern(6, 7, 20, 9), torch.full((7, 1), 2**40 + 1)
    with ops.using(path):
        assert torch.equal(ops.spmm(csr, x)[:, 0], csr.degree * (2**40 + 1))


@pytest.mark.parametrize("op", FORMS)
def test_the_same_bits_when_repeated(op, path):
    csr = pattern(300, 200, 3000, 300)
    inputs = tensors(op, csr, 2, 32, torch.float32)
    once, again = (run(path, op, csr, inputs, taken(path, op)) for _ in range(2))
    assert all(torch.equal(*two) for two in zip(once, again, strict=True))


@pytest.mark.skipif(bool(NO_C), reason=NO_C or "-")
@pytest.mark.parametrize("op", [op for op in FORMS if op not in ("segment_reduce", "segment_reduce mean")])
def test_the_same_bits_with_more_threads(op, monkeypatch):
    csr, used, function = pattern(300, 200, 3000, 300), set(), in_c._function
    inputs = tensors(op, csr, 2, 32, torch.float32)

    def spy(*key):
        return lambda threads, *args: (used.add(threads), function(*key)(threads, *args))[1]

    def results():
        pred, seed = inputs[0].flatten(1).repeat(20, 1), torch.tensor(9)
        with ops.using("c"):
            loss = ops.scaled_cosine(pred, pred.roll(1, 0), 2.0)
        return [
            *run("c", op, csr, inputs),
            *torch.autograd.grad(loss.sum(), inputs[0]),
            in_c.kept(seed, 40001, 0.5, loss.dtype),
        ]

    one = results()
    monkeypatch.setattr(in_c, "_function", spy)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        try:
            more = results()
        finally:
            torch.set_num_threads(1)
        assert threads in used
        assert all(torch.equal(*two) for two in zip(one, more, strict=True))


def test_the_order_of_the_given_edges_does_not_matter(path):
    graph = random_graph(40, 0, weights=True)
    edges, first = graph.edge_index.unique(dim=1), None
    weight = torch.rand(edges.size(1))
    for seed in range(3):
        order = torch.randperm(edges.size(1), generator=torch.Generator().manual_seed(seed))
        graph = Graph.build(graph.x, edges[:, order], edge_weight=weight[order])
        results = run(path, "gat_attention", graph.csr, tensors("gat_attention", graph.csr, 2, 8, torch.float32))
        with ops.using(path):
            results.append(ops.spmm(graph, graph.x, graph.edge_weight, "mean"))
        first = first or results
        assert all(torch.equal(*two) for two in zip(first, results, strict=True))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("op", FORMS)
def test_indices_of_32_and_of_64_bits(op, wide, path, monkeypatch):
    csr = pattern(6, 7, 20, 9)
    if wide:  # as from 2**31 entries on
        monkeypatch.setattr(CSR, "_small", property(lambda csr: False))
        assert csr._index[0].dtype == csr.transpose._narrow_perm.dtype == torch.int64
    else:
        csr = CSR(csr.ptr.int(), csr.col.int(), None, csr.shape)
    near(*both(path, op, csr, tensors(op, csr, 2, 9)), tolerance=1e-12)


@pytest.mark.parametrize("op", FORMS)
def test_any_strides(op, path):
    csr = pattern(6, 7, 20, 9)
    plain = tensors(op, csr, 2, 9)
    wanted = run(path, op, csr, plain, taken(path, op))
    for change in (
        lambda t: torch.stack([t, -t], -1)[..., 0],  # a slice
        lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    ):
        moved = [change(t.detach()).requires_grad_() for t in plain]
        assert not any(t.is_contiguous() for t in moved if t.ndim > 1)
        for got, want in zip(run(path, op, csr, moved, taken(path, op)), wanted, strict=True):
            torch.testing.assert_close(got, want)
    with ops.using(path):
        flat = torch.autograd.grad(call(op, csr, plain).sum(), plain)  # a gradient that is expanded from one number
        full = call(op, csr, plain)
        assert all(torch.allclose(*two) for two in
                   zip(flat, torch.autograd.grad(full, plain, torch.ones_like(full)), strict=True))  # fmt: skip


@pytest.mark.parametrize("op", FORMS)
def test_gradients_go_where_they_are_asked_for(op, path):
    csr = pattern(6, 7, 20, 9)
    inputs = tensors(op, csr, 2, 9)
    out, *wanted = run(path, op, csr, inputs, taken(path, op))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).double()
    with ops.using(path):
        for k in range(len(inputs)):
            alone = [t.detach().requires_grad_(i == k) for i, t in enumerate(inputs)]
            call(op, csr, alone).backward(grad)
            assert torch.equal(alone[k].grad, wanted[k])
            assert all(t.grad is None for i, t in enumerate(alone) if i != k)
        with torch.no_grad():
            assert torch.equal(call(op, csr, inputs), out)
        twice = torch.autograd.grad(call(op, csr, inputs) + 2 * call(op, csr, inputs), inputs, grad)
    for got, want in zip(twice, wanted, strict=True):
        torch.testing.assert_close(got, 3 * want)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda csr: pickle.loads(pickle.dumps(csr))])
@pytest.mark.parametrize("op", ["spmm", "gatv2_attention"])
def test_a_pattern_can_be_copied_and_kept(op, again, path):
    csr = pattern(6, 7, 20, 9)
    inputs = tensors(op, csr, 2, 9)
    for made in (csr, csr.keep(torch.arange(csr.nnz) >= 0)):  # the second finds its transpose later, from the first
        wanted = run(path, op, again(made), inputs)
        for other in (made, again(made)):
            assert all(torch.equal(*two) for two in zip(run(path, op, other, inputs), wanted, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e4])
@pytest.mark.parametrize("op", SCORES)
def test_equal_and_extreme_scores(op, size, dtype, path):
    csr = pattern(6, 7, 20, 9)
    inputs = tensors(op, csr, 2, 8, dtype)
    for k in SCORES[op]:
        inputs[k].data *= size
    results, wanted = both(path, op, csr, inputs)
    assert all(t.isfinite().all() for t in results)
    assert op == "segment_softmax" or not results[0][csr.degree == 0].any()
    near(results, wanted, 5e-2 if dtype == torch.float32 else 1e-9)  # float32 knows 1e4 itself to 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bias_of_minus_infinity_hides_an_edge(dtype, path):
    csr = pattern(6, 7, 20, 9)
    query, key, value, bias = tensors("qkv_attention bias", csr, 2, 8, dtype)
    hidden = torch.arange(csr.nnz) % 3 == 1
    rest = csr.keep(~hidden)
    masked = bias.detach().masked_fill(hidden[:, None], -torch.inf).requires_grad_()
    out, *grads = run(path, "qkv_attention bias", csr, [query, key, value, masked])
    short, *wanted = run(path, "qkv_attention bias", rest, [query, key, value, bias.detach()[~hidden].requires_grad_()])
    torch.testing.assert_close(out, short)
    assert not grads[3][hidden].any()
    grads[3] = grads[3][~hidden]
    for got, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_target_whose_edges_are_all_hidden_receives_zeros(dtype, path):
    csr = pattern(6, 7, 20, 9)
    inputs = tensors("qkv_attention bias", csr, 2, 8, dtype)
    inputs[3] = inputs[3].detach().masked_fill((csr.row == 1)[:, None], -torch.inf).requires_grad_()
    out, *grads = run(path, "qkv_attention bias", csr, inputs)
    assert not out[1].any()
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("seed", [0, 5, 2**62 - 1])
@pytest.mark.parametrize("count", [0, 1, 2, 1001])
def test_the_counter_draws_the_bits_of_splitmix(count, seed):
    draws = counter.draws(torch.tensor(seed), count, "cpu")
    assert draws.tolist() == [draw(seed, k) for k in range(count)]
    for p in (0.0, 0.25, 0.9, 1.0):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            kept = counter.kept(torch.tensor(seed), count, p, torch.empty(0, dtype=dtype))
            wanted = (draws >= p * 2**24).to(dtype) * (1 / (1 - p) if p < 1 else 0.0)
            assert kept.dtype == dtype
            assert torch.equal(kept, wanted)
            if not NO_C:
                assert torch.equal(in_c.kept(torch.tensor(seed), count, p, dtype), wanted)
    assert count < 1000 or abs(draws.double().mean() / 2**24 - 0.5) < 0.03


@pytest.mark.parametrize("op", ["gat_attention", "gatv2_attention", "qkv_attention"])
def test_dropout_of_attention_is_that_of_the_counter(op, path):
    csr, p, H = pattern(40, 400, 400), 0.3, 2
    csr = CSR(csr.ptr, torch.arange(csr.nnz), None, csr.shape)  # every edge has a source of its own ...
    inputs = tensors(op, csr, H, 400)
    value = inputs[2 if op == "qkv_attention" else 0]
    if op != "gatv2_attention":  # ... whose value is one-hot, so that the output is the weights
        value.data = torch.eye(csr.nnz).double()[:, None].expand(-1, H, -1).contiguous()

    def weights(dropout):
        torch.manual_seed(7)
        with ops.using(path):
            return FORMS[op][0](csr, *inputs, dropout=dropout)

    torch.manual_seed(7)
    kept = counter.kept(counter.seed(), csr.nnz * H, p, value).view(csr.nnz, H)
    if op == "gatv2_attention":
        assert not torch.equal(weights(p), weights(0.0))
    else:
        read = [weights(d)[csr.row, :, csr.col] for d in (p, 0.0)]
        torch.testing.assert_close(read[0], read[1] * kept)
        assert abs(kept.mean() - 1) < 0.1
    assert torch.equal(weights(p), weights(p))
    before = torch.get_rng_state()
    with ops.using(path):
        FORMS[op][0](csr, *inputs)
    assert torch.equal(torch.get_rng_state(), before)  # without dropout nothing is drawn


def test_of_equally_large_values_the_first_gets_the_gradient(path):
    csr = CSR(torch.tensor([0, 3, 3, 5]), torch.tensor([2, 0, 2, 1, 0]), None, (3, 3))
    x = torch.ones(3, 2, requires_grad=True)
    with ops.using(path):
        ops.spmm(csr, x, reduce="max").sum().backward()
    assert x.grad[:, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_taken_rows_are_those_built_from_their_entries(share):
    csr = pattern(20, 12, 60, 9)
    rows = torch.rand(20, generator=torch.Generator().manual_seed(0)) < share
    if share < 1:  # also of a pattern that has been cut before
        csr = csr.keep(torch.arange(csr.nnz) % 3 > 0)
    entries = rows[csr.row]
    number = rows.cumsum(0) - 1
    built = CSR(ops.pointers(number[csr.row[entries]], int(rows.sum())), csr.col[entries], None, (int(rows.sum()), 12))
    for one, two in ((csr.take(rows), built), (csr.take(rows).transpose, built.transpose)):
        assert one.shape == two.shape
        assert torch.equal(one.ptr, two.ptr)
        assert torch.equal(one.col, two.col)
        assert torch.equal(one.row, two.row)
        assert one.perm is two.perm is None or torch.equal(one.perm, two.perm)
    dense = torch.zeros(20, 12).index_put((csr.row, csr.col), torch.ones(()), accumulate=True)
    torch.testing.assert_close(ops.spmm(csr.take(rows), torch.eye(12)), dense[rows])
    with pytest.raises(ValueError, match="another order"):
        csr.transpose.take(torch.ones(12, dtype=torch.bool))


def test_members_hold_their_own_entries():
    csr = pattern(6, 7, 20, 9)
    assert csr.members.shape == (6, csr.nnz)
    x = torch.randn(csr.nnz, 3)
    torch.testing.assert_close(ops.spmm(csr.members, x), ops.segment_reduce(csr, x))
    torch.testing.assert_close(ops.spmm(csr.members, x), torch.zeros(6, 3).index_add(0, csr.row, x))


@pytest.mark.parametrize("kind", SMALL)
def test_a_pattern_goes_through_an_operator_and_back(kind):
    csr = pattern(*SMALL[kind])
    back = CSR.from_tensors(csr.tensors(), csr.shape[1])
    for one, two in ((csr, back), (csr.transpose, back.transpose)):
        assert one.shape == two.shape
        for key in ("ptr", "col", "row"):
            assert torch.equal(getattr(one, key), getattr(two, key))
    assert torch.equal(csr.transpose.perm, back.transpose.perm)


ones = torch.ones
CALLS = {
    "x has 4 rows": (lambda csr: ops.spmm(csr, ones(4, 2)), r"x of shape \(4, 2\).* \(3, 2\)"),
    "x has 1 dimension": (lambda csr: ops.spmm(csr, ones(3)), r"x of shape \(3,\).*\[sources, D\]"),
    "weights of heads": (lambda csr: ops.spmm(csr, ones(3, 2), ones(5, 2)), r"weight of shape \(5, 2\).* \(5,\)"),
    "weights without heads": (lambda csr: ops.spmm(csr, ones(3, 2, 4), ones(5)), r"weight .*\(5,\).* \(5, 2\)"),
    "values": (lambda csr: ops.segment_reduce(csr, ones(4)), r"values of shape \(4,\).* \(5,\)"),
    "a number as values": (lambda csr: ops.segment_reduce(csr, ones(())), r"a single number; expected values"),
    "scores": (lambda csr: ops.segment_softmax(csr, ones(4, 2)), r"scores of shape \(4, 2\).* \(5, 2\)"),
    "scores without heads": (lambda csr: ops.segment_softmax(csr, ones(5)), r"scores of shape \(5,\)"),
    "gat x": (lambda csr: ops.gat_attention(csr, ones(3, 2), ones(3, 2), ones(4, 2)), r"x of shape \(3, 2\)"),
    "gat x of 1": (lambda csr: ops.gat_attention(csr, ones(3), ones(3, 2), ones(4, 2)), r"x of shape \(3,\)"),
    "gatv2 x of 1": (lambda csr: ops.gatv2_attention(csr, ones(3), ones(4, 2, 1), ones(2, 1)), r"x of shape \(3,\)"),
    "qkv query of 1": (lambda csr: ops.qkv_attention(csr, ones(4), ones(3, 2, 1), ones(3, 2, 1)), r"query .*\(4,\)"),
    "a number as scores": (lambda csr: ops.segment_softmax(csr, ones(())), r"scores of shape \(\)"),
    "gat source": (
        lambda csr: ops.gat_attention(csr, ones(3, 2, 1), ones(4, 2), ones(4, 2)), r"source .*\(4, 2\).* \(3, 2\)"
    ),
    "gat target": (
        lambda csr: ops.gat_attention(csr, ones(3, 2, 1), ones(3, 2), ones(4, 1)), r"target .*\(4, 1\).* \(4, 2\)"
    ),
    "gatv2 target": (
        lambda csr: ops.gatv2_attention(csr, ones(3, 2, 6), ones(3, 2, 6), ones(2, 6)), r"target .* \(4, 2, 6\)"
    ),
    "gatv2 attention": (
        lambda csr: ops.gatv2_attention(csr, ones(3, 2, 6), ones(4, 2, 6), ones(6)), r"attention .* \(2, 6\)"
    ),
    "qkv key": (
        lambda csr: ops.qkv_attention(csr, ones(4, 2, 6), ones(3, 2, 5), ones(3, 2, 5)), r"key .* \(3, 2, 6\)"
    ),
    "qkv value": (
        lambda csr: ops.qkv_attention(csr, ones(4, 2, 6), ones(3, 2, 6), ones(4, 2, 5)), r"value .* \(3, 2, 5\)"
    ),
    "qkv bias": (
        lambda csr: ops.qkv_attention(csr, ones(4, 2, 6), ones(3, 2, 6), ones(3, 2, 5), ones(5)), r"bias .* \(5, 2\)"
    ),
    "dropout of one": (
        lambda csr: ops.gat_attention(csr, ones(3, 2, 1), ones(3, 2), ones(4, 2), dropout=1.0),
        "dropout is 1.0; choose a probability",
    ),
    "another device": (lambda csr: ops.spmm(csr, ones(3, 2, device="meta")), "x on meta and a graph on cpu; move"),
    "columns beyond the last": (
        lambda csr: ops.spmm(CSR(csr.ptr, csr.col + 3, None, csr.shape), ones(3, 2)), "is no 4 x 3 pattern: .*columns"
    ),
    "too few pointers": (lambda csr: ops.spmm(CSR(csr.ptr[:-1], csr.col, None, csr.shape), ones(3, 2)), "is no 4 x 3"),
    "falling pointers": (
        lambda csr: ops.segment_softmax(CSR(csr.ptr.flip(0), csr.col, None, csr.shape), ones(5, 2)), "ptr has to rise"
    ),
    "negative dropout": (
        lambda csr: ops.qkv_attention(csr, *[ones(n, 1, 1) for n in (4, 3, 3)], dropout=-0.1), "dropout is -0.1; choose"
    ),
    "reduction": (lambda csr: ops.spmm(csr, ones(3, 1), reduce="median"), "did you mean 'mean'"),
    "reduction of segments": (lambda csr: ops.segment_reduce(csr, ones(5), "min"), "unknown reduction 'min'"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_what_does_not_fit_is_refused(case):
    with pytest.raises(UserError, match=CALLS[case][1]):
        CALLS[case][0](pattern(4, 3, 5))


def test_a_path_is_forced_only_where_there_is_one(monkeypatch):
    with pytest.raises(UserError, match=r"unknown path 'cuda'; .*c, reference, torch, triton"), ops.using("cuda"):
        pass
    monkeypatch.setattr(choose, "missing", lambda path: "no C compiler was found")
    with pytest.raises(UserError, match="cannot take the path 'c': no C compiler was found"), ops.using("c"):
        pass
    monkeypatch.setattr(choose, "missing", lambda path: "")
    monkeypatch.setattr(choose, "interpreted", lambda: False)
    with pytest.raises(UserError, match=r"ops\.spmm got a tensor on the CPU; .*TRITON_INTERPRET"), ops.using("triton"):
        ops.spmm(pattern(4, 3, 5), torch.ones(3, 1))
    with pytest.raises(UserError, match=r"ops\.spmm got a tensor on meta"), ops.using("c"):
        ops.spmm(pattern(4, 3, 5).to("meta"), torch.ones(3, 1, device="meta"))
    with ops.using("torch"):
        with ops.using("reference"):
            ops.spmm(pattern(4, 3, 5), torch.ones(3, 1))
        assert ops.backend("spmm") == "reference"
        ops.spmm(pattern(4, 3, 5), torch.ones(3, 1))
    assert ops.backend("spmm") == "torch"


def compiled_equals_eager(op: str, csr: CSR, again: CSR) -> None:
    inputs = tensors(op, csr, 2, 8, torch.float32)
    function, _, settings = FORMS[op]
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: function(again, *a, **settings).sin(), fullgraph=True, backend="aot_eager")
    torch.manual_seed(2)
    out = compiled(*inputs)
    want = call(op, csr, inputs).sin()
    torch.testing.assert_close(out, want)
    grads, wanted = (torch.autograd.grad(result.square().sum(), inputs) for result in (out, want))
    torch.testing.assert_close(grads, wanted)


COMPILED = [
    op for op in FORMS if not op.endswith(("flat", "flat max", "weight", "sure", "scale", "segment_reduce max"))
]


@pytest.mark.parametrize("op", COMPILED)
def test_compiles_without_a_break(op):
    csr = pattern(6, 7, 20, 9)
    for used in (csr, csr.members):
        assert used.degree.sum() == len(used.row) == len(used.tensors()[1])  # cached now
    compiled_equals_eager(op, csr, csr)


@pytest.mark.parametrize("op", ["spmm", "gat_attention"])
def test_compiles_for_a_pattern_that_has_not_been_used(op, path):
    with ops.using(path):
        compiled_equals_eager(op, pattern(6, 7, 20, 9), pattern(6, 7, 20, 9))


@pytest.mark.parametrize("op", [op for op in COMPILED if not op.startswith("segment_reduce") and "mean" not in op])
def test_the_registered_operator_keeps_its_promises(op, fast):
    kernel = {"spmm max": "spmm_max", "spmm max plain": "spmm_max", "segment_softmax": "softmax"}.get(op)
    kernel = kernel or name(op).removesuffix("_attention")
    if fast == "torch" and kernel != "spmm":
        pytest.skip("the path torch has no such kernel")
    csr = pattern(6, 7, 20, 9)
    inputs = tensors(op, csr, 2, 8, torch.float32)
    settings, seed = ([0.2, 0.3], torch.tensor(5)) if "attention" in op else ([], None)
    args = kernel, fast, csr.tensors(), csr.shape[1], inputs, settings, seed
    torch.library.opcheck(torch.ops.graphssl.message.default, args)
    assert torch.ops.graphssl.message(*args)[0].requires_grad


@pytest.mark.filterwarnings("ignore:Sparse (CSR tensor support|invariant checks):UserWarning")  # of EdgeIndex
def test_equals_pyg(path):
    from torch_geometric import EdgeIndex
    from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv

    graph = random_graph(40, 0, weights=True)
    N, H, D = 40, 2, 5
    torch.manual_seed(0)
    gat, gatv2 = (conv(12, D, H, add_self_loops=False, bias=False) for conv in (GATConv, GATv2Conv))
    qkv = TransformerConv(12, D, H, beta=False, root_weight=False)

    def heads(linear, x):
        return linear(x).view(N, H, D)

    def our_gat(x):
        x = heads(gat.lin, x)
        return ops.gat_attention(graph, x, (x * gat.att_src).sum(-1), (x * gat.att_dst).sum(-1)).flatten(1)

    def our_gatv2(x):
        return ops.gatv2_attention(graph, heads(gatv2.lin_l, x), heads(gatv2.lin_r, x), gatv2.att[0]).flatten(1)

    def our_qkv(x):
        return ops.qkv_attention(graph, *(heads(f, x) for f in (qkv.lin_query, qkv.lin_key, qkv.lin_value))).flatten(1)

    matrix = EdgeIndex(graph.edge_index.flip(0), sparse_size=(N, N), sort_order="row")
    for ours, theirs in (
        (our_gat, lambda x: gat(x, graph.edge_index)),
        (our_gatv2, lambda x: gatv2(x, graph.edge_index)),
        (our_qkv, lambda x: qkv(x, graph.edge_index)),
        (lambda x: ops.spmm(graph, x), lambda x: matrix.matmul(x)),
        (lambda x: ops.spmm(graph, x, graph.edge_weight), lambda x: matrix.matmul(x, graph.edge_weight)),
    ):
        results = []
        for layer in (ours, theirs):
            x = graph.x.clone().requires_grad_()
            with ops.using(path):
                out = layer(x)
            results.append((out, *torch.autograd.grad(out.square().sum(), x)))
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
