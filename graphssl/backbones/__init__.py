"""Backbones by name: content and graph to codes, one family a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch import nn

from graphssl.backbones.base import Backbone as Backbone
from graphssl.backbones.base import Layer as Layer
from graphssl.backbones.base import evaluating as evaluating
from graphssl.backbones.fastrp import FastRP as FastRP
from graphssl.backbones.foreign import foreign as foreign
from graphssl.backbones.gat import GATConv as GATConv
from graphssl.backbones.gcn import GCNConv as GCNConv
from graphssl.backbones.gin import GINConv as GINConv
from graphssl.backbones.mlp import NodeLinear as NodeLinear
from graphssl.backbones.pointnet import PointNet as PointNet
from graphssl.backbones.sage import SAGEConv as SAGEConv
from graphssl.backbones.sgc import Propagate as Propagate
from graphssl.backbones.table import Table as Table
from graphssl.backbones.transformer import CrossBlock as CrossBlock
from graphssl.backbones.transformer import Embed as Embed
from graphssl.backbones.transformer import Side as Side
from graphssl.backbones.transformer import Transformer as Transformer
from graphssl.errors import UserError, unknown
from graphssl.heads import glorot
from graphssl.structure import Reach


@dataclass(frozen=True)
class Shape:
    """What a convolution may be told; each picks what it needs."""

    dim_in: int
    dim: int
    inner: int  # of a convolution that holds an MLP
    heads: int
    attention_dropout: float
    activation: str
    edge_dim: int
    norm: str  # within a convolution that holds an MLP


CONVS: dict[str, Callable[[Shape], nn.Module]] = {
    "gat": lambda s: GATConv(s.dim_in, s.dim, s.heads, s.attention_dropout),
    "gcn": lambda s: GCNConv(s.dim_in, s.dim),
    "gin": lambda s: GINConv(s.dim_in, s.dim, s.activation, s.inner, s.edge_dim, s.norm),
    "sage": lambda s: SAGEConv(s.dim_in, s.dim),
    "mlp": lambda s: NodeLinear(s.dim_in, s.dim),
}
TRANSFORMERS = {"transformer": "dense", "sparse-transformer": "sparse"}  # with how they attend


def list_encoders(pattern: str = "*") -> list[str]:
    """Names that ``encoder=`` takes."""
    return [name for name in sorted([*CONVS, *TRANSFORMERS]) if fnmatch(name, pattern)]


def backbone(
    name: str, dim_in: int, widths: Sequence[int], *, heads: int = 1, dropout: float = 0.0,
    attention_dropout: float = 0.0, norm: str = "none", residual: bool = False, activation: str = "prelu",
    bare_end: bool = False, edge_dim: int = 0, norm_last: bool = False, axes: int = 0, position: str = "sincos",
    extra: int = 0, hops: int = 1, dilation: int = 1, global_nodes: int = 0,
) -> Backbone:  # fmt: skip
    """The backbone ``name`` with one layer for each of ``widths``.

    ``heads`` and ``attention_dropout`` are of attention only, ``edge_dim`` (how many attributes an edge has; 0: they
    are not looked at) of GIN. With ``norm_last`` norms stand behind activations, and none within a GIN's MLP, as in
    InfoGraph's gin.py. With ``bare_end`` the last layer has one head and neither residual, norm nor activation,
    and an MLP in it is as wide as what comes in: a decoder's end. A "transformer" attends among all nodes of a graph, a
    "sparse-transformer" along its edges; they take ``axes`` (coordinates of a node; 0: nodes stand nowhere) and
    ``position`` and ``extra`` (learned tokens a graph), have one width and their own norms, and no bare end. A
    "sparse-transformer" attends as far as ``structure.Reach(hops, dilation)`` where either is above 1, and has
    ``global_nodes`` further extra tokens.
    """
    if name != "sparse-transformer" and (hops, dilation, global_nodes) != (1, 1, 0):
        raise UserError(
            f"hops, dilation and global_nodes say how far a sparse-transformer attends, not a {name}; leave them out, "
            "or choose encoder='sparse-transformer'"
        )
    if name in TRANSFORMERS:
        if bare_end or len(set(widths)) > 1:
            asked = f"widths {[*widths]}{' with a bare end' if bare_end else ''}"
            raise UserError(
                f"a {name} has one width throughout and ends in a norm, but layers of {asked} are asked for; choose "
                f"one of {', '.join(CONVS)}"
            )
        return Transformer(
            dim_in, widths[0], len(widths), heads, axes=axes, position=position, attention=TRANSFORMERS[name],
            extra=extra + global_nodes, dropout=dropout, attention_dropout=attention_dropout,
            embed=glorot(Embed(dim_in, widths[0])), pattern=Reach(hops, dilation) if hops * dilation > 1 else None,
        )  # fmt: skip
    if name not in CONVS:
        raise unknown("encoder", name, [*CONVS, *TRANSFORMERS])
    layers, before = [], dim_in
    for place, dim in enumerate(widths):
        bare = bare_end and place == len(widths) - 1
        inner = before if bare else dim
        within = "none" if norm_last else "batch"
        shape = Shape(before, dim, inner, 1 if bare else heads, attention_dropout, activation, edge_dim, within)
        conv = CONVS[name](shape)
        finish = {} if bare else {"norm": norm, "activation": activation, "residual": residual, "norm_last": norm_last}
        layers.append(Layer(conv, before, dim, dropout=dropout, **finish))  # type: ignore[arg-type]
        before = dim
    return Backbone(layers)
