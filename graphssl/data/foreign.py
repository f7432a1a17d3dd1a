"""Graphs of networkx and DGL, known by their modules' names so that neither need be installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from graphssl.data.given import to_numpy
from graphssl.errors import UserError
from graphssl.graph import Graph

X_NAMES, Y_NAMES = ("x", "feat", "features"), ("y", "label")
DEGREES = {
    "networkx": "networkx.set_node_attributes(graph, dict(graph.degree), 'x')",
    "dgl": "graph.ndata['feat'] = graphssl.data.degree_features(torch.stack(graph.edges()), graph.num_nodes())",
}


def is_from(data: Any, library: str) -> bool:
    """Whether the type of ``data`` or one of its bases comes from ``library``."""
    return any(base.__module__.split(".")[0] == library for base in type(data).__mro__)


def library_of(data: Any) -> str | None:
    """ "networkx" or "dgl" where ``data`` is one of their graphs."""
    if is_from(data, "networkx") and hasattr(data, "is_directed"):
        return "networkx"
    return "dgl" if is_from(data, "dgl") and hasattr(data, "ndata") else None


def read_graph(data: Any, x_name: Any = None) -> Graph:
    """A networkx or DGL graph with the attributes ``x_name`` as its features."""
    return _networkx_graph(data, x_name) if library_of(data) == "networkx" else _dgl_graph(data, x_name)


def node_labels(data: Any, x_name: Any = None, y_name: str | None = None) -> Any:
    """Labels of the nodes [N], -1 or NaN where one has none; None where nothing is labelled."""
    table = data.ndata if library_of(data) == "dgl" else _attributes(data)
    if y_name is not None and y_name not in table:
        raise UserError(f"the nodes have no attribute {y_name!r} to take labels from; they have {_listing(table)}")
    taken = _given(x_name) or _usual(X_NAMES, table)
    found = [name for name in ([y_name] if y_name else _usual(Y_NAMES, table)) if y_name or name not in taken]
    if not found:
        return None
    return table[found[0]] if library_of(data) == "dgl" else _filled(table[found[0]], found[0])


def graph_label(data: Any, y_name: str | None = None) -> Any:
    """The label of a whole networkx graph, kept in ``graph.graph``; DGL keeps none."""
    if library_of(data) == "dgl":
        return None
    if y_name is not None and y_name not in data.graph:
        raise UserError(f"graph.graph has no {y_name!r} to take the label from; it has {_listing(data.graph)}")
    return next((data.graph[name] for name in ([y_name] if y_name else Y_NAMES) if name in data.graph), None)


def _networkx_graph(graph: Any, x_name: Any) -> Graph:
    nodes = list(graph.nodes)
    if not nodes:
        raise UserError("the graph has no nodes; give it at least one")
    names = _given(x_name) or _usual(X_NAMES, graph.nodes[nodes[0]])[:1]
    if not names:
        raise _no_features("networkx", graph.nodes[nodes[0]])
    columns = []
    for name in names:
        for node in nodes:
            if name not in graph.nodes[node]:
                has = _listing(graph.nodes[node])
                raise UserError(
                    f"node {node!r} has no attribute {name!r} (it has {has}); give it to all nodes, or choose others "
                    "with graphssl.to_dataset(graph, x_name=...)"
                )
        columns.append(_column([graph.nodes[node][name] for node in nodes], name))
    place = {node: i for i, node in enumerate(nodes)}
    edges, weights = [], []
    for u, v, weight in graph.edges(data="weight"):
        for end in [(u, v)] if graph.is_directed() or u == v else [(u, v), (v, u)]:
            edges.append((place[end[0]], place[end[1]]))
            weights.append(1 if weight is None else weight)
    edge_index = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    edge_weight = np.array(weights) if any(weight != 1 for weight in weights) else None
    return Graph.build(
        np.concatenate(columns, 1), edge_index, edge_weight=edge_weight, name=" + ".join(map(repr, names))
    )


def _column(values: list, name: str) -> np.ndarray:
    """An attribute that each node has as a number or a vector, [N, width]."""
    rows = [to_numpy(value).reshape(-1) for value in values]
    width = len(rows[0])
    for i, row in enumerate(rows):
        if len(row) != width or row.dtype.kind not in "biuf":
            raise UserError(
                f"attribute {name!r} of node number {i} is {values[i]!r}; give {width} number{'s' * (width != 1)} "
                "as at the first node (categories as one-hot), or choose others with "
                "graphssl.to_dataset(graph, x_name=...)"
            )
    return np.stack(rows).astype(np.float64)


def _attributes(graph: Any) -> dict[str, list]:
    """What the nodes of a networkx graph carry, by name, None where a node lacks it."""
    names = {name: None for node in graph.nodes for name in graph.nodes[node]}
    return {name: [graph.nodes[node].get(name) for node in graph.nodes] for name in names}


def _filled(values: list, name: str) -> np.ndarray | None:
    """Labels as one array, with -1 (classes) or NaN (numbers) for None; None where all are."""
    known = [to_numpy(value).reshape(-1) for value in values if value is not None]
    if not known:
        return None
    if any(len(value) != 1 for value in known):
        raise UserError(
            f"attribute {name!r} holds several values a node, but a label is one number or one name; "
            "say which is the label with graphssl.to_dataset(graph, y_name=...)"
        )
    flat = np.concatenate(known)
    has = np.array([value is not None for value in values])
    if has.all():
        return flat
    if flat.dtype.kind in "US":  # names cannot be missing, numbers can
        flat = np.unique(flat, return_inverse=True)[1]
    out = np.full(
        len(values), np.nan if flat.dtype.kind == "f" else -1, np.float64 if flat.dtype.kind == "f" else np.int64
    )
    out[has] = flat
    return out


def _dgl_graph(graph: Any, x_name: Any) -> Graph:
    if not graph.is_homogeneous:
        raise UserError(
            "heterogeneous data is not supported yet; make it one kind of node with dgl.to_homogeneous(graph)"
        )
    if graph.batch_size > 1:
        raise UserError(f"the DGL graph is a batch of {graph.batch_size}; give the list dgl.unbatch(graph)")
    names = _given(x_name) or _usual(X_NAMES, graph.ndata)[:1]
    if not names:
        raise _no_features("dgl", graph.ndata)
    for name in names:
        if name not in graph.ndata:
            raise UserError(
                f"the graph has no ndata[{name!r}]; it has {_listing(graph.ndata)}: choose with "
                "graphssl.to_dataset(graph, x_name=...)"
            )
    N, edata = graph.num_nodes(), graph.edata
    x = torch.cat([graph.ndata[name].detach().cpu().reshape(N, -1) for name in names], 1)
    edges = torch.stack([end.detach().cpu().long() for end in graph.edges(order="eid")])
    attr = next((edata[name] for name in ("edge_attr", "feat") if name in edata), None)
    weight = next((edata[name] for name in ("edge_weight", "weight", "w") if name in edata), None)
    names = [f"ndata[{name!r}]" for name in names]
    return Graph.build(x, edges, edge_attr=attr, edge_weight=weight, name=" + ".join(names))


def _no_features(library: str, has: Iterable[str]) -> UserError:
    return UserError(
        f"the graph has no node features: its nodes have none of {_listing(X_NAMES)} (they have {_listing(has)}); "
        f"say which with graphssl.to_dataset(graph, x_name=...), or use degrees: {DEGREES[library]}"
    )


def _given(names: Any) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _usual(names: Sequence[str], among: Iterable[str]) -> list[str]:
    return [name for name in names if name in among]


def _listing(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
