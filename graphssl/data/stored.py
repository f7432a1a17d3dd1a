"""A graph in a folder of plain arrays, read through memory maps where it does not fit in memory.

meta.json          format, name, sizes, fingerprint, the type and shape of each file
x.npy              [N, F] content of nodes, float16 or float32
ptr.npy, col.npy   [N + 1] and [E] incoming edges: the sources of node i are col[ptr[i]:ptr[i + 1]], ascending
edge_weight.npy, edge_attr.npy, pos.npy    [E], [E, ...] and [N, d], where there are such
y.npy              [N] or [N, T] labels, where known
order.npy          [N] which row of the source each node was, where they were put in another order
node_id.npy        [N] names of the nodes, where they came with such
split-NAME-PART.npy    row numbers of a split's part "train", "val" or "test", its repeats one behind the other

``graphssl.data.convert_to_folder`` writes it.
"""

from __future__ import annotations

import json
import mmap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from graphssl.data.splits import Split
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import CSR

META, FORMAT = "meta.json", 1
KIND = "graphssl graph"  # what meta.json says that the folder holds
PARTS = ("train", "val", "test")
KEYS = {"name": str, "nodes": int, "edges": int, "loops": int, "undirected": bool, "fingerprint": str, "files": dict}
TYPES = {
    "x.npy": ("float16", "float32"), "ptr.npy": ("int64",), "col.npy": ("int32", "int64"),
    "edge_weight.npy": ("float32",), "edge_attr.npy": ("float32",), "pos.npy": ("float32",),
    "y.npy": ("int64", "float32"), "order.npy": ("int32", "int64"),
}  # fmt: skip
AGAIN = "copy the whole folder again, or write it anew with graphssl convert"


class Names(Sequence[Any]):
    """Names of nodes in an array, each made a Python object when asked for."""

    def __init__(self, values: np.ndarray):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index):
        return self.values[index].tolist()


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Stored:
    """A graph of N nodes and E directed edges in a folder; its tensors are read-only maps of the files there.

    A map is read where it is looked at: take rows first and calculate with them, ``x.index_select(0, rows).float()``.
    Nothing may be written to it.
    """

    folder: Path
    name: str
    x: Tensor  # [N, F] content of each node, float16 or float32
    csr: CSR  # rows are targets, columns sources, ascending; ptr int64, col int32 or int64, no perm
    edge_weight: Tensor | None = None  # [E], in the order of the csr; None: all edges weigh one
    edge_attr: Tensor | None = None  # [E, ...], likewise; None: edges carry nothing
    pos: Tensor | None = None  # [N, d] where a node stands; None: nowhere
    undirected: bool  # each edge is there in both directions
    loops: int  # edges from a node to itself
    fingerprint: str  # a hash of content and edges: that of ``graph()``
    meta: Mapping[str, Any] = field(default_factory=dict)  # all that meta.json says

    @classmethod
    def open(cls, folder: str | Path) -> Stored:
        """The graph in ``folder``; files are looked at, not read.

        Raises UserError where it is no such folder, a file is missing or of another type or size than meta.json says,
        or a newer version wrote it.
        """
        folder = Path(folder).expanduser()
        meta = read_meta(folder)
        maps = {name: _map(folder, name, *said) for name, said in meta["files"].items()}
        N, E = meta["nodes"], meta["edges"]
        rows = {"x.npy": N, "ptr.npy": N + 1, "col.npy": E, "edge_weight.npy": E, "edge_attr.npy": E, "pos.npy": N,
                "y.npy": N, "order.npy": N, "node_id.npy": N}  # fmt: skip
        for name in ("x.npy", "ptr.npy", "col.npy"):
            if name not in maps:
                raise damaged(folder, f"it does not list {name}")
        for name, said in meta.get("splits", {}).items():
            missing = [part for part in PARTS if f"split-{said[0]}-{part}.npy" not in meta["files"]]
            if missing or len(said) != 1 + len(PARTS):
                raise damaged(folder, f"it does not list the parts of the split {name!r}")
        for name, array in maps.items():
            if name in rows and (array.ndim == 0 or len(array) != rows[name]):
                raise damaged(folder, f"{name} is of shape {list(array.shape)} for {N} nodes and {E} edges")
            if name in TYPES and str(array.dtype) not in TYPES[name]:
                raise damaged(folder, f"{name} holds {array.dtype}, expected {' or '.join(TYPES[name])}")
        ptr = maps["ptr.npy"]
        if ptr[0] != 0 or ptr[-1] != E or maps["x.npy"].ndim != 2:
            raise damaged(folder, f"ptr.npy goes from {ptr[0]} to {ptr[-1]} for {E} edges")
        along = {key: tensor(maps[f"{key}.npy"]) for key in ("edge_weight", "edge_attr", "pos") if f"{key}.npy" in maps}
        csr = CSR(tensor(ptr), tensor(maps["col.npy"]), None, (N, N))
        return cls(
            folder=folder, name=meta["name"], x=tensor(maps["x.npy"]), csr=csr, undirected=meta["undirected"],
            loops=meta["loops"], fingerprint=meta["fingerprint"], meta=meta, **along,
        )  # fmt: skip

    def __repr__(self) -> str:
        kind = str(self.x.dtype).removeprefix("torch.")
        content = f"{kind} content of width {self.x.size(1)}"
        return f"Stored({self.num_nodes} nodes, {self.num_edges} edges, {content}, in {self.folder})"

    @property
    def num_nodes(self) -> int:
        return self.csr.shape[0]

    @property
    def num_edges(self) -> int:
        return self.csr.nnz

    @property
    def y(self) -> Tensor | None:
        """Labels [N] or [N, T], read into memory; None where there are none."""
        return torch.from_numpy(self._load("y.npy")) if "y.npy" in self.meta["files"] else None

    @property
    def splits(self) -> dict[str, tuple[Split, ...]]:
        """The splits by name, the default first, read into memory."""
        found = {}
        for name, (stem, *lengths) in self.meta.get("splits", {}).items():
            parts = []
            for part, sizes in zip(PARTS, lengths, strict=True):
                parts.append(torch.from_numpy(self._load(f"split-{stem}-{part}.npy")).split(sizes))
            found[name] = tuple(Split(*repeat) for repeat in zip(*parts, strict=True))
        return found

    @property
    def order(self) -> Tensor | None:
        """Which row of the source each node was, [N]; None where row i is node i."""
        return tensor(self._map("order.npy")) if "order.npy" in self.meta["files"] else None

    @property
    def named(self) -> bool:
        """Whether nodes have names of their own."""
        return "node_id.npy" in self.meta["files"]

    @property
    def node_names(self) -> Names | None:
        """The names of the nodes, else which row of the source each was; None where row i is node i."""
        known = next((name for name in ("node_id.npy", "order.npy") if name in self.meta["files"]), None)
        return None if known is None else Names(self._map(known))

    def unordered(self) -> Stored:
        """The same with maps of their own of what a node or an edge carries, for reads here and there.

        The system then fetches the pages that are asked for and none ahead: on a cold disk many times as many rows a
        second (benchmarks/results/scale.md, ``reads``), and fewer where the whole of them is to be read once.
        """
        maps: dict[str, Any] = {}
        for key in ("x", "edge_weight", "edge_attr", "pos"):
            if getattr(self, key) is not None:
                array = self._map(f"{key}.npy")
                if isinstance(array, np.memmap) and hasattr(mmap, "MADV_RANDOM"):
                    array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
                maps[key] = tensor(array)
        return replace(self, **maps)

    def graph(self) -> Graph:
        """The whole graph in memory, its content as float32."""
        N, ptr = self.num_nodes, self.csr.ptr.clone()
        target = torch.arange(N).repeat_interleave(ptr.diff(), output_size=self.num_edges)
        along = {key: v.clone() for key in ("edge_weight", "edge_attr", "pos") if (v := getattr(self, key)) is not None}
        return Graph(
            x=self.x.to(torch.float32, copy=True), edge_index=torch.stack([self.csr.col.long(), target]),
            batch=torch.zeros(N, dtype=torch.long), sizes=(N,), **along,
        )  # fmt: skip

    def _load(self, name: str) -> np.ndarray:
        return np.array(self._map(name))

    def _map(self, name: str) -> np.ndarray:
        return _map(self.folder, name, *self.meta["files"][name])


def is_stored(folder: Path) -> bool:
    """Whether this is a folder of a graph in this format, whole or damaged."""
    try:
        said = json.loads((folder / META).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("kind") == KIND


def read_meta(folder: Path) -> dict[str, Any]:
    """What ``folder``'s meta.json says; UserError where it has none, or one that is damaged or newer."""
    path = folder / META
    if not path.is_file():
        what = "has no meta.json" if folder.is_dir() else "is no folder"
        raise UserError(f"{folder} {what}; give a folder that graphssl convert wrote")
    try:
        meta = json.loads(path.read_text())
    except ValueError as error:
        raise damaged(folder, "it is no JSON") from error
    if not isinstance(meta, dict) or meta.get("kind") != KIND:
        raise UserError(f"{path} is not of a graph that graphssl convert wrote; give such a folder")
    if not isinstance(meta.get("format"), int) or meta["format"] > FORMAT:
        raise UserError(f"{folder} was written by a newer graphssl (format {meta.get('format')}); update graphssl")
    for key, kind in KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise damaged(folder, f"it has no {key}")
    for name, said in meta["files"].items():
        if Path(name).name != name or not isinstance(said, list) or [type(part) for part in said] != [str, list]:
            raise damaged(folder, f"it says {said} of {name}, not a type and a shape")
    return meta


def damaged(folder: Path, why: str) -> UserError:
    return UserError(f"{folder / META} was damaged ({why}); {AGAIN}")


def _map(folder: Path, name: str, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """The array of a file; UserError where it is not what meta.json says, ``dtype`` and ``shape``."""
    path = folder / name
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {AGAIN}") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is cut short or no .npy file of plain arrays ({error}); {AGAIN}") from error
    if str(array.dtype) != dtype or list(array.shape) != [*shape]:
        raise UserError(
            f"{path} holds {array.dtype} {list(array.shape)}, but meta.json says {dtype} {[*shape]}; {AGAIN}"
        )
    if (excess := path.stat().st_size - array.nbytes) >= 1024 or excess < 0:  # a header is shorter
        raise UserError(f"{path} is {excess} bytes longer than its array; {AGAIN}")
    return array


def tensor(array: np.ndarray) -> Tensor:
    """The tensor over the memory of an ``array`` that may be read-only."""
    with warnings.catch_warnings():  # torch warns that writing to it is undefined: nothing here does
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
