"""Writes a graph to a folder of plain arrays (``Stored``) without holding its edges or features in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee
from tqdm import tqdm

from graphssl.data.convert import is_path, to_dataset
from graphssl.data.dataset import TOLD, Dataset
from graphssl.data.edge_files import Blocks, Edges, open_features, read_edges
from graphssl.data.molecules import is_csv, stem_of
from graphssl.data.named import load_dataset
from graphssl.data.ogb_files import META as OGB_META
from graphssl.data.ogb_files import open_ogb, read_ogb
from graphssl.data.stored import FORMAT, KIND, META, PARTS, TYPES, Names, Stored, is_stored
from graphssl.errors import UserError, unknown
from graphssl.ops import Content, dense

CHUNK = 2**22  # numbers, or edges, held at a time
RUN, FILES = 16, 256  # chunks of features that are put in order at a time, or more where that makes so many files
DTYPES, ORDERS = ("float32", "float16"), ("bfs", "given")
HALVES = "features rounded to float16"
NARROW = 2**31  # what int32 counts to


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is to be written: columns of E edges, content in blocks of rows, and a data set's tables."""

    name: str
    shape: tuple[int, int]  # N, F
    content: Blocks
    source: np.ndarray  # [E]
    target: np.ndarray  # [E]
    weight: np.ndarray | None = None
    attr: np.ndarray | None = None
    pos: np.ndarray | None = None
    data: Dataset | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


def convert_to_folder(
    source: Any, folder: str | Path, *, dtype: str = "float32", undirected: bool = False, order: str = "bfs",
    name: str | None = None, x: str | Path | None = None, overwrite: bool = False, progress: bool = True,
) -> Stored:  # fmt: skip
    """Writes a graph to ``folder``, to train on and embed where it does not fit in memory; returns it opened.

    ``source`` is what ``to_dataset`` makes a node set of (PyG ``Data``, ``Graph``, ``Dataset``, ...), a data set's
    name, a folder that this wrote, a folder in OGB's layout, or a file of edges: ``.csv``, ``.csv.gz`` or ``.parquet``
    with columns source and target, whole numbers from 0 to N - 1, and perhaps weight; a .csv may have these two or
    three without a header. The features of such a file are ``x``, a ``.npy`` file [N, F] or a ``.parquet`` file of N
    rows, of numeric columns or one column of lists. Files are read in chunks, edges sorted on disk: memory is a few
    integers a node and a chunk, except that a data set in memory, and OGB's files, are read whole first.

    Features are written as ``dtype`` "float32" or "float16". Of edges that are there twice the first is kept;
    ``undirected`` adds the other direction to each. With ``order`` "bfs" nodes that are near each other stand near each
    other on the disk (reverse Cuthill-McKee; breadth-first where the edges count 2^31 or more), and labels, splits and
    names go along; "given" leaves them as they are. Content of words is written dense.

    A folder there already is replaced with ``overwrite`` alone, and only where it is such a one. It appears whole or
    not at all. Raises UserError for what cannot be read or written so.
    """
    if dtype not in DTYPES:
        raise unknown("type of features", dtype, DTYPES)
    if order not in ORDERS:
        raise unknown("order of nodes", order, ORDERS)
    folder = Path(os.path.abspath(Path(folder).expanduser()))  # without following a link, whose place it takes
    _check_free(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}-{threading.get_ident()}.new")
    new.mkdir()
    try:
        scratch = new / "scratch"
        scratch.mkdir()
        parts = _read(source, x, scratch, folder.name, progress)
        _write(parts, new, scratch, dtype, undirected, order, name, progress)
        shutil.rmtree(scratch)
        _put(new, folder, overwrite)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return Stored.open(folder)


# Where it goes


def _is_ours(path: Path) -> bool:
    return path.name in (*TYPES, META, "node_id.npy") or re.fullmatch(r"split-.+\.npy", path.name) is not None


def _check_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give the name of a folder")
    inside = list(folder.iterdir())
    foreign = [path.name for path in inside if not _is_ours(path)]
    if inside and (foreign or not is_stored(folder)):
        what = foreign[0] if foreign else inside[0].name
        raise UserError(f"{folder} holds files that are not of a stored graph ({what}, ...); choose another folder")
    if inside and not overwrite:
        raise UserError(f"{folder} holds a graph; choose another folder, or overwrite=True (--overwrite)")


def _put(new: Path, folder: Path, overwrite: bool) -> None:
    """Gives ``new`` its name; what had it before goes last. UserError where something else took it meanwhile."""
    _check_free(folder, overwrite)
    old = new.with_suffix(".old")
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what conversions to this folder that were killed left beside it."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.(\d+)-\d+\.(new|old)")
    for path in folder.parent.iterdir():
        found = name.fullmatch(path.name)
        if found and not _runs(int(found[1])) and (found[2] == "new" or folder.exists()):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# What it is made of


def _read(source: Any, x: str | Path | None, scratch: Path, usual: str, progress: bool) -> Contents:
    path = Path(source).expanduser() if isinstance(source, str | os.PathLike) else None
    if path is not None and (path.suffix == ".parquet" or (is_csv(path) and path.is_file())):
        return _of_edges(path, x, scratch, progress)
    if x is not None:
        raise UserError("x gives features to a file of edges (.csv, .csv.gz, .parquet); leave it out here")
    if path is not None and not is_stored(path) and ((path / "raw").is_dir() or (path / OGB_META).exists()):
        data = read_ogb(*open_ogb(path))
    elif path is not None and isinstance(source, str) and not is_path(source):
        data = load_dataset(source)
    else:
        data = to_dataset(source)
    if data.task != "node":
        way = "its node set: dataset.as_nodes()" if data.task == "link" else "a set of one graph"
        raise UserError(
            f"data set {data.name!r} is a {data.task} set, and a folder holds the nodes of one graph; give {way}"
        )
    told = {key: getattr(data, key) for key in TOLD}
    common: dict[str, Any] = {"name": usual if data.name == "data" else data.name, "data": data, "told": told}
    found = data.source
    shape, along = (found.num_nodes, data.dim), {"attr": found.edge_attr, "weight": found.edge_weight, "pos": found.pos}
    common |= {key: value.detach().numpy() for key, value in along.items() if value is not None}
    if isinstance(found, Stored):
        columns = _staged(_edges_of(found), scratch, found.num_nodes, progress)
        return Contents(
            **common, shape=shape, content=lambda: _slices(found.x, shape), source=columns[0], target=columns[1]
        )
    sources, targets = found.edge_index.numpy()
    return Contents(**common, shape=shape, content=lambda: _slices(found.x, shape), source=sources, target=targets)


def _edges_of(stored: Stored) -> Iterator[Edges]:
    ptr, col = stored.csr.ptr.numpy(), stored.csr.col.numpy()
    for a, b in _pieces(np.diff(ptr)):
        targets = np.repeat(np.arange(a, b), np.diff(ptr[a : b + 1]))
        yield col[ptr[a] : ptr[b]], targets, None


def _slices(x: Content, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """The rows of ``x`` in blocks, dense."""
    step = max(1, CHUNK // shape[1])
    for a in range(0, shape[0], step):
        yield dense(x[torch.arange(a, min(a + step, shape[0]))]).numpy()


def _of_edges(path: Path, x: str | Path | None, scratch: Path, progress: bool) -> Contents:
    blocks = read_edges(path, CHUNK)
    if x is None:
        raise UserError(
            f"{path.name} gives edges but no features; give those too: x='features.npy' (--x FILE), .npy or .parquet"
        )
    shape, content = open_features(Path(x).expanduser(), CHUNK)
    source, target, weight = _staged(blocks, scratch, shape[0], progress, path)
    name = path.stem if path.suffix == ".parquet" else stem_of(path)
    return Contents(name=name, shape=shape, content=content, source=source, target=target, weight=weight)


def _staged(
    blocks: Iterator[Edges], scratch: Path, N: int, progress: bool, path: Path | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Edges in blocks as columns [E] on the disk, so that they are read from their file once."""
    kinds = {"source": _index(N), "target": _index(N), "weight": np.dtype(np.float32)}
    count, weighted = 0, False
    files = {name: open(scratch / name, "wb") for name in kinds}  # noqa: SIM115
    try:
        with _bar(None, "reading edges", progress) as bar:
            for *columns, weight in blocks:
                for name, column in zip(("source", "target"), columns, strict=True):
                    if column.size and not 0 <= column.min() <= column.max() < N:
                        bad = np.flatnonzero((column < 0) | (column >= N))[0]
                        raise UserError(
                            f"edge {count + bad} of {path} has {name} {column[bad]}, but there are features of nodes 0 "
                            f"to {N - 1}; number the nodes from 0, or give a row of features for each"
                        )
                    files[name].write(np.ascontiguousarray(column, kinds[name]).data)
                if weight is not None:
                    weighted = True
                    weight = np.ascontiguousarray(weight, np.float32)
                    if not np.isfinite(weight).all():
                        raise UserError(f"{path} has weights that are NaN or infinite; replace them")
                    files["weight"].write(weight.data)
                count += len(columns[0])
                bar.update(len(columns[0]))
    finally:
        for file in files.values():
            file.close()

    def mapped(name: str) -> np.ndarray:
        return np.memmap(scratch / name, kinds[name], "r", shape=(count,)) if count else np.empty(0, kinds[name])

    return mapped("source"), mapped("target"), mapped("weight") if weighted else None


# How it is written


def _write(
    parts: Contents,
    new: Path,
    scratch: Path,
    dtype: str,
    undirected: bool,
    order: str,
    name: str | None,
    progress: bool,
) -> None:
    N, F = parts.shape
    start, col, number = _placed(parts, scratch, undirected, progress)
    start, facts = _sorted(start, col, number, progress)
    col = col[: facts["edges"]]
    chosen = _near_order(start, col) if order == "bfs" else None  # node that stands at each new place
    place = None  # new place of each node
    if chosen is not None:
        place = np.empty(N, chosen.dtype)
        place[chosen] = np.arange(N, dtype=chosen.dtype)
    _write_edges(parts, new, (start, col, number), chosen, place, progress)
    x = _new_map(new / "x.npy", np.dtype(dtype), (N, F))
    _copy_content(parts, x, chosen, place, scratch, progress)
    if parts.pos is not None:
        np.save(new / "pos.npy", parts.pos if chosen is None else parts.pos[chosen])
    meta = {
        "kind": KIND, "format": FORMAT, "name": name or parts.name, "nodes": N, **facts,
        "fingerprint": _fingerprint(new),
    }  # fmt: skip
    told = dict(parts.told)
    if name is not None and name != parts.name:
        told["known"] = False
    if dtype == "float16":
        told["notes"] = [*(note for note in told.get("notes", ()) if note != HALVES), HALVES]
    meta |= {"set": told, "splits": _write_tables(parts, new, chosen, place)}
    arrays = {path.name: np.load(path, mmap_mode="r") for path in sorted(new.glob("*.npy"))}
    meta["files"] = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
    with open(new / META, "w") as file:
        file.write(json.dumps(meta, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _placed(parts: Contents, scratch: Path, undirected: bool, progress: bool) -> tuple[np.ndarray, np.ndarray, Any]:
    """Where each node's incoming edges start [N + 1], their sources and, where edges carry something, their numbers.

    A counting sort: degrees first, then each edge to its place; those of a node stand in the order in which they came,
    and turned ones behind all others. Sources and numbers are on the disk.
    """
    N, E = parts.shape[0], len(parts.source)
    ways = ((parts.source, parts.target), (parts.target, parts.source))[: 1 + undirected]
    starts, total = np.zeros(N + 1, np.int64), E * len(ways)
    col = _scratch(scratch / "col", _index(N), total)
    carried = parts.weight is not None or parts.attr is not None
    number = _scratch(scratch / "number", _index(E), total) if carried else None
    with _bar(2 * total, "sorting edges", progress) as bar:
        for _, targets in ways:
            for a in range(0, E, CHUNK):
                found, counts = np.unique(targets[a : a + CHUNK], return_counts=True)
                starts[found] += counts
                bar.update(min(CHUNK, E - a))
        starts[1:] = starts[:-1].cumsum()
        starts[0] = 0
        for sources, targets in ways:
            for a in range(0, E, CHUNK):
                some = np.asarray(targets[a : a + CHUNK])
                inside = some.argsort(kind="stable")
                found, first, counts = np.unique(some[inside], return_index=True, return_counts=True)
                spot = np.repeat(starts[found] - first, counts) + np.arange(len(some))
                col[spot] = sources[a : a + CHUNK][inside]
                if number is not None:
                    number[spot] = inside + a
                starts[found] += counts  # in the end, where the next node's edges start
                bar.update(len(some))
    starts[1:] = starts[:-1].copy()
    starts[0] = 0
    return starts, col, number


def _near_order(ptr: np.ndarray, col: np.ndarray) -> np.ndarray | None:
    """The nodes in an order in which neighbours are near each other; None where that is the one they have."""
    N, E = len(ptr) - 1, len(col)
    if max(N, E) < NARROW:  # else SciPy copies the edges
        matrix = sp.csr_matrix((np.broadcast_to(np.int8(1), E), col, ptr), shape=(N, N), copy=False)
        order = reverse_cuthill_mckee(matrix, symmetric_mode=True) if E else np.arange(N)
    else:
        order = breadth_first(ptr, col)
    return None if (order == np.arange(N, dtype=order.dtype)).all() else order


def breadth_first(ptr: np.ndarray, col: np.ndarray) -> np.ndarray:
    """The nodes of a CSR in the order of breadth-first searches, each from the first that is left; lone ones last."""
    N, degree = len(ptr) - 1, np.diff(ptr)
    order, seen, done = np.empty(N, np.int64), np.zeros(N, bool), 0
    for start in np.flatnonzero(degree):
        if seen[start]:
            continue
        front, seen[start] = np.array([start]), True
        while len(front):
            order[done : done + len(front)] = front
            done += len(front)
            found = []
            for a, b in _pieces(degree[front]):
                near = col[_spots(ptr[front[a:b]], degree[front[a:b]])]
                near = near[~seen[near]]
                fresh = near[np.sort(np.unique(near, return_index=True)[1])]
                seen[fresh] = True
                found.append(fresh)
            front = np.concatenate(found)
    order[done:] = np.flatnonzero(~seen)
    return order


def _sorted(ptr: np.ndarray, col: np.ndarray, number: Any, progress: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """Sorts each node's sources in place and keeps each once, its first; where they start then, and what they are."""
    kept, done, loops, odd = np.zeros_like(ptr), 0, 0, 0
    with _bar(len(col), "sorting neighbours", progress) as bar:
        for a, b in _pieces(np.diff(ptr)):
            here = slice(ptr[a], ptr[b])
            target, source = np.repeat(np.arange(a, b), np.diff(ptr[a : b + 1])), col[here].astype(np.int64)
            inside = np.lexsort((source, target))  # stable, so that the first of several comes first
            source, target = source[inside], target[inside]
            first = np.ones(len(inside), bool)
            first[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
            source, target = source[first], target[first]
            if number is not None:
                number[done : done + len(source)] = number[here][inside][first]
            col[done : done + len(source)] = source
            kept[a + 1 : b + 1] = np.bincount(target - a, minlength=b - a)
            loops += int((source == target).sum())
            odd += _mixed(source, target) - _mixed(target, source)
            done += len(source)
            bar.update(len(inside))
    return kept.cumsum(out=kept), {"edges": done, "loops": loops, "undirected": odd % 2**64 == 0}


def _write_edges(
    parts: Contents, new: Path, given: tuple[np.ndarray, np.ndarray, Any], chosen: Any, place: Any, progress: bool
) -> None:
    """Writes the edges node by node in the new order, by the new numbers."""
    (start, col, number), N = given, parts.shape[0]
    degree, done = np.diff(start), 0
    carried = {"edge_weight": parts.weight, "edge_attr": parts.attr}
    maps = {"col": _new_map(new / "col.npy", col.dtype, (len(col),))}
    for key, values in carried.items():
        if values is not None:
            maps[key] = _new_map(new / f"{key}.npy", np.dtype(np.float32), (len(col), *values.shape[1:]))
    with _bar(len(col), "writing edges", progress) as bar:
        for block in range(0, N, CHUNK):
            nodes = np.arange(block, min(block + CHUNK, N)) if chosen is None else chosen[block : block + CHUNK]
            for a, b in _pieces(degree[nodes]):
                some = nodes[a:b]
                spot = _spots(start[some], degree[some])
                source = col[spot] if place is None else place[col[spot]]
                inside = np.lexsort((source, np.repeat(np.arange(a, b), degree[some])))
                here = slice(done, done + len(spot))
                maps["col"][here] = source[inside]
                for key, values in carried.items():
                    if values is not None:
                        maps[key][here] = values[number[spot][inside]]
                done += len(spot)
                bar.update(len(spot))
    np.save(new / "ptr.npy", start if chosen is None else np.concatenate([[0], degree[chosen].cumsum()]))


def _copy_content(parts: Contents, x: np.ndarray, chosen: Any, place: Any, scratch: Path, progress: bool) -> None:
    """Writes the features, in another order by way of files of the rows of each run of ``x``.

    Rows that go all over a large ``x`` at once would have each of its pages written, and read again, many times.
    """
    done, (N, F) = 0, x.shape
    length = max(1, RUN * CHUNK // F, -(-N // FILES))
    runs = 0 if chosen is None or length >= N else -(-N // length)
    with ExitStack() as stack, _bar(N, "writing features", progress) as bar:
        files = [stack.enter_context(open(scratch / f"rows-{run}", "wb")) for run in range(runs)]
        for block in parts.content():
            if done + len(block) > N or block.shape[1] != F:
                raise UserError(f"the features change their shape on the way, at row {done}; give one row a node")
            with np.errstate(over="ignore", invalid="ignore"):
                cast = block.astype(np.float32, copy=False).astype(x.dtype, copy=False)
            if not np.isfinite(cast).all():
                row, column = np.argwhere(~np.isfinite(cast))[0]
                way = "choose float32, or scale them" if np.isfinite(block[row, column]) else "replace them"
                raise UserError(
                    f"the features of node {done + row} are NaN, infinite or beyond {x.dtype} in column {column}; {way}"
                )
            here = slice(done, done + len(block))
            if files:
                run = place[here] // length
                inside = run.argsort(kind="stable")
                ends = np.searchsorted(run[inside], np.arange(runs), side="right")
                for file, rows in zip(files, np.split(inside, ends[:-1]), strict=True):
                    file.write(cast[rows].data)
            else:
                x[here if place is None else place[here]] = cast
            done += len(block)
            bar.update(len(block))
    if done < N:
        raise UserError(f"the features end at row {done} of {N}; write them again")
    for run in range(runs):
        first = run * length
        path = scratch / f"rows-{run}"  # in the order of the source
        x[first + chosen[first : first + length].argsort()] = np.memmap(path, x.dtype, "r").reshape(-1, F)
        path.unlink()


def _write_tables(parts: Contents, new: Path, chosen: Any, place: Any) -> dict[str, Any]:
    """Writes labels, names and splits; what meta.json says of the splits."""
    data = parts.data
    found: dict[str, list[Any]] = {}
    names = None if data is None else data.node_names
    stored = None if data is None else data.stored
    if names is not None and (stored is None or stored.named):
        ids = names.values if isinstance(names, Names) else _array(names)
        np.save(new / "node_id.npy", ids if chosen is None else ids[chosen])
    before = None if stored is None else stored.order
    if before is not None or chosen is not None:
        np.save(
            new / "order.npy", chosen if before is None else before.numpy()[slice(None) if chosen is None else chosen]
        )
    if data is not None and data.y is not None:
        y = data.y.numpy()
        np.save(new / "y.npy", y if chosen is None else y[chosen])
    for number, (name, repeats) in enumerate({} if data is None else data.splits.items()):
        stem = re.sub(r"[^\w.-]", "_", name)
        stem = f"{stem}-{number}" if stem in (said[0] for said in found.values()) else stem
        found[name] = [stem]
        for part in PARTS:
            rows = [getattr(split, part).numpy() for split in repeats]
            joined = np.concatenate(rows).astype(np.int64)
            np.save(new / f"split-{stem}-{part}.npy", joined if place is None else place[joined].astype(np.int64))
            found[name].append([len(some) for some in rows])
    return found


def _array(names: Any) -> np.ndarray:
    kinds = {type(name) for name in names}
    return np.array(list(names) if kinds in ({int}, {str}) else [str(name) for name in names])


def _fingerprint(folder: Path) -> str:
    """As ``graphssl.pretrained.fingerprint`` of the same graph in memory."""
    maps = {name: np.load(folder / name, mmap_mode="r") for name in TYPES if (folder / name).exists()}
    digest = hashlib.sha256()

    def add(array: np.ndarray, shape: tuple[int, ...], kind: str, cast: Any) -> None:
        digest.update(f"{shape}torch.{kind}".encode())
        step = max(1, CHUNK // max(1, int(np.prod(array.shape[1:]))))
        for a in range(0, len(array), step):
            digest.update(np.ascontiguousarray(array[a : a + step], cast).data)

    x, ptr, col = (maps[f"{key}.npy"] for key in ("x", "ptr", "col"))
    add(x, x.shape, "float32", np.float32)
    add(col, (2, len(col)), "int64", np.int64)
    for a, b in _pieces(np.diff(ptr)):
        digest.update(np.repeat(np.arange(a, b), np.diff(ptr[a : b + 1])).data)
    for key in ("edge_weight", "edge_attr", "pos"):
        if f"{key}.npy" in maps:
            add(maps[f"{key}.npy"], maps[f"{key}.npy"].shape, "float32", np.float32)
    return digest.hexdigest()[:32]


def _pieces(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cuts rows with so many entries each into runs of at most ``CHUNK`` rows and entries, or one row."""
    a = 0
    while a < len(counts):
        ends = counts[a : a + CHUNK].cumsum()
        b = a + max(1, int(np.searchsorted(ends, CHUNK, side="right")))
        yield a, b
        a = b


def _spots(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """All places from ``start`` on, ``count`` of them each, one run behind the other."""
    return np.repeat(start - (count.cumsum() - count), count) + np.arange(count.sum())


def _mixed(a: np.ndarray, b: np.ndarray) -> int:
    """A sum over ordered pairs that tells which they are, but not in which order they come: of splitmix64 of each."""
    z = a.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + b.astype(np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int((z ^ (z >> np.uint64(31))).sum(dtype=np.uint64))


def _index(count: int) -> np.dtype:
    return np.dtype(np.int32 if count < NARROW else np.int64)


def _new_map(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, "w+", kind, shape)


def _scratch(path: Path, kind: np.dtype, count: int) -> np.ndarray:
    return np.memmap(path, kind, "w+", shape=(count,)) if count else np.empty(0, kind)


def _bar(total: int | None, what: str, progress: bool) -> tqdm:
    quiet = not (progress and sys.stderr.isatty())
    return tqdm(total=total, desc=what, leave=False, disable=quiet, dynamic_ncols=True, unit_scale=True)
