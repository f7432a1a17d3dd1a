"""Splits: nothing held out is left in training, absent pairs are absent, the same seed gives the same split."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphssl.data import degree_features, load_dataset, random_splits, to_dataset
from graphssl.data.splits import link_split, with_validation
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import dense


def undirected(nodes=60, edges=200, seed=0, **extra):
    pairs = torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(seed))
    return Graph.build(torch.ones(nodes, 1), torch.cat([pairs, pairs.flip(0)], dim=1), **extra)


def directed(nodes=60, edges=300, seed=0):
    return Graph.build(
        torch.ones(nodes, 1), torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(seed))
    )


def listed(pairs):
    return list(zip(*pairs.tolist(), strict=True))


def either(pairs):
    return {frozenset(pair) for pair in listed(pairs)}


GRAPHS = {
    "undirected": undirected(),  # with self-loops and duplicate edges
    "directed": directed(),
    "dense": undirected(nodes=24, edges=500, seed=1),
    "citations-mini": load_dataset("citations-mini").graph,
}


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("seed", [0, 1])
def test_link_split_holds_out(kind, seed):
    graph = GRAPHS[kind]
    training, split, with_val = link_split(graph, seed)
    kept, full = either(training.edge_index), either(graph.edge_index)
    loops = [pair for pair in listed(graph.edge_index) if pair[0] == pair[1]]
    parts = [split.train, split.val, split.test]
    for part in parts:
        assert len(set(listed(part))) == part.size(1) > 0
        assert either(part) <= full
        assert all(u != v for u, v in listed(part))
    assert not (either(split.val) | either(split.test)) & kept  # in neither direction
    assert not either(split.val) & either(split.test)
    assert either(split.train) | {frozenset([u]) for u, _ in loops} == kept
    assert kept | either(split.val) | either(split.test) == full
    assert either(with_val.edge_index) == kept | either(split.val)
    assert not either(with_val.edge_index) & either(split.test)  # in neither direction
    sources = sorted(
        [*listed(with_val.edge_index), *[e for e in listed(graph.edge_index) if {*e} in either(split.test)]]
    )
    assert sources == sorted(listed(graph.edge_index))  # every other copy and direction is there
    assert [pair for pair in listed(training.edge_index) if pair[0] == pair[1]] == loops
    assert all(set(listed(part)) <= set(listed(graph.edge_index)) for part in parts)
    if kind != "directed":
        couples = len({pair for pair in full if len(pair) == 2})
        assert split.val.size(1) == int(0.05 * couples)
        assert split.test.size(1) == int(0.10 * couples)
        assert all(u < v for part in parts for u, v in listed(part))


@pytest.mark.parametrize("kind", GRAPHS)
def test_absent_pairs_are_absent(kind):
    graph = GRAPHS[kind]
    _, split, _ = link_split(graph)
    assert split.val_absent.shape == split.val.shape
    assert split.test_absent.shape == split.test.shape
    absent = torch.cat([split.val_absent, split.test_absent], dim=1)
    assert len(either(absent)) == absent.size(1)  # no duplicates, and none shared by the two
    assert all(len(pair) == 2 for pair in either(absent))
    assert not either(absent) & either(graph.edge_index)
    assert 0 <= int(absent.min()) <= int(absent.max()) < graph.num_nodes


def test_link_split_is_the_seeds_alone():
    graph = GRAPHS["undirected"]
    torch.manual_seed(0)
    np.random.seed(0)
    first = link_split(graph, 3)
    torch.manual_seed(1)
    np.random.seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    again, other = link_split(graph, 3), link_split(graph, 4)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    assert torch.equal(first[0].edge_index, again[0].edge_index)
    assert torch.equal(first[2].edge_index, again[2].edge_index)
    for key, value in vars(first[1]).items():
        assert torch.equal(value, getattr(again[1], key))
    assert not torch.equal(first[1].test, other[1].test)


def test_attributes_of_edges_travel_along():
    graph = undirected()
    number = torch.arange(graph.num_edges)
    graph = graph.replace(edge_attr=number[:, None].float(), edge_weight=number.float())
    training, _, with_val = link_split(graph)
    for part in (training, with_val):
        kept = part.edge_weight.long()
        assert torch.equal(graph.edge_index[:, kept], part.edge_index)
        assert torch.equal(part.edge_attr[:, 0], part.edge_weight)


def test_link_sets_have_no_labels():
    dataset = load_dataset("citations-mini")
    link = dataset.link(seed=2)
    assert (link.name, link.task, link.y, link.raw, link.level) == ("citations-mini/link", "link", None, None, "node")
    assert list(link.splits) == ["link"]
    assert link.graph.num_edges == dataset.graph.num_edges - 2 * (72 + 144)
    assert dataset.graph.num_edges == 2880
    assert link.with_val.num_edges == dataset.graph.num_edges - 2 * 144
    assert dataset.with_val is None
    assert link.protocols == ("link-dot", "link-mlp", "link-mlp-valmsg", *dataset.protocols)
    assert link.replace(with_val=None).protocols == ("link-dot", "link-mlp", *dataset.protocols)
    unchosen = replace(link.splits["link"][0], val=torch.empty(2, 0, dtype=torch.long))
    assert link.replace(splits={"link": (unchosen,)}).protocols == ("link-dot", *dataset.protocols)
    with pytest.raises(UserError, match="only a set of one graph"):
        link.link()


def test_link_sets_keep_what_is_known_of_the_nodes():
    dataset = load_dataset("citations-mini")
    link = dataset.link(seed=2)
    nodes = link.nodes
    assert (nodes.name, nodes.task, nodes.nodes, nodes.with_val, nodes.raw) == (link.name, "node", None, None, None)
    assert nodes.graph is link.graph  # of training edges
    assert torch.equal(nodes.y, dataset.y)
    assert (nodes.splits, nodes.classes, nodes.metric) == (dataset.splits, dataset.classes, dataset.metric)
    assert nodes.protocols == dataset.protocols
    assert link.as_nodes().graph is link.graph
    assert link.replace(graphs=[link.with_val]).as_nodes().graph is link.with_val
    assert dataset.as_nodes() is dataset
    bare = link.replace(nodes=None).as_nodes()
    assert (bare.task, bare.y, bare.splits, bare.protocols) == ("node", None, {}, ("partition", "reconstruct"))
    unlabelled = dataset.replace(y=None, splits={}).link()
    assert unlabelled.protocols == ("link-dot", "link-mlp", "link-mlp-valmsg", "partition", "reconstruct")
    degrees = dataset.replace(from_degrees=True).link()
    assert torch.equal(dense(degrees.nodes.graph.x), dense(degrees.graph.x))


def test_too_few_edges():
    for edges in ([[0, 1], [1, 0]], [[], []], [[0], [0]]):
        graph = Graph.build(torch.ones(3, 1), torch.tensor(edges, dtype=torch.long))
        with pytest.raises(UserError, match="too few"):
            link_split(graph)
    full = torch.ones(12, 12).nonzero().t()
    with pytest.raises(UserError, match="only 0 pairs"):
        link_split(Graph.build(torch.ones(12, 1), full))
    with pytest.raises(UserError, match="one graph"):
        link_split(Graph.stack([undirected(), undirected()]))


def test_random_splits_are_stratified():
    y = torch.tensor([0] * 100 + [1] * 50 + [2] * 7 + [-1] * 20)
    splits = random_splits(y, repeats=3, seed=5)
    for split in splits:
        rows = torch.cat([split.train, split.val, split.test])
        assert rows.sort().values.tolist() == list(range(157))
        assert torch.bincount(y[split.train]).tolist() == [10, 5, 1]
        assert torch.bincount(y[split.val]).tolist() == [10, 5, 1]
    assert not torch.equal(splits[0].train, splits[1].train)
    assert all(torch.equal(a.train, b.train) for a, b in zip(splits, random_splits(y, 3, seed=5), strict=True))
    assert torch.equal(splits[0].train, random_splits(y, 1, seed=5)[0].train)
    assert not torch.equal(splits[0].train, random_splits(y, 1, seed=6)[0].train)


def test_random_splits_of_numbers_and_counts():
    (split,) = random_splits(50, 1, train=0.8)
    assert (len(split.train), len(split.val), len(split.test)) == (40, 5, 5)
    y = torch.rand(50)
    y[:10] = float("nan")
    (split,) = random_splits(y, 1, train=0.5, val=0.25)
    assert (len(split.train), len(split.val), len(split.test)) == (20, 10, 10)
    assert int(split.train.min()) >= 10
    (lonely,) = random_splits(torch.tensor([0, 1, 1]), 1)
    assert (lonely.train.tolist()[0], len(lonely.train), len(lonely.test)) == (0, 2, 1)


def test_validation_out_of_the_rest():
    split = with_validation(np.arange(10), np.arange(20, 30), np.arange(40), count=15)
    assert len(split.val) == 15
    assert not set(split.val.tolist()) & {*range(10), *range(20, 30)}
    assert torch.equal(split.val, with_validation(np.arange(10), np.arange(20, 30), np.arange(40), count=15).val)
    assert len(with_validation(np.arange(10), np.arange(20, 30), np.arange(40)).val) == 20


def test_features_of_degrees_do_not_count_validation_edges():
    dataset = to_dataset(GRAPHS["undirected"], name="mine")
    graph = dataset.graph.replace(x=degree_features(dataset.graph.edge_index, 60))
    link = dataset.replace(graphs=[graph], from_degrees=True).link()
    degree = torch.bincount(link.graph.edge_index[1], minlength=60)
    for part in (link.graph, link.with_val):
        assert torch.equal(dense(part.x).argmax(1), degree)


def test_link_of_own_data():
    graph = GRAPHS["directed"]
    assert to_dataset(graph, name="mine").link().name == "mine/link"
