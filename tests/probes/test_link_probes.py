"""Dot products and decoders against counting pairs, and that no held-out pair reaches an encoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

import graphssl
from graphssl.backbones import Backbone, backbone
from graphssl.data.dataset import Dataset, Split
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.methods import Method
from graphssl.ops import sample_negatives
from graphssl.probes import EDGE_EXPOSURE, LinkCodes, judge
from graphssl.probes import link as probes


def link_set(N: int = 40) -> tuple[torch.Tensor, Dataset]:
    g = torch.Generator().manual_seed(0)
    pairs = torch.triu_indices(N, N, 1)
    pairs = pairs[:, torch.randperm(pairs.size(1), generator=g)]
    train, val, val_absent, test, test_absent = pairs[:, :260].split([100, 30, 30, 50, 50], 1)
    both = torch.cat([train, train.flip(0)], 1)
    graph = Graph.build(torch.ones(N, 1), both)
    split = Split(train, val, test, val_absent, test_absent)
    codes = torch.randint(-2, 3, (N, 4), generator=g).float()  # whole numbers, so that scores tie
    return codes, Dataset(name="links", graphs=[graph], task="link", splits={"link": (split,)})


def test_auc_counts_pairs(monkeypatch):
    monkeypatch.setattr(probes, "CHUNK", 13)
    codes, dataset = link_set()
    split = dataset.splits["link"][0]
    outcome = judge(codes, dataset, "link-dot", notes=[EDGE_EXPOSURE])

    def figures(present, absent):
        up = [float(codes[a] @ codes[b]) for a, b in present.t()]
        down = [float(codes[a] @ codes[b]) for a, b in absent.t()]
        won = sum((u > d) + 0.5 * (u == d) for u in up for d in down)
        truth = [1] * len(up) + [0] * len(down)
        return 100 * won / len(up) / len(down), 100 * average_precision_score(truth, up + down)

    expected = (*figures(split.test, split.test_absent), *figures(split.val, split.val_absent))
    names = ["AUC", "AP", "MRR", "Hits@20", "Hits@50", "Hits@100"]
    assert list(outcome.metrics) == [*names, *(f"{name}, validation" for name in names)]
    figures_of = [outcome.metrics[name] for name in ("AUC", "AP", "AUC, validation", "AP, validation")]
    assert figures_of == pytest.approx(expected)
    assert outcome.notes == (EDGE_EXPOSURE,)
    assert outcome.std is None


def test_pairs_that_encoders_see_are_said():
    codes, dataset = link_set()
    split = dataset.splits["link"][0]
    leaky = replace(split, test=torch.cat([split.test[:, 2:], split.train[:, :2].flip(0)], 1))
    assert judge(codes, dataset.replace(splits={"link": (leaky,)}), "link-dot").notes == (
        "2 of 50 test pairs are edges of the graph that encoders see",
    )


def test_splits_without_pairs():
    codes, dataset = link_set()
    split = dataset.splits["link"][0]
    none = split.test[:, :0]

    def outcome(**parts):
        return judge(codes, dataset.replace(splits={"link": (replace(split, **parts),)}), "link-dot")

    with pytest.raises(UserError, match="no test rows"):
        outcome(test=none)
    with pytest.raises(UserError, match="no absent test pairs"):
        outcome(test_absent=none)
    with pytest.raises(UserError, match="no absent validation pairs"):
        outcome(val_absent=None)
    assert not any("validation" in name for name in outcome(val=none, val_absent=none).metrics)
    unchosen = dataset.replace(splits={"link": (replace(split, val=none, val_absent=none),)})
    with pytest.raises(UserError, match="no validation rows"):
        judge(codes, unchosen, "link-mlp")


def named(outcome):
    return {name: value for name, value in outcome.metrics.items() if "validation" not in name}


def test_the_methods_own_decoder_gives_the_score_and_the_trained_one_stands_beside():
    codes, dataset = link_set()
    calls = []

    def score(codes, pairs):
        calls.append(pairs)
        return (codes[pairs[0]] * codes[pairs[1]]).sum(1)

    own, trained = judge(LinkCodes(codes, score=score), dataset, "link-mlp"), judge(codes, dataset, "link-mlp")
    dot = judge(codes, dataset, "link-dot")
    assert calls
    assert own.notes == ("scored by the method's own decoder",)
    assert trained.notes == ("scored by a decoder that the protocol trained on the training pairs",)
    assert (own.std, own.repeats) == (None, 1)
    assert (trained.std_over, trained.repeats) == ("3 probe initialisations", 3)
    beside = {f"{name}, trained decoder": value for name, value in named(trained).items()}
    assert named(own) == {**named(dot), **beside}
    assert own.score == dot.score
    assert judge(LinkCodes(codes, score=score), dataset, "link-dot") == dot


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (lambda codes, pairs: torch.full((pairs.size(1),), torch.nan), "gave NaN for 100 pairs"),
        (lambda codes, pairs: codes[pairs[0]], r"gave shape \(100, 4\) for 100 pairs"),
    ],
)
def test_a_decoder_that_returns_no_scores_is_named(score, words):
    codes, dataset = link_set()
    with pytest.raises(UserError, match=words):
        judge(LinkCodes(codes, score=score), dataset, "link-mlp")


def test_the_trained_decoder_is_what_adam_makes_of_one_network(monkeypatch):
    """The wide layer in parts of a batch against torch.nn's layers on all pairs at once."""
    monkeypatch.setattr(probes, "BATCH", 7)
    monkeypatch.setattr(probes, "EPOCHS", 5)
    monkeypatch.setattr(probes, "CHUNK", 13)
    codes, dataset = link_set()
    codes = torch.cat([codes, torch.full((40, 1), 0.1)], 1)  # a constant column
    (exam,) = probes.set_decoder_exams(codes, dataset).exams
    ours = probes.fit_decoder(exam.seen, (3,)).predict(exam.questions)[""]

    std = codes.std(0, correction=0)
    std[4] = 1
    rows = (codes - codes.mean(0)) / std
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 1))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            for parameter in (layer.weight, layer.bias):
                parameter.uniform_(-(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    said = lambda ends: net(rows[ends[0]] * rows[ends[1]])[:, 0]  # noqa: E731
    train, found = exam.seen.train.ends, []
    for _ in range(5):
        absent = sample_negatives(dataset.graph, train.size(1), generator)
        pairs, y = torch.cat([train, absent], 1), torch.cat([torch.ones(train.size(1)), torch.zeros(train.size(1))])
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(said(pairs), y).backward()
        optimizer.step()
        with torch.no_grad():
            auc = float(exam.seen.metric(said(exam.seen.val.ends), exam.seen.val_y))
            found.append((auc, said(exam.questions.ends)))
    best = max(range(5), key=lambda epoch: (found[epoch][0], -epoch))
    torch.testing.assert_close(ours[0], found[best][1], rtol=1e-4, atol=1e-4)


def test_each_initialisation_trains_as_if_alone(monkeypatch):
    monkeypatch.setattr(probes, "EPOCHS", 5)  # before any would be stopped
    codes, dataset = link_set()
    (exam,) = probes.set_decoder_exams(codes, dataset).exams
    both, one = (probes.fit_decoder(exam.seen, seeds).predict(exam.questions)[""] for seeds in ((3, 4), (3,)))
    assert both.shape == (2, 100)
    torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[0], both[1])


def test_test_pairs_of_valmsg_are_scored_on_codes_of_the_other_graph():
    codes, dataset = link_set()
    split = dataset.splits["link"][0]
    both = torch.cat([split.train, split.val], 1)
    known = dataset.replace(with_val=Graph.build(torch.ones(40, 1), torch.cat([both, both.flip(0)], 1)))
    other = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    dot = lambda codes, pairs: (codes[pairs[0]] * codes[pairs[1]]).sum(1)  # noqa: E731
    outcome = judge(LinkCodes(codes, other, dot), known, "link-mlp-valmsg")
    plain = judge(LinkCodes(codes, other, dot), known, "link-mlp")
    assert outcome.score == judge(other, dataset, "link-dot").score
    assert plain.score == judge(codes, dataset, "link-dot").score
    assert outcome.metrics["AUC, validation"] == plain.metrics["AUC, validation"]  # chosen on the training graph's
    same = judge(LinkCodes(codes, codes), known, "link-mlp-valmsg")
    assert same.metrics == judge(codes, known, "link-mlp").metrics
    leaky = known.replace(splits={"link": (replace(split, test=split.val, val=split.test),)})
    notes = judge(LinkCodes(codes, other), leaky, "link-mlp-valmsg").notes
    assert notes[0] == "30 of 30 test pairs are edges of the graph that encoders see"
    with pytest.raises(UserError, match=r"needs the encoder and got an array of codes; .* judge by link-mlp$"):
        judge(codes, known, "link-mlp-valmsg")
    with pytest.raises(UserError, match=r"is not known; make a link set with dataset.link\(seed\)"):
        judge(LinkCodes(codes, other), dataset, "link-mlp-valmsg")
    with pytest.raises(UserError, match="width 4 and those with validation edges 3; give both of one encoder"):
        judge(LinkCodes(codes, other[:, :3]), known, "link-mlp-valmsg")
    nodes = Dataset(name="nodes", graphs=dataset.graphs, task="node", y=torch.arange(40) % 2)
    with pytest.raises(UserError, match="is no link set"):
        judge(LinkCodes(codes), nodes.replace(splits={"a": (Split(*torch.arange(39).split(13)),)}), "node-knn")


def test_absent_pairs_of_training_come_from_the_graph_alone(monkeypatch):
    """Held-out pairs may be among them: a decoder must not know that they are joined."""
    codes, dataset = link_set()
    asked, drawn = [], []

    def spy(graph, count, generator):
        asked.append((graph, count))
        drawn.append(sample_negatives(graph, count, generator))
        return drawn[-1]

    monkeypatch.setattr(probes, "sample_negatives", spy)
    judge(codes, dataset, "link-mlp")
    assert len(asked) > 20
    assert all(graph is dataset.graph and count == 100 for graph, count in asked)
    assert not torch.equal(drawn[0], drawn[1])


class Spy(Backbone):
    """One layer that writes down every edge_index that it is shown."""

    def __init__(self, dim_in: int, dim: int = 8):
        super().__init__(backbone("gcn", dim_in, [dim]).layers)
        self.shown: list[torch.Tensor] = []

    def __deepcopy__(self, memo):
        twin = Spy(self.dim_in, self.dim)
        twin.load_state_dict(self.state_dict())
        twin.shown = self.shown  # the copy that is trained writes on the same sheet
        return twin

    def forward(self, graph, h, rows=None):
        self.shown.append(graph.edge_index)
        return super().forward(graph, h, rows)


class Own(Method):
    """Tells edges from absent pairs by dot products."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, graph, generator=None):
        codes = self.encoder(graph)
        absent = sample_negatives(graph, graph.num_edges, generator)
        return {"edges": -nn.functional.logsigmoid(self.score(codes, graph.edge_index)).mean()
                - nn.functional.logsigmoid(-self.score(codes, absent)).mean()}  # fmt: skip

    def score(self, codes, pairs):
        return (codes[pairs[0]] * codes[pairs[1]]).sum(1)


def either(pairs: torch.Tensor) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in pairs.t().tolist()}


def test_no_held_out_pair_reaches_an_encoder(monkeypatch):
    monkeypatch.setattr(probes, "EPOCHS", 20)
    g = torch.Generator().manual_seed(0)
    pairs = torch.randint(120, (2, 400), generator=g)
    graph = Graph.build(torch.randn(120, 6, generator=g), torch.cat([pairs, pairs.flip(0)], 1).unique(dim=1))
    parts = torch.randperm(120, generator=g).split(40)
    nodes = Dataset(name="nodes", graphs=[graph], task="node", y=torch.arange(120) % 3, splits={"a": (Split(*parts),)})
    link = nodes.link(0)
    assert {"link-dot", "link-mlp", "link-mlp-valmsg", "node-linear", "partition"} <= set(link.protocols)
    split = link.splits["link"][0]
    val, test = either(split.val), either(split.test)
    spy = Spy(link.dim)
    shown = spy.shown

    def seen() -> set[frozenset[int]]:
        assert shown
        pairs = set().union(*(either(edges) for edges in shown))
        shown.clear()
        return pairs

    run = graphssl.pretrain(link, Own(Encoder(spy)), epochs=3, progress=False)
    assert len(shown) >= 3
    assert not seen() & (val | test)
    run.embed()
    assert not seen() & (val | test)
    for protocol in ("link-dot", "link-mlp"):
        report = run.evaluate(protocol=protocol)
        assert len(shown) == 2  # of the trained and the untrained encoder
        assert not seen() & (val | test)
    assert "scored by the method's own decoder" in report.rows[0].notes
    assert not any("own decoder" in note for row in report.rows[1:] for note in row.notes)
    report = run.evaluate(protocol="link-mlp-valmsg")
    assert len(shown) == 4
    pairs = seen()
    assert val <= pairs
    assert not pairs & test
    everything = run.evaluate()
    assert len(shown) == 4  # each graph once an encoder
    assert not seen() & test
    assert everything.protocols == link.protocols
    assert next(row for row in everything.rows if row.protocol == report.protocol).score == report.score
    graphssl.evaluate(run.encoder, link)
    assert len(shown) == 2
    assert not seen() & test
