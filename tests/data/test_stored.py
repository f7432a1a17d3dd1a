"""Graphs in folders: written and read back, from every kind of source, and what is refused."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch_geometric.data import Data

import graphssl
from graphssl.cli import main
from graphssl.data import Dataset, Split, Stored, convert_to_folder, is_path, load_dataset, storing, to_dataset
from graphssl.data.storing import breadth_first
from graphssl.data.transforms import symmetrise
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import dense
from graphssl.pretrained import fingerprint, label_marks
from graphssl.recipes import Spec
from tests.conftest import KINDS, random_graph

ONE = [kind for kind, make in KINDS.items() if make().num_graphs == 1]


def once(graph: Graph) -> Graph:
    """The graph with dense content and each edge once, the first of several."""
    key = graph.edge_index[1] * graph.num_nodes + graph.edge_index[0]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    return graph.keep_edges(first).replace(x=dense(graph.x))


def same(a: Graph, b: Graph, rtol: float = 0.0) -> None:
    torch.testing.assert_close(dense(a.x), dense(b.x), rtol=rtol, atol=rtol)
    for key in ("edge_index", "edge_weight", "edge_attr", "pos"):
        one, other = getattr(a, key), getattr(b, key)
        assert (one is None) == (other is None), key
        assert one is None or torch.equal(one, other), key


def renumbered(graph: Graph, order: torch.Tensor) -> Graph:
    """The graph whose node i is node ``order[i]`` of this."""
    place = order.argsort()
    extra = {key: getattr(graph, key) for key in ("edge_attr", "edge_weight")}
    pos = None if graph.pos is None else graph.pos[order]
    return Graph.build(dense(graph.x)[order], place[graph.edge_index], pos=pos, **extra)


@pytest.fixture(params=[7, 50, 2**22])
def chunk(request, monkeypatch) -> int:
    monkeypatch.setattr(storing, "CHUNK", request.param)
    return request.param


@pytest.mark.parametrize("kind", ONE)
@pytest.mark.parametrize("order", ["given", "bfs"])
def test_what_was_written_is_read(kind, order, chunk, tmp_path):
    graph = KINDS[kind]()
    stored = convert_to_folder(graph, tmp_path / "out", order=order, progress=False)
    names = stored.node_names
    rows = torch.arange(graph.num_nodes) if names is None else torch.tensor(names[:])
    assert sorted(rows.tolist()) == list(range(graph.num_nodes))
    expected = renumbered(once(graph), rows)
    same(stored.graph(), expected)
    assert stored.csr.col.dtype == torch.int32
    assert stored.csr.ptr.dtype == torch.int64
    assert torch.equal(stored.csr.col.long(), expected.csr.col)
    stored.csr.check()
    data = Dataset.of_stored(stored)
    plain = to_dataset(expected)
    assert fingerprint(data) == fingerprint(plain.replace(graphs=[expected]))
    assert data.graphs.made == [None]  # nothing so far has read the graph
    symmetric = {(a, b) for a, b in expected.edge_index.T.tolist()} == {
        (b, a) for a, b in expected.edge_index.T.tolist()
    }
    assert stored.undirected == symmetric
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("files", [3, 256])
def test_features_are_put_in_order_run_by_run(files, monkeypatch, tmp_path):
    graph, written = random_graph(40, 2), []

    class Map(np.ndarray):
        def __setitem__(self, rows, values):
            written.append(np.arange(40)[rows].tolist())
            super().__setitem__(rows, values)

    make = storing._new_map
    views = {"x.npy": Map}
    monkeypatch.setattr(storing, "_new_map", lambda path, *how: make(path, *how).view(views.get(path.name, np.ndarray)))
    monkeypatch.setattr(storing, "CHUNK", 7)
    monkeypatch.setattr(storing, "FILES", files)
    stored = convert_to_folder(graph, tmp_path / "out", progress=False)
    same(stored.graph(), renumbered(once(graph), torch.tensor(stored.node_names[:])))
    assert len(written) == (3 if files == 3 else 5)  # of 14 rows, or of 16 chunks: 9 rows
    assert [row for run in written for row in sorted(run)] == list(range(40))


@pytest.mark.parametrize("kind", ["directed", "weighted", "odd", "citation", "no-edges"])
def test_undirected_is_what_symmetrise_makes(kind, chunk, tmp_path):
    graph = KINDS[kind]()
    stored = convert_to_folder(graph, tmp_path / "out", undirected=True, order="given", progress=False)
    same(stored.graph(), once(symmetrise(graph)))
    assert stored.undirected
    again = convert_to_folder(tmp_path / "out", tmp_path / "again", undirected=True, order="given", progress=False)
    assert again.fingerprint == stored.fingerprint


def test_edge_attributes_go_along(chunk, tmp_path):
    graph = random_graph(20, 3, directed=True, attributes=True, weights=True)
    same(convert_to_folder(graph, tmp_path / "a", order="given", progress=False).graph(), once(graph))
    first = convert_to_folder(graph, tmp_path / "b", progress=False)
    same(first.graph(), renumbered(once(graph), torch.tensor(first.node_names[:])))
    second = convert_to_folder(tmp_path / "b", tmp_path / "c", undirected=True, order="given", progress=False)
    same(second.graph(), symmetrise(first.graph()))
    assert second.node_names[:] == first.node_names[:]


def write_edges(folder: Path, edges: torch.Tensor, weight: torch.Tensor | None = None) -> dict[str, Path]:
    """The same edges as files of every kind."""
    columns = {"source": edges[0].tolist(), "target": edges[1].tolist()}
    if weight is not None:
        columns["weight"] = weight.tolist()
    lines = [",".join(map(repr, row)) for row in zip(*columns.values(), strict=True)]
    bare, head = "\n".join(lines) + "\n", ",".join(columns) + "\n"
    paths = {name: folder / name for name in ("bare.csv", "head.csv", "packed.csv.gz", "table.parquet", "turned.csv")}
    paths["bare.csv"].write_text(bare)
    paths["head.csv"].write_text(head + bare + "\n")
    paths["packed.csv.gz"].write_bytes(gzip.compress((head + bare).encode()))
    turned = dict(reversed([*columns.items(), ("year", [1999] * len(lines))]))
    rows = [",".join(map(repr, row)) for row in zip(*turned.values(), strict=True)]
    paths["turned.csv"].write_text("\n".join([",".join(turned), *rows]))
    pq.write_table(pa.table(columns), paths["table.parquet"], row_group_size=17)
    return paths


@pytest.mark.parametrize("weights", [False, True])
def test_all_sources_of_one_graph_give_one_folder(weights, chunk, tmp_path):
    graph = random_graph(30, 2, directed=True, weights=weights).replace(pos=None)
    mixed = torch.randperm(graph.num_edges, generator=torch.Generator().manual_seed(0))
    edges = graph.edge_index[:, mixed]
    weight = None if graph.edge_weight is None else graph.edge_weight[mixed]
    np.save(tmp_path / "x.npy", graph.x.numpy())
    pq.write_table(pa.table({f"f{i}": c.numpy() for i, c in enumerate(graph.x.T)}), tmp_path / "wide.parquet")
    pq.write_table(pa.table({"x": graph.x.tolist()}), tmp_path / "lists.parquet")
    flat = pa.array(graph.x.flatten().numpy())
    fixed = pa.table({"x": pa.FixedSizeListArray.from_arrays(flat, graph.x.size(1))})
    pq.write_table(fixed, tmp_path / "fixed.parquet", row_group_size=11)
    expected = convert_to_folder(graph, tmp_path / "of-graph", progress=False)
    found = {"data": convert_to_folder(
        Data(x=graph.x, edge_index=edges, edge_weight=weight), tmp_path / "of-data", progress=False
    )}  # fmt: skip
    features = ["x.npy", "wide.parquet", "lists.parquet", "fixed.parquet", "x.npy"]
    paths = write_edges(tmp_path, edges, weight)
    for (name, path), x in zip(paths.items(), features, strict=True):
        found[name] = convert_to_folder(path, tmp_path / f"of-{name}", x=tmp_path / x, progress=False)
    for name, one in found.items():
        # of edges that are there twice the first is kept, and the files have them in another order
        if not weights:
            assert one.fingerprint == expected.fingerprint, name
        same(one.graph().replace(edge_weight=None), expected.graph().replace(edge_weight=None))
    assert len({one.fingerprint for one in found.values() if one is not found["data"]}) == 1
    assert found["head.csv"].name == "head"


def labelled() -> Dataset:
    graph = once(random_graph(50, 4))
    y = torch.arange(50) % 3
    splits = {
        "public": (Split(torch.arange(20), torch.arange(20, 30), torch.arange(30, 50)),),
        "10/fold:a": tuple(Split(torch.arange(i, 20), torch.tensor([]).long(), torch.arange(30, 50)) for i in (0, 5)),
    }
    return Dataset(
        name="mine", graphs=[graph], task="node", y=y, splits=splits, classes=("a", "b", "c"), metric="auc",
        node_names=tuple(f"node {i}" for i in range(50)), notes=("made up",),
    )  # fmt: skip


@pytest.mark.parametrize("order", ["given", "bfs"])
def test_labels_splits_and_names_go_along(order, tmp_path):
    data = labelled()
    convert_to_folder(data, tmp_path / "out", order=order, progress=False)
    found = load_dataset(str(tmp_path / "out"))
    assert is_path(str(tmp_path / "out"))
    assert (found.name, found.task, found.metric, found.classes, found.notes) == (
        "mine", "node", "auc", ("a", "b", "c"), ("made up",)
    )  # fmt: skip
    rows = [int(str(name).removeprefix("node ")) for name in found.node_names]
    assert (rows == list(range(50))) == (order == "given")
    assert torch.equal(found.y, data.y[rows])
    assert list(found.splits) == list(data.splits)
    for name, repeats in data.splits.items():
        for ours, theirs in zip(found.splits[name], repeats, strict=True):
            for part in ("train", "val", "test"):
                assert [rows[i] for i in getattr(ours, part).tolist()] == getattr(theirs, part).tolist()
    assert found.protocols == ("node-linear", "node-knn", "node-cluster", "node-few-shot")
    assert found.source is found.stored
    assert (found.dim, found.num_nodes) == (12, 50)
    spec, plain = Spec.of(found), Spec.of(data)
    assert spec == plain
    assert repr(found).startswith("Dataset('mine', task 'node', Stored(50 nodes")
    assert found.graphs.made == [None]
    linked = found.link()
    assert linked.stored is linked.nodes.stored is None
    assert label_marks(linked, "") & label_marks(found, "") - {""}


def test_half_precision(tmp_path):
    data = labelled()
    stored = convert_to_folder(data, tmp_path / "out", dtype="float16", order="given", progress=False)
    assert stored.x.dtype == torch.float16
    assert torch.equal(stored.graph().x, data.graph.x.half().float())
    found = to_dataset(tmp_path / "out")
    assert found.notes == ("made up", "features rounded to float16")
    assert fingerprint(found) == fingerprint(found.replace(graphs=[found.graph]))
    assert label_marks(found, "") == label_marks(found.replace(graphs=[found.graph]), "")
    big = data.replace(graphs=[data.graph.replace(x=data.graph.x * 1e6)])
    with pytest.raises(UserError, match=r"beyond float16 in column \d+; choose float32"):
        convert_to_folder(big, tmp_path / "big", dtype="float16", progress=False)


def test_the_order_brings_neighbours_together(tmp_path):
    ring = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    edges = torch.stack([ring, ring.roll(1)])
    graph = Graph.build(torch.randn(400, 2), torch.cat([edges, edges.flip(0)], 1))
    stored = convert_to_folder(graph, tmp_path / "out", progress=False).graph()
    assert (stored.edge_index[0] - stored.edge_index[1]).abs().max() <= 2


@pytest.mark.parametrize("kind", ONE)
def test_breadth_first_search(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(storing, "CHUNK", 5)
    graph = KINDS[kind]()
    order = breadth_first(graph.csr.ptr.numpy(), graph.csr.col.numpy()).tolist()
    seen, expected = set(), []
    for start in [i for i in range(graph.num_nodes) if graph.csr.degree[i]]:
        queue = [] if start in seen else [start]
        seen.add(start)
        while queue:
            node = queue.pop(0)
            expected.append(node)
            for near in graph.csr.col[graph.csr.ptr[node] : graph.csr.ptr[node + 1]].tolist():
                if near not in seen:
                    seen.add(near)
                    queue.append(near)
    assert order == expected + [i for i in range(graph.num_nodes) if i not in seen]
    monkeypatch.setattr(storing, "NARROW", 2)  # as if there were too many edges for SciPy
    stored = convert_to_folder(graph, tmp_path / "out", progress=False)
    assert stored.csr.col.dtype == torch.int64 if graph.num_nodes > 1 else torch.int32
    rows = torch.tensor(order) if stored.node_names is None else torch.tensor(stored.node_names[:])
    assert rows.tolist() == order
    same(stored.graph(), renumbered(once(graph), rows))


# What is refused


@pytest.fixture
def folder(tmp_path) -> Path:
    convert_to_folder(labelled(), tmp_path / "out", progress=False)
    return tmp_path / "out"


def test_a_damaged_folder_is_one_sentence(folder, tmp_path):
    def broken(change) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        change(copy)
        with pytest.raises(UserError) as error:
            Stored.open(copy)
        assert "\n" not in str(error.value)
        return str(error.value)

    def said(**changes):
        def change(copy: Path) -> None:
            meta = json.loads((copy / "meta.json").read_text())
            (copy / "meta.json").write_text(json.dumps({**meta, **changes}))

        return change

    def cut(copy: Path) -> None:
        os.truncate(copy / "x.npy", 500)

    def longer(copy: Path) -> None:
        with open(copy / "col.npy", "ab") as file:
            file.write(b"0" * 4000)

    assert "x.npy is missing; copy the whole folder again" in broken(lambda copy: (copy / "x.npy").unlink())
    assert "x.npy is cut short" in broken(cut)
    assert "is 4128 bytes longer than its array" in broken(longer)
    assert "holds float64 [50, 12], but meta.json says float32 [50, 12]" in broken(
        lambda copy: np.save(copy / "x.npy", np.zeros((50, 12)))
    )
    assert "holds int64 [3], but meta.json says int64 [51]" in broken(
        lambda copy: np.save(copy / "ptr.npy", np.arange(3))
    )
    assert "ptr.npy goes from 0 to 50" in broken(lambda copy: np.save(copy / "ptr.npy", np.arange(51)))
    assert "cut short or no .npy file" in broken(lambda copy: (copy / "y.npy").write_text("hello"))
    assert "plain arrays" in broken(lambda copy: np.save(copy / "y.npy", np.array([{}]), allow_pickle=True))
    assert "newer graphssl (format 2)" in broken(said(format=2))
    assert "no loops" in broken(said(loops=None))
    assert "not a type and a shape" in broken(said(files={"../x.npy": ["float32", [1]]}))
    assert "does not list ptr.npy" in broken(said(files={"x.npy": ["float32", [50, 12]]}))
    assert "for 51 nodes" in broken(said(nodes=51))
    assert "has no meta.json" in broken(lambda copy: (copy / "meta.json").unlink())
    assert "it is no JSON" in broken(lambda copy: (copy / "meta.json").write_text("{"))
    assert "is not of a graph" in broken(said(kind="something"))
    with pytest.raises(UserError, match="is no folder"):
        Stored.open(tmp_path / "nowhere")


def test_a_folder_is_replaced_only_where_it_is_ours(folder, tmp_path):
    graph = random_graph(10, 0)
    before = Stored.open(folder).fingerprint
    with pytest.raises(UserError, match=r"holds a graph; choose another folder, or overwrite=True \(--overwrite\)"):
        convert_to_folder(graph, folder, progress=False)
    assert convert_to_folder(graph, folder, overwrite=True, progress=False).fingerprint != before
    (folder / "thesis.txt").write_text("all of it")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"not of a stored graph \(thesis.txt, ...\)"):
            convert_to_folder(graph, folder, overwrite=overwrite, progress=False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.npy").write_text("not ours, though it is called so")
    with pytest.raises(UserError, match=r"not of a stored graph \(x.npy, ...\)"):
        convert_to_folder(graph, other, overwrite=True, progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        convert_to_folder(graph, tmp_path / "file", overwrite=True, progress=False)
    (tmp_path / "empty").mkdir()
    convert_to_folder(graph, tmp_path / "empty", progress=False)
    assert convert_to_folder(tmp_path / "empty", tmp_path / "empty", overwrite=True, progress=False).num_nodes == 10
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other", "file", "empty"}


def test_wrong_sources_end_in_one_sentence(tmp_path):
    x, edges, out = tmp_path / "x.npy", tmp_path / "edges.csv", tmp_path / "out"
    np.save(x, np.zeros((4, 2), np.float32))
    edges.write_text("source,target\n0,1\n2,3\n")

    def refused(source, **settings) -> str:
        with pytest.raises(UserError) as error:
            convert_to_folder(source, out, progress=False, **settings)
        assert "\n" not in str(error.value)
        assert not out.exists()
        assert not list(tmp_path.glob(".out*"))
        return str(error.value)

    def text(words: str) -> str:
        (tmp_path / "wrong.csv").write_text(words)
        return refused(tmp_path / "wrong.csv", x=x)

    assert "gives edges but no features" in refused(edges)
    assert "no file" in refused(tmp_path / "none.parquet", x=x)
    assert "no file" in refused(edges, x=tmp_path / "none.npy")
    assert "give a .npy or a .parquet" in refused(edges, x=edges)
    assert "edge 1 of" in text("0,1\n0,4\n")
    assert "target 4, but there are features of nodes 0 to 3" in text("0,1\n0,4\n")
    assert "source -1" in text("source,target\n-1,4\n")
    assert "line 3 of" in text("source,target\n0,1\n0,one\n")
    assert "is '0,1.5'; give" in text("0,1\n0,1.5\n")
    assert "line 1 of" in text("0,1.0\n")
    assert "columns smiles, y; give two columns source,target" in text("smiles,y\nCCO,1\n")
    assert "has 4 columns and no header" in text("0,1,2,3\n")
    assert "line 3 of" in text("source,target\n0,1\n0\n")
    assert "weights that are NaN" in text("source,target,weight\n0,1,nan\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"0,1\n" * 1000)[:-20])
    assert "cannot read" in refused(tmp_path / "cut.csv.gz", x=x)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    assert "cannot read" in refused(tmp_path / "bad.parquet", x=x)
    pq.write_table(pa.table({"a": [0], "target": [1]}), tmp_path / "bad.parquet")
    assert "has columns a, target but no source" in refused(tmp_path / "bad.parquet", x=x)
    pq.write_table(pa.table({"source": [0.5], "target": [1]}), tmp_path / "bad.parquet")
    assert "holds float64; expected whole numbers" in refused(tmp_path / "bad.parquet", x=x)
    pq.write_table(pa.table({"source": [0, None], "target": [1, 2]}), tmp_path / "bad.parquet")
    assert "has empty entries" in refused(tmp_path / "bad.parquet", x=x)
    edges.write_text("0,1\n")
    pq.write_table(pa.table({"x": [[1.0], [1.0, 2.0]]}), tmp_path / "bad.parquet")
    assert "different lengths" in refused(edges, x=tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "z": [1, 2]}), tmp_path / "bad.parquet")
    assert "mixes numbers and lists" in refused(edges, x=tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": ["a", "b"]}), tmp_path / "bad.parquet")
    assert "holds string, expected numbers" in refused(edges, x=tmp_path / "bad.parquet")
    np.save(x, np.array([{}]), allow_pickle=True)
    assert "one plain array" in refused(edges, x=x)
    np.save(x, np.full((4, 2), np.nan))
    assert "features of node 0 are NaN" in refused(edges, x=x)
    np.save(x, np.full((4, 2), 1e300))
    assert "beyond float32" in refused(edges, x=x)
    np.save(x, np.zeros((4, 2, 2)))
    assert "expected numbers [nodes, features]" in refused(edges, x=x)
    assert "leave it out here" in refused(random_graph(4, 0), x=x)
    assert "is a graph set" in refused([random_graph(4, 0)])
    assert "is a link set" in refused(to_dataset(random_graph(40, 0)).link())
    assert "float64" in refused(random_graph(4, 0), dtype="float64")
    assert "sorted" in refused(random_graph(4, 0), order="sorted")
    assert "no file" in refused(tmp_path / "nowhere.npz")


def test_without_pyarrow_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    pq.write_table(pa.table({"source": [0], "target": [1]}), tmp_path / "edges.parquet")
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'graphssl\[parquet\]'"):
        convert_to_folder(tmp_path / "edges.parquet", tmp_path / "out", x=tmp_path / "x.npy", progress=False)


# Kills and memory

KILLED = """
import sys, time
from graphssl.data import storing
from tests.conftest import random_graph
storing._fingerprint = lambda folder: (print("here", flush=True), time.sleep(600))
storing.convert_to_folder(random_graph(30, 0), sys.argv[1])
"""


def test_a_kill_leaves_no_half_folder(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, out], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    left = [path.name for path in tmp_path.iterdir()]
    assert left == [f".out.{process.pid}-{left[0].split('-')[1]}"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    convert_to_folder(random_graph(30, 0), out, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


SMALL = """
import resource, sys
import numpy as np
import pyarrow.parquet
from graphssl.data import storing, convert_to_folder, to_dataset
from graphssl.recipes import Spec
storing.CHUNK = 2**18
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
limit = used + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(80 * 2**20, np.int8)
    sys.exit("the limit does not hold")
except MemoryError:
    pass
folder = sys.argv[1]
stored = convert_to_folder(f"{folder}/edges.parquet", f"{folder}/out", x=f"{folder}/x.npy", progress=False)
Spec.of(to_dataset(f"{folder}/out"))
print(stored.num_nodes, stored.num_edges, stored.fingerprint)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it bounds memory as Linux does")
def test_features_and_edges_need_not_fit_in_memory(tmp_path):
    N, F, E = 40_000, 512, 1_000_000  # 80 MB of features, 16 MB of edges
    rng = np.random.default_rng(0)
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (N, F))
    x[:] = rng.standard_normal((N, F), np.float32)
    edges = np.unique(rng.integers(N, size=(E, 2)), axis=0)
    table = pa.table({"source": edges[:, 0], "target": edges[:, 1]})
    pq.write_table(table, tmp_path / "edges.parquet", row_group_size=2**16)
    del x
    found = subprocess.run(
        [sys.executable, "-c", SMALL, tmp_path, str(64 * 2**20)], capture_output=True, text=True, check=False,
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},  # others reserve more than they use
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[:2] == [str(N), str(len(edges))]
    assert Dataset.of_stored(Stored.open(tmp_path / "out")).stored is not None


def test_the_command_line_says_the_same(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.eye(4))
    (tmp_path / "edges.csv").write_text("source,target\n0,1\n2,3\n")
    words = ["convert", str(tmp_path / "edges.csv"), "--to", str(tmp_path / "out"), "--x", str(tmp_path / "x.npy")]
    assert main([*words, "--undirected", "--dtype", "float16", "--name", "four"]) == 0
    assert capsys.readouterr().out == f"4 nodes, 4 edges and 4 features written to {tmp_path / 'out'}\n"
    stored = Stored.open(tmp_path / "out")
    assert (stored.name, stored.undirected, stored.x.dtype) == ("four", True, torch.float16)
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_named_sets_and_ogbs_files(tmp_path):
    named, stored = load_dataset("citations-mini"), convert_to_folder("citations-mini", tmp_path / "a", progress=False)
    found = to_dataset(tmp_path / "a")
    assert (found.name, found.known, list(found.splits)) == ("citations-mini", True, list(named.splits))
    same(stored.graph(), renumbered(once(named.graph), stored.order.long()))
    other = to_dataset(convert_to_folder(named, tmp_path / "b", name="mine", progress=False).folder)
    assert (other.name, other.known) == ("mine", False)
    if find_spec("ogb") is None:  # importing it would ask the network for a newer version
        pytest.skip("ogb is not installed")
    from tests.data.test_ogb_files import node_files

    x, y, _, order = node_files(tmp_path / "ogbn_arxiv")
    stored = convert_to_folder(tmp_path / "ogbn_arxiv", tmp_path / "c", progress=False)
    rows = stored.order.numpy()
    np.testing.assert_allclose(stored.x, x[rows], rtol=1e-6)
    assert stored.y.tolist() == y[rows].tolist()
    assert sorted(rows[stored.splits["public"][0].train].tolist()) == sorted(order[:15].tolist())
    assert stored.name == "ogbn-arxiv"
    again = convert_to_folder(tmp_path / "c", tmp_path / "c", dtype="float16", overwrite=True, progress=False)
    np.testing.assert_allclose(again.x, x[again.order.numpy()], atol=1e-2)  # of two orders, one behind the other


def test_a_folder_is_pretrained_on_and_judged(tmp_path):
    convert_to_folder("citations-mini", tmp_path / "graph", progress=False)
    run = graphssl.pretrain(str(tmp_path / "graph"), epochs=1, width=16, out=tmp_path / "run", progress=False)
    again = graphssl.load(tmp_path / "run")
    assert torch.equal(again.embed(), run.embed())
    assert again.evaluate(protocol="node-knn").rows[0].score > 20


def test_maps_that_are_not_read_ahead_hold_the_same(tmp_path):
    graph = random_graph(80, 4, attributes=True, weights=True)
    stored = convert_to_folder(graph, tmp_path / "graph", progress=False)
    other = stored.unordered()
    for key in ("x", "edge_weight", "edge_attr", "pos"):
        assert torch.equal(getattr(other, key), getattr(stored, key))
        assert getattr(other, key).data_ptr() != getattr(stored, key).data_ptr()
    assert other.csr is stored.csr


def test_features_beyond_the_free_memory_are_not_read_ahead(tmp_path, monkeypatch):
    convert_to_folder(random_graph(80, 4), tmp_path / "graph", progress=False)
    asked, plain = [], Stored.unordered
    monkeypatch.setattr(Stored, "unordered", lambda self: asked.append(1) or plain(self))
    settings = {"width": 8, "epochs": 1, "progress": False, "batch_size": 40, "loader": "neighbor"}
    one = graphssl.pretrain(str(tmp_path / "graph"), **settings)
    assert not asked
    monkeypatch.setattr(graphssl.loading, "free_bytes", lambda device: 80 * 12 * 4 - 1)
    two = graphssl.pretrain(str(tmp_path / "graph"), **settings)
    assert asked
    assert torch.equal(one.embed(), two.embed())
