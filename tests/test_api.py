"""The public contract in Python: what comes in, what comes back, what is refused."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch_geometric.nn as pyg
from conftest import BASELINES, KINDS
from torch import nn
from torch_geometric.data import Data

import graphssl
from graphssl.masks import Uniform
from graphssl.methods import GraphMAE
from graphssl.ops import dense

SMALL = {"width": 16, "heads": 2, "epochs": 4, "progress": False}


def cited(n: int = 60, seed: int = 0) -> Data:
    """A small labelled graph whose classes show in features and edges, with masks."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.randn(n, 8, generator=g) + 2 * nn.functional.one_hot(y, 8)
    pairs = torch.randint(n, (2, 6 * n), generator=g)
    pairs = pairs[:, (y[pairs[0]] == y[pairs[1]]) | (torch.rand(pairs.size(1), generator=g) < 0.1)]
    part = torch.rand(n, generator=g)
    masks = {"train_mask": part < 0.4, "val_mask": (part >= 0.4) & (part < 0.6), "test_mask": part >= 0.6}
    return Data(x=x, edge_index=torch.cat([pairs, pairs.flip(0)], 1), y=y, **masks)


def molecules(count: int = 30) -> list[Data]:
    g = torch.Generator().manual_seed(1)
    out = []
    for i in range(count):
        n = 4 + i % 5
        edges = torch.randint(n, (2, 2 * n), generator=g)
        x = torch.rand(n, 5, generator=g) + (i % 2)
        out.append(Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1), y=torch.tensor([i % 2])))
    return out


@pytest.fixture(scope="module")
def run():
    return graphssl.pretrain(cited(), **SMALL)


def test_what_comes_back(run):
    assert isinstance(run.encoder, nn.Module)
    codes = run.embed()
    assert codes.shape == (60, 16)
    assert codes.device.type == "cpu"
    assert not codes.requires_grad
    assert run.embed(level="graph").shape == (1, 16)
    assert len(run.history["loss"]) == 4
    assert run.history["epoch"] == [1, 2, 3, 4]
    assert "graphmae" in repr(run)


def placed(data: Data) -> Data:
    """With nodes on a grid of six columns."""
    node = torch.arange(len(data.x))
    data.pos = torch.stack([node // 6, node % 6], 1).float()
    return data


WHOLE = ("infograph", "graphcl", "simgrace", "simsiam", "context-pred", "graph-jepa")  # which compare graphs
PLACED = ("latent-mim", "videomae")  # which need to know where nodes stand


@pytest.mark.parametrize("method", sorted({*graphssl.list_methods()} - {*BASELINES, "point-mae", "attr-masking"}))
def test_every_method_pretrains_both_kinds_of_set(method):
    """Point-MAE is for groups of points alone, attribute masking for classes: tests/test_methods.py."""
    settings = {"width": 16, "epochs": 2, "progress": False}
    one, several = cited(), molecules()
    if method in PLACED:
        with pytest.raises(graphssl.UserError, match="pos"):
            graphssl.pretrain(one, method, **settings)
        one, several = placed(one), [placed(data) for data in several]
    if method not in WHOLE:
        assert graphssl.pretrain(one, method, **settings).embed().isfinite().all()
    graphs = graphssl.pretrain(several, method, batch_size=8, **settings)
    assert graphs.embed().shape == (30, graphs.encoder.dim)
    assert graphs.encoder.dim % 16 == 0
    assert graphs.embed(level="node").size(0) == sum(d.num_nodes for d in molecules())


@pytest.mark.parametrize("encoder", graphssl.list_encoders())
def test_every_encoder_takes_the_recipes_place(encoder):
    run = graphssl.pretrain(cited(), encoder=encoder, **SMALL)
    assert run.embed().shape == (60, 16)


@pytest.mark.parametrize("encoder", graphssl.backbones.TRANSFORMERS)
@pytest.mark.parametrize(
    ("method", "words"),
    [("bgrl", "one width throughout.*choose one of"), ("bandana", "unknown encoder of.*known: gcn")],
)
def test_methods_that_no_transformer_fits_say_so(method, words, encoder):
    with pytest.raises(graphssl.UserError, match=words):
        graphssl.pretrain(cited(), method, encoder=encoder, width=16, epochs=1, progress=False)


@pytest.mark.parametrize("encoder", graphssl.backbones.TRANSFORMERS)
@pytest.mark.parametrize("method", ["dgi", "graphmae", "graphmae2", "s2gae", "selftask"])
def test_a_transformer_in_a_graph_methods_place_reads_where_nodes_stand(method, encoder):
    run = graphssl.pretrain(placed(cited()), method, encoder=encoder, width=16, epochs=1, progress=False)
    elsewhere = placed(cited())
    elsewhere.pos = elsewhere.pos.flip(0)
    assert not torch.allclose(run.embed(), run.embed(elsewhere))


@pytest.mark.parametrize("encoder", ["gat", "gcn", "transformer", "sparse-transformer"])
@pytest.mark.parametrize("method", ["graphmae", "bandana"])
def test_methods_of_graphs_run_on_images_as_they_are(method, encoder):
    if method == "bandana" and encoder != "gcn":
        pytest.skip("its messages are weighed edge by edge")
    images = np.random.default_rng(0).random((12, 1, 8, 8), np.float32)
    settings = {"encoder": encoder, "width": 16, "progress": False}
    run = graphssl.pretrain(images, method, epochs=2, **settings)
    assert run.embed().shape == (12, 16)
    before = graphssl.pretrain(images, method, epochs=0, **settings).encoder.state_dict()
    assert {name for name, p in run.encoder.named_parameters() if torch.equal(p, before[name])} <= {"backbone.extras"}


@pytest.mark.parametrize("method", ["mae", "bgrl"])
def test_a_run_of_one_step_is_not_the_untrained_encoder(method):
    """Their learning rate rises from 0."""
    graphs = [placed(data) for data in molecules(8)]
    settings = {"width": 16, "batch_size": 8, "progress": False}
    runs = [graphssl.pretrain(graphs, method, epochs=epochs, **settings) for epochs in (0, 1)]
    assert not torch.equal(*(run.embed() for run in runs))
    assert runs[1].history["lr"][0] > 0


@pytest.mark.parametrize("method", ["graphmae", "graphmae2"])
@pytest.mark.parametrize("task_loss", [{}, {"loss": "mse", "decoder": "mlp"}])
def test_what_graph_methods_make_of_images_is_drawn(method, task_loss, tmp_path):
    if method == "graphmae2" and task_loss:
        pytest.skip("it has the cosine error alone")
    images = np.random.default_rng(0).random((12, 1, 8, 8), np.float32)
    run = graphssl.pretrain(images, method, width=16, epochs=1, progress=False, **task_loss)
    graph = run.data().batch(range(12))
    hidden, content = run.method.eval().reconstruct(graph, torch.Generator().manual_seed(0))
    assert int(hidden.sum()) == 12 * 8
    assert torch.equal(content[~hidden], graph.x[~hidden])
    assert not torch.allclose(content[hidden], graph.x[hidden], atol=1e-2)
    other = graph.replace(x=torch.where(hidden[:, None], graph.x.flip(1) + 1, graph.x))
    again = run.method.reconstruct(other, torch.Generator().manual_seed(0))[1][hidden]
    said = content[hidden]
    if not task_loss:  # directions, as long as the content
        torch.testing.assert_close(said.norm(dim=1), graph.x[hidden].norm(dim=1))
        said, again = (nn.functional.normalize(rows, dim=1) for rows in (said, again))
    torch.testing.assert_close(again, said)  # hidden content was not seen
    assert run.plot(tmp_path / "one.png", what="reconstruction").stat().st_size > 1000


def test_report_has_controls(run):
    report = run.evaluate(protocol="node-linear")
    assert [row.name for row in report.rows] == ["graphmae", "untrained encoder", "raw features"]
    assert 0 <= report.score <= 100
    assert report.higher_is_better
    alone = run.evaluate(protocol="node-linear", controls=False)
    assert alone.rows == report.rows[:1]
    assert run.evaluate().protocols == run.dataset.protocols
    assert run.dataset.protocols == ("node-linear", "node-knn", "node-cluster", "node-few-shot", "reconstruct")
    graphs = graphssl.pretrain(molecules(), width=16, epochs=1, progress=False)
    assert graphs.evaluate().rows[0].protocol == "graph-svm"


def test_same_seed_same_bits_whatever_was_drawn_or_looked_at():
    one = graphssl.pretrain(cited(), **SMALL)
    torch.manual_seed(123)
    np.random.seed(5)
    torch.rand(100)
    one.evaluate()
    state = torch.get_rng_state()
    two = graphssl.pretrain(cited(), **SMALL)
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(one.method.state_dict().values(), two.method.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other = graphssl.pretrain(cited(), seed=1, **SMALL)
    assert not torch.equal(one.embed(), other.embed())


def test_embedding_does_not_change_the_run(run):
    before = copy.deepcopy(run.method.state_dict())
    run.embed()
    run.evaluate()
    run.finetune(epochs=2)
    assert all(torch.equal(before[k], v) for k, v in run.method.state_dict().items())


def test_no_epochs_is_the_untrained_control(run):
    nothing = graphssl.pretrain(cited(), **{**SMALL, "epochs": 0})
    assert nothing.history == {}
    codes = run._codes(run.untrained(), run.data())
    assert torch.equal(codes, nothing.embed())
    assert [row.name for row in nothing.evaluate(protocol="node-knn").rows] == ["graphmae", "raw features"]


def test_labels_reach_nothing_before_the_probe():
    plain, poisoned = cited(), cited()
    poisoned.y = torch.randperm(60, generator=torch.Generator().manual_seed(3)) % 3
    assert torch.equal(graphssl.pretrain(plain, **SMALL).embed(), graphssl.pretrain(poisoned, **SMALL).embed())


def test_save_and_load_give_the_same_codes(run, tmp_path):
    run.save(tmp_path / "run")
    again = graphssl.load(tmp_path / "run")
    assert torch.equal(again.embed(cited()), run.embed())
    assert again.history == run.history
    with pytest.raises(graphssl.UserError, match="data of your own"):
        again.embed()
    with pytest.raises(graphssl.UserError, match="overwrite"):
        run.save(tmp_path / "run")
    run.save(tmp_path / "run", overwrite=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl", "model.safetensors"}


def test_a_named_set_is_found_again_after_load(tmp_path):
    graphssl.pretrain("citations-mini", out=tmp_path / "run", width=8, heads=2, epochs=1, progress=False)
    assert graphssl.load(tmp_path / "run").embed().size(1) == 8


def test_a_method_object_and_its_way_back(tmp_path):
    def make():
        encoder = graphssl.Encoder(graphssl.backbones.backbone("gcn", 8, [16]))
        return GraphMAE(encoder, graphssl.backbones.backbone("gcn", 16, [8], bare_end=True), Uniform(0.5))

    run = graphssl.pretrain(cited(), make(), epochs=3, lr=1e-2, out=tmp_path / "run", progress=False)
    assert [row.name for row in run.evaluate(protocol="node-knn").rows][:2] == ["GraphMAE", "untrained encoder"]
    with pytest.raises(graphssl.UserError, match="method="):
        graphssl.load(tmp_path / "run")
    again = graphssl.load(tmp_path / "run", method=make())
    assert torch.equal(again.embed(cited()), run.embed())


class Theirs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = pyg.GCNConv(8, 12)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def test_an_encoder_of_the_users_own(tmp_path):
    module = Theirs()
    before = copy.deepcopy(module.state_dict())
    run = graphssl.pretrain(cited(), encoder=module, out=tmp_path / "run", **SMALL)
    assert run.embed().shape == (60, 12)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())  # theirs is not trained in place
    untrained = run._codes(run.untrained(), run.data())
    assert not torch.equal(untrained, run.embed())
    with pytest.raises(graphssl.UserError, match="encoder="):
        graphssl.load(tmp_path / "run")
    assert torch.equal(graphssl.load(tmp_path / "run", encoder=Theirs()).embed(cited()), run.embed())
    again = graphssl.pretrain(cited(), encoder=Theirs(), out=tmp_path / "run", resume=True, **SMALL)  # other weights
    assert torch.equal(again.embed(), run.embed())
    graphssl.pretrain(cited(), out=tmp_path / "named", **SMALL)
    with pytest.raises(graphssl.UserError, match="leave it out"):
        graphssl.load(tmp_path / "named", encoder=Theirs())


def test_going_on_from_a_run(run):
    more = graphssl.pretrain(cited(seed=4), run, epochs=1, progress=False)
    assert more.config["settings"]["width"] == 16
    nothing = graphssl.pretrain(cited(), run, epochs=0, progress=False)
    assert torch.equal(nothing.embed(), run.embed())
    with pytest.raises(graphssl.UserError, match="do not fit"):
        graphssl.pretrain(molecules(), run, epochs=1, progress=False)


def test_bf16_runs_and_differs(run):
    half = graphssl.pretrain(cited(), precision="bf16-mixed", **SMALL)
    assert half.embed().isfinite().all()
    assert not torch.equal(half.embed(), run.embed())


def test_finetuning_learns_the_labels_and_leaves_the_run(run, tmp_path):
    tuned = run.finetune(epochs=30)
    test = cited().test_mask
    right = (tuned.predict().argmax(1) == cited().y)[test].float().mean()
    assert right > 0.6  # 24 labelled nodes, chance is a third
    assert tuned.history["loss"][-1] < tuned.history["loss"][0]
    tuned.save(tmp_path / "tuned")
    again = graphssl.load(tmp_path / "tuned")
    assert torch.equal(again.predict(cited()), tuned.predict())
    with pytest.raises(graphssl.UserError, match="no head"):
        run.predict()


def test_a_finetuned_run_is_not_judged_on_labels_that_it_has_seen(run):
    tuned = run.finetune(epochs=2)
    with pytest.raises(graphssl.UserError, match="have seen none"):
        tuned.evaluate()
    on = graphssl.pretrain(cited(), tuned, epochs=1, progress=False)
    with pytest.raises(graphssl.UserError, match="have seen none"):
        on.evaluate()
    other = tuned.evaluate(cited(seed=5), "node-knn").rows[0]
    assert other.name == "graphmae, finetuned"
    assert any("trained on labels of other data" in note for note in other.notes)
    twice = tuned.finetune(cited(seed=5), epochs=1)
    for data in (cited(), cited(seed=5)):
        with pytest.raises(graphssl.UserError, match="have seen none"):
            twice.evaluate(data)
    again = graphssl.pretrain(cited(seed=6), twice, epochs=1, progress=False)
    with pytest.raises(graphssl.UserError, match="have seen none"):
        again.evaluate(cited())


def test_finetuning_without_validation_keeps_the_last_epoch_and_unlabelled_rows_are_left_out(run):
    data = cited()
    data.train_mask, data.val_mask = data.train_mask | data.val_mask, torch.zeros(60, dtype=torch.bool)
    data.y[data.train_mask.nonzero()[0]] = -1
    tuned = run.finetune(data, epochs=30)
    assert tuned.config["finetuned"]["kept"] == "last epoch"
    assert tuned.history["loss"][-1] < 0.7 * tuned.history["loss"][0]
    for wrong in ({"lr": -1.0}, {"epochs": 0}, {"split": "publik"}, {"epoch": 3}, {"seed": -1}, {"epochs": 2.5}):
        with pytest.raises(graphssl.UserError):
            run.finetune(**wrong)


def test_finetuning_does_not_read_test_labels(run):
    data = cited()
    other = cited()
    other.y[other.test_mask] = 0
    one, two = run.finetune(data, epochs=3), run.finetune(other, epochs=3)
    assert torch.equal(one.predict(), two.predict())


def test_finetuning_a_graph_set():
    run = graphssl.pretrain(molecules(), width=16, epochs=1, progress=False)
    data = run.data()
    halves = graphssl.data.random_splits(data.y, repeats=1, seed=0, train=0.5, val=0.2)
    tuned = run.finetune(data.replace(splits={"halves": tuple(halves)}), epochs=15, batch_size=8)
    assert tuned.predict(data).shape == (30, 2)


def test_evaluate_takes_any_codes(run):
    codes = run.embed()
    for given in (codes, codes.numpy(), codes.tolist()):
        report = graphssl.evaluate(given, cited(), "node-linear")
        assert report.rows[0].name == "given codes"
    expected = run.evaluate(protocol="node-linear").score
    assert graphssl.evaluate(codes, cited(), "node-linear", seed=0).score == expected
    assert graphssl.evaluate(run, cited(), "node-linear").score == expected
    assert graphssl.evaluate(Theirs(), cited(), "node-knn").rows[0].name == "given encoder"
    seven = graphssl.pretrain(cited(), seed=7, **SMALL)
    assert graphssl.evaluate(seven, cited()).to_json() == seven.evaluate(cited()).to_json()
    for wrong in (pyg.GCNConv(5, 3), graphssl.Encoder(graphssl.backbones.backbone("gcn", 5, [3]))):
        with pytest.raises(graphssl.UserError, match="encoder"):
            graphssl.evaluate(wrong, cited(), "node-knn")
    with pytest.raises(graphssl.UserError, match="59"):
        graphssl.evaluate(codes[:59], cited(), "node-linear")
    with pytest.raises(graphssl.UserError, match="node-linear"):
        graphssl.evaluate(codes, cited(), "node-liner")
    with pytest.raises(graphssl.UserError, match="offers no protocol"):
        graphssl.evaluate(codes, Data(x=cited().x, edge_index=torch.empty(2, 0, dtype=torch.long)))
    assert graphssl.evaluate(codes, Data(x=cited().x, edge_index=cited().edge_index)).protocols == ("reconstruct",)


def test_several_protocols_in_one_call():
    run = graphssl.pretrain(cited(), **SMALL)
    names = ("node-knn", "reconstruct")
    both = run.evaluate(protocol=names)
    assert both.protocols == names
    one = [run.evaluate(protocol=name) for name in names]
    assert both.to_json() == graphssl.Report.join(one).to_json()
    assert run.evaluate(protocol=["node-knn", "node-knn"]).rows == one[0].rows
    given = graphssl.evaluate(run.embed(), cited(), names)
    assert [row.score for row in given.rows] == [both.rows[place].score for place in (0, 2, 3, 5)]
    with pytest.raises(graphssl.UserError, match="did you mean 'node-knn'"):
        run.evaluate(protocol=("reconstruct", "node-kn"))


def test_a_pretext_task_of_a_protocols_kind_is_flagged():
    run = graphssl.pretrain(cited(), **SMALL)
    run.method.pretexts = ("reconstruct",)
    flagged = [row for row in run.evaluate(protocol=("node-knn", "reconstruct")).rows if "pretext" in str(row.notes)]
    assert [(row.name, row.protocol) for row in flagged] == [("graphmae", "reconstruct")]
    untrained = graphssl.pretrain(cited(), **{**SMALL, "epochs": 0})
    untrained.method.pretexts = ("reconstruct",)
    assert not any("pretext" in str(row.notes) for row in untrained.evaluate(protocol="reconstruct").rows)


def test_one_run_on_a_link_set_is_judged_by_all_that_is_known_of_the_nodes(tmp_path):
    link = graphssl.to_dataset(cited(120)).link()
    run = graphssl.pretrain(link, width=8, heads=2, epochs=1, progress=False)
    tasks = ("link-dot", "node-linear", "node-cluster", "partition")
    report = run.evaluate(protocol=tasks)
    assert report.protocols == tasks
    assert set(tasks) < set(link.protocols)
    nodes, codes = link.as_nodes(), run.embed()
    for protocol in tasks[1:]:
        there = graphssl.evaluate(codes, nodes, protocol)
        here = [row for row in report.rows if row.protocol == protocol]
        assert [there.rows[0].metrics, there.rows[1].metrics] == [here[0].metrics, here[2].metrics]
    tuned = run.finetune(nodes, epochs=1)
    for name in ("node-linear", "link-dot"):
        with pytest.raises(graphssl.UserError, match="trained on labels"):
            tuned.evaluate(link, name)
    elsewhere = graphssl.evaluate(codes, link, ("link-dot", "node-knn", "reconstruct"))
    exposed = {row.protocol for row in elsewhere.rows if "edge exposure" in str(row.notes)}
    assert exposed == {"link-dot"}  # nobody else asks for pairs that are held out


def test_codes_from_elsewhere_on_a_link_set_say_so():
    data = graphssl.load_dataset("citations-mini")
    link = data.link()
    whole = graphssl.pretrain(data, width=8, heads=2, epochs=1, progress=False)
    held = graphssl.pretrain(link, width=8, heads=2, epochs=1, progress=False)
    assert any("exposure" in note for note in whole.evaluate(link, "link-dot").rows[0].notes)
    assert not any("exposure" in note for note in held.evaluate(protocol="link-dot").rows[0].notes)
    assert not any("exposure" in note for note in held.evaluate("citations-mini/link", "link-dot").rows[0].notes)
    tuned = held.finetune(data, epochs=1)  # its messages run along the held-out edges
    assert any("exposure" in note for note in tuned.evaluate(link, "link-dot").rows[0].notes)
    on = graphssl.pretrain(link, whole, epochs=1, progress=False)  # the ancestor has seen every held-out edge
    assert any("exposure" in note for note in on.evaluate(protocol="link-dot").rows[0].notes)


def test_arrays_and_encoders_on_a_link_set():
    link = graphssl.to_dataset(cited(120)).link()
    held = graphssl.pretrain(link, width=8, heads=2, epochs=1, progress=False)
    codes = held.embed()
    array = graphssl.evaluate(codes.numpy(), link)
    assert array.protocols == tuple(name for name in link.protocols if name != "link-mlp-valmsg")
    encoder = graphssl.evaluate(held.encoder, link)
    assert encoder.protocols == link.protocols
    full = held.evaluate()
    assert full.protocols == encoder.protocols
    for protocol in full.protocols:
        scores = [[row.score for row in report.rows if row.protocol == protocol] for report in (encoder, full)]
        assert scores[0] == [scores[1][0], scores[1][2]]  # the encoder and raw features
    without = [row.score for row in encoder.rows if row.protocol != "link-mlp-valmsg"]
    assert [row.score for row in array.rows] == without
    assert array.rows[2].notes[0].startswith("scored by a decoder that the protocol trained")
    one = held.evaluate(protocol="link-mlp-valmsg")
    assert [row.name for row in one.rows] == ["graphmae", "untrained encoder", "raw features"]
    assert one.score == full.rows[6].score
    assert max(map(len, full.table().splitlines())) <= 100
    with pytest.raises(graphssl.UserError, match="needs the encoder and got an array"):
        graphssl.evaluate(codes, link, "link-mlp-valmsg")


def test_an_own_decoder_of_a_run_reaches_the_report(monkeypatch):
    link = graphssl.to_dataset(cited(120)).link()
    plain = graphssl.pretrain(link, width=8, heads=2, epochs=1, progress=False)
    modes = []

    def score(self, codes, pairs):
        modes.append((self.training, torch.is_grad_enabled(), codes.device, pairs.device))
        return (codes[pairs[0]] * codes[pairs[1]]).sum(1)

    monkeypatch.setattr(GraphMAE, "score", score)
    plain.method.train()
    report = plain.evaluate(protocol="link-mlp")
    assert plain.method.training
    plain.method.eval()
    assert {mode[:2] for mode in modes} == {(False, False)}
    dot = plain.evaluate(protocol="link-dot")
    assert report.score == dot.score
    assert "AUC, trained decoder" in report.rows[0].metrics
    assert "AUC, trained decoder" not in report.rows[1].metrics
    start = graphssl.pretrain(link, width=8, heads=2, epochs=0, progress=False).evaluate(protocol="link-mlp")
    assert start.rows[0].notes[0].startswith("scored by a decoder that the protocol trained")
    tuned = plain.finetune(cited(120), epochs=1).evaluate(link, "link-mlp")
    assert tuned.rows[0].notes[0].startswith("scored by a decoder that the protocol trained")


def test_a_picture(run, tmp_path):
    path = run.plot(tmp_path / "deep" / "codes.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(graphssl.UserError, match="exists"):
        run.plot(path)
    with pytest.raises(graphssl.UserError, match=r"\.png"):
        run.plot(tmp_path / "codes.gif")
    graphssl.pretrain(KINDS["one-node"](), **SMALL).plot(tmp_path / "one.svg")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["graphmae", "bgrl"])
def test_odd_but_legal_graphs_pretrain_and_embed(method, kind):
    graph = KINDS[kind]()
    if graph.num_graphs > 1:
        pytest.skip("a batch is no input of a user's")
    run = graphssl.pretrain(graph, method, width=8, epochs=2, progress=False)
    assert run.embed().isfinite().all()


def test_scipy_features_stay_sparse_through_pretraining():
    x, edges = dense(KINDS["words"]().x), KINDS["words"]().edge_index
    adjacency = sp.csr_matrix((np.ones(edges.size(1)), edges.numpy()), shape=(len(x), len(x)))
    run = graphssl.pretrain((sp.csr_matrix(x.numpy()), adjacency), width=8, heads=2, epochs=1, progress=False)
    assert run.config["spec"]["sparse"]


WRONG = {
    "method": (dict(method="graphmea"), "did you mean 'graphmae'"),
    "setting": (dict(widht=8), "did you mean 'width'"),
    "type": (dict(lr="fast"), "expects float"),
    "nan": (dict(lr=float("nan")), "finite"),
    "heads": (dict(width=10, heads=4), "multiple"),
    "mask": (dict(mask=1.5), "above 0 and up to 1"),
    "epochs": (dict(epochs=-1), "0 (untrained) or more"),
    "lr": (dict(lr=-1.0), "above 0"),
    "layers": (dict(layers=0), "1 or more"),
    "width": (dict(width=-4), "1 or more"),
    "dropout": (dict(dropout=1.7), "not including, 1"),
    "replace": (dict(replace=-0.5), "from 0 to 1"),
    "clip": (dict(clip=-1.0), "above 0"),
    "big seed": (dict(seed=2**64), "2**63"),
    "class": (dict(method=GraphMAE), "not an object of it"),
    "batch": (dict(batch_size=4, loader="full"), "leave it out"),
    "seed": (dict(seed=-3), "whole number"),
    "device": (dict(device="gpu"), "choose 'auto'"),
    "no-gpu": (dict(device="cuda:7"), "device='cpu'"),
    "precision": (dict(precision="8"), "bf16"),
    "encoder": (dict(encoder="gta"), "did you mean 'gat'"),
    "pool": (dict(pool="avg"), "known: attention, class, max, mean, sum"),
    "resume": (dict(resume=True), "give out="),
    "object": (dict(method=42), "got int"),
    "out": (dict(out=5), "name of a folder"),
    "huge": (dict(width=10**9), "memory ran out"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_one_sentence_with_a_way_out(name):
    settings, words = WRONG[name]
    with pytest.raises((graphssl.UserError, graphssl.OutOfMemory)) as caught:
        graphssl.pretrain(cited(), **{"progress": False, **settings})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_data_suggests_the_nearest():
    with pytest.raises(graphssl.UserError, match="citations-mini"):
        graphssl.pretrain("citation-mini")


def test_settings_of_a_paper_go_with_data_loaded_by_name_only():
    mine = graphssl.to_dataset(cited(), name="cora")
    run = graphssl.pretrain(mine, epochs=1, width=16, progress=False)
    assert run.config["settings"]["weight_decay"] == 0.0
    assert not run.plan.published


def test_a_method_object_is_not_trained_in_place():
    encoder = graphssl.Encoder(graphssl.backbones.backbone("gcn", 8, [16]))
    method = GraphMAE(encoder, graphssl.backbones.backbone("gcn", 16, [8], bare_end=True), Uniform(0.5))
    before = copy.deepcopy(method.state_dict())
    one = graphssl.pretrain(cited(), method, epochs=2, progress=False)
    two = graphssl.pretrain(cited(), method, epochs=2, progress=False)
    assert torch.equal(one.embed(), two.embed())
    assert all(torch.equal(before[k], v) for k, v in method.state_dict().items())
    start = one.untrained()
    with torch.no_grad():
        method.encoder.backbone.layers[0].conv.bias.add_(1.0)
    assert torch.equal(one._codes(one.untrained(), one.data()), one._codes(start, one.data()))
    on = graphssl.pretrain(cited(), one, epochs=1, progress=False)
    assert not torch.equal(on._codes(on.untrained(), on.data()), one.embed())
    method.encoder = nn.Linear(8, 16)
    with pytest.raises(graphssl.UserError, match="has no graphssl"):
        graphssl.pretrain(cited(), method, progress=False)


def test_an_encoder_is_judged_on_the_graph_as_its_recipe_prepares_it(run):
    own = graphssl.evaluate(run.encoder, cited(), "node-linear")
    assert own.score == run.evaluate(protocol="node-linear").score


def test_modes_of_a_users_module_are_left_as_they_were():
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    module.forward = lambda x, edge_index: module[1](module[0](x))
    module[1].eval()
    graphssl.evaluate(module, cited(), "node-knn")
    assert module.training
    assert not module[1].training


def test_the_loss_of_the_log_is_the_one_that_is_minimised(monkeypatch):
    monkeypatch.setattr(GraphMAE, "total", lambda self, losses: 3 * losses["content"])
    run = graphssl.pretrain(cited(), **SMALL)
    assert run.history["loss"] == pytest.approx([3 * v for v in run.history["content"]])
    monkeypatch.setattr(GraphMAE, "forward", lambda self, graph, generator=None: {"step": self.mask_token.sum()})
    with pytest.raises(graphssl.UserError, match="rename it"):
        graphssl.pretrain(cited(), **SMALL)


def test_threads_get_the_same_bits_as_one():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: graphssl.pretrain(cited(), **SMALL), range(3)))
    expected = graphssl.pretrain(cited(), **SMALL).embed()
    assert all(torch.equal(run.embed(), expected) for run in runs)


def test_the_published_figure_of_another_run_is_said_to_be_one(tmp_path, monkeypatch):
    from graphssl.recipes import get_recipe
    from graphssl.recipes.base import Published

    recipe = get_recipe("graphmae")
    monkeypatch.setitem(recipe.published, "citations-mini", {"node-knn": Published(99.0, 0.1, "a test")})
    run = graphssl.pretrain("citations-mini", width=8, heads=2, epochs=1, progress=False)
    rows = {(row.protocol, row.name): row for row in run.evaluate().rows}
    assert any("epochs=1" in note for note in rows["node-knn", "graphmae"].notes)
    assert not any("published" in note for note in rows["node-linear", "graphmae"].notes)
    assert rows["node-knn", "published"].score == 99.0


def test_odd_names_are_no_attributes():
    for name in ("__main__", "_private", "nothing"):
        assert not hasattr(graphssl, name)
    assert "pretrain" in dir(graphssl)


def test_a_method_without_anything_to_train_is_refused():
    encoder = graphssl.Encoder(graphssl.backbones.backbone("gcn", 8, [16]))
    method = GraphMAE(encoder, graphssl.backbones.backbone("gcn", 16, [8], bare_end=True)).requires_grad_(False)
    with pytest.raises(graphssl.UserError, match="epochs=0"):
        graphssl.pretrain(cited(), method, epochs=1, progress=False)
    assert graphssl.pretrain(cited(), method, epochs=0, progress=False).embed().shape == (60, 16)


def test_losses_that_come_and_go_keep_their_places(tmp_path, monkeypatch):
    plain, calls = GraphMAE.forward, []

    def forward(self, graph, generator=None):
        calls.append(1)
        losses = plain(self, graph, generator)
        return losses if len(calls) < 3 else {**losses, "late": losses["content"].detach()}

    monkeypatch.setattr(GraphMAE, "forward", forward)
    run = graphssl.pretrain(cited(), **SMALL)
    assert np.isnan(run.history["late"][:2]).all()
    run.save(tmp_path / "run")
    assert graphssl.load(tmp_path / "run").history["content"] == run.history["content"]


def test_names_of_nodes_and_graphs_are_exported(run, tmp_path):
    nx = pytest.importorskip("networkx")
    graph = nx.karate_club_graph()
    for i, node in enumerate(graph):
        graph.nodes[node]["x"] = [float(i), 1.0]
    graph = nx.relabel_nodes(graph, {i: f"member {i}" for i in graph})
    own = graphssl.pretrain(graph, width=8, heads=2, epochs=1, progress=False)
    path, shape = own.export(tmp_path / "codes.csv")
    assert shape == (34, 8)
    assert path.read_text().splitlines()[1].startswith("member 0,")
    drugs = graphssl.pretrain("drugs-mini", width=8, epochs=0, progress=False)
    drugs.export(tmp_path / "drugs.csv")
    names = {line.split(",")[0] for line in (tmp_path / "drugs.csv").read_text().splitlines()}
    assert "aspirin" in names
    with pytest.raises(graphssl.UserError, match="exists"):
        own.export(path)
    (tmp_path / "codes.npy").mkdir()
    with pytest.raises(graphssl.UserError, match="is a folder"):
        own.export(tmp_path / "codes.npy")


def test_numpy_numbers_are_numbers(tmp_path):
    settings = {**SMALL, "width": np.int64(16)}
    run = graphssl.pretrain(cited(), seed=np.int64(3), lr=np.float32(0.001), out=tmp_path / "run", **settings)
    assert run.config["seed"] == 3


def test_memory_that_cannot_suffice_is_said_beforehand(monkeypatch):
    monkeypatch.setattr(graphssl.api.runner, "free_bytes", lambda device: 10_000)
    with pytest.raises(graphssl.OutOfMemory, match="choose a smaller width"):
        graphssl.pretrain(cited(), **SMALL, loader="full")


def test_memory_that_runs_out_ends_in_advice(monkeypatch):
    def full(self, graph, generator=None):
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(GraphMAE, "forward", full)
    with pytest.raises(graphssl.OutOfMemory, match="smaller width or batch_size"):
        graphssl.pretrain(cited(), **SMALL)


def test_lists():
    assert "graphmae" in graphssl.list_methods("*mae*")
    assert "gat" in graphssl.list_encoders()
    assert "node-linear" in graphssl.list_protocols()
    assert "citations-mini" in graphssl.list_datasets()


def test_free_memory_heeds_limits_of_the_process_and_of_a_container(tmp_path, monkeypatch):
    from graphssl import runner

    device = torch.device("cpu")
    monkeypatch.setattr(runner, "CGROUP", tmp_path)
    free = runner.free_bytes(device)
    if free is None:
        pytest.skip("this system does not say what is free")
    (tmp_path / "memory.max").write_text("max\n")
    assert abs(runner.free_bytes(device) - free) < free / 2
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1500\n")
    assert runner.free_bytes(device) == 2500
    (tmp_path / "memory.current").write_text("9000\n")
    assert runner.free_bytes(device) == 0
