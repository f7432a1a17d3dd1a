"""Backbones by name: content and graph to codes, one family a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch import nn

from graphssl.backbones.base import Backbone as Backbone
from graphssl.backbones.base import Layer as Layer
from graphssl.backbones.base import Step as Step
from graphssl.backbones.base import evaluating as evaluating
from graphssl.backbones.base import norm_named
from graphssl.backbones.deep import JUMPS, Jump
from graphssl.backbones.deep import Deep as Deep
from graphssl.backbones.encodings import Laplace, Walk
from graphssl.backbones.fastrp import FastRP as FastRP
from graphssl.backbones.foreign import foreign as foreign
from graphssl.backbones.gat import GATConv as GATConv
from graphssl.backbones.gcn import GCNConv as GCNConv
from graphssl.backbones.gen import GENConv as GENConv
from graphssl.backbones.gen import PreActivation
from graphssl.backbones.gin import GINConv as GINConv
from graphssl.backbones.gine import GINEConv as GINEConv
from graphssl.backbones.gps import GPSLayer
from graphssl.backbones.mlp import NodeLinear as NodeLinear
from graphssl.backbones.pointnet import PointNet as PointNet
from graphssl.backbones.sage import SAGEConv as SAGEConv
from graphssl.backbones.sgc import Propagate as Propagate
from graphssl.backbones.table import Table as Table
from graphssl.backbones.transformer import CrossBlock as CrossBlock
from graphssl.backbones.transformer import Embed as Embed
from graphssl.backbones.transformer import Side as Side
from graphssl.backbones.transformer import Transformer as Transformer
from graphssl.backbones.virtual import VirtualNode
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
    norm: str  # within a convolution that holds an MLP, and around it where it is deep
    dropout: float
    more: tuple[str, ...]  # modifiers


CONVS: dict[str, Callable[[Shape], nn.Module]] = {
    "gat": lambda s: GATConv(s.dim_in, s.dim, s.heads, s.attention_dropout),
    "gcn": lambda s: GCNConv(s.dim_in, s.dim),
    "gin": lambda s: GINConv(s.dim_in, s.dim, s.activation, s.inner, s.edge_dim, s.norm),
    "sage": lambda s: SAGEConv(s.dim_in, s.dim),
    "mlp": lambda s: NodeLinear(s.dim_in, s.dim),
}
EMBEDDED: dict[str, Callable[[Shape], nn.Module]] = {  # convolutions of content that is embedded
    "gine": lambda s: GINEConv(s.dim_in, s.dim, s.activation, 2 * s.inner, s.edge_dim, s.norm),
}
DEEP: dict[str, Callable[[Shape], Step]] = {  # layers of one width with norms and residuals of their own
    "gen": lambda s: PreActivation(
        GENConv(
            s.dim, s.activation, s.edge_dim, s.norm, "power" if "power" in s.more else "softmax",
            "message-norm" in s.more,
        ), s.dim, dropout=s.dropout, norm=s.norm, activation=s.activation,
    ),
    "gps": lambda s: GPSLayer(
        s.dim, s.heads, dropout=s.dropout, attention_dropout=s.attention_dropout, norm=s.norm,
        activation=s.activation, edge_dim=s.edge_dim,
    ),
}  # fmt: skip
TRANSFORMERS = {"transformer": "dense", "sparse-transformer": "sparse"}  # with how they attend
ENCODERS = (*CONVS, *EMBEDDED, *DEEP, *TRANSFORMERS)
EDGE_READERS = (*EMBEDDED, *DEEP)  # made to read what edges carry, where a "gin" may
ENCODINGS = {"walk": Walk, "laplace": Laplace}

# what may stand behind a "+" in an encoder's name, with the encoders that it is for
NO_TRANSFORMER = (*CONVS, *EMBEDDED, *DEEP)
MODIFIERS: dict[str, tuple[str, ...]] = {
    "checkpoint": ENCODERS,
    **dict.fromkeys(ENCODINGS, ENCODERS),
    "virtual": NO_TRANSFORMER,
    **dict.fromkeys((f"jk-{how}" for how in JUMPS), NO_TRANSFORMER),
    **dict.fromkeys(("power", "message-norm"), ("gen",)),
}


def list_encoders(pattern: str = "*") -> list[str]:
    """Names that ``encoder=`` takes; each may be followed by modifiers, as in "gine+virtual+walk".

    "+checkpoint" keeps only layers' inputs for the backward and computes the rest anew. "+walk" adds 16 return
    probabilities of random walks to the content's code, in time that grows with the nodes and edges times the nodes of
    the largest graph, and refuses what would take more than about a minute on one core: a graph of more than some
    30,000 nodes, or of fewer with many edges. "+laplace" adds 8 Laplacian eigenvectors, whatever their signs, for
    graphs of up to 2000 nodes. "+virtual" gives each graph a state that its nodes share from layer to layer, and
    "+jk-cat", "+jk-max" or "+jk-sum" joins the codes after all layers; neither is for transformers. A "gen" has
    "+power", the power mean in place of the softmax, and "+message-norm".
    """
    return [name for name in sorted(ENCODERS) if fnmatch(name, pattern)]


def modified(name: str) -> tuple[str, tuple[str, ...]]:
    """An encoder's ``name`` without its modifiers, and these; UserError for what is none or does not go together."""
    plain, *more = name.split("+")
    if plain not in ENCODERS:
        raise unknown("encoder", plain, ENCODERS)
    for one in more:
        if one not in MODIFIERS:
            raise unknown("modifier of an encoder", one, MODIFIERS)
        if plain not in MODIFIERS[one]:
            fit = ", ".join(MODIFIERS[one])
            raise UserError(f"a {plain} has no '+{one}', which is for {fit}; leave it out, or choose such an encoder")
    if len({one.split("-")[0] if one.startswith("jk") else one for one in more}) < len(more):
        raise UserError(f"encoder {name!r} names a modifier twice, or two ways to join layers; name one of them once")
    return plain, tuple(more)


def backbone(
    name: str, dim_in: int, widths: Sequence[int], *, heads: int = 1, dropout: float = 0.0,
    attention_dropout: float = 0.0, norm: str = "none", residual: bool = False, activation: str = "prelu",
    bare_end: bool = False, edge_dim: int = 0, norm_last: bool = False, axes: int = 0, position: str = "sincos",
    extra: int = 0, hops: int = 1, dilation: int = 1, global_nodes: int = 0,
) -> Backbone:  # fmt: skip
    """The backbone ``name`` with one layer for each of ``widths``; for modifiers in the name see ``list_encoders``.

    ``heads`` and ``attention_dropout`` are of attention only, ``edge_dim`` (how many attributes an edge has; 0: they
    are not looked at) of "gin", "gine", "gen" and "gps". With ``norm_last`` norms stand behind activations, and none
    within a GIN's MLP, as in InfoGraph's gin.py. With ``bare_end`` the last layer has one head and neither residual,
    norm nor activation, and an MLP in it is as wide as what comes in: a decoder's end. "gine", "gen" and "gps" map
    content linearly before their first layer, as do others that a virtual node or an encoding is added to; only where
    the one layer is a bare end it is taken as it is.

    "gen" and "gps" have one width, residuals and an order of their own, and no bare end; where ``norm`` is "none" they
    take layer norms. A "transformer" attends among all nodes of a graph, a "sparse-transformer" along its edges; they
    take ``axes`` (coordinates of a node; 0: nodes stand nowhere) and ``position`` and ``extra`` (learned tokens a
    graph), have one width and their own norms, and no bare end. A "sparse-transformer" attends as far as
    ``structure.Reach(hops, dilation)`` where either is above 1, and has ``global_nodes`` further extra tokens.
    """
    name, more = modified(name)
    if name != "sparse-transformer" and (hops, dilation, global_nodes) != (1, 1, 0):
        raise UserError(
            f"hops, dilation and global_nodes say how far a sparse-transformer attends, not a {name}; leave them out, "
            "or choose encoder='sparse-transformer'"
        )
    if name in (*TRANSFORMERS, *DEEP) and (bare_end or len(set(widths)) > 1):
        asked = f"widths {[*widths]}{' with a bare end' if bare_end else ''}"
        raise UserError(
            f"a {name} has one width throughout and ends in a norm, but layers of {asked} are asked for; choose "
            f"one of {', '.join((*CONVS, *EMBEDDED))}"
        )
    if name in TRANSFORMERS:
        body: Backbone = Transformer(
            dim_in, widths[0], len(widths), heads, axes=axes, position=position, attention=TRANSFORMERS[name],
            extra=extra + global_nodes, dropout=dropout, attention_dropout=attention_dropout,
            embed=glorot(Embed(dim_in, widths[0])), pattern=Reach(hops, dilation) if hops * dilation > 1 else None,
            encodings=[ENCODINGS[one](widths[0]) for one in more if one in ENCODINGS],
        )  # fmt: skip
    else:
        embeds = (name not in CONVS or {"virtual", *ENCODINGS} & {*more}) and not (bare_end and len(widths) == 1)
        before = [widths[0] if embeds else dim_in, *widths[:-1]]
        norm = "layer" if name in DEEP and norm == "none" else norm
        finish = {"norm": norm, "activation": activation, "residual": residual, "norm_last": norm_last}
        within = norm if name in DEEP else "none" if norm_last else "batch"
        layers: list[Step] = []
        for place, (dim_before, dim) in enumerate(zip(before, widths, strict=True)):
            bare = bare_end and place == len(widths) - 1
            shape = Shape(
                dim_before, dim, dim_before if bare else dim, 1 if bare else heads, attention_dropout, activation,
                edge_dim, within, dropout, more,
            )  # fmt: skip
            if name in DEEP:
                layers.append(DEEP[name](shape))
            else:
                conv = (CONVS | EMBEDDED)[name](shape)
                layers.append(Layer(conv, dim_before, dim, dropout=dropout, **({} if bare else finish)))  # type: ignore[arg-type]
        if not embeds and not {*more} - {"checkpoint"}:
            body = Backbone(layers)
        else:
            jumps = [Jump(one.removeprefix("jk-"), widths) for one in more if one.startswith("jk-")]
            body = Deep(
                layers, embed=glorot(Embed(dim_in, before[0])) if embeds else None,
                encodings=[ENCODINGS[one](before[0]) for one in more if one in ENCODINGS],
                virtual=VirtualNode(before, dropout) if "virtual" in more else None, jump=jumps[0] if jumps else None,
                norm=norm_named(norm, widths[-1]) if name == "gen" else None,
            )  # fmt: skip
    for layer in body.layers:
        layer.checkpoint = "checkpoint" in more  # type: ignore[assignment]
    return body
