"""Backbones by name: content and graph to codes, one family a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatch

from torch import nn

from graphssl.backbones.base import Backbone as Backbone
from graphssl.backbones.base import Layer as Layer
from graphssl.backbones.base import evaluating as evaluating
from graphssl.backbones.foreign import foreign as foreign
from graphssl.backbones.gat import GATConv as GATConv
from graphssl.backbones.gcn import GCNConv as GCNConv
from graphssl.backbones.gin import GINConv as GINConv
from graphssl.backbones.mlp import NodeLinear as NodeLinear
from graphssl.backbones.sage import SAGEConv as SAGEConv
from graphssl.errors import unknown

# each takes (dim_in, dim, heads, attention_dropout, activation) and picks what it needs
CONVS: dict[str, Callable[[int, int, int, float, str], nn.Module]] = {
    "gat": lambda i, o, heads, drop, act: GATConv(i, o, heads, drop),
    "gcn": lambda i, o, heads, drop, act: GCNConv(i, o),
    "gin": lambda i, o, heads, drop, act: GINConv(i, o, act),
    "sage": lambda i, o, heads, drop, act: SAGEConv(i, o),
    "mlp": lambda i, o, heads, drop, act: NodeLinear(i, o),
}


def list_encoders(pattern: str = "*") -> list[str]:
    """Names that ``encoder=`` takes."""
    return [name for name in sorted(CONVS) if fnmatch(name, pattern)]


def backbone(
    name: str, dim_in: int, widths: Sequence[int], *, heads: int = 1, dropout: float = 0.0,
    attention_dropout: float = 0.0, norm: str = "none", residual: bool = False, activation: str = "prelu",
    bare_end: bool = False,
) -> Backbone:  # fmt: skip
    """The backbone ``name`` with one layer for each of ``widths``.

    ``heads`` and ``attention_dropout`` are of attention only. With ``bare_end`` the last layer has one head and neither
    residual, norm nor activation, as a decoder's has.
    """
    if name not in CONVS:
        raise unknown("encoder", name, CONVS)
    layers, before = [], dim_in
    for place, dim in enumerate(widths):
        bare = bare_end and place == len(widths) - 1
        conv = CONVS[name](before, dim, 1 if bare else heads, attention_dropout, activation)
        finish = {} if bare else {"norm": norm, "activation": activation, "residual": residual}
        layers.append(Layer(conv, before, dim, dropout=dropout, **finish))  # type: ignore[arg-type]
        before = dim
    return Backbone(layers)
