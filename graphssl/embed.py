"""Codes of all nodes of one graph, layer by layer in chunks of nodes: exact where the graph does not fit in memory."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from graphssl import ops
from graphssl.backbones import (
    Backbone,
    Deep,
    GATConv,
    GCNConv,
    GENConv,
    GINConv,
    GINEConv,
    Layer,
    NodeLinear,
    SAGEConv,
    evaluating,
)
from graphssl.backbones.gcn import scales
from graphssl.backbones.gen import PreActivation
from graphssl.data import Stored, Transform
from graphssl.data.transforms import add_self_loops, normalize_rows
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.runner import free_bytes

LOCAL = (GATConv, GCNConv, GENConv, GINConv, GINEConv, NodeLinear, SAGEConv)  # ask for a node's incoming edges alone
SHARE = 0.25  # of what is free that a chunk, or a layer's codes, may take
UNKNOWN = 2**31  # bytes that are taken to be free where the system does not say
BLOCK = 2**20  # numbers looked at at a time where all rows are gone through


def whole_only(encoder: Encoder) -> str:
    """Why codes of this ``encoder`` cannot be made layer by layer in chunks of nodes; empty where they can."""
    backbone = encoder.backbone
    if type(encoder) is not Encoder or type(backbone) not in (Backbone, Deep):
        return f"a {type(backbone).__name__} looks at all nodes at once"
    if isinstance(backbone, Deep):
        if backbone.virtual is not None:
            return "a virtual node hears all nodes"
        if len(backbone.encodings):
            return f"{type(backbone.encodings[0]).__name__} encodings are of the whole graph"
    for layer in backbone.layers:
        conv = getattr(layer, "conv", None)
        if type(layer) not in (Layer, PreActivation) or type(conv) not in LOCAL:
            unknown = conv if type(layer) is Layer else getattr(conv, "module", layer)  # a user's own, in a foreign one
            return f"a {type(unknown).__name__} may look at the whole graph"
    return ""


def fits_whole(encoder: Encoder, nodes: int, edges: int, device: torch.device) -> bool:
    """Whether codes of so large a graph can be made at once in what is free, as far as the system says and we know."""
    free = free_bytes(device)
    needs = [nodes * of_node + edges * of_edge for of_node, of_edge in map(_bytes, encoder.backbone.layers)]
    return free is None or max(needs, default=0) + 4 * nodes * encoder.dim <= free


@torch.no_grad()
def embed_by_layer(
    encoder: Encoder, source: Stored | Graph, transform: Callable[[Graph], Graph], *, device: torch.device | str,
    out: Path | None = None, order: Tensor | None = None, chunk: int | None = None, progress: bool = False,
) -> Tensor | np.memmap:  # fmt: skip
    """The codes [N, D] of all nodes as ``encoder`` gives them for the whole graph, in evaluation mode, on the CPU.

    Each layer is done for ``chunk`` nodes at a time (None: as many as a quarter of the free memory takes) from all
    edges that come in to them, and its codes kept in memory, or in a temporary file where they take more than that.
    They are written to ``out`` as a .npy file, whose map is returned; None: they are returned as a tensor, over a
    temporary file where they are too large. Row i of them is node i, or, with ``order`` [N], row ``order[i]`` is.

    Raises UserError for an encoder that looks at the whole graph (``whole_only``), a ``transform`` of a stored graph
    that is not a ``Transform``, and one that makes it undirected where the folder holds a directed one.
    """
    if why := whole_only(encoder):
        raise UserError(f"these codes cannot be made layer by layer: {why}; embed the graph in memory")
    device = torch.device(device)
    if isinstance(source, Graph):
        parts = Chunks(transform(source), Transform(), device, chunk)
    else:
        parts = Chunks(source, check_transform(source, transform), device, chunk)
    N, backbone, dim = parts.N, encoder.backbone, encoder.dim
    array = None if out is None else np.lib.format.open_memmap(out, "w+", np.float32, (N, dim))
    result = _room_for(N, dim, None) if array is None else torch.from_numpy(array)
    quiet = not (progress and sys.stderr.isatty())
    with evaluating(encoder), tqdm(
        total=N * len(backbone.layers), desc="embedding", unit="node", unit_scale=True, leave=False, disable=quiet,
        dynamic_ncols=True,
    ) as bar:  # fmt: skip
        _all_layers(encoder, parts, Codes(result, order), bar, out)
    if encoder.unit and encoder.read == "all":
        for some in result.split(max(1, BLOCK // dim)):
            some.copy_(F.normalize(some, dim=1))
    if array is None:
        return result
    array.flush()
    return array


def _all_layers(encoder: Encoder, parts: Chunks, result: Codes, bar: tqdm, out: Path | None) -> None:
    """Goes through the layers, each for all nodes, and leaves what the encoder reads in ``result``."""
    backbone, every = encoder.backbone, encoder.read == "all"
    embed, jump, norm = (getattr(backbone, key, None) for key in ("embed", "jump", "norm"))
    if any(isinstance(getattr(layer, "conv", None), GCNConv) for layer in backbone.layers):
        parts.find_scale()
    found: list[Codes] = []  # codes after the layers so far, all of them where they are joined in the end
    start = 0
    for place, (layer, width) in enumerate(zip(backbone.layers, backbone.widths, strict=True), 1):
        ends = place == len(backbone.layers)
        if every:
            target = Codes(result.values[:, start : start + width], result.order)
        else:
            target = result if ends else Codes(_room_for(parts.N, width, out), None)
        alone = isinstance(getattr(layer, "conv", None), NodeLinear)
        for a, b, nodes in parts.cut(*_bytes(layer), alone):
            h = found[-1].of(nodes).to(parts.device) if found else parts.content(nodes).to(parts.device)
            h = embed(h) if embed is not None and not found else h
            graph, rows = parts.graph(a, b, nodes, h, alone), ((nodes >= a) & (nodes < b)).to(parts.device)
            codes = layer(graph, h, rows) if isinstance(layer, Layer) else layer(graph, h)[rows]
            if ends:
                if jump is not None:
                    own = torch.arange(a, b)
                    codes = jump([*(one.of(own).to(parts.device) for one in found), codes])
                codes = codes if norm is None else norm(codes)
                codes = F.normalize(codes, dim=1) if encoder.unit and not every else codes
            target.put(a, b, codes)
            bar.update(b - a)
        found = [*found, target] if jump is not None else [target]
        start += width


@dataclass(frozen=True, eq=False)
class Codes:
    """Rows of all nodes, that of node i at ``order[i]``."""

    values: Tensor  # [N, D], on the CPU or on the disk
    order: Tensor | None  # [N]; None: at i

    def of(self, nodes: Tensor) -> Tensor:
        return self.values.index_select(0, nodes if self.order is None else self.order[nodes].long())

    def put(self, a: int, b: int, codes: Tensor) -> None:
        if self.order is None:
            self.values[a:b] = codes.float().cpu()
        else:
            self.values.index_copy_(0, self.order[a:b].long(), codes.float().cpu())


def check_transform(stored: Stored, transform: Callable[[Graph], Graph]) -> Transform:
    """The ``transform`` that goes by chunks of this graph; UserError where it does not."""
    if not isinstance(transform, Transform):
        raise UserError(
            f"a {type(transform).__name__} may look at the whole graph, so it cannot change one in a folder "
            f"({stored.folder}); use graphssl.data.Transform, or convert the changed graph"
        )
    if transform.undirected and not stored.undirected:
        raise UserError(
            f"this encoder takes undirected graphs, and that in {stored.folder} is directed; write it with both "
            "directions of each edge: graphssl convert --undirected"
        )
    return transform


class Chunks:
    """Chunks of nodes of a graph with all edges that come in to them, changed as ``transform`` says."""

    def __init__(self, source: Stored | Graph, transform: Transform, device: torch.device, chunk: int | None):
        self.source, self.transform, self.device, self.chunk = source, transform, device, chunk
        self.ptr, self.N = source.csr.ptr, source.num_nodes
        self.center: tuple[Tensor, Tensor] | None = None
        self.scale: Tensor | None = None
        if transform.standardize:
            self.center = self._statistics()

    def cut(self, of_node: int, of_edge: int, alone: bool) -> Iterator[tuple[int, int, Tensor]]:
        """Runs ``a`` to ``b`` of nodes and those that they hear, by what a node and an edge take in memory."""
        room = int(SHARE * (free_bytes(self.device) or UNKNOWN))
        a, step = 0, self.chunk or self.N
        while a < self.N:
            b = min(self.N, a + step)
            if self.chunk is None and not alone:
                most = self.ptr[a] + max(1, room // of_edge)
                b = max(a + 1, min(b, int(torch.searchsorted(self.ptr, most, right=True)) - 1))
            if alone and self.chunk is None:
                b = min(b, a + max(1, room // of_node))
            nodes = self.nodes(a, b, alone)
            if self.chunk is None and len(nodes) * of_node > room and b > a + 1:
                step = (b - a + 1) // 2
                continue
            yield a, b, nodes
            a, step = b, self.chunk or (b - a) * 5 // 4 + 1

    def nodes(self, a: int, b: int, alone: bool) -> Tensor:
        """The nodes that the codes of ``a`` to ``b`` are made of, ascending; with ``alone`` these themselves."""
        own = torch.arange(a, b)
        return own if alone else torch.cat([self._sources(a, b), own]).unique()

    def graph(self, a: int, b: int, nodes: Tensor, content: ops.Content, alone: bool) -> Graph:
        """The graph of ``nodes`` and the edges that come in to ``a`` to ``b``, on the device."""
        source = self.source
        edges = torch.empty(2, 0, dtype=torch.long)
        along: dict[str, Tensor] = {}
        if not alone:
            place = torch.searchsorted(nodes, torch.arange(a, b)).repeat_interleave(self.ptr[a : b + 1].diff())
            edges = torch.stack([torch.searchsorted(nodes, self._sources(a, b)), place])
            here = slice(int(self.ptr[a]), int(self.ptr[b]))
            along = {k: v[here].clone() for k in ("edge_attr", "edge_weight") if (v := getattr(source, k)) is not None}
        batch = torch.zeros(len(nodes), dtype=torch.long)
        graph = Graph(x=content, edge_index=edges, batch=batch, sizes=(len(nodes),), **along)
        if self.transform.self_loops and not alone:
            graph = add_self_loops(graph)
        graph = graph.to(self.device)
        if (scale := self.scale) is not None:
            graph.remember("gcn.scale", lambda graph: scale[nodes].to(graph.device))
        return graph

    def content(self, nodes: Tensor) -> Tensor | ops.Rows:
        """What ``nodes`` hold, as the encoder takes it."""
        held = self.source.x
        assert isinstance(held, Tensor | ops.Rows)  # no method has covered it
        x = held.index_select(0, nodes).float() if isinstance(held, Tensor) else held[nodes]
        x = normalize_rows(x) if self.transform.row_normalize else x
        if self.center is not None:
            mean, spread = self.center
            x = (ops.dense(x) - mean) / spread
        return x

    def find_scale(self) -> None:
        """Finds the degrees in the whole graph that graph convolutions ask for."""
        scale = torch.empty(self.N)
        for a, b, nodes in self.cut(64, 64, alone=False):
            graph = self.graph(a, b, nodes, torch.empty(len(nodes), 0), alone=False)
            scale[a:b] = scales(graph).cpu()[(nodes >= a) & (nodes < b)]
        self.scale = scale

    def _sources(self, a: int, b: int) -> Tensor:
        return self.source.csr.col[int(self.ptr[a]) : int(self.ptr[b])].long()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each column of content, [F] each; of columns that do not vary a deviation of 1."""
        width = self.source.x.size(1)
        count, mean, squares = 0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        for nodes in torch.arange(self.N).split(max(1, BLOCK // width)):
            x = ops.dense(self.content(nodes)).double()
            own, count = x.mean(0), count + len(x)
            squares += (x - own).square().sum(0) + (own - mean).square() * len(x) * (count - len(x)) / count
            mean += (own - mean) * len(x) / count
        spread = (squares / count).sqrt()
        return mean.float(), torch.where(spread > 0, spread, 1.0).float()


def _bytes(layer: nn.Module) -> tuple[int, int]:
    """About what one node and one edge take in memory while ``layer`` works on them."""
    made = sum(part.out_features for part in layer.modules() if isinstance(part, nn.Linear))
    dim_in, conv = int(layer.dim_in), getattr(layer, "conv", None)  # type: ignore[arg-type]
    said = 3 * dim_in if getattr(conv, "edge", None) is not None else 2 * int(getattr(conv, "heads", 1))
    return 4 * (3 * dim_in + 2 * made), 4 * said + 64


def _room_for(rows: int, width: int, out: Path | None) -> Tensor:
    """An empty tensor [rows, width], over a file without a name (beside ``out``) where it would fill much memory."""
    free = free_bytes(torch.device("cpu"))
    if 4 * rows * width <= SHARE * (UNKNOWN if free is None else free):
        return torch.empty(rows, width)
    with tempfile.TemporaryFile(dir=None if out is None else out.parent) as file:
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=(rows, width)))
