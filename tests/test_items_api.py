"""Images and their like through the calls that users make: judged, tuned, saved, broken off and gone on with."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import graphssl
from graphssl import runner, store
from graphssl.data.dataset import Dataset, Split
from graphssl.methods import MAE
from graphssl.methods.simsiam import SimSiam
from graphssl.tokens import Items, Patches, PointGroups

C = 3
SMALL = {"width": 16, "heads": 2, "layers": 1, "decoder_width": 8, "batch_size": 32, "progress": False}


def halves(count: int) -> dict:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5))
    return {"halves": (Split(*order.split([count // 2, count // 4, count - count // 2 - count // 4])),)}


def pictures(count: int = 120, channels: int = 1, seed: int = 0, **fields) -> Dataset:
    """Bytes with a bright bar whose row says the class."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % C
    values = torch.randint(0, 100, (count, channels, 8, 8), generator=g, dtype=torch.uint8)
    for i, c in enumerate(y.tolist()):
        values[i, :, 2 * c : 2 * c + 2] += 80
    fields = {"name": "pictures", "y": y, "splits": halves(count), **fields}
    return Dataset.of_items(Items("images", values), Patches(2), **fields)


def clips(count: int = 12) -> Dataset:
    g = torch.Generator().manual_seed(0)
    values = torch.rand(count, 4, 1, 8, 8, generator=g)
    return Dataset.of_items(Items("videos", values), name="clips", y=torch.arange(count) % 2, splits=halves(count))


@pytest.fixture(scope="module")
def run():
    return graphssl.pretrain(pictures(), "mae", epochs=3, **SMALL)


def test_a_report_of_items_has_all_protocols_and_both_controls(run):
    data = pictures()
    report = run.evaluate()
    assert report.protocols == data.protocols == ("graph-linear", "graph-knn", "graph-few-shot")
    assert [row.name for row in report.rows] == 3 * ["mae", "untrained encoder", "raw features"]
    raw = data.items.flat()
    assert raw.shape == (120, 64)
    for name in report.protocols:
        given = graphssl.evaluate(raw, data, name).score
        assert [row.score for row in report.rows if (row.protocol, row.name) == (name, "raw features")] == [given]
        assert given > 60
    untrained = graphssl.pretrain(pictures(), "mae", epochs=0, **SMALL)
    expected = untrained.evaluate(protocol="graph-linear").score
    assert next(row for row in report.rows if row.name == "untrained encoder").score == expected


def test_codes_of_items_and_of_their_tokens(run, tmp_path):
    assert run.embed().shape == (120, 16)
    assert run.embed(level="node").shape == (120 * 16, 16)
    names = tuple(f"picture {i}" for i in range(120))
    path, shape = run.export(tmp_path / "codes.csv", pictures(item_names=names))
    assert shape == (120, 16)
    assert path.read_text().splitlines()[1].startswith("picture 0,")
    rows = [[float(v) for v in line.split(",")[1:]] for line in path.read_text().splitlines()[1:]]
    assert np.allclose(rows, run.embed().numpy())


SEEN = "pretrained on all items, those of the test part included, without labels"


def test_reports_say_that_pretraining_saw_the_items_to_test(run):
    data, (split,) = pictures(), pictures().splits["halves"]

    def noted(report):
        return [SEEN in row.notes for row in report.rows]

    assert noted(run.evaluate(protocol="graph-knn")) == [True, False, False]
    assert noted(run.finetune(epochs=1).test()) == [True]
    untrained = graphssl.pretrain(data, "mae", epochs=0, **SMALL)
    some = graphssl.pretrain(data.training(), "mae", epochs=1, **SMALL)
    for other, on in ((run, pictures(seed=1)), (untrained, None), (some, data)):
        assert not any(noted(other.evaluate(on, "graph-knn")))
    assert noted(some.finetune(data, epochs=1).test()) == [False]
    assert noted(untrained.finetune(epochs=1).test()) == [False]
    assert not any(noted(run.evaluate(data.replace(splits={"two": (split, split)}), "graph-knn")))
    assert noted(graphssl.pretrain(data, run, epochs=0, progress=False).evaluate(protocol="graph-knn"))[0]
    graphs = graphssl.load_dataset("drugs-mini")
    one = graphs.replace(splits={"one": graphs.splits["random-8:1:1"][:1]})
    assert not any(noted(graphssl.pretrain(one, epochs=1, width=8, heads=1, progress=False).evaluate()))


def test_what_does_not_test_is_a_data_set_to_pretrain_on(run):
    names = tuple(f"picture {i}" for i in range(120))
    data = pictures(item_names=names, notes=("bars",))
    part, (split,) = data.training(), data.splits["halves"]
    kept = torch.cat([split.train, split.val]).sort().values
    assert (part.name, part.tokenizer, part.splits, part.notes) == ("pictures/training", Patches(2), {}, ("bars",))
    assert torch.equal(part.items.values, data.items.values[kept])
    assert torch.equal(part.y, data.y[kept])
    assert part.item_names == tuple(names[i] for i in kept)
    assert torch.equal(run.embed(part), run.embed(data)[kept])
    assert "bars" in run.evaluate(data, "graph-knn").rows[0].notes
    ragged = Dataset.of_items(Items("images", [torch.rand(1, 2 * n, 8) for n in (1, 2, 3, 4)]), Patches(2), name="four")
    ragged = ragged.replace(splits={"mine": (Split(torch.tensor([0]), torch.tensor([3]), torch.tensor([1])),)})
    assert [value.size(1) for value in ragged.training().items.values] == [2, 6, 8]
    graphs = graphssl.load_dataset("drugs-mini")
    (first, *_) = graphs.splits["random-8:1:1"]
    some = graphs.replace(splits={"mine": (first,)}).training()
    kept = sorted({*range(576)} - {*first.test.tolist()})
    assert [graph.num_nodes for graph in some.graphs] == [graphs.graphs[i].num_nodes for i in kept]
    for wrong, words in (
        (graphs, "has 10 test parts, not one; choose a split"),
        (graphs.replace(splits={}), "has no test parts"),
        (graphssl.load_dataset("citations-mini"), "is about nodes"),
    ):
        with pytest.raises(graphssl.UserError, match=words):
            wrong.training()


@pytest.mark.parametrize("even", [True, False])
def test_costly_items_are_cut_once(monkeypatch, even):
    g = torch.Generator().manual_seed(0)
    clouds = [torch.randn(20 if even else 20 + i % 3, 3, generator=g) for i in range(40)]
    cut = []
    plain = PointGroups.__call__

    def call(self, values):
        if not isinstance(values, list):  # those come one by one
            cut.append((self, len(values)))
        return plain(self, values)

    monkeypatch.setattr(PointGroups, "__call__", call)
    values = torch.stack(clouds) if even else clouds
    fields = {"name": "clouds", "y": torch.arange(40) % 2, "splits": halves(40)}
    data = Dataset.of_items(Items("points", values), PointGroups(6, 4, "knn2"), **fields)
    run = graphssl.pretrain(data, "mae", epochs=2, **{**SMALL, "batch_size": 8})
    run.evaluate(protocol="graph-knn")
    run.evaluate(data, "graph-knn")  # the given data are cut as the run says, too
    run.finetune(data, epochs=2).test(data)
    counts = [sum(count for tokenizer, count in cut if tokenizer == one) for one in {tokenizer for tokenizer, _ in cut}]
    assert len(counts) == 2  # the data set's own way, to know its sizes, and the run's
    assert max(counts) <= 41
    assert torch.equal(
        run.embed(), run.embed(Dataset.of_items(Items("points", values), run.plan.tokenizer, name="new"))
    )


def test_batch_size_says_how_many_items_a_step_takes():
    few = graphssl.pretrain(pictures(40), "mae", epochs=1, **{**SMALL, "batch_size": 10})
    assert few.history["step"] == [4]
    assert graphssl.pretrain(pictures(40), "mae", epochs=1, **{**SMALL, "batch_size": 40}).history["step"] == [1]


def test_finetuning_learns_and_is_tested_on_the_test_rows(run):
    tuned = run.finetune(epochs=40)
    report = tuned.test()
    data = pictures()
    (split,) = data.splits["halves"]
    right = (tuned.predict().argmax(1) == data.y)[split.test].double().mean()
    assert report.score == pytest.approx(100 * float(right))
    assert report.score > 80
    assert report.protocols == ("finetune",)
    assert report.rows[0].name == "mae, finetuned"
    assert "60 labels (100 %) of the split 'halves' to train and 30 to choose the epoch" in report.rows[0].notes[0]
    assert "finetune" in str(report)
    assert graphssl.Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_training_from_scratch_to_compare_with(run):
    scratch = graphssl.pretrain(pictures(), "mae", epochs=0, **SMALL)
    ours, theirs = run.finetune(epochs=3).test(), scratch.finetune(epochs=3).test()
    both = graphssl.Report.join([ours, theirs])
    assert [row.name for row in both.rows] == ["mae, finetuned", "mae, finetuned from scratch"]
    going_on = graphssl.pretrain(pictures(), run, epochs=0, progress=False)  # its weights are no longer those of a seed
    assert going_on.finetune(epochs=1).test().rows[0].name == "mae, finetuned"


def spied(y):
    """``y``, and a list of the rows that are read from it."""
    reads = []

    class Spied(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func.__name__ == "__getitem__":
                reads.append(args[1].tolist())
            with torch._C.DisableTorchFunctionSubclass():
                out = func(*args, **(kwargs or {}))
            return out.as_subclass(torch.Tensor) if isinstance(out, torch.Tensor) else out

    return y.as_subclass(Spied), reads


def test_finetuning_reads_no_test_label_and_testing_reads_each_once(run):
    plain = pictures()
    y, reads = spied(plain.y)
    data = plain.replace(y=y)
    test = set(plain.splits["halves"][0].test.tolist())
    tuned = run.finetune(data, epochs=1)
    assert reads
    assert not test & {row for rows in reads for row in rows}
    reads.clear()
    tuned.test(data)
    assert reads == [plain.splits["halves"][0].test.tolist()]


def test_shuffled_labels_are_tested_at_chance(run):
    data = pictures(600)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    tuned = run.finetune(data.replace(y=data.y[order]), epochs=5)
    assert abs(tuned.test().score - 100 / C) < 4 * 100 * (2 / 9 / 150) ** 0.5


@pytest.mark.parametrize(("share", "count"), [(0.1, 6), (0.5, 30), (0.001, 3), (1.0, 60)])
def test_a_share_of_the_labels_is_drawn_of_each_class_alike(run, share, count, monkeypatch):
    from graphssl import finetune

    used = []
    plain = finetune.one_pass
    monkeypatch.setattr(
        finetune, "one_pass", lambda e, h, loader, rows, *rest: used.append(rows) or plain(e, h, loader, rows, *rest)
    )
    data = pictures()
    tuned = run.finetune(data, epochs=1, labels=share)
    train, val = used
    (split,) = data.splits["halves"]
    assert len(train) == tuned.config["finetuned"]["labelled"] == count
    assert set(train.tolist()) <= set(split.train.tolist())
    assert torch.equal(val, split.val)
    counts, whole = data.y[train].bincount(minlength=C), data.y[split.train].bincount(minlength=C)
    assert (counts - (share * whole).clamp(min=1)).abs().max() <= 0.5
    used.clear()
    run.finetune(data, epochs=1, labels=share)
    run.finetune(data, epochs=1, labels=share, seed=1)
    again, other = used[0], used[2]
    assert torch.equal(train, again)
    assert share == 1 or set(other.tolist()) != set(train.tolist())
    assert f"({100 * share:g} %)" in tuned.test(data).rows[0].notes[0]


def test_a_share_that_is_none_is_refused(run):
    for wrong in (0.0, -0.1, 1.5, True, "half"):
        with pytest.raises(graphssl.UserError, match="labels"):
            run.finetune(labels=wrong, epochs=1)


def test_numbers_and_answers_of_yes_or_no_are_tested_too(run):
    data = pictures()
    numbers = data.replace(y=data.y.float() + 0.5)
    tuned = run.finetune(numbers, epochs=5)
    report, (split,) = tuned.test(numbers), data.splits["halves"]
    error = (tuned.predict(numbers)[:, 0] - numbers.y)[split.test]
    assert report.score == pytest.approx(float(error.abs().mean()), rel=1e-5)
    assert report.rows[0].metrics["RMSE"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)
    assert not report.higher_is_better
    answers = torch.stack([(data.y == 0).float(), (data.y == 1).float(), torch.full((120,), float("nan"))], 1)
    answers[::7, 0] = float("nan")
    several = data.replace(y=answers)
    tuned = run.finetune(several, epochs=5)
    said, truth = tuned.predict(several)[split.test], answers[split.test]
    there = truth[:, 0].isfinite()
    areas = [roc_auc_score(truth[there, 0], said[there, 0]), roc_auc_score(truth[:, 1], said[:, 1])]
    assert tuned.test().rows[0].metrics == {"AUC": pytest.approx(50 * sum(areas))}


def test_a_node_set_is_tested_and_a_graph_set():
    nodes = graphssl.pretrain("citations-mini", epochs=1, width=16, heads=2, progress=False)
    tuned = nodes.finetune(epochs=30, labels=0.5)
    data = nodes.data()
    split = data.splits[tuned.config["finetuned"]["split"]][0]
    right = (tuned.predict().argmax(1) == data.y)[split.test].double().mean()
    assert tuned.test().score == pytest.approx(100 * float(right))
    graphs = graphssl.pretrain("drugs-mini", epochs=0, width=16, progress=False)
    assert graphs.finetune(epochs=1).test().rows[0].metrics.keys() == {"MAE", "RMSE"}


def test_what_cannot_be_tested_is_refused(run, tmp_path):
    data = pictures()
    with pytest.raises(graphssl.UserError, match="was not finetuned"):
        run.test()
    tuned = run.finetune(epochs=1)
    with pytest.raises(graphssl.UserError, match="is other data or split otherwise"):
        tuned.test(pictures(seed=1))
    (split,) = data.splits["halves"]
    other = {"halves": (Split(split.test, split.val, split.train),)}  # it has learned from the rows that this one tests
    with pytest.raises(graphssl.UserError, match="is other data or split otherwise"):
        tuned.test(data.replace(splits=other))
    twice = tuned.finetune(data.replace(splits=other), epochs=1)
    with pytest.raises(graphssl.UserError, match="had seen labels of 'pictures' before"):
        twice.test()
    with pytest.raises(graphssl.UserError, match="have seen none; use test"):
        tuned.evaluate()
    tuned.save(tmp_path / "tuned")
    assert graphssl.load(tmp_path / "tuned").test(data) == tuned.test()


def test_items_come_back_with_their_tokenizer(run, tmp_path):
    cut = graphssl.pretrain(pictures(), "mae", patch=4, epochs=1, out=tmp_path / "run", **SMALL)
    again = graphssl.load(tmp_path / "run")
    assert again.plan.tokenizer == Patches(4, "none")
    assert torch.equal(again.embed(pictures()), cut.embed())
    assert again.embed(pictures(), "node").shape == (120 * 4, 16)
    assert again.evaluate(pictures(), "graph-knn").rows == cut.evaluate(protocol="graph-knn").rows


def test_other_kinds_of_data_are_refused_in_one_sentence(run):
    graphs = graphssl.load_dataset("drugs-mini")
    with pytest.raises(graphssl.UserError, match="pretrained on images, but 'drugs-mini' holds graphs; give images"):
        run.embed(graphs)
    with pytest.raises(graphssl.UserError, match="pretrained on images, but 'clips' holds videos; give images"):
        run.embed(clips())
    with pytest.raises(graphssl.UserError, match=r"shape \(3, 8, 8\).*of shape \(1, 8, 8\); give images with as many"):
        run.embed(pictures(12, channels=3))
    with pytest.raises(graphssl.UserError, match="cannot cut 7"):
        run.embed(Dataset.of_items(Items("images", torch.rand(4, 1, 7, 7)), Patches(7), name="odd"))
    over_graphs = graphssl.pretrain(graphs, epochs=0, width=16, progress=False)
    with pytest.raises(graphssl.UserError, match="pretrained on graphs, but 'pictures' holds images; give graphs"):
        over_graphs.embed(pictures())
    larger = Dataset.of_items(Items("images", torch.rand(4, 1, 12, 8)), Patches(4), name="larger")
    assert run.embed(larger).shape == (4, 16)


class Cut(Exception):
    """What a power cut is to a run: it ends between two steps, and nothing more is written."""


@pytest.mark.parametrize(
    ("method", "kind", "settings"),
    [
        ("mae", MAE, {}),
        ("mae", MAE, {"mask": 0.5, "mask_end": 0.9}),
        ("simsiam", SimSiam, {"augment": "strong"}),
    ],
    ids=["as they are", "a ramp", "altered"],
)
def test_a_run_on_images_that_was_cut_goes_on_to_the_same_bits(tmp_path, monkeypatch, method, kind, settings):
    common = {"width": 16, "heads": 2, "layers": 1, "batch_size": 16, "epochs": 3, "progress": False, **settings}
    whole = graphssl.pretrain(pictures(40), method, out=tmp_path / "whole", **common)
    assert (whole.plan.alter is not None) == (method == "simsiam")
    steps, plain = [], kind.after_step
    with monkeypatch.context() as patch:

        def after_step(self, progress):
            plain(self, progress)
            steps.append(progress)
            if len(steps) == 6:  # the middle of an epoch of three steps, once five are saved
                raise Cut

        patch.setattr(kind, "after_step", after_step)
        patch.setattr(runner.Saver, "due", lambda self: True)
        with pytest.raises(Cut):
            graphssl.pretrain(pictures(40), method, out=tmp_path / "cut", **common)
    assert store.read_tensors(tmp_path / "cut" / store.CHECKPOINT)[1]["step"] == "5"
    again = graphssl.pretrain(pictures(40), method, out=tmp_path / "cut", resume=True, **common)
    for name, tensor in store.tensors_of(whole.method).items():
        assert torch.equal(tensor, store.tensors_of(again.method)[name]), name
    assert again.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-12)
    assert torch.equal(again.embed(), whole.embed())


def test_altered_images_are_other_ones_each_step_but_the_same_for_a_seed():
    common = {"width": 16, "heads": 2, "layers": 1, "batch_size": 40, "epochs": 2, "progress": False}
    one = graphssl.pretrain(pictures(40), "simsiam", augment="weak", **common)
    torch.rand(3)
    same = graphssl.pretrain(pictures(40), "simsiam", augment="weak", **common)
    other = graphssl.pretrain(pictures(40), "simsiam", augment="weak", seed=1, **common)
    assert torch.equal(one.embed(), same.embed())
    assert not torch.equal(one.embed(), other.embed())
