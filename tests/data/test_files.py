"""What stands in a ``.npz`` file, and the one sentence that answers what cannot be used."""

import json

import numpy as np
import pytest
import torch

from graphssl.data import to_dataset
from graphssl.errors import UserError
from graphssl.ops import dense

N, E = 12, 24
RING = np.array([[*range(N), *range(1, N), 0], [*range(1, N), 0, *range(N)]])
X = np.arange(2.0 * N).reshape(N, 2)
Y = np.arange(N) % 2


def node_fields(**changes):
    return {"edge_index": RING, "x": X, "y": Y, **changes}


def sparse_fields(**changes):
    fields = {"x_indptr": np.arange(N + 1), "x_indices": np.arange(N) % 3, "x_values": np.ones(N), "x_shape": [N, 3]}
    return {"edge_index": RING, **fields, **changes}


def graph_fields(**changes):
    """Three rings of four nodes."""
    ring = np.array([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])
    fields = {"node_ptr": [0, 4, 8, 12], "edge_ptr": [0, 8, 16, 24], "edge_index": np.tile(ring, 3), "node_feat": X}
    return {**fields, "y": [0, 1, 0], **changes}


def without(fields, *keys):
    return {key: value for key, value in fields.items() if key not in keys}


def read(tmp_path, fields):
    np.savez(tmp_path / "mine.npz", **fields)
    return to_dataset(tmp_path / "mine.npz")


nan = X.copy()
nan[1, 0] = np.nan
half = np.arange(N) < 6
train_test = {"train_idx": [0, 1], "test_idx": [2, 3]}

REFUSED = {
    "float edges": (node_fields(edge_index=RING + 0.5), ["edge_index holds torch.float64", "integers"]),
    "edges transposed": (node_fields(edge_index=RING.T), ["(24, 2)", "transpose"]),
    "edges out of range": (node_fields(edge_index=RING + 1), ["edge 10 joins", "0 to 11"]),
    "edges out of range of y": (without(node_fields(edge_index=RING + 1), "x"), ["edge 10 joins", "0 to 11"]),
    "nan features": (node_fields(x=nan), ["x has 1 values that are NaN", "row 1, column 0"]),
    "names as features": (node_fields(x=np.array(["a"] * N)), ["x holds <U1", "float array"]),
    "rows of labels": (node_fields(y=Y[:5]), ["labels", "(5,)", "12 nodes"]),
    "one sparse field": ({"edge_index": RING, "x_indptr": [0, 1]}, ["no x_indices", "x_values", "README"]),
    "sparse columns": (sparse_fields(x_indices=np.arange(N)), ["make no matrix", "csr_matrix"]),
    "sparse lengths": (sparse_fields(x_values=np.ones(3)), ["make no matrix", "csr_matrix"]),
    "complex sparse": (sparse_fields(x_values=np.ones(N) * 1j), ["complex", "imaginary"]),
    "nothing": ({}, ["no edge_index", "nothing", "README"]),
    "no node": ({"edge_index": np.empty((2, 0), int)}, ["neither x nor y nor an edge", "add x"]),
    "meta": (node_fields(meta=np.array("{classes")), ["meta is no JSON", "json.dumps"]),
    "names": (node_fields(names=np.array(["a", "b"])), ["names has shape (2,)", "12 nodes"]),
    "mask length": (
        node_fields(train_mask=half[:5], test_mask=~half),
        ["train_mask has shape (5,)", "[12], or [repeats, 12]"],
    ),
    "longer mask": (node_fields(train_mask=np.ones(N + 1, bool), test_mask=~half), ["(13,)", "12 nodes"]),
    "repeats of masks": (
        node_fields(train_mask=np.stack([half] * 2), test_mask=np.stack([~half] * 3)),
        ["repeats", "train 2", "test 3"],
    ),
    "masks overlap": (node_fields(train_mask=half, test_mask=half), ["train and test", "share 6 nodes"]),
    "no test_mask": (node_fields(train_mask=half), ["train_mask but no test_mask"]),
    "train_idx alone": (node_fields(train_idx=[0, 1]), ["train_idx but no test_idx", "rows to test"]),
    "val_idx alone": (node_fields(val_idx=[0, 1]), ["val_idx but no train_idx and no test_idx"]),
    "index out of range": (node_fields(**train_test, val_idx=[15]), ["val_idx lists node 15", "0 to 11"]),
    "negative index": (node_fields(**train_test, val_idx=[-1]), ["val_idx lists node -1"]),
    "float index": (node_fields(**train_test, val_idx=[0.5]), ["val_idx", "float64", "integers"]),
    "budget without test": (node_fields(train_idx_20=[0]), ["train_idx_20 but no test_idx_20"]),
    "nan node_feat": (graph_fields(node_feat=nan), ["node_feat has 1 values that are NaN", "row 1"]),
    "nan node_attr": (graph_fields(node_attr=nan), ["node_attr has 1 values that are NaN", "row 1"]),
    "rows of node_feat": (graph_fields(node_feat=X[:5]), ["node_feat has 5 rows", "12"]),
    "float node_label": (graph_fields(node_label=X[:, 0]), ["node_label is float64", "integers [12]"]),
    "rows of node_label": (graph_fields(node_label=Y[:5]), ["node_label", "(5,)", "[12]"]),
    "nan edge_feat": (graph_fields(edge_feat=np.full((E, 1), np.nan)), ["edge_feat", "NaN"]),
    "rows of edge_feat": (graph_fields(edge_feat=np.ones((E + 1, 1))), ["edge_feat has 25 rows for 24 edges"]),
    "rows of edge_label": (graph_fields(edge_label=np.ones(E + 1, int)), ["edge_label", "(25,)", "[24]"]),
    "negative edge_label": (graph_fields(edge_label=np.full(E, -1)), ["edge_label has -1", "from 0"]),
    "float edges of graphs": (graph_fields(edge_index=np.zeros((2, E))), ["edge_index holds torch.float64"]),
    "edges of another graph": (graph_fields(edge_index=RING), ["graph 0", "outside its 4 nodes"]),
    "no edge_ptr": (without(graph_fields(), "edge_ptr"), ["no edge_ptr", "README"]),
    "pointers that differ": (graph_fields(edge_ptr=[0, 24]), ["node_ptr has 4 entries and edge_ptr 2"]),
    "float pointers": (graph_fields(node_ptr=[0.0, 4, 8, 12]), ["node_ptr is float64", "integers"]),
    "no graph": (graph_fields(node_ptr=[0], edge_ptr=[0]), ["1 entries"]),
    "empty pointers": (graph_fields(node_ptr=np.empty(0, int)), ["node_ptr", "(0,)"]),
    "a start": (graph_fields(node_ptr=[1, 4, 8, 12]), ["node_ptr starts at 1"]),
    "a graph without nodes": (graph_fields(node_ptr=[0, 4, 4, 12]), ["node_ptr goes from 4 to 4 at graph 1"]),
    "edges that shrink": (graph_fields(edge_ptr=[0, 16, 8, 24]), ["edge_ptr goes from 16 to 8 at graph 1"]),
    "an end": (graph_fields(edge_ptr=[0, 8, 16, 20]), ["edge_ptr ends at 20", "24 edges"]),
    "labels of graphs": (graph_fields(y=Y), ["(12,)", "3 graphs"]),
    "names of graphs": (graph_fields(names=["a"]), ["names has shape (1,)", "3 graphs"]),
    "index of graphs": (
        graph_fields(train_idx=[0], val_idx=[1], test_idx=[3]),
        ["test_idx lists graph 3", "0 to 2"],
    ),
    "train_idx of graphs alone": (graph_fields(train_idx=[0]), ["train_idx but no test_idx"]),
    "folds": (graph_fields(fold=[0, 1]), ["fold", "(2,)", "[3]"]),
    "errica alone": (graph_fields(errica_test_fold=[0, 1, 0]), ["no errica_val_mask"]),
    "errica masks": (
        graph_fields(errica_test_fold=[0, 1, 0], errica_val_mask=np.ones((2, 4), bool)),
        ["errica_val_mask", "(2, 4)", "[folds, 3]"],
    ),
    "meta of graphs": (graph_fields(meta=np.array("no")), ["meta is no JSON"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_file_the_mistake_and_the_way_out(case, tmp_path):
    fields, words = REFUSED[case]
    with pytest.raises(UserError) as caught:
        read(tmp_path, fields)
    message = str(caught.value)
    assert "\n" not in message
    for word in ("mine.npz", *words):
        assert word in message


def test_archives_that_cannot_be_read(tmp_path):
    np.savez(tmp_path / "mine.npz", **node_fields())
    whole = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "mine.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot read"):
        to_dataset(tmp_path / "mine.npz")
    with open(tmp_path / "mine.npz", "wb") as file:
        np.save(file, X)
    with pytest.raises(UserError, match="cannot read"):
        to_dataset(tmp_path / "mine.npz")


def test_nodes_with_all_that_may_come_along(tmp_path):
    names = np.array([f"paper {i}" for i in range(N)])
    meta = np.array(json.dumps({"classes": ["left", "right"]}))
    dataset = read(tmp_path, node_fields(names=names, meta=meta, train_mask=half, test_mask=np.roll(half, 6)))
    assert dataset.node_names == tuple(names.tolist())
    assert dataset.classes == ("left", "right")
    assert list(dataset.splits) == ["masks"]
    repeated = read(tmp_path, node_fields(train_mask=np.stack([half, ~half]), test_mask=np.stack([~half, half])))
    assert [split.train.tolist() for split in repeated.splits["masks"]] == [[*range(6)], [*range(6, 12)]]
    assert torch.equal(dataset.graph.x, torch.from_numpy(X).float())
    sparse = read(tmp_path, sparse_fields())
    assert torch.equal(dense(sparse.graph.x), torch.eye(3).repeat(4, 1))
    assert (sparse.y, sparse.node_names, sparse.splits) == (None, None, {})
    bare = read(tmp_path, {"edge_index": RING, "y": Y})
    assert bare.from_degrees
    assert dense(bare.graph.x).tolist() == [[0, 0, 1]] * N
    alone = read(tmp_path, {"edge_index": np.empty((2, 0)), "y": Y})  # numpy's empty arrays are floats
    assert dense(alone.graph.x).tolist() == [[1]] * N


def test_without_validation_some_of_the_other_rows_are_set_aside(tmp_path):
    (split,) = read(tmp_path, node_fields(**train_test)).splits["public"]
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0, 1], [*range(4, N)], [2, 3])
    (split,) = read(tmp_path, graph_fields(train_idx=[2], test_idx=[0])).splits["scaffold"]
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([2], [1], [0])


def test_graphs_with_all_that_may_come_along(tmp_path):
    fields = graph_fields(names=["a", "b", "c"], edge_label=np.arange(E) % 2, fold=[0, 1, -1])
    dataset = read(tmp_path, fields)
    assert dataset.item_names == ("a", "b", "c")
    assert dataset.graphs[1].x.tolist() == X[4:8].tolist()
    assert dataset.graphs[1].edge_attr.sum(0).tolist() == [4, 4]
    assert [split.train.tolist() for split in dataset.splits["fold"]] == [[1, 2], [0, 2]]
    bare = read(tmp_path, without(graph_fields(), "node_feat"))
    assert bare.from_degrees
    assert dense(bare.graphs[2].x).tolist() == [[0, 0, 1]] * 4
    assert bare.splits == {}
    assert bare.protocols == ("graph-svm",)


def test_a_set_of_few_graphs_gets_no_random_split(tmp_path):
    one = {"node_ptr": [0, N], "edge_ptr": [0, E], "edge_index": RING, "node_feat": X, "y": [0.5]}
    dataset = read(tmp_path, one)
    assert (dataset.task, dataset.splits, dataset.protocols) == ("graph", {}, ())
