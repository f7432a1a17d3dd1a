"""SkeletonMAE: what its encoder sees, what it rebuilds, and the recipe from sequences to codes."""

import math

import pytest
import torch
from conftest import BODY, KINDS, F, generator

import graphssl
from graphssl.backbones import backbone
from graphssl.data import Dataset
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.heads import EdgeMLP
from graphssl.losses import edge_bce, scaled_cosine
from graphssl.masks import Edges, Parts, Uniform
from graphssl.methods import SkeletonMAE
from graphssl.methods.pairs import absent_pairs
from graphssl.ops import dense
from graphssl.recipes import Spec, get_recipe
from graphssl.tokens import Items, Joints
from graphssl.tokens.skeletons import limbs
from graphssl.train import seeded, train

SMALL = {"width": 16, "inner": 8, "layers": 2}
MOVES = Joints(BODY, steps=6)


def sequences(count: int = 10, frames: int = 12, seed: int = 0) -> torch.Tensor:
    """Bodies [count, frames, 5, 3] whose limbs swing, each at its own pace."""
    g = generator(seed)
    rest = torch.randn(5, 3, generator=g)
    pace, turn = 1 + torch.rand(count, 1, 1, 1, generator=g), torch.randn(count, 1, 5, 3, generator=g)
    time = torch.linspace(0, math.tau, frames).view(1, frames, 1, 1)
    return rest + 0.3 * torch.sin(pace * time + turn)


def dataset(**changes) -> Dataset:
    return Dataset.of_items(Items("skeletons", sequences()), MOVES, name="data", **changes)


def plan(**settings):
    recipe, spec = get_recipe("skeletonmae"), Spec.of(dataset())
    with seeded(0):
        return recipe.plan(spec, recipe.settings(spec, {**SMALL, **settings}))


def method(**changes) -> SkeletonMAE:
    with seeded(0):
        body = backbone("gin", F, [16, 16], norm="none")
        writer = backbone("gin", 16, [F], bare_end=True)
        return SkeletonMAE(Encoder(body), writer, EdgeMLP(16, 8), **changes)


def test_the_losses_are_those_of_the_paper_by_hand():
    graph, made = KINDS["citation"](), method(alpha=2.0, beta=0.5).eval()
    losses = made(graph, generator(4))
    g = generator(4)
    hidden, cut = Uniform(0.5)(graph, g), Edges(0.2)(graph, g)
    x = graph.x.clone()
    x[hidden] = made.mask_token.detach()
    seen = graph.replace(x=x, edge_index=graph.edge_index[:, ~cut])
    codes = made.encoder(seen)
    blank = codes.clone()
    blank[hidden] = 0
    content = made.decoder(graph, made.bridge(blank))[hidden]
    torch.testing.assert_close(losses["content"], scaled_cosine(content, graph.x[hidden], 2.0))
    pairs = graph.edge_index[:, cut]
    others = absent_pairs(graph, pairs.size(1), generator=g)  # the third draw of the same generator
    joined = set(map(tuple, graph.edge_index.T.tolist()))
    assert not any((s, t) in joined or s == t for s, t in others.T.tolist())
    expected = 0.5 * edge_bce(made.score(codes, pairs), made.score(codes, others))
    torch.testing.assert_close(losses["edges"], expected)


def test_the_encoder_sees_neither_hidden_content_nor_hidden_edges():
    graph, made = KINDS["citation"](), method().eval()
    hidden, cut = Uniform(0.5)(graph, generator(1)), Edges(0.3)(graph, generator(2))
    codes = made._encode(graph, hidden, cut)
    other = graph.replace(x=torch.where(hidden[:, None], torch.randn_like(graph.x), graph.x))
    assert torch.equal(codes, made._encode(other, hidden, cut))
    less = graph.keep_edges(~cut)
    without = torch.zeros(less.num_edges, dtype=torch.bool)
    torch.testing.assert_close(codes, made._encode(less, hidden, without))
    assert not torch.allclose(codes, made._encode(graph, hidden, torch.zeros_like(cut)))


def test_the_decoder_sees_no_codes_of_hidden_joints():
    graph, made = KINDS["citation"](), method().eval()
    hidden, codes = Uniform(0.5)(graph, generator(1)), torch.randn(60, 16, generator=generator(2))
    other = torch.where(hidden[:, None], torch.randn_like(codes), codes)
    assert torch.equal(made._decode(graph, codes, hidden, hidden), made._decode(graph, other, hidden, hidden))


def test_reconstructions():
    graph = KINDS["skeleton"]()
    for alpha in (2.0, None):
        hidden, content = method(alpha=alpha).eval().reconstruct(graph, generator())
        assert hidden.sum() == 10
        assert torch.equal(content[~hidden], graph.x[~hidden])
        length, true = content.norm(dim=1)[hidden], graph.x.norm(dim=1)[hidden]
        assert torch.allclose(length, true, rtol=1e-4) == (alpha is not None)


@pytest.mark.parametrize("settings", [{}, {"loss": "mse"}, {"masker": "parts"}, {"encoder": "transformer"}])
def test_both_losses_fall_on_moving_skeletons(settings):
    made, batch = plan(**settings), dataset().batch(range(10))
    optimizer = torch.optim.Adam(made.method.parameters(), 1e-2)
    history = [losses for _, losses in train(made.method, lambda step: batch, optimizer, 80)]
    for name in ("content", "edges"):
        assert sum(h[name].item() for h in history[-10:]) < 0.95 * sum(h[name].item() for h in history[:10])
    codes = made.method.pair_codes(batch)
    assert made.method.score(codes, batch.edge_index).shape == (batch.num_edges,)


def test_parts_are_hidden_together_at_all_times():
    made = plan(masker="parts", mask=0.7)
    assert made.method.masker == Parts(0.7, limbs(BODY, 5)) == Parts(0.7, (1, 0, 2, 3, 3))
    batch = dataset().batch(range(10))
    hidden = made.method.masker(batch, generator()).view(10, 6, 5)
    assert (hidden == hidden[:, :1]).all()
    assert torch.equal(hidden[..., 3], hidden[..., 4])


def test_what_the_recipe_refuses():
    with pytest.raises(UserError, match="parts"):
        plan(masker="part")
    with pytest.raises(UserError, match="sce"):
        plan(loss="cosine")
    with pytest.raises(UserError, match="cut"):
        plan(cut=0.0)
    with pytest.raises(UserError, match="the data has none"):
        graphssl.pretrain(KINDS["no-edges"](), "skeletonmae", progress=False)
    with pytest.raises(UserError, match="choose 'uniform'"):
        graphssl.pretrain(KINDS["citation"](), "skeletonmae", masker="parts", progress=False)


def test_from_sequences_to_codes(tmp_path):
    data = dataset()
    run = graphssl.pretrain(data, "skeletonmae", out=tmp_path / "run", epochs=2, progress=False, frames=2, **SMALL)
    assert run.encoder.dim_in == 6
    codes = run.embed()
    assert codes.shape == (10, 16)
    torch.testing.assert_close(graphssl.load(tmp_path / "run").embed(data), codes)
    assert dense(run.embed(level="node")).size(0) == 10 * 6 * 5


def test_it_runs_on_a_citation_graph():
    run = graphssl.pretrain(KINDS["words"](), "skeletonmae", epochs=2, progress=False, **SMALL)
    assert run.embed().shape == (40, 16)
