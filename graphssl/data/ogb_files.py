"""Reads OGB's data sets where they stand, on any torch and without running what a file holds.

The layout is that of ogb 1.3.6: ogb/io/read_graph_raw.py (raw files), ogb/io/save_dataset.py (what ``DatasetSaver``
writes), master.csv and dataset.py of each family of tasks (splits and what is known of a set).
"""

from __future__ import annotations

import _codecs
import csv
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphssl.data.dataset import Dataset, Split
from graphssl.data.features import ATOM_FIELDS, BOND_FIELDS, blocks, compact, has_ogb_classes, one_hot_degrees
from graphssl.data.files import packed
from graphssl.data.given import joined, read_index
from graphssl.errors import UserError, unknown
from graphssl.graph import Graph, read_content, read_numbers
from graphssl.ops import Rows

FAMILIES = {"ogbn": "nodeproppred", "ogbl": "linkproppred", "ogbg": "graphproppred"}
META = "meta_dict.pt"  # beside the folder that DatasetSaver writes
PARTS = {"train": "train", "val": "valid", "test": "test"}  # as here, and as OGB calls them
INSTALL = "needs the package ogb, which is not installed; pip install 'graphssl[ogb]'"


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What OGB says of a data set beside its files."""

    name: str  # "ogbn-arxiv"
    task_type: str  # "multiclass classification", "binary classification", "regression", "link prediction", ...
    metric: str  # of its Evaluator: "acc", "rocauc", "ap", "rmse", "hits@50", "mrr"
    split: str  # the official one
    num_tasks: int = 1  # columns of labels
    version: str = "1"
    add_inverse_edge: bool = False  # the files hold each edge once
    hetero: bool = False
    url: str = ""
    download_name: str = ""  # the folder in the archive
    files: tuple[str, ...] = ()  # of what edges carry besides
    known: bool = False  # listed by the installed ogb

    @property
    def family(self) -> str:
        return self.name.split("-")[0]


def known_metas() -> dict[str, Meta]:
    """All data sets that the installed ogb lists, by name; UserError where it is not installed."""
    found = find_spec("ogb")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"reading OGB's data sets {INSTALL}")
    metas = {}
    for family in FAMILIES.values():
        path = Path(next(iter(found.submodule_search_locations))) / family / "master.csv"
        with open(path, newline="") as file:
            (_, *names), *lines = csv.reader(file)
        for column, name in enumerate(names):
            metas[name] = _meta(name, {key: values[column] for key, *values in lines}, known=True)
    return metas


def known_meta(name: str) -> Meta:
    """What the installed ogb says of the data set ``name``; UserError, with the nearest names, for another."""
    metas = known_metas()
    if name not in metas:
        raise unknown("OGB data set", name, metas)
    return metas[name]


def saved_meta(path: Path) -> Meta:
    """What the ``meta_dict.pt`` that ``ogb.io.DatasetSaver`` wrote says; UserError for another file."""
    found = read_pt(path)
    families = {folder: family for family, folder in FAMILIES.items()}
    try:
        family = families[str(found["url"]).split("/")[-2]]
        name = f"{family}-{found['download_name']}".replace("_", "-")
        return _meta(name, {key: str(value) for key, value in found.items()})
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path} is not what ogb.io.DatasetSaver writes ({error!r}); write it by get_meta_dict()"
        ) from None


def _meta(name: str, said: Mapping[str, str], known: bool = False) -> Meta:
    files = said.get("additional edge files", "None")
    return Meta(
        name=name, task_type=said["task type"], metric=said["eval metric"], split=said["split"],
        num_tasks=int(said.get("num tasks", 1)), version=said["version"], url=said["url"],
        add_inverse_edge=said["add_inverse_edge"] == "True", hetero=said.get("is hetero") == "True",
        download_name=said["download_name"], files=() if files == "None" else tuple(files.split(",")), known=known,
    )  # fmt: skip


def check_meta(meta: Meta) -> None:
    """Raises UserError for a data set of a kind that has no Dataset: of several kinds of nodes, triplets or words."""
    if meta.hetero:
        raise UserError(
            f"data set {meta.name!r} has several kinds of nodes and edges, and a Graph has one; give a set of one kind"
        )
    if meta.task_type not in ("KG completion", "subtoken prediction"):
        return
    what = "triplets of a knowledge graph" if meta.task_type == "KG completion" else "words"
    raise UserError(f"data set {meta.name!r} asks for {what}, which no method here predicts; give another set")


def open_ogb(folder: Path) -> tuple[Path, Meta]:
    """Where the files of an OGB data set are, and what is known of it.

    ``folder`` holds ``raw`` and ``split``, or the ``meta_dict.pt`` of DatasetSaver with such a folder beside it.
    Raises UserError for another.
    """
    if (folder / META).exists():
        meta = saved_meta(folder / META)
        inner = folder / meta.download_name
        if not (inner / "raw").is_dir():
            raise UserError(
                f"{folder} has {META} but no {meta.download_name}/raw; unpack {meta.download_name}.zip there"
            )
        return inner, meta
    if not (folder / "raw").is_dir():
        raise UserError(f"{folder} is no OGB data set: it has neither raw nor {META}; give the folder that has them")
    if (folder.parent / META).exists() and saved_meta(folder.parent / META).download_name == folder.name:
        return folder, saved_meta(folder.parent / META)
    return folder, known_meta(folder.name.replace("_", "-"))


def read_ogb(folder: Path, meta: Meta, year: int | None = None) -> Dataset:
    """The data set in a ``folder`` with OGB's ``raw`` and ``split``, its official split the only one.

    A node set's classes are integers, and all other labels floats [rows, T], NaN where one is missing. A link set is
    the graph of its training edges, of those from ``year`` on where that is given; absent pairs of a set with its own
    candidates for each source lie one source after another. Atoms and bonds of ``ogbg-mol*`` are one-hot blocks.
    Raises UserError for files that are missing, damaged, of another version, or hold more than arrays.
    """
    check_meta(meta)
    releases = sorted(path.name for path in folder.glob("RELEASE_v*.txt"))
    if releases and f"RELEASE_v{meta.version}.txt" not in releases:
        raise UserError(
            f"{folder} holds {releases[0].removesuffix('.txt')}, but this ogb knows version {meta.version} of "
            f"{meta.name!r}; remove the folder to download it anew, or install the ogb that it is of"
        )
    if year is not None and meta.family != "ogbl":
        raise UserError(f"year leaves out training edges of a link set, and {meta.name!r} is none; leave it out")
    raw = _read_raw(folder / "raw", meta)
    if meta.family == "ogbl":
        return _links(raw, meta, folder, year)
    return (_nodes if meta.family == "ogbn" else _graphs)(raw, meta, folder)


# Raw files


@dataclass(frozen=True)
class Raw:
    """Graphs end to end: edges [2, E], where graphs begin and end [B + 1], and what nodes and edges carry."""

    edges: np.ndarray
    node_ptr: np.ndarray
    edge_ptr: np.ndarray
    along: dict[str, np.ndarray]


def _read_raw(raw: Path, meta: Meta) -> Raw:
    if (raw / "triplet-type-list.csv.gz").exists() or (raw / "edge_index_dict.npz").exists():
        check_meta(Meta(**{**meta.__dict__, "hetero": True}))
    if (raw / "data.npz").exists():
        along = read_arrays(raw / "data.npz")
        missing = {"edge_index", "num_nodes_list", "num_edges_list"} - along.keys()
        if missing:
            raise UserError(f"{raw / 'data.npz'} has no {min(missing)}; write it by ogb.io.DatasetSaver")
        edges, nodes, counts = (along.pop(key) for key in ("edge_index", "num_nodes_list", "num_edges_list"))
    else:
        edges = read_csv(raw / "edge.csv.gz").T
        nodes, counts = read_csv(raw / "num-node-list.csv.gz")[:, 0], read_csv(raw / "num-edge-list.csv.gz")[:, 0]
        keys = {"node_feat": "node-feat", "edge_feat": "edge-feat"} | {key: key for key in meta.files}
        paths = {key: raw / f"{name}.csv.gz" for key, name in keys.items()}
        along = {key: read_csv(path) for key, path in paths.items() if path.exists()}
    if any(array.dtype.kind not in "iu" for array in (edges, nodes, counts)) or edges.shape[:1] != (2,):
        raise UserError(f"{raw}: edges are {edges.dtype} of shape {edges.shape}; expected two whole numbers an edge")
    node_ptr, edge_ptr = (np.concatenate([[0], np.cumsum(count, dtype=np.int64)]) for count in (nodes, counts))
    sizes = {"node": int(node_ptr[-1]), "edge": int(edge_ptr[-1])}
    for key, array in {**along, "edge_index": edges.T}.items():
        of = key.split("_")[0]
        if of in sizes and len(array) != sizes[of]:
            raise UserError(f"{raw}: {key} has {len(array)} rows for {sizes[of]} {of}s; download or write the set anew")
    if meta.add_inverse_edge:  # beside each other, as OGB lays them
        edges, edge_ptr = np.stack([edges, edges[::-1]], 2).reshape(2, -1), 2 * edge_ptr
        along = {key: v.repeat(2, axis=0) if key.startswith("edge_") else v for key, v in along.items()}
    return Raw(edges.astype(np.int64), node_ptr, edge_ptr, along)


def read_csv(path: Path) -> np.ndarray:
    """The numbers [rows, columns] of a ``.csv.gz`` without a header: int64, or float32 with NaN for what is empty.

    Raises UserError for a file that is missing, cut short, or holds anything else.
    """
    try:
        import pandas  # comes with ogb, without which nothing tells what the files of a set are
    except ImportError as error:
        raise UserError(f"reading {path} {INSTALL}") from error
    try:
        values = pandas.read_csv(path, header=None, compression="gzip").to_numpy()
    except pandas.errors.EmptyDataError:
        return np.empty((0, 1), np.int64)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; download the data set again, or unpack all of its archive") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"cannot read {path} as a table of numbers ({said}); download the data set again") from error
    if values.dtype.kind not in "biuf":
        raise UserError(f"cannot read {path} as a table of numbers (it holds text); download the data set again")
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by name; UserError for one that is damaged or holds objects."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path} as a file of plain arrays ({error}); download the set again") from error


def read_pt(path: Path) -> Any:
    """What ``torch.save`` wrote of tensors, NumPy arrays, numbers, strings and lists and dicts of them.

    Nothing else is unpickled: UserError for a file that asks for it, before any of it is called.
    """
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; download the data set again, or unpack all of its archive") from None
    except Exception as error:  # a damaged pickle fails in any way
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked is None:
            raise UserError(f"{path} is damaged or not what torch.save writes; download the data set again") from error
        raise UserError(
            f"{path} holds more than arrays: it asks to run {asked[1]}, which is refused; download the data set from "
            "OGB again, or ask whoever made it for plain arrays"
        ) from None


def _harmless() -> list[Any]:
    """What pickles of NumPy arrays call, under their names in NumPy 1 and 2, and what torch does not know yet."""
    makers: list[Any] = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]  # _reconstruct and scalar
    named = [(make, f"numpy.{core}.multiarray.{make.__name__}") for make in makers for core in ("core", "_core")]
    kinds = dict.fromkeys(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdU")
    new = [*named, (_codecs.encode, "_codecs.encode"), bytes, np.ndarray, np.dtype, *kinds]
    known: list[Any] = torch.serialization.get_safe_globals()
    return [entry for entry in new if entry not in known]  # leaving forgets what was added, so add nothing of others


# Labels and splits


def _labels(folder: Path, meta: Meta, rows: int) -> Tensor:
    """Classes [rows], negative where one is missing, or floats [rows, T], NaN there."""
    what = "node" if meta.family == "ogbn" else "graph"
    path = folder / "raw" / f"{what}-label.npz"
    if path.exists():
        arrays = read_arrays(path)
        if f"{what}_label" not in arrays:
            raise UserError(f"{path} has no {what}_label; write it by ogb.io.DatasetSaver")
        y = arrays[f"{what}_label"]
    else:
        y = read_csv(path.with_name(f"{what}-label.csv.gz"))
    if y.dtype.kind not in "biuf" or y.shape != (rows, meta.num_tasks):
        raise UserError(
            f"{folder / 'raw'}: labels are {y.dtype} of shape {y.shape}; expected [{rows}, {meta.num_tasks}] numbers"
        )
    if meta.metric != "acc" or meta.num_tasks > 1:
        return torch.from_numpy(y.astype(np.float32))
    return torch.from_numpy(np.where(np.isnan(y), -1, y)[:, 0].astype(np.int64))


def _read_split(folder: Path, meta: Meta) -> dict[str, Any]:
    """What the official split holds for "train", "valid" and "test"."""
    place = folder / "split" / meta.split
    if not place.is_dir():
        raise UserError(f"{folder} has no split/{meta.split}, the official split of {meta.name!r}; unpack all of it")
    if (place / "split_dict.pt").exists():
        found = read_pt(place / "split_dict.pt")
    else:
        found = {}
        for part in PARTS.values():
            table = place / f"{part}.csv.gz"
            found[part] = read_csv(table)[:, 0] if table.exists() else read_pt(place / f"{part}.pt")
    if not isinstance(found, dict) or found.keys() != set(PARTS.values()):
        raise UserError(f"{place} does not hold the parts train, valid and test; download or write the set anew")
    return found


def _rows_split(folder: Path, meta: Meta, y: Tensor, of: str) -> Split:
    """The official split of rows of ``y``; rows without a label stay in it."""
    found = _read_split(folder, meta)
    parts = {}
    for part, key in PARTS.items():
        index = _array(found[key], f"{folder}: split {key}")
        parts[part] = read_index(index, len(y), f"{folder}: split {key}", of)
    return joined(parts, len(y), y, of)[0]


def _array(values: Any, what: str) -> np.ndarray:
    if not isinstance(values, Tensor | np.ndarray):
        raise UserError(f"{what} is a {type(values).__name__}; expected an array")
    return np.asarray(values)


# The three families


def _content(raw: Raw) -> Tensor | Rows | None:
    return read_content(raw.along["node_feat"], "node_feat") if "node_feat" in raw.along else None


def _nodes(raw: Raw, meta: Meta, folder: Path) -> Dataset:
    graph, from_degrees = _one_graph(raw, np.ones(raw.edges.shape[1], bool))
    y = _labels(folder, meta, graph.num_nodes)
    split = _rows_split(folder, meta, y, "nodes")
    return Dataset(
        name=meta.name, graphs=[graph], task="node", y=y, splits={"public": (split,)}, from_degrees=from_degrees,
        known=meta.known,
    )  # fmt: skip


def _one_graph(raw: Raw, keep: np.ndarray) -> tuple[Graph, bool]:
    """The graph of the edges where ``keep`` [E] is true, and whether its content is their degrees."""
    if len(raw.node_ptr) != 2:
        raise UserError(f"the raw files hold {len(raw.node_ptr) - 1} graphs, but a set of nodes or links has one")
    N, edges, x = int(raw.node_ptr[-1]), raw.edges[:, keep], _content(raw)
    carried = {"edge_attr": raw.along.get("edge_feat"), "edge_weight": raw.along.get("edge_weight")}
    along = {key: value[keep] for key, value in carried.items() if value is not None}
    graph = Graph.build(np.zeros((N, 1)) if x is None else x, edges, **along)
    content = one_hot_degrees(graph.edge_index[1], N) if x is None else compact(graph.x)  # type: ignore[arg-type]
    return graph.replace(x=content), x is None


def _graphs(raw: Raw, meta: Meta, folder: Path) -> Dataset:
    sizes, B = np.diff(raw.node_ptr), len(raw.node_ptr) - 1
    if not B or sizes.min() < 1:
        raise UserError(f"{folder}: graph {sizes.argmin() if B else 0} has no nodes; give each at least one")
    x, edge_attr = _content(raw), None
    fields: tuple[int, ...] = ()
    edge_fields: tuple[int, ...] = ()
    node, edge = (raw.along.get(key) for key in ("node_feat", "edge_feat"))
    if edge is not None:
        edge_attr = read_numbers(edge, "edge_feat")
    if has_ogb_classes(meta.name, node, edge):
        x, fields = blocks(node, ATOM_FIELDS, "node_feat"), ATOM_FIELDS
        edge_attr, edge_fields = blocks(edge, BOND_FIELDS, "edge_feat").to_dense(), BOND_FIELDS
    elif x is not None:
        x = compact(x)
    graphs = packed(x, raw.edges, raw.node_ptr, raw.edge_ptr, edge_attr)
    y = _labels(folder, meta, B)
    split = _rows_split(folder, meta, y, "graphs")
    return Dataset(
        name=meta.name, graphs=graphs, task="graph", y=y, splits={meta.split: (split,)}, from_degrees=x is None,
        fields=fields, edge_fields=edge_fields, known=meta.known,
    )  # fmt: skip


def _links(raw: Raw, meta: Meta, folder: Path, year: int | None) -> Dataset:
    """The graph of the training edges: of the raw ones, those that join a training pair."""
    found = _read_split(folder, meta)
    N = int(raw.node_ptr[-1])
    pairs: dict[str, np.ndarray] = {}
    absent: dict[str, np.ndarray | None] = {}
    for part, key in PARTS.items():
        what = f"{folder}: split {key}"
        if not isinstance(found[key], dict):
            raise UserError(f"{what} is a {type(found[key]).__name__}; expected the arrays of a link set by name")
        pairs[part], absent[part] = _pairs(found[key], what, N)
    notes: list[str] = []
    train, keep = pairs["train"], np.ones(raw.edges.shape[1], bool)
    if year is not None:
        if "year" not in found["train"]:
            raise UserError(f"the training edges of {meta.name!r} have no year to filter by; leave year out")
        recent = _array(found["train"]["year"], "year").reshape(-1) >= year
        if not recent.any():
            raise UserError(f"no training edge of {meta.name!r} is of {year} or later; choose an earlier year")
        train = train[:, recent]
        if "edge_year" in raw.along:
            keep &= raw.along["edge_year"].reshape(-1) >= year
    forth, back = (np.unique(_keys(edges, N, False)) for edges in (raw.edges, raw.edges[::-1]))
    undirected = np.array_equal(forth, back)
    held = keep & ~np.isin(_keys(raw.edges, N, undirected), _keys(train, N, undirected))
    if held.any():
        notes.append(f"{int(held.sum())} of {len(held)} edges of the raw graph join no training pair and were left out")
    graph, from_degrees = _one_graph(raw, keep & ~held)
    split = Split(
        torch.from_numpy(train), *(torch.from_numpy(pairs[part]) for part in ("val", "test")),
        *(None if pair is None else torch.from_numpy(pair) for pair in (absent["val"], absent["test"])),
    )  # fmt: skip
    return Dataset(
        name=meta.name, graphs=[graph], task="link", splits={"link": (split,)}, from_degrees=from_degrees,
        with_val=_with_validation(graph, pairs["val"], found["valid"], undirected), notes=tuple(notes),
        known=meta.known,
    )  # fmt: skip


def _keys(pairs: np.ndarray, N: int, undirected: bool) -> np.ndarray:
    source, target = (pairs.min(0), pairs.max(0)) if undirected else pairs
    return source * N + target


def _pairs(part: dict[str, Any], what: str, N: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Joined pairs [2, n] and absent ones [2, m] of a part of a link split."""
    if "edge" in part:
        return tuple(  # type: ignore[return-value]
            _ends(_array(part[key], what).T, f"{what}: {key}", N) if key in part else None
            for key in ("edge", "edge_neg")
        )
    if not {"source_node", "target_node"} <= part.keys():
        raise UserError(f"{what} has {', '.join(map(str, part))}; expected edge, or source_node and target_node")
    source, target = (_array(part[key], what) for key in ("source_node", "target_node"))
    if source.ndim != 1 or source.shape != target.shape:
        raise UserError(f"{what} has sources {source.shape} and targets {target.shape}; give both as [edges]")
    present = _ends(np.stack([source, target]), what, N)
    if "target_node_neg" not in part:
        return present, None
    candidates = _array(part["target_node_neg"], what)
    if candidates.ndim != 2 or len(candidates) != len(source):
        raise UserError(f"{what}: target_node_neg has shape {candidates.shape}; give [{len(source)}, candidates]")
    return present, _ends(np.stack([source.repeat(candidates.shape[1]), candidates.reshape(-1)]), what, N)


def _ends(pairs: np.ndarray, what: str, N: int) -> np.ndarray:
    """``pairs`` [2, n] as int64, checked."""
    if pairs.ndim != 2 or len(pairs) != 2 or pairs.dtype.kind not in "iu":
        raise UserError(f"{what} is {pairs.dtype} of shape {pairs.T.shape}; expected two whole numbers an edge")
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < N:
        raise UserError(f"{what} names nodes {pairs.min()} to {pairs.max()}, but the nodes are 0 to {N - 1}")
    return np.ascontiguousarray(pairs, np.int64)


def _with_validation(graph: Graph, val: np.ndarray, part: dict[str, Any], undirected: bool) -> Graph | None:
    """``graph`` with the validation edges; None where edges have features, which those lack."""
    if graph.edge_attr is not None:
        return None
    new = np.concatenate([val, val[::-1]], 1) if undirected else val
    edges = torch.cat([graph.edge_index, torch.from_numpy(np.ascontiguousarray(new))], 1)
    weight = None
    if graph.edge_weight is not None:
        given = _array(part["weight"], "weight").reshape(-1) if "weight" in part else np.ones(val.shape[1])
        added = torch.from_numpy(np.tile(given.astype(np.float32), 2 if undirected else 1))
        weight = torch.cat([graph.edge_weight, added])
    built = Graph.build(np.zeros((graph.num_nodes, 1)), edges, edge_weight=weight)
    return built.replace(x=graph.x)  # content that an encoder was pretrained on
