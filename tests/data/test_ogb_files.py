"""OGB's files: what is read of each family is what was written, and a file that would run code does not."""

import gzip
import os
import pickle
import sys
import urllib.error
import warnings
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from graphssl.data import download, load_dataset, ogb_files
from graphssl.data.features import ATOM_FIELDS, BOND_FIELDS
from graphssl.data.ogb_files import Meta, known_meta, open_ogb, read_csv, read_ogb, read_pt, saved_meta
from graphssl.errors import UserError
from graphssl.ogb import sources
from graphssl.ops import dense

pytestmark = pytest.mark.skipif(find_spec("ogb") is None, reason="ogb is not installed: pip install 'graphssl[ogb]'")
ROOT = Path(__file__).parents[2]
DATA = (ROOT / (os.environ.get("GRAPHSSL_DATA") or "../shared/data")).resolve()
N = 30


def rng():
    return np.random.default_rng(0)


def table(path, values):
    """The ``.csv.gz`` of a table, NaN as an empty field, as OGB's files have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.atleast_2d(np.asarray(values).T).T
    said = lambda value: "" if value != value else str(value)  # noqa: E731
    path.write_bytes(gzip.compress("".join(",".join(map(said, row)) + "\n" for row in rows.tolist()).encode()))


def raw_files(folder, edges, sizes, counts, **more):
    for name, values in {"edge": edges.T, "num-node-list": sizes, "num-edge-list": counts, **more}.items():
        table(folder / "raw" / f"{name.replace('_', '-', 1) if name.endswith('feat') else name}.csv.gz", values)


def pairs(count, seed=0, n=N):
    draws = np.random.default_rng(seed).integers(n, size=(2, 4 * count))
    draws = draws[:, draws[0] < draws[1]]
    return np.unique(draws, axis=1)[:, :count]


def node_files(folder, split="time", classes=3):
    x, y, edges = rng().normal(size=(N, 4)).round(3), rng().integers(classes, size=N), pairs(60)
    raw_files(folder, edges, [N], [60], node_feat=x, **{"node-label": y})
    order = rng().permutation(N)
    for part, rows in zip(("train", "valid", "test"), np.split(order, [15, 22]), strict=True):
        table(folder / "split" / split / f"{part}.csv.gz", rows)
    return x, y, edges, order


def meta_of(name, **changes):
    return replace(known_meta(name), **changes)


def test_what_ogb_lists():
    arxiv, collab = known_meta("ogbn-arxiv"), known_meta("ogbl-collab")
    assert (arxiv.task_type, arxiv.metric, arxiv.split) == ("multiclass classification", "acc", "time")
    assert not arxiv.add_inverse_edge
    assert collab.add_inverse_edge
    assert (collab.metric, collab.files, collab.num_tasks) == ("hits@50", ("edge_weight", "edge_year"), 1)
    assert known_meta("ogbg-molpcba").num_tasks == 128
    with pytest.raises(UserError, match="did you mean 'ogbn-arxiv'"):
        known_meta("ogbn-arxive")


def test_a_node_set(tmp_path):
    x, y, edges, order = node_files(tmp_path / "ogbn_arxiv")
    data = read_ogb(tmp_path / "ogbn_arxiv", known_meta("ogbn-arxiv"))
    assert (data.task, data.name, data.known) == ("node", "ogbn-arxiv", True)
    np.testing.assert_allclose(dense(data.graph.x), x, rtol=1e-6)
    assert {tuple(edge) for edge in data.graph.edge_index.T.tolist()} == {tuple(edge) for edge in edges.T.tolist()}
    assert data.y.tolist() == y.tolist()
    (split,) = data.splits["public"]
    assert [sorted(rows.tolist()) for rows in (split.train, split.val, split.test)] == [
        sorted(rows.tolist()) for rows in np.split(order, [15, 22])
    ]


@pytest.fixture(scope="module")
def theirs():
    """ogb's own reader of raw files, loaded without what asks the network for a newer version."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, "outdated", None)
        from ogb.io.read_graph_raw import read_csv_graph_raw
    return read_csv_graph_raw


def test_inverse_edges_and_what_they_carry_as_ogb_reads_them(tmp_path, theirs):
    folder, counts = tmp_path / "ogbg_molesol", [5, 3]
    edges, attr = np.array([[0, 0, 1, 3, 2, 0, 1, 1], [1, 2, 2, 2, 4, 1, 2, 0]]), rng().normal(size=(8, 2)).round(3)
    x = rng().normal(size=(8, 3)).round(3)
    raw_files(folder, edges, [5, 3], counts, node_feat=x, edge_feat=attr, **{"graph-label": [0.5, -2.25]})
    for part, rows in (("train", [0]), ("valid", []), ("test", [1])):
        table(folder / "split" / "scaffold" / f"{part}.csv.gz", np.array(rows, int).reshape(-1, 1))
    data = read_ogb(folder, known_meta("ogbg-molesol"))
    assert (data.y.tolist(), data.splits["scaffold"][0].val.tolist()) == ([[0.5], [-2.25]], [])
    for ours, graph in zip(data.graphs, theirs(str(folder / "raw"), add_inverse_edge=True), strict=True):
        order = np.lexsort(graph["edge_index"])  # by target, then by source
        np.testing.assert_array_equal(ours.edge_index, graph["edge_index"][:, order])
        for edge, values in zip(ours.edge_index.T.tolist(), ours.edge_attr, strict=True):
            rows = np.equal(graph["edge_index"].T, edge).all(1).nonzero()[0]
            assert any(np.allclose(values, graph["edge_feat"][row]) for row in rows)
        np.testing.assert_allclose(dense(ours.x), graph["node_feat"], rtol=1e-6)


def test_molecules_are_one_hot_blocks(tmp_path):
    folder = tmp_path / "ogbg_moltox21"
    atoms = np.stack([rng().integers(width, size=7) for width in ATOM_FIELDS], 1)
    bonds = np.stack([rng().integers(width, size=4) for width in BOND_FIELDS], 1)
    y = np.where(rng().random((3, 12)) < 0.3, np.nan, 1.0)
    edges = np.array([[0, 1, 0, 0], [1, 2, 1, 1]])
    raw_files(folder, edges, [3, 2, 2], [2, 1, 1], node_feat=atoms, edge_feat=bonds, **{"graph-label": y})
    for part, row in (("train", 2), ("valid", 0), ("test", 1)):
        table(folder / "split" / "scaffold" / f"{part}.csv.gz", [row])
    data = read_ogb(folder, known_meta("ogbg-moltox21"))
    np.testing.assert_array_equal(data.y, y)
    assert (data.fields, data.edge_fields, data.dim) == (ATOM_FIELDS, BOND_FIELDS, 174)
    starts = np.cumsum([0, *ATOM_FIELDS[:-1]])
    for row, atom in zip(dense(data.graphs[0].x), atoms[:3], strict=True):
        assert row.nonzero().flatten().tolist() == (atom + starts).tolist()
    assert data.graphs[0].edge_attr.shape == (4, 13)  # both directions
    assert data.graphs[0].edge_attr.sum() == 12


def link_files(folder, inverse=True):
    """Train, validation and test pairs of 100 different ones, with years and weights; the raw graph has the first."""
    joined = pairs(100)
    parts = np.split(joined[:, rng().permutation(100)], [60, 80], axis=1)
    year, weight = rng().integers(2000, 2010, 60), rng().integers(1, 5, 60)
    raw_files(
        folder, parts[0], [N], [60], node_feat=rng().normal(size=(N, 4)).round(3), edge_year=year, edge_weight=weight
    )
    place = folder / "split" / "time"
    place.mkdir(parents=True)
    absent = rng().integers(N, size=(2, 25, 2))
    saved = {"train": {"edge": parts[0].T, "year": year, "weight": weight}}
    saved |= {key: {"edge": part.T, "edge_neg": none, "weight": np.full(20, 2)}
              for key, part, none in zip(("valid", "test"), parts[1:], absent, strict=True)}  # fmt: skip
    for key, values in saved.items():
        torch.save({k: torch.from_numpy(v) if k == "edge" else v for k, v in values.items()}, place / f"{key}.pt")
    return parts, year, weight, absent


def as_set(edges):
    return {tuple(edge) for edge in edges.T.tolist()}


def test_a_link_set(tmp_path):
    (train, val, test), year, weight, absent = link_files(tmp_path)
    data = read_ogb(tmp_path, known_meta("ogbl-collab"))
    both = as_set(np.concatenate([train, train[::-1]], 1))
    assert (data.task, as_set(data.graph.edge_index)) == ("link", both)
    weights = {tuple(edge): float(w) for edge, w in zip(train.T.tolist(), weight, strict=True)}
    for (u, v), w in zip(data.graph.edge_index.T.tolist(), data.graph.edge_weight.tolist(), strict=True):
        assert w == weights[min(u, v), max(u, v)]
    (split,) = data.splits["link"]
    for ours, written in zip((split.train, split.val, split.test), (train, val, test), strict=True):
        np.testing.assert_array_equal(ours, written)
    np.testing.assert_array_equal(split.val_absent, absent[0].T)
    np.testing.assert_array_equal(split.test_absent, absent[1].T)
    assert as_set(data.with_val.edge_index) == both | as_set(np.concatenate([val, val[::-1]], 1))
    assert data.with_val.edge_weight.sum() == data.graph.edge_weight.sum() + 2 * 2 * 20

    recent = read_ogb(tmp_path, known_meta("ogbl-collab"), year=2005)
    kept = train[:, year >= 2005]
    np.testing.assert_array_equal(recent.splits["link"][0].train, kept)
    assert as_set(recent.graph.edge_index) == as_set(np.concatenate([kept, kept[::-1]], 1))
    with pytest.raises(UserError, match=r"no training edge .* is of 2099"):
        read_ogb(tmp_path, known_meta("ogbl-collab"), year=2099)


def test_held_out_edges_of_a_raw_graph_are_left_out(tmp_path):
    (train, val, test), *_ = link_files(tmp_path)
    everything = np.concatenate([train, val, test], 1)
    raw_files(tmp_path, everything, [N], [100], edge_year=np.full(100, 2000), edge_weight=np.ones(100))
    data = read_ogb(tmp_path, known_meta("ogbl-collab"))
    assert as_set(data.graph.edge_index) == as_set(np.concatenate([train, train[::-1]], 1))
    assert data.notes == ("80 of 200 edges of the raw graph join no training pair and were left out",)


def test_a_directed_link_set_with_candidates_for_each_source(tmp_path):
    edges = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
    raw_files(tmp_path, np.concatenate([edges, [[1], [0]]], 1), [5], [5])  # the way back of a training edge is no such
    candidates = np.array([[4, 2, 0], [1, 3, 4]])
    parts = {"train": {"source_node": edges[0], "target_node": edges[1]}}
    held = {"source_node": np.array([1, 4]), "target_node": np.array([0, 2]), "target_node_neg": candidates}
    place = tmp_path / "split" / "time"
    place.mkdir(parents=True)
    torch.save(parts | {"valid": held, "test": held}, place / "split_dict.pt")
    data = read_ogb(tmp_path, known_meta("ogbl-citation2"))
    assert as_set(data.graph.edge_index) == as_set(edges)
    assert data.from_degrees
    assert data.splits["link"][0].test.tolist() == [[1, 4], [0, 2]]
    assert data.splits["link"][0].test_absent.tolist() == [[1, 1, 1, 4, 4, 4], candidates.reshape(-1).tolist()]


def test_tables(tmp_path):
    whole = rng().integers(-5, 10**12, size=(20, 3))
    table(tmp_path / "whole.csv.gz", whole)
    found = read_csv(tmp_path / "whole.csv.gz")
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, whole)
    numbers = np.where(rng().random((20, 3)) < 0.4, np.nan, rng().normal(size=(20, 3)) * 1e-7)
    table(tmp_path / "numbers.csv.gz", numbers)
    np.testing.assert_allclose(read_csv(tmp_path / "numbers.csv.gz"), numbers, rtol=1e-6)
    (tmp_path / "ends.csv.gz").write_bytes(gzip.compress(b"1,2\r\n,4\r\n5,6"))
    np.testing.assert_array_equal(read_csv(tmp_path / "ends.csv.gz"), [[1, 2], [np.nan, 4], [5, 6]])
    (tmp_path / "none.csv.gz").write_bytes(gzip.compress(b""))
    assert read_csv(tmp_path / "none.csv.gz").shape == (0, 1)


@pytest.mark.parametrize("text", [b"1,2\n3\n4,5,6\n", b"1,2\n3,x\n", b"1,2\n3,4,5\n", b"a,b\n"])
def test_tables_that_are_none(tmp_path, text):
    path = tmp_path / "edge.csv.gz"
    path.write_bytes(gzip.compress(text))
    with pytest.raises(UserError, match=r"edge\.csv\.gz as a table of numbers"):
        read_csv(path)
    path.write_bytes(gzip.compress(b"1,2\n" * 1000)[:30])
    with pytest.raises(UserError, match="ended before the end"):
        read_csv(path)
    with pytest.raises(UserError, match="is missing"):
        read_csv(tmp_path / "other.csv.gz")


class Runs:
    """Unpickling it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_array_is_not_unpickled(tmp_path, zipped):
    given = {"a": np.arange(3), "b": torch.ones(2), "c": np.array([1.5, np.nan], np.float32), "d": ["x", 4, None]}
    given |= {
        "e": np.array(["ab", "c"]),
        "f": np.float64(2.5),
        "g": np.array([[True]]),
        "h": np.zeros((0, 2), np.int32),
    }
    torch.save(given, tmp_path / "fine.pt", _use_new_zipfile_serialization=zipped)
    found = read_pt(tmp_path / "fine.pt")
    assert found.keys() == given.keys()
    for key in "abcefgh":
        np.testing.assert_array_equal(found[key], given[key])
    mark = tmp_path / "ran"
    torch.save({"train": np.arange(3), "valid": Runs(mark)}, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"holds more than arrays: it asks to run \w+\.mkdir") as caught:
        read_pt(tmp_path / "bad.pt")
    assert "\n" not in str(caught.value)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(UserError, match=r"raw\.pt"):
        read_pt(tmp_path / "raw.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "fine.pt").read_bytes()[:100])
    with pytest.raises(UserError, match=r"cut\.pt is damaged"):
        read_pt(tmp_path / "cut.pt")
    assert not mark.exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert mark.exists()  # so that the test could have failed
    assert np.ndarray not in torch.serialization.get_safe_globals()


def test_a_split_that_would_run_code_is_refused(tmp_path):
    node_files(tmp_path)
    for part in ("train", "valid", "test"):
        (tmp_path / "split" / "time" / f"{part}.csv.gz").unlink()
    mark = tmp_path / "ran"
    torch.save(
        {"train": np.arange(3), "valid": Runs(mark), "test": np.arange(3)}, tmp_path / "split/time/split_dict.pt"
    )
    with pytest.raises(UserError, match="which is refused"):
        read_ogb(tmp_path, known_meta("ogbn-arxiv"))
    assert not mark.exists()


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", edge_index=np.array([Runs(tmp_path / "ran")], dtype=object))
    with pytest.raises(UserError, match="plain arrays"):
        ogb_files.read_arrays(tmp_path / "data.npz")
    assert not (tmp_path / "ran").exists()


def refused(tmp_path, name="ogbn-arxiv", **changes):
    with pytest.raises(UserError) as caught:
        read_ogb(tmp_path, meta_of(name, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path):
    node_files(tmp_path)
    assert "has no split/random" in refused(tmp_path, split="random")
    assert "several kinds of nodes" in refused(tmp_path, hetero=True)
    assert "triplets of a knowledge graph" in refused(tmp_path, task_type="KG completion")
    assert "expected [30, 2] numbers" in refused(tmp_path, num_tasks=2)
    table(tmp_path / "split" / "time" / "test.csv.gz", [3, 30])
    assert "lists node 30" in refused(tmp_path)
    table(tmp_path / "raw" / "num-node-list.csv.gz", [29])
    assert "node_feat has 30 rows for 29 nodes" in refused(tmp_path)
    (tmp_path / "raw" / "edge.csv.gz").unlink()
    assert "edge.csv.gz is missing" in refused(tmp_path)
    (tmp_path / "RELEASE_v0.txt").touch()
    assert "holds RELEASE_v0" in refused(tmp_path)
    (tmp_path / "raw" / "triplet-type-list.csv.gz").touch()
    (tmp_path / "RELEASE_v0.txt").unlink()
    assert "several kinds of nodes" in refused(tmp_path)


def test_a_link_set_that_cannot_be_read(tmp_path):
    link_files(tmp_path)
    place = tmp_path / "split" / "time"
    assert "has no split/random" in refused(tmp_path, "ogbl-collab", split="random")
    for changed, words in (
        ({"head": np.zeros(2)}, "expected edge, or source_node"),
        ({"edge": np.zeros((2, 3))}, "expected two whole numbers an edge"),
        ({"edge": np.array([[0, N]])}, f"but the nodes are 0 to {N - 1}"),
        (np.arange(3), "expected the arrays of a link set by name"),
    ):
        torch.save(changed, place / "valid.pt")
        assert words in refused(tmp_path, "ogbl-collab")


def test_which_folders_are_data_sets(tmp_path):
    node_files(tmp_path / "ogbn_arxiv")
    assert open_ogb(tmp_path / "ogbn_arxiv") == (tmp_path / "ogbn_arxiv", known_meta("ogbn-arxiv"))
    with pytest.raises(UserError, match="neither raw nor meta_dict"):
        open_ogb(tmp_path)
    torch.save({"version": "1"}, tmp_path / "meta_dict.pt")
    with pytest.raises(UserError, match=r"not what ogb\.io\.DatasetSaver writes"):
        saved_meta(tmp_path / "meta_dict.pt")


# Downloads


def archive(path, folder, **more):
    with zipfile.ZipFile(path, "w") as files:
        for file in sorted(folder.rglob("*")):
            files.write(file, Path("arxiv") / file.relative_to(folder))
        for name, text in more.items():
            files.writestr(name, text)


def test_an_archive_becomes_a_folder(tmp_path):
    node_files(tmp_path / "made")
    archive(tmp_path / "arxiv.zip", tmp_path / "made", **{"../../evil.txt": "x"})
    meta = meta_of("ogbn-arxiv", url=(tmp_path / "arxiv.zip").as_uri())
    place = tmp_path / "root" / "ogbn_arxiv"
    download.fetch(meta, place)
    assert read_ogb(place, meta).graph.num_nodes == N
    assert [path.name for path in place.parent.iterdir()] == ["ogbn_arxiv"]
    assert not list(tmp_path.rglob("../evil.txt"))


def test_an_archive_that_is_damaged_leaves_nothing(tmp_path):
    node_files(tmp_path / "made")
    archive(tmp_path / "arxiv.zip", tmp_path / "made")
    whole = (tmp_path / "arxiv.zip").read_bytes()
    place = tmp_path / "root" / "ogbn_arxiv"
    meta = meta_of("ogbn-arxiv", url=(tmp_path / "arxiv.zip").as_uri())
    for content, words in ((whole[:-40], "no archive, or damaged"), (b"<html>", "no archive, or damaged")):
        (tmp_path / "arxiv.zip").write_bytes(content)
        with pytest.raises(UserError, match=words):
            download.fetch(meta, place)
    (tmp_path / "arxiv.zip").write_bytes(whole)
    with pytest.raises(UserError, match="has no other/raw"):
        download.fetch(replace(meta, download_name="other"), place)
    assert not list((tmp_path / "root").iterdir())
    with pytest.raises(urllib.error.URLError):
        download.fetch(replace(meta, url=(tmp_path / "none.zip").as_uri()), place)


@pytest.mark.skipif(not (DATA / "molecule" / "ogbg_molfreesolv.npz").exists(), reason="$GRAPHSSL_DATA has no molecules")
def test_the_mark_of_a_set_is_that_of_ogbs_own_files(tmp_path):
    """The arrays of a ``.npz`` written as OGB's raw files and read from there have the mark that is kept."""
    arrays = np.load(DATA / "molecule" / "ogbg_molfreesolv.npz")
    folder, sizes, counts = tmp_path / "ogbg_molfreesolv", *(np.diff(arrays[f"{of}_ptr"]) for of in ("node", "edge"))
    assert (arrays["edge_index"][:, ::2] == arrays["edge_index"][::-1, 1::2]).all()  # both directions side by side
    raw_files(
        folder, arrays["edge_index"][:, ::2], sizes, counts // 2, node_feat=arrays["node_feat"],
        edge_feat=arrays["edge_feat"][::2], **{"graph-label": arrays["y"]},
    )  # fmt: skip
    for part, key in (("train", "train"), ("valid", "val"), ("test", "test")):
        table(folder / "split" / "scaffold" / f"{part}.csv.gz", arrays[f"{key}_idx"])
    data = read_ogb(folder, known_meta("ogbg-molfreesolv"))
    assert sources.official_mark(data) == sources.OFFICIAL["ogbg-molfreesolv"]


def test_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GRAPHSSL_DATA", raising=False)
    node_files(tmp_path / ".cache" / "graphssl" / "downloads" / "ogbn_arxiv")
    data = load_dataset("ogbn-arxiv")
    assert (data.task, data.known, list(data.splits)) == ("node", True, ["public"])
    assert "node-linear" in data.protocols

    def offline(meta, place):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(download, "fetch", offline)
    for name, words in (("ogbl-ddi", "unpack that archive there"), ("ogbn-products", "connect to the network once")):
        with pytest.raises(UserError, match=words):
            load_dataset(name)


def test_a_smiles_string_in_place_of_a_name():
    for text in ("CCO", "c1ccccc1", "CC(=O)Oc1ccccc1", "[Na+].[Cl-]", "ClCBr"):
        with pytest.raises(UserError, match="if it is a SMILES string, give a list of them") as caught:
            load_dataset(text)
        assert str(caught.value).endswith(f": [{text!r}]")
    for text in ("coraa", "xyzzy", "cobs", "nonsense"):
        with pytest.raises(UserError, match="unknown data set") as caught:
            load_dataset(text)
        assert "SMILES" not in str(caught.value)


def test_without_ogb(monkeypatch):
    monkeypatch.setattr(ogb_files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'graphssl\[ogb\]'"):
        known_meta("ogbn-arxiv")


def test_the_names_that_can_be_downloaded_are_ogbs():
    for name in (*download.OGB_NODES, *download.OGB_LINKS, *download.OGB_GRAPHS):
        ogb_files.check_meta(known_meta(name))
    assert isinstance(known_meta(name), Meta)
