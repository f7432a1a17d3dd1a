"""The one currency of the library: everything becomes a Graph before it is masked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphssl.errors import UserError
from graphssl.ops import CSR, Content, Rows, places, pointers
from graphssl.ops.csr import cached_property


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Graph:
    """B graphs laid end to end: N nodes and E directed edges.

    There is no label field: labels stay in the data set's tables and are joined through ``rows`` and ``items``, so that
    no pretext task can see them. Build one with ``Graph.build``, which checks and sorts.
    """

    x: Content  # [N, F] content of each node: dense, sparse rows, or rows covered by a mask token
    edge_index: Tensor  # [2, E] source and target of each edge, sorted by target, then by source
    batch: Tensor  # [N] graph of each node, ascending
    sizes: tuple[int, ...]  # [B] nodes of each graph, on the host
    edge_attr: Tensor | None = None  # [E, ...]; None: edges carry nothing
    edge_weight: Tensor | None = None  # [E]; None: all edges weigh one
    pos: Tensor | None = None  # [N, d] where a node stands; None: nowhere
    seeds: Tensor | None = None  # [M] rows that count in a sampled batch, ascending; None: all do
    rows: Tensor | None = None  # [N] where each node stands in the data set's node table; None: row i is node i
    items: Tensor | None = None  # [B] where each graph stands in the data set's list; None: graph i is item i

    @classmethod
    def build(
        cls,
        x: Any,
        edge_index: Any,
        *,
        edge_attr: Any = None,
        edge_weight: Any = None,
        pos: Any = None,
        name: str = "x",
    ) -> Graph:
        """One graph from arrays, after the checks of the door.

        ``x`` is [N, F] or [N], dense or scipy sparse, of any number type; ``edge_index`` [2, E] integers. Floats become
        float32, integers and booleans too. All is copied: the Graph shares no memory with what it was built from.
        Raises UserError for what cannot be used; ``name`` is what it calls ``x``.
        """
        x = read_content(x, name)
        N = x.size(0)
        if N == 0:
            raise UserError(f"the graph has no nodes ({name} has shape {tuple(x.shape)}); give it at least one")
        edges = read_edges(edge_index)
        outside = (edges < 0) | (edges >= N)
        if outside.any():
            column = int(outside.any(0).nonzero()[0])
            raise UserError(
                f"edge {column} joins nodes {edges[0, column]} and {edges[1, column]}, but the graph has nodes "
                f"0 to {N - 1}; renumber the nodes from 0, or add the missing rows to x"
            )
        source, target = edges
        order = (target * N + source).argsort(stable=True)
        along = {"edge_attr": edge_attr, "edge_weight": edge_weight}
        for key, value in along.items():
            if value is not None:
                value = read_numbers(value, key)
                if value.ndim == 0 or value.size(0) != edges.size(1):
                    shape = tuple(value.shape)
                    raise UserError(f"{key} has shape {shape} for {edges.size(1)} edges; give one row an edge")
                along[key] = value[order]
        if edge_weight is not None:
            if along["edge_weight"].numel() != edges.size(1):
                raise UserError(f"edge_weight has {along['edge_weight'].size(1)} columns; give one number an edge")
            along["edge_weight"] = along["edge_weight"].reshape(-1)
        if pos is not None:
            pos = read_numbers(pos, "pos")
            if pos.ndim == 0 or pos.size(0) != N:
                raise UserError(f"pos has shape {tuple(pos.shape)} for {N} nodes; give one row a node")
        batch = torch.zeros(N, dtype=torch.long)
        return cls(x=x, edge_index=edges[:, order].contiguous(), batch=batch, sizes=(N,), pos=pos, **along)

    @classmethod
    def from_data(cls, data: Any) -> Graph:
        """A PyG ``Data`` (one graph) as a Graph; labels and masks stay behind. Raises UserError as ``build`` does."""
        if data.x is None:
            raise UserError(
                "the graph has no node features (x is None); "
                "set data.x, or use degrees: graphssl.data.degree_features(edge_index, num_nodes)"
            )
        x = data.x
        if getattr(data, "_store", {}).get("num_nodes") not in (None, len(x)):
            raise UserError(f"x has {len(x)} rows but num_nodes says {data.num_nodes}; make them agree")
        edges = data.edge_index if data.edge_index is not None else torch.empty(2, 0, dtype=torch.long)
        weight = getattr(data, "edge_weight", None)
        return cls.build(x, edges, edge_attr=data.edge_attr, edge_weight=weight, pos=data.pos)

    @classmethod
    def stack(cls, graphs: Sequence[Graph]) -> Graph:
        """Several Graphs laid end to end; what only some of them have (``pos``, ``edge_attr``) is left out."""
        if len(graphs) == 1:
            return graphs[0]
        offset, edges, batch, count = 0, [], [], 0
        sizes: list[int] = []
        for graph in graphs:
            edges.append(graph.edge_index + offset)
            batch.append(graph.batch + count)
            offset, count = offset + graph.num_nodes, count + graph.num_graphs
            sizes += graph.sizes
        x = [graph.x for graph in graphs]
        stacked: dict[str, Any] = {}
        if all(graph.seeds is not None for graph in graphs):
            starts = np.cumsum([0, *(graph.num_nodes for graph in graphs)]).tolist()
            pairs = zip(graphs, starts, strict=False)
            stacked["seeds"] = torch.cat([graph.seeds + start for graph, start in pairs])  # type: ignore[operator]
        for key in ("edge_attr", "edge_weight", "pos", "rows", "items"):
            values = [getattr(graph, key) for graph in graphs]
            if all(value is not None for value in values):
                stacked[key] = torch.cat(values)
        return cls(
            x=Rows.cat(x) if isinstance(x[0], Rows) else torch.cat(x),  # type: ignore[arg-type]
            edge_index=torch.cat(edges, dim=1), batch=torch.cat(batch), sizes=tuple(sizes), **stacked,
        )  # fmt: skip

    def parts(self) -> list[Graph]:
        """The graphs one by one, as ``stack`` would take them."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        cuts = torch.searchsorted(self.edge_index[1].contiguous(), torch.tensor(ends, device=self.device)).tolist()
        found = []
        for b, size in enumerate(self.sizes):
            node, edge = slice(ends[b], ends[b + 1]), slice(cuts[b], cuts[b + 1])
            places = (
                torch.arange(*node.indices(self.num_nodes), device=self.device) if isinstance(self.x, Rows) else node
            )
            along = {k: v[edge] for k in ("edge_attr", "edge_weight") if (v := getattr(self, k)) is not None}
            along |= {k: v[node] for k in ("pos", "rows") if (v := getattr(self, k)) is not None}
            along |= {} if self.items is None else {"items": self.items[b : b + 1]}
            found.append(Graph(
                x=self.x[places], edge_index=self.edge_index[:, edge] - ends[b], sizes=(size,), # type: ignore[index]
                batch=torch.zeros(size, dtype=torch.long, device=self.device), **along,
            ))  # fmt: skip
        return found

    def __repr__(self) -> str:
        carried = [f.name for f in fields(self)[4:] if getattr(self, f.name) is not None]
        more = f", with {', '.join(carried)}" if carried else ""
        kind = "dense" if isinstance(self.x, Tensor) else "sparse"
        x = f"{kind} content of width {self.x.size(1)}"
        return f"Graph({self.num_nodes} nodes, {self.num_edges} edges, {self.num_graphs} graphs, {x}{more})"

    @property
    def num_nodes(self) -> int:
        return self.x.size(0)

    @property
    def num_edges(self) -> int:
        return self.edge_index.size(1)

    @property
    def num_graphs(self) -> int:
        return len(self.sizes)

    @property
    def device(self) -> torch.device:
        return self.edge_index.device

    @cached_property
    def csr(self) -> CSR:
        """The adjacency by target: row i holds the sources of i's incoming edges."""
        source, target = self.edge_index
        return CSR(pointers(target, self.num_nodes), source.contiguous(), None, (self.num_nodes, self.num_nodes))

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What is remembered of edges and graphs alone; one dictionary for all Graphs that ``replace`` made so."""
        return {}

    @cached_property
    def size(self) -> Tensor:
        """Nodes of each graph, [B], on the Graph's device."""
        return torch.tensor(self.sizes, device=self.device)

    def remember(self, key: str, make: Callable[[Graph], Any], shared: bool = False) -> Any:
        """``make(self)``, computed once for this Graph: normalised weights and the like.

        ``shared``: it depends on edges and graphs alone, and is computed once for this Graph under any content.
        """
        known = self._facts if shared else self.__dict__
        if key not in known:
            known[key] = make(self)
        return known[key]

    def replace(self, **changes: Any) -> Graph:
        """The same Graph with other fields; the adjacency is kept where its edges are."""
        new = replace(self, **changes)
        if "csr" in self.__dict__ and new.edge_index is self.edge_index and new.num_nodes == self.num_nodes:
            new.__dict__["csr"] = self.csr
        if new.edge_index is self.edge_index and new.batch is self.batch and new.sizes == self.sizes:
            new.__dict__["_facts"] = self._facts
        return new

    @cached_property
    def counts(self) -> Tensor:
        """Which rows count, True [N]: the seeds of a sampled batch, else all."""
        if self.seeds is None:
            return torch.ones_like(self.batch, dtype=torch.bool)
        return torch.zeros_like(self.batch, dtype=torch.bool).index_fill(0, self.seeds, True)

    def counted(self, chosen: Tensor) -> Tensor:
        """Those of the ``chosen`` rows [N] that count; of a sampled batch of which none does all, so that some do."""
        if self.seeds is None:
            return chosen
        both = chosen & self.counts
        return both if both.any() else chosen

    def of_seeds(self, rows: Tensor) -> Tensor:
        """``rows`` [N, ...] of the nodes that count, [M, ...]: in a sampled batch those of the seeds."""
        return rows if self.seeds is None else rows[self.seeds]

    def keep_edges(self, keep: Tensor) -> Graph:
        """The same nodes with only the edges where ``keep`` [E] is true; attributes travel along.

        The adjacency is kept from this Graph's and not built again, so that views of one Graph share its one sort.
        """
        new = self._cut(keep)
        new.__dict__["csr"] = self.csr.keep(keep)
        return new

    def _cut(self, keep: Tensor) -> Graph:
        """``keep_edges`` without the adjacency."""
        where = places(keep)
        along = {k: v[where] for k in ("edge_attr", "edge_weight") if (v := getattr(self, k)) is not None}
        return self.replace(edge_index=self.edge_index.index_select(1, where), **along)

    def keep_nodes(self, keep: Tensor) -> Graph:
        """The subgraph induced by the nodes where ``keep`` [N] is true, renumbered in order."""
        source, target = self.edge_index
        place = keep.cumsum(0) - 1
        inside = self._cut(keep[source] & keep[target])
        where = keep.nonzero().squeeze(1)
        rows = self.rows
        if rows is not None:
            rows = rows[where]
        elif self.num_graphs == 1:
            rows = where
        seeds = None if self.seeds is None else place[self.seeds[keep[self.seeds]]]
        batch = self.batch[where]
        return inside.replace(
            x=self.x[where],
            edge_index=place[inside.edge_index], batch=batch, rows=rows, seeds=seeds,
            pos=None if self.pos is None else self.pos[where],
            sizes=tuple(torch.bincount(batch, minlength=self.num_graphs).tolist()),
        )  # fmt: skip

    def to(self, device: torch.device | str) -> Graph:
        if self.device == torch.device(device):
            return self
        moved = {f.name: v.to(device) for f in fields(self) if hasattr(v := getattr(self, f.name), "to")}
        return self.replace(**moved)


def read_content(x: Any, name: str) -> Tensor | Rows:
    """``x`` [N, F] or [N] as float32 content of nodes, checked; sparse where it comes so."""
    if x is None:
        raise UserError(f"{name} is None; give one row of numbers a node, [nodes, features]")
    if isinstance(x, Rows):
        pass
    elif sp.issparse(x):
        _refuse_complex(x.dtype.kind == "c", name)
        x = Rows.from_scipy(x)
    elif isinstance(x, Tensor) and x.layout != torch.strided:
        _refuse_complex(x.is_complex(), name)
        x = _from_torch_sparse(x)
    else:
        x = _floats(x, name)
        x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise UserError(f"{name} has shape {tuple(x.shape)}; expected [nodes, features]: reshape or flatten it")
    if x.size(0) and x.size(1) == 0:
        raise UserError(
            f"the graph has no node features ({name} has shape {tuple(x.shape)}); "
            "use degrees: graphssl.data.degree_features(edge_index, num_nodes)"
        )
    bad = ~(x.value if isinstance(x, Rows) else x).isfinite()
    if bad.any():
        where = bad.nonzero()[0].tolist()
        if isinstance(x, Rows):
            where = [int(x.csr.row[where[0]]), int(x.csr.col[where[0]])]
        raise UserError(
            f"{name} has {int(bad.sum())} values that are NaN, infinite or beyond float32, the first in row "
            f"{where[0]}, column {where[1]}; replace them (torch.nan_to_num) or drop those nodes"
        )
    return x


def read_numbers(values: Any, name: str) -> Tensor:
    """What nodes or edges carry besides, as float32, checked."""
    numbers = _floats(values, name)
    if not numbers.isfinite().all():
        raise UserError(f"{name} has values that are NaN, infinite or beyond float32; replace them")
    return numbers


def read_edges(edge_index: Any) -> Tensor:
    """``edge_index`` as int64 [2, E] on the CPU; whether its nodes exist is for the caller to check."""
    way_out = "give integers of shape [2, edges]: row 0 sources, row 1 targets"
    edges = _tensor(edge_index, "edge_index", way_out)
    if edges.ndim != 2 or edges.size(0) != 2:
        hint = "transpose it" if edges.ndim == 2 and edges.size(1) == 2 else way_out
        raise UserError(f"edge_index has shape {tuple(edges.shape)}, expected [2, edges]; {hint}")
    if edges.numel() and (edges.is_floating_point() or edges.dtype == torch.bool or edges.is_complex()):
        raise UserError(f"edge_index holds {edges.dtype}, expected integers; {way_out}")
    return edges.long()


def _floats(values: Any, name: str) -> Tensor:
    """``values`` as a float32 tensor of its own on the CPU, whatever numbers they are."""
    tensor = _tensor(values, name, "turn it into a float array [rows, columns]")
    _refuse_complex(tensor.is_complex(), name)
    return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _tensor(values: Any, name: str, way_out: str) -> Tensor:
    """``values`` as a tensor on the CPU; may share their memory."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        array = np.require(values, requirements=["C", "W"])
    except (TypeError, ValueError) as error:
        kind = type(values).__name__
        raise UserError(f"{name} is a {kind} that makes no array (rows of different lengths?); {way_out}") from error
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise UserError(f"{name} holds {array.dtype}, not numbers that torch knows; {way_out}") from error


def _refuse_complex(is_complex: bool, name: str) -> None:
    if is_complex:
        raise UserError(f"{name} holds complex numbers; split them into real and imaginary columns")


def _from_torch_sparse(x: Tensor) -> Rows:
    coo = x.detach().to_sparse_coo().coalesce()
    row, col = coo.indices().cpu().numpy()
    return Rows.from_scipy(sp.csr_matrix((coo.values().float().cpu().numpy(), (row, col)), shape=tuple(x.shape)))
