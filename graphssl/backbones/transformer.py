"""Transformers on tokens: ViT's pre-norm blocks, arXiv:2010.11929, with attention among all or along edges only.

The same weights do both. Along edges it is the mesh transformers' adjacency as attention mask, Garnier et al. 2025,
arXiv:2508.18051, with wider neighbourhoods and global tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import Backbone
from graphssl.backbones.positions import position_named, positions_of
from graphssl.errors import unknown
from graphssl.graph import Graph
from graphssl.heads import glorot
from graphssl.ops import CSR

ATTENTION = ("dense", "sparse")
Pattern = Callable[[Graph], CSR]  # which nodes each attends to; a frozen dataclass, whose repr tells it from others


class Dense:
    """Tokens laid out [B, L, D], so that those of each graph attend to one another and to its extra tokens.

    Graphs of one size are laid side by side; others are filled up, and what fills is hidden from attention.
    """

    def __init__(self, graph: Graph, extra: int):
        self.sizes, self.extra = graph.sizes, extra
        self.B, self.L = len(graph.sizes), max(graph.sizes, default=0)
        self.even = min(graph.sizes, default=0) == self.L
        self.mask: Tensor | None = None
        if not self.even:
            first = graph.size.cumsum(0) - graph.size
            rank = torch.arange(graph.num_nodes, device=graph.device) - first[graph.batch]
            self.place = graph.batch * self.L + rank
            real = torch.arange(self.L, device=graph.device) < graph.size[:, None]
            if not extra:
                real = real | ~real.any(1, keepdim=True)  # a graph without tokens attends to what fills: no NaN
            self.mask = F.pad(real, (extra, 0), value=True)[:, None, None]

    def pack(self, h: Tensor, extras: Tensor | None) -> Tensor:
        """Codes [N, D] of nodes and [B, extra, D] of extra tokens, which come first."""
        if self.even:
            dense = h.reshape(self.B, self.L, -1)
        else:
            dense = h.new_zeros(self.B * self.L, h.size(1)).index_put((self.place,), h)
            dense = dense.view(self.B, self.L, -1)
        return dense if extras is None else torch.cat([extras, dense], dim=1)

    def unpack(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [N, D] of nodes and [B, extra, D] of extra tokens."""
        extras, h = tokens.split([self.extra, self.L], dim=1)
        flat = h.reshape(-1, h.size(2))
        return (flat if self.even else flat[self.place]), extras

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Attention [B, L, H, d] of ``q`` to ``k`` and ``v``."""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, dropout_p=dropout)
        return out.transpose(1, 2)


class Sparse:
    """Tokens laid flat [N + B * extra, D]; a node attends to itself, along edges into it, and to extra tokens.

    Extra tokens attend to all of their graph.
    """

    def __init__(self, graph: Graph, extra: int, pattern: Pattern | None = None):
        self.N, self.B, self.extra = graph.num_nodes, graph.num_graphs, extra

        def make(graph: Graph) -> CSR:
            return _with_extras(graph, extra, graph.csr if pattern is None else pattern(graph))

        self.csr = graph.remember(f"transformer.{extra}.{pattern}", make)

    def pack(self, h: Tensor, extras: Tensor | None) -> Tensor:
        return h if extras is None else torch.cat([h, extras.flatten(0, 1)])

    def unpack(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        h, extras = tokens.split([self.N, self.B * self.extra])
        return h, extras.view(self.B, self.extra, -1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        return ops.qkv_attention(self.csr, q.contiguous(), k.contiguous(), v.contiguous(), dropout=dropout)


Layout = Dense | Sparse


def _with_extras(graph: Graph, extra: int, csr: CSR) -> CSR:
    """``csr`` with a self-loop at each node and ``extra`` further nodes a graph that are joined both ways with all."""
    N, B, device = graph.num_nodes, graph.num_graphs, graph.device
    node = torch.arange(N, device=device)
    parts = [torch.stack([csr.col, csr.row]), node.expand(2, N)]
    if extra:
        added = N + graph.batch[:, None] * extra + torch.arange(extra, device=device)  # [N, extra]
        pair = torch.stack([added.flatten(), node.repeat_interleave(extra)])
        among = N + torch.arange(B * extra, device=device).view(B, extra)
        both = torch.stack(torch.broadcast_tensors(among[:, :, None], among[:, None]))
        parts += [pair, pair.flip(0), both.reshape(2, -1)]
    source, target = torch.cat(parts, 1)
    total = N + B * extra
    key = (target * total + source).unique()
    target, source = key // max(total, 1), key % max(total, 1)
    return CSR(ops.pointers(target, total), source, None, (total, total))


class Attention(nn.Module):
    """Multi-head attention within a layout."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        if dim % heads:
            raise ValueError(f"cannot split a width of {dim} into {heads} heads; choose a multiple")
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, h: Tensor, layout: Layout) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return self.out(layout.attend(q, k, v, self.dropout if self.training else 0.0).flatten(-2))


class Block(nn.Module):
    """Attention and an MLP of four times the width, each behind a norm and beside a residual."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, attention_dropout: float = 0.0):
        super().__init__()
        self.dim_in = self.dim = dim
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, attention_dropout)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, layout: Layout) -> Tensor:
        h = h + self.dropout(self.attention(self.norm1(h), layout))
        return h + self.dropout(self.mlp(self.norm2(h)))


class Embed(nn.Linear):
    """A linear map of tokens' content, which may be sparse or covered."""

    def forward(self, x: ops.Content) -> Tensor:
        return ops.linear(x, self.weight) + self.bias


class Transformer(Backbone):
    """Content [N, dim_in] to codes [N, dim] by ``layers`` blocks.

    ``attention`` is "dense", among all tokens of a graph, or "sparse", along its edges (and to itself). ``pattern``
    (graph) -> CSR may give a sparse one other neighbours, such as ``structure.reach``. ``position`` names how
    ``graph.pos`` [N, axes] is read: "sincos", "learned", "mlp" or "none". ``extra`` learned tokens a graph attend to
    all and are attended by all; the first is the class token. ``embed`` maps content to the width; None: content has it.
    Initialised as MAE's: Xavier uniform, biases zero, tokens normal with 0.02.
    """

    def __init__(
        self, dim_in: int, dim: int, layers: int, heads: int = 4, *, axes: int = 0, position: str = "sincos",
        attention: str = "dense", extra: int = 0, dropout: float = 0.0, attention_dropout: float = 0.0,
        embed: nn.Module | None = None, pattern: Pattern | None = None,
    ):  # fmt: skip
        if attention not in ATTENTION:
            raise unknown("attention", attention, ATTENTION)
        super().__init__([Block(dim, heads, dropout, attention_dropout) for _ in range(layers)])  # type: ignore[misc]
        self.dim_in, self.attention, self.extra, self.pattern = dim_in, attention, extra, pattern
        self.norm = nn.LayerNorm(dim)
        glorot(self)
        self.embed = embed
        self.position = position_named(position, dim, axes)
        self.extras = nn.Parameter(torch.empty(extra, dim).normal_(std=0.02)) if extra else None

    def layout(self, graph: Graph) -> Layout:
        if self.attention == "dense":
            return Dense(graph, self.extra)
        return Sparse(graph, self.extra, self.pattern)

    def start(self, graph: Graph, h: ops.Content, layout: Layout) -> Tensor:
        """Content [N, dim_in] as tokens in the layout, before the first block."""
        codes = ops.dense(h) if self.embed is None else self.embed(h)
        if self.position is not None:
            codes = codes + self.position(positions_of(graph))
        extras = None if self.extras is None else self.extras.expand(graph.num_graphs, -1, -1)
        return layout.pack(codes, extras)

    def whole(self, graph: Graph, h: ops.Content) -> tuple[Tensor, Tensor]:
        """Codes [N, dim] of nodes and [B, extra, dim] of the extra tokens."""
        layout = self.layout(graph)
        tokens = self.start(graph, h, layout)
        for block in self.layers:
            tokens = block(tokens, layout)
        return layout.unpack(self.norm(tokens))

    def forward(self, graph: Graph, h: ops.Content, rows: Tensor | None = None) -> Tensor:
        codes, _ = self.whole(graph, h)
        return codes if rows is None else codes[rows]

    def walk(self, graph: Graph, h: ops.Content) -> Iterator[Tensor]:
        """The codes after each block, the last one's normed."""
        layout = self.layout(graph)
        tokens = self.start(graph, h, layout)
        for i, block in enumerate(self.layers):
            tokens = block(tokens, layout)
            yield layout.unpack(self.norm(tokens) if i == len(self.layers) - 1 else tokens)[0]
