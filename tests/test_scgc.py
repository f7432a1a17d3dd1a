"""SCGC: its losses as paper and reference have them, in slow loops; its neighbours; what it finds without labels."""

import copy
import math
import os
import signal

import numpy as np
import pytest
import torch
from conftest import KINDS, generator, random_graph
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import graphssl
from graphssl.backbones import backbone
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.methods import SCGC
from graphssl.methods.scgc import near_contrast, near_nodes, refinement, soft_clusters
from graphssl.train import train

SMALL = {"hidden": 16, "inner": 16, "width": 6, "progress": False}


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_contrast_is_the_references_in_loops():
    codes, tau = torch.randn(9, 4, generator=generator(0)), 0.7
    near = torch.randint(9, (9, 5), generator=generator(1))
    near[3] = 3  # a node whose walks all came back
    z, total = codes.tolist(), 0.0
    for i in range(9):
        similar = [0.0 if j == i else cosine(z[i], z[j]) / tau for j in range(9)]  # the reference's masked diagonal
        pulled = sum(math.exp(similar[j]) for j in near[i].tolist()) / 5
        total -= math.log(pulled / sum(map(math.exp, similar))) / 9
    assert near_contrast(codes, near, tau).item() == pytest.approx(total, rel=1e-5)


def test_contrast_with_the_dense_power_is_that_of_all_draws():
    """With every neighbour drawn as often as the matrix says, the loss is the one that the reference writes with it."""
    graph, codes = ring(6), torch.randn(6, 3, generator=generator(2))
    near = torch.tensor([[(i - 1) % 6, i, (i + 1) % 6] for i in range(6)])
    z = torch.nn.functional.normalize(codes, dim=1)
    similar = (z @ z.T).fill_diagonal_(0.0).div(2.0).exp()
    loss = -(similar.mul(power(graph, 1)).sum(1) / similar.sum(1)).log().mean()
    torch.testing.assert_close(near_contrast(codes, near, 2.0), loss)


def test_contrast_of_one_node_of_zeros_and_of_steep_temperatures_is_finite():
    alone = near_contrast(torch.ones(1, 3), torch.zeros(1, 2, dtype=torch.long), 0.5)
    assert alone.item() == pytest.approx(0, abs=1e-5)
    codes = torch.zeros(5, 3, requires_grad=True)
    loss = near_contrast(codes, torch.arange(5)[:, None].roll(1, 0), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5))  # every cosine is 0
    assert codes.grad.isfinite().all()
    steep = near_contrast(torch.randn(20, 3, generator=generator(0)), torch.zeros(20, 2, dtype=torch.long), 0.02)
    assert steep.isfinite()


def test_sampled_negatives_are_the_exact_loss_on_average():
    codes = torch.randn(60, 8, generator=generator(3))
    near = torch.randint(60, (60, 4), generator=generator(4))
    exact = near_contrast(codes, near, 1.0)
    drawn = torch.stack([near_contrast(codes, near, 1.0, 20, generator(seed)) for seed in range(200)])
    assert drawn.std() > 0
    assert drawn.mean().item() == pytest.approx(exact.item(), abs=0.02)


def test_soft_clusters_and_their_refinement_in_loops():
    codes, centres = torch.randn(7, 3, generator=generator(0)), torch.randn(4, 3, generator=generator(1))
    q = []
    for z in codes.tolist():
        kernel = [1 / (1 + sum((a - b) ** 2 for a, b in zip(z, c, strict=True))) for c in centres.tolist()]
        q.append([k / sum(kernel) for k in kernel])
    torch.testing.assert_close(soft_clusters(codes, centres), torch.tensor(q))
    size = [sum(row[c] for row in q) for c in range(4)]
    total = 0.0
    for row in q:
        sharp = [v**2 / s for v, s in zip(row, size, strict=True)]
        total += sum(p / sum(sharp) * math.log(p / sum(sharp) / v) for p, v in zip(sharp, row, strict=True)) / 7
    assert refinement(torch.tensor(q)).item() == pytest.approx(total, rel=1e-5)
    assert refinement(torch.eye(3).clamp(min=1e-12)).item() == pytest.approx(0, abs=1e-6)  # sure already


def test_the_target_of_the_refinement_takes_no_gradient():
    logits = torch.randn(6, 3, generator=generator(2), requires_grad=True)
    soft = logits.softmax(1)
    refinement(soft).backward()
    sharp = (soft.square() / soft.sum(0)).detach()
    sharp = sharp / sharp.sum(1, keepdim=True)
    torch.testing.assert_close(logits.grad, (soft.detach() - sharp) / 6)  # of a cross-entropy with fixed targets


# neighbours


def ring(n):
    node = torch.arange(n)
    edges = torch.stack([node, (node + 1) % n])
    return Graph.build(torch.ones(n, 2), torch.cat([edges, edges.flip(0)], 1))


def power(graph, hops):
    """(D^-1 (A + I))^hops, dense: row i holds what node i's walks should find."""
    A = torch.eye(graph.num_nodes, dtype=torch.double)
    for source, target in graph.edge_index.t().tolist():
        A[target, source] += 1
    return torch.linalg.matrix_power(A / A.sum(1, keepdim=True), hops).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("influence", [False, True])
def test_near_nodes_are_within_reach_and_never_another(kind, hops, influence):
    graph = KINDS[kind]()
    near = near_nodes(graph, 7, hops, influence, generator(0))
    assert near.shape == (graph.num_nodes, 7 * (hops if influence else 1))
    reach = power(graph, hops) > 0
    assert reach.gather(1, near).all()
    assert (graph.batch[near] == graph.batch[:, None]).all()


@pytest.mark.parametrize("influence", [False, True])
def test_near_nodes_come_as_often_as_the_power_of_the_matrix_says(influence):
    graph = random_graph(8, 3, edges_per_node=1.0)
    near = near_nodes(graph, 20000, 3, influence, generator(0))
    found = torch.stack([torch.bincount(row, minlength=8) / len(row) for row in near])
    powers = [power(graph, k) for k in ((1, 2, 3) if influence else (3,))]
    torch.testing.assert_close(found, torch.stack(powers).mean(0), atol=0.02, rtol=0)


# the method


def method(clusters=3, warmup=0.5, **settings):
    encoder = Encoder(backbone("mlp", 12, [8, 4], activation="relu", bare_end=True))
    decoder = backbone("mlp", 4, [8, 12], activation="relu", bare_end=True)
    return SCGC(encoder, decoder, clusters, warmup=warmup, **settings)


def test_warm_up_reconstructs_and_then_k_means_sets_the_centres():
    graph, scgc = KINDS["citation"](), method()
    optimizer = torch.optim.Adam(scgc.parameters(), 1e-2)
    names = []
    for step, losses in train(scgc, lambda step: graph, optimizer, 10):
        names.append(sorted(set(losses) - {"loss"}))
        assert bool(scgc.begun) == scgc.settled == (step > 5)
    assert names == [["content"]] * 5 + [["clusters", "content", "near"]] * 5

    fresh = method(beta=1.0)
    fresh.progress.fill_(0.5)
    codes = fresh.encoder(graph).detach()
    fresh(graph, generator(0))
    best = KMeans(3, n_init=50, random_state=5).fit(codes.numpy()).inertia_
    nearest = torch.cdist(codes, fresh.centres.detach()).min(1).values
    assert nearest.square().sum().item() == pytest.approx(best, rel=0.05)
    before = fresh.centres.detach().clone()
    fresh(graph, generator(1))
    assert torch.equal(fresh.centres, before)  # k-means once


def test_the_total_weighs_the_terms():
    losses = {name: torch.tensor(v) for name, v in (("content", 1.0), ("near", 10.0), ("clusters", 100.0))}
    scgc = method(alpha=2.0, beta=0.5, gamma=3.0)
    assert scgc.total(losses) == 3 + 20 + 50
    assert scgc.total({"content": torch.tensor(1.0)}) == 1  # the warm-up


def test_the_reconstruction_is_of_some_nodes_and_right():
    graph, scgc = KINDS["citation"](), method(content_nodes=60)
    loss = scgc(graph, generator(0))["content"]
    whole = (scgc.decoder(graph, scgc.encoder(graph)) - graph.x).square().mean()
    torch.testing.assert_close(loss, whole)
    some = method(content_nodes=10)
    seen = []
    some.decoder.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    some(graph, generator(0))
    some.progress.fill_(0.9)
    some(graph, generator(0))
    assert seen == [(10, 12), (10, 12)]


def test_fewer_nodes_than_clusters_are_refused():
    with pytest.raises(UserError, match="choose fewer clusters"):
        method(clusters=50, warmup=0.0)(KINDS["odd"](), generator(0))
    for clusters in (1, 100):
        with pytest.raises(UserError, match="clusters"):
            graphssl.pretrain(KINDS["citation"](), "scgc", clusters=clusters, epochs=1, **SMALL)


def test_a_run_that_goes_on_after_the_warm_up_or_before_it_ends_in_the_same_bits(tmp_path, monkeypatch):
    settings = dict(clusters=3, epochs=12, warmup=0.5, lr=1e-2, **SMALL)
    graph = KINDS["citation"]()
    whole = graphssl.pretrain(graph, "scgc", **settings)
    after = SCGC.after_step
    for stop in (4, 9):
        folder = tmp_path / str(stop)

        def interrupted(self, progress, stop=stop):
            after(self, progress)
            if round(12 * progress) == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(SCGC, "after_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            graphssl.pretrain(graph, "scgc", out=folder, **settings)
        monkeypatch.setattr(SCGC, "after_step", after)
        again = graphssl.pretrain(graph, "scgc", out=folder, resume=True, **settings)
        assert torch.equal(again.embed(), whole.embed())
        assert torch.equal(again.method.centres, whole.method.centres)
    on = graphssl.pretrain(graph, whole, progress=False, epochs=2)
    assert np.isfinite(on.history["near"]).all()  # no second warm-up


def test_going_on_after_the_warm_up_has_the_rate_of_after_the_warm_up():
    settings = dict(clusters=3, warmup=0.5, lr=1e-2, warmup_lr=1e-4, **SMALL)
    run = graphssl.pretrain(KINDS["citation"](), "scgc", epochs=4, **settings)
    assert run.history["lr"] == [1e-4] * 2 + [1e-2] * 2
    assert graphssl.pretrain(KINDS["citation"](), run, progress=False, epochs=3).history["lr"] == [1e-2] * 3
    early = graphssl.pretrain(KINDS["citation"](), "scgc", epochs=1, **settings)  # never past it
    assert not early.method.settled


def block_model(n=300, blocks=3, seed=0):
    """A stochastic block model whose features tell little of the blocks."""
    g = generator(seed)
    y = torch.arange(n) % blocks
    same = y[:, None] == y
    joined = torch.rand(n, n, generator=g) < torch.where(same, 0.1, 0.005)
    edges = joined.triu(1).nonzero().t()
    x = torch.randn(n, 20, generator=g) + 1.0 * torch.nn.functional.one_hot(y, 20)
    return Graph.build(x, torch.cat([edges, edges.flip(0)], 1)), y


def agreement(codes, y):
    found = KMeans(int(y.max()) + 1, n_init=10, random_state=0).fit_predict(codes.numpy())
    return normalized_mutual_info_score(y, found), adjusted_rand_score(y, found)


@pytest.mark.parametrize("settings", [{}, {"influence": True, "gamma": 0.0}], ids=["scgc", "scgc-star"])
def test_blocks_that_features_hardly_show_are_found_at_the_last_epoch(settings):
    graph, y = block_model()
    small = dict(clusters=3, hidden=64, inner=64, epochs=120, warmup=0.2, lr=3e-3, progress=False)
    run = graphssl.pretrain(graph, "scgc", **small, **settings)
    nmi, ari = agreement(run.embed(), y)
    raw_nmi, raw_ari = agreement(graph.x, y)
    assert nmi > raw_nmi + 0.2
    assert ari > raw_ari + 0.2
    soft = run.method.clusters(run.embed())
    torch.testing.assert_close(soft, soft_clusters(run.embed(), run.method.centres.detach()))
    assert not soft.requires_grad
    assert adjusted_rand_score(y, soft.argmax(1)) > raw_ari + 0.2


def test_clusters_that_are_not_there_are_refused():
    for scgc, words in ((method(clusters=0, warmup=0.0), "clusters=..."), (method(), "train on")):
        with pytest.raises(UserError, match=words):
            scgc.clusters(torch.zeros(5, 4))


def test_going_on_leaves_the_method_that_was_handed_in():
    scgc = method(warmup=0.0)
    before = copy.deepcopy(scgc.state_dict())
    graphssl.pretrain(KINDS["citation"](), scgc, epochs=2, progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in scgc.state_dict().items())
