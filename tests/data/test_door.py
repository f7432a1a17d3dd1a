"""What a user may hand in, and the one sentence that answers what cannot be used."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset

from graphssl.data import Dataset, Graphs, Split, degree_features, is_path, to_dataset
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Rows, dense

RING = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
X = torch.arange(6.0).reshape(3, 2)


def data(**changes):
    return Data(**{"x": X, "edge_index": RING, **changes})


def lengths(dataset):
    return [tuple(len(rows) for rows in (s.train, s.val, s.test)) for split in dataset.splits.values() for s in split]


def path_graph(nodes=3):
    graph = nx.path_graph(nodes)
    nx.set_node_attributes(graph, {node: [1.0, node] for node in graph}, "x")
    return graph


class Items(InMemoryDataset):
    def __init__(self, items):
        super().__init__()
        self.data, self.slices = self.collate(items)


def dgl_graph(**ndata):
    """A stand-in with the attributes of a DGLGraph that the door reads; DGL itself need not be installed."""

    class DGLGraph:
        is_homogeneous, batch_size, edata = True, 1, {"w": torch.arange(1.0, 7.0)}

        def num_nodes(self):
            return 3

        def edges(self, order):
            assert order == "eid"
            return RING[0].int(), RING[1].int()

    DGLGraph.__module__ = "dgl.heterograph"
    graph = DGLGraph()
    graph.ndata = ndata or {"feat": X}
    return graph


nan = X.clone()
nan[1, 0] = float("nan")
hetero = HeteroData(paper={"x": X})
batched = dgl_graph()
batched.batch_size = 2

REFUSED = {
    "nothing": (None, ["NoneType", "torch_geometric Data", "networkx", "scipy sparse adjacency"]),
    "a number": (3, ["int", "give"]),
    "a generator": ((data() for _ in range(2)), ["generator"]),
    "a list of numbers": ([1, 2], ["list of int"]),
    "an empty list": ([], ["empty", "at least one"]),
    "features alone": (X, ["(3, 2)", "adjacency"]),
    "hetero": (hetero, ["heterogeneous", "to_homogeneous()"]),
    "a list of hetero": ([hetero, hetero], ["heterogeneous", "to_homogeneous()"]),
    "nan": (data(x=nan), ["row 1, column 0", "nan_to_num"]),
    "infinite": (data(x=X / 0), ["infinite", "row 0"]),
    "beyond float32": (data(x=X.double() * 1e39), ["beyond float32"]),
    "edge out of range": (data(edge_index=RING + 1), ["edge 2 joins", "nodes 0 to 2", "renumber"]),
    "negative edge": (data(edge_index=RING - 1), ["-1", "0 to 2"]),
    "float edges": (data(edge_index=RING.float()), ["float32", "integers"]),
    "transposed edges": (data(edge_index=RING.t()), ["(6, 2)", "transpose"]),
    "flat edges": (data(edge_index=RING[0]), ["(6,)", "[2, edges]"]),
    "rows against num_nodes": (data(num_nodes=5), ["3 rows", "5"]),
    "no nodes": (data(x=torch.zeros(0, 2), edge_index=RING[:, :0]), ["no nodes"]),
    "no features": (Data(edge_index=RING), ["no node features", "degree_features"]),
    "features of width 0": (data(x=torch.zeros(3, 0)), ["no node features", "degree_features"]),
    "features of three dimensions": (data(x=torch.zeros(3, 2, 2)), ["(3, 2, 2)", "flatten"]),
    "edge_attr": (data(edge_attr=torch.ones(5, 2)), ["edge_attr", "5", "6 edges"]),
    "nan edge_weight": (data(edge_weight=torch.full((6,), float("nan"))), ["edge_weight", "NaN"]),
    "two weights an edge": (data(edge_weight=torch.ones(6, 2)), ["edge_weight", "2 columns"]),
    "sparse edges": (Data(x=X, adj_t=torch.eye(3).to_sparse()), ["adj_t", "ToSparseTensor"]),
    "labels": (data(y=torch.tensor([0, 1])), ["(2,)", "3 nodes"]),
    "widths": ([data(), data(), data(x=X[:, :1])], ["graph 2", "width 1", "width 2"]),
    "a bad graph in a list": ([data(), data(edge_index=RING + 1)], ["graph 1", "renumber"]),
    "kinds in a list": ([data(), nx.path_graph(2)], ["item 1", "networkx.Graph", "torch_geometric.Data"]),
    "some labels": ([data(y=torch.tensor([1])), data()], ["graph 0", "graph 1 has none"]),
    "labels of nodes": (
        [data(y=torch.arange(3)), data(x=torch.ones(4, 2), y=torch.arange(4))],
        ["graph 0 has 3 labels for its 3 nodes", "without the list", "[1, 3]"],
    ),
    "one graph with labels of its nodes": ([data(y=torch.arange(3))], ["3 labels", "without the list", "drop y"]),
    "numbers of labels": (
        [data(y=torch.arange(2)), data(y=torch.arange(4))],
        ["graph 1 has 4 labels", "one graph"],
    ),
    "mask": (
        data(train_mask=torch.ones(2, dtype=torch.bool), test_mask=torch.ones(3)),
        ["train_mask", "(2,)", "3 nodes"],
    ),
    "masks that overlap": (data(train_mask=torch.ones(3), test_mask=torch.tensor([0, 0, 1])), ["share 1 nodes"]),
    "lists that overlap": (
        data(train_idx=torch.tensor([0, 1]), val_idx=torch.tensor([1]), test_idx=torch.tensor([2])),
        ["train and val", "share 1 nodes"],
    ),
    "repeats": (data(train_mask=torch.eye(3)[:, :2], test_mask=1 - torch.eye(3)), ["repeats", "train 2", "test 3"]),
    "index": (data(train_idx=torch.tensor([0]), test_idx=torch.tensor([7])), ["test_idx", "0 to 2"]),
    "several Graphs in one": (Graph.stack([to_dataset(data()).graph] * 2), ["2 graphs", "list"]),
    "a tuple without adjacency": ((X, RING), ["cannot", "tuple of torch.Tensor"]),
    "adjacency first": ((sp.eye(3).tocsr(), X), ["tuple must be (features, scipy sparse adjacency)"]),
    "adjacency shape": ((X, sp.csr_matrix((3, 4))), ["(3, 4)", "(3, 3)"]),
    "adjacency labels": ((X, sp.eye(3), [0, 1]), ["(2,)", "3 nodes"]),
    "networkx, nothing": (nx.Graph(), ["no nodes"]),
    "networkx, no features": (
        nx.path_graph(3),
        ["'x', 'feat', 'features'", "graphssl.to_dataset(graph, x_name=...)", "graph.degree"],
    ),
    "dgl, batch": (batched, ["batch of 2", "dgl.unbatch"]),
    "dgl, no features": (
        dgl_graph(label=torch.arange(3)),
        ["no node features", "'label'", "degree_features", "to_dataset"],
    ),
    "no file": ("folder/somewhere/cora.npz", ["no file folder/somewhere/cora.npz"]),
    "a name": ("citations-mini", ["neither a file nor a folder", "graphssl.load_dataset('citations-mini')"]),
    "no features at all": ((None, sp.eye(3)), ["the feature matrix is None", "[nodes, features]"]),
    "complex sparse features": ((sp.eye(3).tocsr() * 1j, sp.eye(3)), ["the feature matrix holds complex", "imaginary"]),
    "complex sparse tensor": (data(x=(X * 1j).to_sparse()), ["x holds complex", "imaginary"]),
    "ragged features": (([[1, 2], [3], [4]], sp.eye(3)), ["the feature matrix is a list that makes no array", "float"]),
    "ragged edges": ((data(edge_index=[[0, 1], [1]])), ["edge_index is a list that makes no array", "[2, edges]"]),
    "ragged labels": (data(y=[[1], [1, 2], [3]]), ["a list makes no array", "one length"]),
    "nan pos": (data(pos=nan), ["pos has values that are NaN"]),
    "names of attributes for a list of PyG": ([data(), data()], ["x_name"], {"x_name": "x"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_mistake_and_the_way_out(case, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given, words, *names = REFUSED[case]
    with pytest.raises(UserError) as caught:
        to_dataset(given, **dict(*names))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


edges_twice = torch.cat([RING, RING], dim=1)
LEGAL = {
    "isolated nodes": data(x=torch.ones(5, 2)),
    "self-loops": data(edge_index=torch.tensor([[0, 1], [0, 1]])),
    "duplicate edges": data(edge_index=edges_twice),
    "one node": data(x=X[:1], edge_index=RING[:, :0]),
    "no edges": data(edge_index=RING[:, :0]),
    "edge_index absent": Data(x=X),
    "empty float edges": data(edge_index=torch.empty(2, 0)),
    "directed": data(edge_index=RING[:, :3]),
    "float64": data(x=X.double()),
    "int32": data(x=X.int(), edge_index=RING.int()),
    "boolean": data(x=X > 2),
    "one column": data(x=X[:, 0]),
    "huge": data(x=X * 1e30),
    "non-contiguous": data(x=torch.arange(6.0).reshape(2, 3).t(), edge_index=RING.t().contiguous().t()),
    "requires grad": data(x=X.clone().requires_grad_()),
    "sparse tensor": data(x=X.to_sparse()),
}


@pytest.mark.parametrize("case", LEGAL)
def test_odd_but_legal(case):
    given = LEGAL[case]
    dataset = to_dataset(given)
    graph = dataset.graph
    assert dataset.task == "node"
    assert dataset.name == "data"
    assert dataset.raw is given
    x = given.x.to_dense() if given.x.layout != torch.strided else given.x
    assert torch.equal(dense(graph.x), x.detach().float().reshape(len(x), -1))
    expected = [] if given.edge_index is None else sorted(zip(*given.edge_index.flip(0).tolist(), strict=True))
    assert list(zip(*graph.edge_index.flip(0).tolist(), strict=True)) == expected


def test_labels_and_masks_come_along():
    train = torch.tensor([[1, 0], [0, 1], [0, 0]]).bool()
    test = torch.tensor([False, False, True])
    dataset = to_dataset(data(y=torch.tensor([[3], [7], [3]]), train_mask=train, test_mask=test))
    assert dataset.y.tolist() == [0, 1, 0]
    assert dataset.classes == ("3", "7")
    first, second = dataset.splits["given"]
    assert (first.train.tolist(), first.val.tolist(), first.test.tolist()) == ([0], [1], [2])  # val: who is left
    assert (second.train.tolist(), second.val.tolist(), second.test.tolist()) == ([1], [0], [2])
    rows = to_dataset(data(train_idx=[2], valid_idx=torch.tensor([1]), test_idx=np.array([0]))).splits["given"][0]
    assert (rows.train.tolist(), rows.val.tolist(), rows.test.tolist()) == ([2], [1], [0])


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (torch.tensor([0.5, 1, 2]), [0.5, 1, 2]),
        (torch.tensor([[0.5], [1], [2]]), [0.5, 1, 2]),
        (torch.tensor([-1, 1, -1]), [0, 1, 0]),
        (torch.tensor([-1, 5, 3]), [-1, 1, 0]),
        (torch.tensor([True, False, True]), [1, 0, 1]),
        (torch.tensor([[1, 0], [0, 1], [1, 1]]), [[1, 0], [0, 1], [1, 1]]),
    ],
)
def test_kinds_of_labels(y, expected):
    dataset = to_dataset(data(y=y))
    assert dataset.y.tolist() == expected
    assert dataset.y.is_floating_point() == (y.is_floating_point() or y.ndim == 2)


def test_labelled_nodes_without_masks_get_a_random_split():
    y = torch.arange(40) % 2
    y[30:] = -1
    dataset = to_dataset(Data(x=torch.ones(40, 1), edge_index=RING, y=torch.where(y < 0, y, y + 1)))
    assert list(dataset.splits) == ["random-1:1:8"]
    assert lengths(dataset) == [(4, 4, 22)] * 10
    few = to_dataset(Data(x=torch.ones(8, 1), edge_index=RING, y=torch.arange(8) % 2))  # ten labels are needed
    assert few.splits == {}
    assert few.protocols == ("node-cluster", "reconstruct")  # those that need no split


def test_bags_of_words_are_sparse():
    words = (torch.rand(20, 80, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    assert isinstance(to_dataset(Data(x=words, edge_index=RING)).graph.x, Rows)
    assert isinstance(to_dataset(Data(x=words[:, :63], edge_index=RING)).graph.x, torch.Tensor)
    assert isinstance(to_dataset(Data(x=words + 1, edge_index=RING)).graph.x, torch.Tensor)
    assert isinstance(to_dataset((sp.csr_matrix(X), sp.eye(3))).graph.x, Rows)
    dense_graph = Data(x=words + 1, edge_index=RING)
    mixed = to_dataset([Data(x=words, edge_index=RING), dense_graph])  # one kind for all, so that they can be stacked
    assert torch.equal(dense(mixed.batch([0, 1]).x), torch.cat([words, words + 1]))


def test_lists_are_graph_sets():
    items = [data(y=torch.tensor([i % 2 + 1]), x=X + i) for i in range(12)]
    for given in (items, tuple(items), Items(items), Batch.from_data_list(items)):
        dataset = to_dataset(given)
        assert dataset.task == "graph"
        assert dataset.y.tolist() == [i % 2 for i in range(12)]
        assert dataset.classes == ("1", "2")
        assert [len(graph.x) for graph in dataset.graphs] == [3] * 12
        assert torch.equal(dataset.graphs[-1].x, X + 11)
        assert list(dataset.splits) == ["random-8:1:1"]
        batch = dataset.batch([5, 2])
        assert batch.items.tolist() == [5, 2]
        assert torch.equal(batch.x, torch.cat([X + 5, X + 2]))
    tasks = to_dataset([data(y=torch.tensor([[1.0, float("nan")]])), data(y=torch.tensor([[0.0, 2.0]]))])
    assert tasks.y.shape == (2, 2)
    graphs = [Graph.from_data(item) for item in items]
    assert to_dataset(graphs).y is None
    assert to_dataset([(graph, i % 2) for i, graph in enumerate(graphs)]).y.tolist() == [i % 2 for i in range(12)]


@pytest.mark.parametrize("labelled", [False, True])
def test_each_item_of_a_pyg_data_set_is_read_once(labelled):
    items = Items([data(y=torch.tensor([i])) if labelled else data() for i in range(5)])
    read = []

    def transform(item):  # what it gives depends on when it is asked
        read.append(1)
        return Data(x=item.x + len(read), edge_index=item.edge_index, y=item.y)

    items.transform = transform
    dataset = to_dataset(items)
    assert len(read) == (5 if labelled else 1)
    first = [graph.x for graph in dataset.graphs]
    again = dataset.batch(range(5)).x.split(3)
    assert len(read) == 5
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert (None if dataset.y is None else dataset.y.tolist()) == ([0, 1, 2, 3, 4] if labelled else None)


def test_graphs_are_made_when_asked_for_and_kept():
    made = []
    graphs = Graphs(4, lambda i: made.append(i) or to_dataset(data(x=X + i)).graph)
    assert made == []
    assert graphs[2] is graphs[-2] is graphs[1:][1]
    assert sorted(made) == [1, 2, 3]
    assert [graph.x[0, 0].item() for graph in graphs] == [0, 1, 2, 3]
    assert sorted(made) == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        graphs[4]


def test_a_list_is_a_graph_set_however_short():
    graph = to_dataset(data()).graph
    for item in (data(), path_graph(), dgl_graph(), graph, (graph, 1), data(y=torch.tensor([1])), data(y=X[:1])):
        for given in ([item], [item, item]):
            assert (to_dataset(given).task, len(to_dataset(given).graphs)) == ("graph", len(given))
    assert to_dataset(Batch.from_data_list([data()])).task == "graph"
    whole = Items([data(y=torch.arange(3))])  # as Planetoid is
    dataset = to_dataset(whole, name="mine")
    assert (dataset.task, dataset.name, dataset.raw) == ("node", "mine", whole)
    assert dataset.y.tolist() == [0, 1, 2]


def test_what_was_handed_in_stays_the_users():
    words = sp.csr_matrix((np.ones(3), [1, 1, 0], [0, 2, 3, 3]), (3, 2))  # an entry twice
    sparse = to_dataset((words, sp.eye(3))).graph
    assert words.nnz == 3
    words.data[:] = 7
    assert sparse.x.to_dense().tolist() == [[0, 2], [1, 0], [0, 0]]
    for kind in (torch.as_tensor, np.asarray):
        given = {
            "x": kind(X.clone()), "edge_index": kind(RING.clone()), "pos": kind(X.clone()),
            "edge_attr": kind(torch.ones(6, 2)), "edge_weight": kind(torch.full((6,), 2.0)),
        }  # fmt: skip
        graph = Graph.build(**given)
        before = {key: getattr(graph, key).clone() for key in given}
        for value in given.values():
            value[:] = 0
        for key, value in before.items():
            assert torch.equal(getattr(graph, key), value), key
    read_only = X.numpy().copy()
    read_only.flags.writeable = False
    assert torch.equal(Graph.build(read_only[::-1], RING).x, X.flip(0))


def test_sparse_features_beyond_float32_are_refused():
    with pytest.raises(UserError, match="beyond float32, the first in row 1, column 1"):
        to_dataset((sp.diags([1.0, 1e39, 1.0]).tocsr(), sp.eye(3)))


def test_data_sets_and_graphs_pass():
    dataset = to_dataset(data())
    assert to_dataset(dataset) is dataset
    assert to_dataset(dataset.graph).graph.x is dataset.graph.x


def test_networkx():
    graph = nx.Graph()
    graph.add_node("a", x=[1, 2], size=5.0, label="cat")
    graph.add_node("b", x=torch.tensor([3, 4]), size=6, label="dog")
    graph.add_node("c", x=(5, 6), size=np.float32(7))
    graph.add_edge("a", "b", weight=0.5)
    graph.add_edge("c", "c")
    dataset = to_dataset(graph, x_name=["x", "size"], y_name="label")
    assert dataset.node_names == ("a", "b", "c")
    assert dataset.graph.x.tolist() == [[1, 2, 5], [3, 4, 6], [5, 6, 7]]
    assert dataset.graph.edge_index.tolist() == [[1, 0, 2], [0, 1, 2]]
    assert dataset.graph.edge_weight.tolist() == [0.5, 0.5, 1]
    assert dataset.y.tolist() == [0, 1, -1]
    assert to_dataset(graph).graph.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(UserError, match=r"'color'.*'x', 'size'"):
        to_dataset(graph, x_name="color")
    with pytest.raises(UserError, match=r"'color'.*'label'"):
        to_dataset(graph, y_name="color")
    with pytest.raises(UserError, match=r"'label'.*'cat'.*one-hot"):
        to_dataset(graph.subgraph(["a", "b"]), x_name="label")


def test_networkx_keeps_direction_and_counterparts():
    edges = [(0, 1), (1, 2), (2, 2)]
    for kind in (nx.DiGraph, nx.MultiDiGraph):
        graph = kind(edges)
        nx.set_node_attributes(graph, 1.0, "feat")
        assert to_dataset(graph).graph.edge_index.tolist() == [[0, 1, 2], [1, 2, 2]]
    multi = nx.MultiGraph([(0, 1), (0, 1)])
    nx.set_node_attributes(multi, 1.0, "feat")
    assert to_dataset(multi).graph.edge_index.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_list_of_networkx():
    graphs = [path_graph(n) for n in (2, 3, 4)]
    for i, graph in enumerate(graphs):
        graph.graph["label"] = i % 2
    dataset = to_dataset(graphs)
    assert (dataset.task, dataset.y.tolist()) == ("graph", [0, 1, 0])
    assert to_dataset(graphs, y_name="label").y.tolist() == [0, 1, 0]
    assert dataset.item_names is None
    for graph, name in zip(graphs, "abc", strict=True):
        graph.name = name
    assert to_dataset(graphs).item_names == ("a", "b", "c")
    with pytest.raises(UserError, match="'kind'"):
        to_dataset(graphs, y_name="kind")


def test_names_of_attributes_are_not_for_pyg():
    with pytest.raises(UserError, match="x_name"):
        to_dataset(data(), x_name="x")


def test_dgl_stand_in():
    mask = torch.tensor([True, False, False])
    graph = dgl_graph(feat=X, label=torch.tensor([1, 0, 1]), train_mask=mask, test_mask=~mask)
    dataset = to_dataset(graph)
    assert torch.equal(dataset.graph.x, X)
    assert dataset.y.tolist() == [1, 0, 1]
    assert dataset.graph.edge_weight.tolist() == [2, 5, 1, 4, 6, 3]
    assert lengths(dataset) == [(1, 0, 2)]
    assert to_dataset(graph, x_name=["feat", "label"]).dim == 3
    several = to_dataset([(dgl_graph(), torch.tensor(1)), (dgl_graph(), torch.tensor(0))])
    assert (several.task, several.y.tolist()) == ("graph", [1, 0])
    graph.is_homogeneous = False
    with pytest.raises(UserError, match="to_homogeneous"):
        to_dataset(graph)


def test_dgl():
    dgl = pytest.importorskip("dgl", reason="dgl is not installed", exc_type=ImportError)
    graph = dgl.graph((RING[0], RING[1]))
    graph.ndata["feat"], graph.ndata["label"] = X, torch.tensor([1, 0, 1])
    dataset = to_dataset(graph)
    assert torch.equal(dataset.graph.edge_index, to_dataset(data()).graph.edge_index)
    assert dataset.y.tolist() == [1, 0, 1]
    assert to_dataset([graph, graph]).task == "graph"


def test_adjacency_entries_are_edges_from_row_to_column():
    adjacency = sp.coo_matrix(([1.0, 2.0, 0.0], ([0, 2, 1], [1, 0, 2])), shape=(3, 3))
    dataset = to_dataset((X.numpy(), adjacency, ["a", "b", "a"]))
    assert dataset.graph.edge_index.tolist() == [[2, 0], [0, 1]]
    assert dataset.graph.edge_weight.tolist() == [2, 1]
    assert (dataset.y.tolist(), dataset.classes) == ([0, 1, 0], ("a", "b"))
    assert adjacency.nnz == 3
    assert to_dataset((X, sp.eye(3))).graph.edge_weight is None


def test_files_and_folders(tmp_path):
    np.savez(tmp_path / "My_Set.npz", edge_index=RING.numpy(), x=X.numpy(), y=[0, 1, 0])
    for given in (tmp_path, str(tmp_path), tmp_path / "My_Set.npz", str(tmp_path / "My_Set.npz")):
        dataset = to_dataset(given)
        assert (dataset.name, dataset.y.tolist()) == ("my-set", [0, 1, 0])
        assert torch.equal(dataset.graph.x, X)
    np.savez(tmp_path / "other.npz", x=X.numpy())
    with pytest.raises(UserError, match=r"My_Set.npz, other.npz"):
        to_dataset(tmp_path)
    with pytest.raises(UserError, match="no edge_index"):
        to_dataset(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="cannot read"):
        to_dataset(tmp_path / "text.npz")
    np.savez(tmp_path / "pickle.npz", edge_index=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="plain arrays"):
        to_dataset(tmp_path / "pickle.npz")


def test_degree_features():
    x = degree_features(torch.tensor([[1, 2, 3, 0], [0, 0, 0, 1]]), num_nodes=5)
    assert x.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert degree_features(torch.tensor([[1, 2, 3], [0, 0, 0]]), 4, max_degree=1).tolist()[0] == [0, 1]
    assert degree_features(torch.empty(2, 0, dtype=torch.long), 2, max_degree=3).shape == (2, 4)
    with pytest.raises(UserError, match="num_nodes is 3"):
        degree_features(RING + 1, 3)


def test_strings_that_are_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cora").mkdir()
    assert not is_path("cora")  # a folder, but without data: the name is meant
    assert not is_path("cora/link")
    np.savez(tmp_path / "cora" / "mine.npz", edge_index=RING.numpy())
    for path in ("cora", "cora/mine.npz", "absent.npz", "a/b/c", tmp_path, "./cora"):
        assert is_path(path)
    assert not is_path(3)


def graph_set(y, **fields):
    return Dataset(name="mine", graphs=[to_dataset(data()).graph] * len(y), task="graph", y=torch.tensor(y), **fields)


def test_protocols_that_can_run():
    nan = float("nan")
    assert graph_set([0.0, 1.0, nan] * 10).protocols == ()  # yes or no, as OGB has it
    assert graph_set([[0.0], [1.0]] * 10).protocols == ()
    assert graph_set([nan] * 12).protocols == ()
    assert graph_set([0.0, 1.0, 2.0] * 10).protocols == ("graph-ridge",)
    assert graph_set([0.5, 1.0, 2.0] * 3).protocols == ()  # fewer than the ten folds
    assert graph_set([0, 1] * 10).protocols == ("graph-svm",)
    assert graph_set([0, -1] * 10).protocols == ()
    one, two, nobody = torch.tensor([0]), torch.tensor([1, 2]), torch.empty(0, dtype=torch.long)
    unchosen = {"mine": (Split(one, nobody, two),)}
    assert graph_set([0.5, 1.0, 2.0], splits=unchosen).protocols == ("graph-ridge",)
    nodes = to_dataset(data(y=torch.tensor([0, 1, 1])))
    assert nodes.protocols == ("node-cluster", "reconstruct")
    assert nodes.replace(y=torch.tensor([1, 1, -1])).protocols == ("reconstruct",)
    assert nodes.replace(graphs=[nodes.graph.keep_edges(torch.zeros(6).bool())], y=None).protocols == ()
    few = ("node-cluster", "node-few-shot", "reconstruct")  # a linear layer is chosen on validation rows
    assert nodes.replace(splits=unchosen).protocols == few
    whole = nodes.replace(splits={"mine": (Split(one, two[:1], two[1:]),)})
    assert whole.protocols == ("node-linear", "node-knn", *few)
    assert whole.replace(y=torch.tensor([0.5, 1, 2])).protocols == ("reconstruct",)
    assert whole.replace(task="link", y=None).protocols == ("link-dot", "link-mlp", "reconstruct")
    assert whole.replace(task="link", nodes=whole).protocols == ("link-dot", "link-mlp", *whole.protocols)
    assert whole.replace(task="link", y=None, splits={}).protocols == ("reconstruct",)


def test_degrees_of_a_users_own_can_be_made_anew_for_links():
    edges = torch.randint(30, (2, 200), generator=torch.Generator().manual_seed(0))
    dataset = to_dataset(Data(x=degree_features(edges, 30), edge_index=edges))
    assert torch.equal(dense(dataset.link().graph.x), dense(dataset.graph.x))  # the door cannot know what x is
    linked = dataset.replace(from_degrees=True).link().graph
    degree = torch.bincount(linked.edge_index[1], minlength=30)
    assert torch.equal(dense(linked.x).argmax(1), degree)
