"""Transformers: dense and sparse attention of the same weights, how far nodes see, and attention across."""

import copy

import pytest
import torch
import torch_geometric.nn as pyg
from conftest import KINDS, F, generator, random_graph

from graphssl.backbones import CrossBlock, Embed, Side, Transformer, backbone
from graphssl.backbones.transformer import Attention, Dense, Sparse, attend, attend_nested
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Rows, cover, dense
from graphssl.structure import Reach

RAGGED = (5, 1, 9, 3)
EVEN = (6, 6, 6)


def joined(sizes, seed=0) -> Graph:
    """Complete graphs of so many nodes, with random content and places; one of no nodes where a size is 0."""
    g = generator(seed)
    parts = []
    for n in sizes:
        pos = torch.randn(max(n, 1), 2, generator=g)
        edges = (1 - torch.eye(n)).nonzero().T
        parts.append(Graph.build(torch.randn(max(n, 1), F, generator=g), edges, pos=pos))
    whole = Graph.stack(parts)
    return whole.keep_nodes(torch.tensor(sizes)[whole.batch] > 0)


def body(attention="dense", extra=0, seed=0, **options) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(F, 16, 2, 4, axes=2, attention=attention, extra=extra, embed=Embed(F, 16), **options).eval()


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("sizes", [EVEN, RAGGED, (4, 0, 2), (1,)])
def test_dense_and_sparse_attention_agree_on_full_graphs(sizes, extra):
    graph, full = joined(sizes), body(extra=extra)
    along = body("sparse", extra, seed=1)
    along.load_state_dict(full.state_dict())
    for one, two in zip(full.whole(graph, graph.x), along.whole(graph, graph.x), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    weights = torch.randn(graph.num_nodes, 16, generator=generator(3))
    grads = []
    for some in (full, along):
        some.zero_grad()
        (some(graph, graph.x) * weights).sum().backward()
        grads.append([p.grad for p in some.parameters()])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [EVEN, RAGGED])
def test_attention_equals_a_loop_over_graphs_and_heads(sizes):
    graph, attention = joined(sizes), Attention(F, 3, 0.0)
    found = attention(graph.x, Dense(graph, 0))
    q, k, v = attention.qkv(graph.x).chunk(3, 1)
    expected, first = torch.empty_like(graph.x), 0
    for n in sizes:
        rows = slice(first, first + n)
        for h in range(3):
            column = slice(h * F // 3, (h + 1) * F // 3)
            score = q[rows, column] @ k[rows, column].T / (F // 3) ** 0.5
            expected[rows, column] = score.softmax(1) @ v[rows, column]
        first += n
    torch.testing.assert_close(found, attention.out(expected), rtol=1e-5, atol=1e-6)


def test_sparse_attention_equals_pyg(graph):
    if graph.num_edges == 0:
        pytest.skip("PyG's layer is given the edges and self-loops of the graph; there are none")
    attention = Attention(F, 3, 0.0)
    theirs = pyg.TransformerConv(F, F // 3, 3, root_weight=False)
    with torch.no_grad():
        for part, weight, bias in zip(
            (theirs.lin_query, theirs.lin_key, theirs.lin_value), attention.qkv.weight.chunk(3),
            attention.qkv.bias.chunk(3), strict=True,
        ):  # fmt: skip
            part.weight.copy_(weight)
            part.bias.copy_(bias)
    x, layout = dense(graph.x), Sparse(graph, 0)
    loops = torch.arange(graph.num_nodes).expand(2, -1)
    edges = torch.cat([graph.edge_index, loops], 1).unique(dim=1)
    torch.testing.assert_close(attention(x, layout), attention.out(theirs(x, edges)), rtol=1e-4, atol=1e-5)


def seen(reach: Transformer, graph: Graph, node: int) -> set[int]:
    """The nodes whose content moves the code of ``node``."""
    x = graph.x.clone().requires_grad_()
    (reach(graph, x)[node] * torch.arange(16).sin()).sum().backward()  # the plain sum of a normed code is constant
    return set(x.grad.abs().sum(1).nonzero().flatten().tolist())


def distances(graph: Graph, start: int) -> dict[int, int]:
    """Edges on the shortest path to ``start`` from each node that has one, by breadth-first search against them."""
    pairs = graph.edge_index.T.tolist()
    near = {n: {s for s, t in pairs if t == n} for n in range(graph.num_nodes)}
    away, front = {start: 0}, [start]
    while front:
        front = [n for m in front for n in near[m] if n not in away and not away.update({n: away[m] + 1})]
    return away


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("hops", [1, 2, 4])
def test_a_node_sees_exactly_its_k_hop_neighbourhood(hops, directed):
    graph = random_graph(40, 3, edges_per_node=0.8 + directed, directed=directed)
    torch.manual_seed(0)
    one = backbone("sparse-transformer", F, [16], hops=hops).eval()
    for node in range(0, 40, 5):
        away = distances(graph, node)
        assert seen(one, graph, node) == {n for n, d in away.items() if d <= hops}


@pytest.mark.parametrize(("hops", "dilation"), [(1, 1), (3, 1), (1, 2), (2, 3), (9, 2)])
@pytest.mark.parametrize(
    "kind", ["citation", "directed", "star", "molecules", "odd", "no-edges", "patches", "skeleton"]
)
def test_reach_is_that_of_breadth_first_search(kind, hops, dilation):
    graph = KINDS[kind]()
    csr = Reach(hops, dilation)(graph)
    csr.check()
    wanted = {dilation * step for step in range(1, hops + 1)}
    for node in range(graph.num_nodes):
        expected = sorted(n for n, d in distances(graph, node).items() if d in wanted)
        assert csr.col[csr.ptr[node] : csr.ptr[node + 1]].tolist() == expected


@pytest.mark.parametrize("wrong", [(0, 1), (2, 0)])
def test_reach_of_nothing_is_refused(wrong):
    with pytest.raises(UserError, match="choose 1 or more"):
        Reach(*wrong)


def test_global_nodes_let_all_nodes_of_a_graph_see_one_another_in_two_layers():
    path = torch.stack([torch.arange(7), torch.arange(1, 8)])
    path = torch.cat([path, path.flip(0)], 1)
    graph = Graph.stack([Graph.build(torch.randn(8, F, generator=generator(i)), path) for i in range(2)])
    torch.manual_seed(0)
    for extra, expected in ((0, {0, 1, 2}), (1, set(range(8)))):
        some = backbone("sparse-transformer", F, [16, 16], heads=2, global_nodes=extra).eval()
        assert seen(some, graph, 0) == expected


@pytest.mark.parametrize("attention", ["dense", "sparse"])
@pytest.mark.parametrize("extra", [0, 1])
def test_graphs_of_a_batch_do_not_see_each_other_and_padding_changes_nothing(attention, extra):
    graph, some = joined(RAGGED), body(attention, extra)
    nodes, extras = some.whole(graph, graph.x)
    for b, alone in enumerate(graph.parts()):
        own, more = some.whole(alone, alone.x)
        torch.testing.assert_close(nodes[graph.batch == b], own, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(extras[b : b + 1], more, rtol=1e-5, atol=1e-5)
    assert seen(some, graph, 7) == set(range(6, 15))


@pytest.mark.parametrize("attention", ["dense", "sparse"])
@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("sizes", [(0,), (0, 0), (3, 0, 2), (0, 4)])
def test_graphs_without_nodes_give_no_nan(sizes, attention, extra):
    graph, some = joined(sizes), body(attention, extra).train()
    nodes, extras = some.whole(graph, graph.x)
    (nodes.sum() + extras.sum()).backward()
    assert nodes.shape == (sum(sizes), 16)
    assert extras.shape == (len(sizes), extra, 16)
    assert nodes.isfinite().all()
    assert extras.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in some.parameters())


@pytest.mark.parametrize("attention", ["dense", "sparse"])
def test_extra_tokens_come_back_in_their_order(attention):
    """Without a block, what comes in goes out."""
    graph = joined(RAGGED)
    layout = Dense(graph, 2) if attention == "dense" else Sparse(graph, 2)
    extras = torch.arange(8.0).view(4, 2, 1).expand(4, 2, F)
    nodes, more = layout.unpack(layout.pack(graph.x, extras))
    assert torch.equal(nodes, graph.x)
    assert torch.equal(more, extras)


@pytest.mark.parametrize("attention", ["dense", "sparse"])
@pytest.mark.parametrize("sizes", [EVEN, RAGGED])
def test_bf16_runs_and_is_near(sizes, attention):
    graph, some = joined(sizes), body(attention, 1)
    with torch.autocast("cpu", torch.bfloat16):
        half = some(graph, graph.x)
    torch.testing.assert_close(half.float(), some(graph, graph.x), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("attention", ["dense", "sparse"])
@pytest.mark.parametrize("kind", ["words", "citation"])
def test_sparse_and_covered_content_gives_what_dense_content_does(kind, attention):
    graph, some = KINDS[kind](), body(attention)
    hidden, token = torch.arange(graph.num_nodes) % 3 == 0, torch.randn(F)
    assert isinstance(graph.x, Rows) == (kind == "words")
    for x in (graph.x, cover(graph.x, hidden, token), cover(graph.x, hidden, token, shared=True)):
        torch.testing.assert_close(some(graph, x), some(graph, dense(x)), rtol=1e-4, atol=1e-5)


def test_walk_ends_where_forward_does():
    graph, some = joined(RAGGED), body(extra=1)
    steps = list(some.walk(graph, graph.x))
    assert [s.shape for s in steps] == [(18, 16)] * 2
    torch.testing.assert_close(steps[-1], some(graph, graph.x))


@pytest.mark.parametrize("position", ["sincos", "mlp", "none"])
def test_places_are_read(position):
    graph, some = joined(EVEN), body(position=position)
    moved = graph.replace(pos=graph.pos + torch.tensor([1.0, 0.0]))
    assert torch.allclose(some(graph, graph.x), some(moved, graph.x)) == (position == "none")


def test_learned_places_are_whole_numbers_within_their_extent():
    some = body(position="learned")
    grid = KINDS["patches"]()
    assert not torch.allclose(some(grid, grid.x), some(grid.replace(pos=grid.pos + 1), grid.x))
    for wrong, place in ((grid.pos + 64, "64"), (grid.pos - 1, "-1"), (grid.pos / 4, "0.25"), (grid.pos - 0.5, "-0.5")):
        with pytest.raises(
            UserError, match=f"stands at {place}, .*whole numbers from 0 to 63; choose position='sincos'"
        ):
            some(grid.replace(pos=wrong), grid.x)


def test_a_graph_that_stands_nowhere_is_refused_where_places_are_read():
    graph = joined(EVEN).replace(pos=None)
    with pytest.raises(UserError, match="position='none'"):
        body()(graph, graph.x)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(name="transformer", widths=[8, 16]), "one width"),
        (dict(name="transformer", widths=[8], bare_end=True), "one width"),
        (dict(name="transformer", widths=[8], position="sine"), "did you mean 'sincos'"),
        (dict(name="transformer", widths=[8], hops=2), "choose encoder='sparse-transformer'"),
        (dict(name="gcn", widths=[8], global_nodes=1), "choose encoder='sparse-transformer'"),
        (dict(name="sparse-transformer", widths=[9], heads=2), "multiple"),
    ],
)
def test_what_a_transformer_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        backbone(settings.pop("name"), F, settings.pop("widths"), axes=2, **settings)


def test_a_pattern_is_found_once_for_a_graph_under_any_content():
    graph, calls = KINDS["citation"](), []

    class Counting(Reach):
        def __call__(self, graph):
            calls.append(1)
            return super().__call__(graph)

    some = Transformer(F, 16, 2, 4, attention="sparse", embed=Embed(F, 16), pattern=Counting(2))
    for token in torch.randn(3, F):
        covered = graph.replace(x=cover(graph.x, torch.arange(60) < 20, token))
        some(covered, covered.x)
    assert len(calls) == 1
    cut = graph.keep_edges(torch.arange(graph.num_edges) % 2 == 0)
    some(cut, cut.x)
    assert len(calls) == 2


# cross-attention


def across(seed=0):
    """Tokens and a memory of four graphs: ragged, one without memory, one without tokens."""
    g = generator(seed)
    query, key = torch.tensor([0, 0, 1, 1, 1, 3, 3, 3, 3]), torch.tensor([0, 0, 0, 2, 2, 3])
    return torch.randn(9, 8, generator=g), torch.randn(6, 12, generator=g), query, key


def test_cross_attention_equals_a_loop():
    h, memory, query, key = across()
    torch.manual_seed(0)
    block = CrossBlock(8, 12, 2)
    found = block(h, memory, Side.of(query, 4), Side.of(key, 4))
    q = block.q(block.norm1(h))
    k, v = block.kv(block.norm_memory(memory)).chunk(2, 1)
    read = torch.zeros_like(h)
    for i in range(9):
        own = key == query[i]
        for c in (slice(0, 4), slice(4, 8)):
            if own.any():
                read[i, c] = (k[own, c] @ q[i, c] / 2).softmax(0) @ v[own, c]
    middle = h + block.out(read)
    torch.testing.assert_close(found, middle + block.mlp(block.norm2(middle)), rtol=1e-5, atol=1e-6)


def test_cross_attention_of_even_graphs_is_that_of_each_alone():
    g = generator(4)
    h, memory, block = torch.randn(6, 8, generator=g), torch.randn(12, 12, generator=g), CrossBlock(8, 12, 2)
    batches = torch.arange(3).repeat_interleave(2), torch.arange(3).repeat_interleave(4)
    together = block(h, memory, *(Side.of(batch, 3) for batch in batches))
    for b in range(3):
        own = [batch[batch == b] * 0 for batch in batches]
        alone = block(h[batches[0] == b], memory[batches[1] == b], *(Side.of(batch, 1) for batch in own))
        torch.testing.assert_close(together[batches[0] == b], alone, rtol=1e-5, atol=1e-6)


def test_cross_attention_leaks_neither_between_graphs_nor_between_tokens():
    h, memory, query, key = across()
    h.requires_grad_(), memory.requires_grad_()
    CrossBlock(8, 12, 2)(h, memory, Side.of(query, 4), Side.of(key, 4))[0].sum().backward()
    assert h.grad.abs().sum(1).nonzero().flatten().tolist() == [0]
    assert memory.grad.abs().sum(1).nonzero().flatten().tolist() == [0, 1, 2]


# variable-length attention


def three(sizes, device="cpu", dtype=torch.float32, seed=5):
    g = generator(seed)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device)
    side = Side(sizes, batch)
    return side, [torch.randn(sum(sizes), 2, 8, generator=g).to(device, dtype).requires_grad_() for _ in range(3)]


def compare(way, device, dtype, tolerance):
    side, given = three(RAGGED, device, dtype)
    twins = [copy.deepcopy(x.detach()).requires_grad_() for x in given]
    padded = side.pack(given[0]), side.pack(given[1]), side.pack(given[2])
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2).float() for x in padded), attn_mask=side.mask
    )
    expected = side.unpack(expected.transpose(1, 2))
    found = way(side, side, *twins)
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    for out in (found, expected):
        (out.float() * torch.arange(out.numel(), device=device).view_as(out).sin()).sum().backward()
    for one, two in zip(twins, given, strict=True):
        torch.testing.assert_close(one.grad.float(), two.grad.float(), rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("way", [attend, attend_nested])
def test_variable_length_attention_equals_filling_up(way):
    compare(way, "cpu", torch.float32, 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length kernels run on a CUDA device only")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_variable_length_attention_on_cuda_equals_filling_up(dtype, tolerance):
    compare(attend, "cuda", dtype, tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sizes", [EVEN, RAGGED, (4, 0, 2)])
def test_a_transformer_on_cuda_is_that_on_the_cpu(sizes):
    graph, some = joined(sizes), body(extra=1)
    there = copy.deepcopy(some).cuda()
    moved = graph.to("cuda")
    torch.testing.assert_close(there(moved, moved.x).cpu(), some(graph, graph.x), rtol=1e-4, atol=1e-4)
