"""Parts against the node protocol on them as labels, rankings against slow loops, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from graphssl import structure
from graphssl.data import load_dataset
from graphssl.data.dataset import Dataset
from graphssl.data.splits import random_splits
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.probes import LinkCodes, judge, topology
from graphssl.probes import metrics as m


def graph_of(N: int, edges: torch.Tensor, y: torch.Tensor | None = None) -> Dataset:
    return Dataset(name="nodes", graphs=[Graph.build(torch.ones(N, 1), edges)], task="node", y=y)


def ring(N: int) -> Dataset:
    return graph_of(N, torch.stack([torch.arange(N), (torch.arange(N) + 1) % N]))


def scattered(N: int = 70, seed: int = 0, edges: int = 60) -> Dataset:
    """Pieces of several sizes, directed and doubled edges, self-loops and nodes without a neighbour."""
    return graph_of(N, torch.randint(N, (2, edges), generator=torch.Generator().manual_seed(seed)))


def random_codes(N: int, width: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(seed))


def test_a_rankings_precision_is_sklearns():
    scores = random_codes(30, 25).mul(2).round()  # with ties
    relevant = torch.rand(2, 30, 25, generator=torch.Generator().manual_seed(2)) < 0.2
    relevant[:, 3] = False
    relevant[:, 4] = True
    found = m.ranking_precision(scores, relevant)
    assert found.shape == (2, 30)
    for row in range(30):
        for kind in range(2):
            truth = relevant[kind, row].numpy()
            expected = 100 * average_precision_score(truth, scores[row].numpy()) if truth.any() else 0.0
            assert float(found[kind, row]) == pytest.approx(expected)


def neighbours_by_hand(edges: torch.Tensor, N: int) -> list[set[int]]:
    near: list[set[int]] = [set() for _ in range(N)]
    for a, b in edges.t().tolist():
        if a != b:
            near[a].add(b)
            near[b].add(a)
    return near


def precision_by_hand(codes: torch.Tensor, edges: torch.Tensor, hops: int, like) -> float:
    """Mean over all nodes with a neighbour; all scores differ."""
    N, found = len(codes), []
    near = neighbours_by_hand(edges, N)
    for source in range(N):
        within = {source}
        for _ in range(hops):
            within |= {there for node in within for there in near[node]}
        within -= {source}
        if not near[source]:
            continue
        ranking = sorted((j for j in range(N) if j != source), key=lambda j: -like(codes[source], codes[j]))
        hits, total = 0, 0.0
        for place, node in enumerate(ranking, 1):
            if node in within:
                hits += 1
                total += hits / place
        found.append(100 * total / len(within))
    return float(np.mean(found))


def test_reconstruction_is_that_of_slow_loops(monkeypatch):
    dataset = scattered()
    codes, edges = random_codes(70), dataset.graph.edge_index
    outcome = judge(codes, dataset, "reconstruct")
    cosine = lambda a, b: float(F.cosine_similarity(a.double(), b.double(), dim=0))  # noqa: E731
    product = lambda a, b: float(a.double() @ b.double())  # noqa: E731
    names = ["mAP, 1 hop", "mAP, 2 hops", "mAP, 3 hops"]
    assert list(outcome.metrics) == names + [f"{name}, dot product" for name in names]
    for k, name in enumerate(names, 1):
        assert outcome.metrics[name] == pytest.approx(precision_by_hand(codes, edges, k, cosine))
        by_dot = outcome.metrics[f"{name}, dot product"]
        assert by_dot == pytest.approx(precision_by_hand(codes, edges, k, product))
    assert (outcome.std, outcome.repeats, outcome.score) == (None, 1, outcome.metrics["mAP, 1 hop"])
    monkeypatch.setattr(topology, "CHUNK", 1)
    assert judge(codes, dataset, "reconstruct").metrics == pytest.approx(outcome.metrics)


def test_codes_that_are_the_graph_give_100_and_random_ones_chance():
    N = 400
    angle = 2 * torch.pi * torch.arange(N) / N
    around = torch.stack([angle.cos(), angle.sin()], 1)
    assert set(judge(around, ring(N), "reconstruct").metrics.values()) == {100.0}
    runs = [judge(random_codes(N, seed=seed), ring(N), "reconstruct").metrics for seed in range(8)]
    chance = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    others, harmonic = N - 1, sum(1 / place for place in range(1, N))
    for k in (1, 2, 3):  # the mean over all orders in which 2 k of the others may come
        expected = 100 / others * (harmonic + (2 * k - 1) / (others - 1) * (others - harmonic))
        for name in (f"mAP, {k} hop{'s' * (k > 1)}", f"mAP, {k} hop{'s' * (k > 1)}, dot product"):
            assert chance[name] == pytest.approx(expected, rel=0.25)
    nothing = judge(torch.zeros(N, 3), ring(N), "reconstruct").metrics  # all the same: any order
    assert nothing["mAP, 2 hops"] == pytest.approx(100 * 4 / others)


def test_up_to_500_nodes_that_have_a_neighbour_are_the_same_for_all(monkeypatch):
    asked = []
    hops = structure.hops
    monkeypatch.setattr(
        structure, "hops", lambda graph, sources, limit: asked.append(sources) or hops(graph, sources, limit)
    )
    few, many = scattered(), ring(900)
    judge(random_codes(70), few, "reconstruct")
    judge(random_codes(900), many, "reconstruct")
    judge(random_codes(900, seed=9), many, "reconstruct", seed=4)
    near = neighbours_by_hand(few.graph.edge_index, 70)
    assert sorted(asked[0].tolist()) == [node for node in range(70) if near[node]]
    assert len(asked[0]) < 70
    assert len(asked[1].unique()) == 500
    assert torch.equal(asked[1], asked[2])


def test_a_graph_without_edges_has_nothing_to_ask_for():
    loops = graph_of(120, torch.arange(120).expand(2, -1))
    for dataset in (loops, graph_of(120, torch.empty(2, 0, dtype=torch.long))):
        assert dataset.protocols == ()
        with pytest.raises(UserError, match="no two nodes of 'nodes' are joined"):
            judge(random_codes(120), dataset, "reconstruct")
    assert scattered(99).protocols == ("reconstruct",)
    assert scattered(100).protocols == ("partition", "reconstruct")
    with pytest.raises(UserError, match="cannot cut 9 nodes into 10 parts"):
        judge(random_codes(9), ring(9), "partition")


def test_without_metis_parts_are_not_offered(monkeypatch):
    monkeypatch.setattr("graphssl.data.dataset.find_spec", lambda name: None)
    assert scattered(100).protocols == ("reconstruct",)


def test_parts_are_judged_as_labels_would_be():
    dataset = load_dataset("citations-mini")
    codes = random_codes(dataset.graph.num_nodes)
    codes[:, :5] += F.one_hot(structure.partition(dataset.graph, 10, 12345) % 5)
    parts = structure.partition(dataset.graph, 10, 12345)
    split = random_splits(dataset.graph.num_nodes, 1, 12345, train=0.1, val=0.1)
    labelled = dataset.replace(y=parts, splits={"random": split}, name="mine")
    outcome = judge(codes, dataset, "partition", seed=3)
    assert outcome == judge(codes, labelled, "node-linear", seed=3)
    assert outcome.std_over == "3 probe initialisations"
    assert 15 < outcome.score < 95
    unlabelled = dataset.replace(y=None, splits={}, name="other")
    assert judge(codes, unlabelled, "partition", seed=3) == outcome


def test_codes_that_know_nothing_of_the_graph_find_parts_by_chance():
    dataset = load_dataset("citations-mini")
    tested = 0.8 * dataset.graph.num_nodes
    score = judge(random_codes(dataset.graph.num_nodes), dataset, "partition").score
    assert abs(score - 10) < 4 * 100 * (0.1 * 0.9 / tested) ** 0.5 + 2  # parts differ a little in size


def test_on_a_link_set_the_graph_is_that_of_the_training_edges():
    dataset = load_dataset("citations-mini")
    link = dataset.link()
    codes = random_codes(dataset.graph.num_nodes)
    for name in ("partition", "reconstruct"):
        outcome = judge(codes, link, name)
        assert outcome == judge(LinkCodes(codes, codes + 1), link, name)
        assert outcome == judge(codes, graph_of(len(codes), link.graph.edge_index), name)
        assert outcome != judge(codes, dataset, name)
        assert outcome == judge(codes, link.replace(nodes=None), name)
