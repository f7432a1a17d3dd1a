"""Transformers on tokens: ViT's pre-norm blocks, arXiv:2010.11929, with attention among all or along edges only.

The same weights do both. Along edges it is the mesh transformers' adjacency as attention mask, Garnier et al. 2025,
arXiv:2508.18051, with wider neighbourhoods and global tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphssl import ops
from graphssl.backbones.base import Backbone, Step
from graphssl.backbones.positions import position_named, positions_of
from graphssl.errors import unknown
from graphssl.graph import Graph
from graphssl.heads import glorot
from graphssl.ops import CSR
from graphssl.ops.csr import cached_property

ATTENTION = ("dense", "sparse")
Pattern = Callable[[Graph], CSR]  # which nodes each attends to; a frozen dataclass, whose repr tells it from others


class Side:
    """The tokens of B graphs, end to end [T, ...] and side by side [B, L, ...], filled up with zeros where they differ.

    ``sizes`` are the tokens of each graph, on the host, ``batch`` [T] the graph of each token, ascending.
    """

    def __init__(self, sizes: Sequence[int], batch: Tensor):
        self.sizes, self.batch, self.B = sizes, batch, len(sizes)
        self.L = max(*sizes, 1) if sizes else 1
        self.even = all(size == self.L for size in sizes)  # then it is a view

    @classmethod
    def of(cls, batch: Tensor, graphs: int) -> Side:
        """Of tokens of which only the graph is known."""
        return cls(torch.bincount(batch, minlength=graphs).tolist(), batch)

    @cached_property
    def count(self) -> Tensor:
        return torch.tensor(self.sizes, device=self.batch.device)

    @cached_property
    def place(self) -> Tensor:
        """Where each token stands once they are side by side, [T]."""
        first = self.count.cumsum(0) - self.count
        rank = torch.arange(len(self.batch), device=self.batch.device) - first[self.batch]
        return self.batch * self.L + rank

    @cached_property
    def mask(self) -> Tensor | None:
        """Which places may be attended to, [B, 1, 1, L]; of a graph without tokens all, as none would give NaN."""
        if self.even:
            return None
        real = torch.arange(self.L, device=self.batch.device) < self.count[:, None]
        return (real | ~real.any(1, keepdim=True))[:, None, None]

    def pack(self, x: Tensor) -> Tensor:
        """[T, ...] to [B, L, ...]."""
        if not self.even:
            x = x.new_zeros(self.B * self.L, *x.shape[1:]).index_put((self.place,), x)
        return x.reshape(self.B, self.L, *x.shape[1:])

    def unpack(self, x: Tensor) -> Tensor:
        """[B, L, ...] to [T, ...]."""
        flat = x.flatten(0, 1)
        return flat if self.even else flat[self.place]

    def nest(self, x: Tensor) -> Tensor:
        """[T, H, d] as a nested tensor [B, H, *, d], which needs no filling up."""
        offsets = F.pad(self.count.cumsum(0), (1, 0))
        return torch.nested.nested_tensor_from_jagged(
            x.contiguous(), offsets, min_seqlen=min(self.sizes), max_seqlen=self.L
        ).transpose(1, 2)


def attend(query: Side, key: Side, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention [T, H, d] of queries ``q`` [T, H, d] to all keys ``k`` and values ``v`` [S, H, d] of their own graph.

    Graphs of one size are laid side by side without a copy. Others take variable-length attention on a CUDA device,
    and elsewhere are filled up, what fills being hidden. A query whose graph has no keys receives zeros.
    """
    if not (query.even and key.even) and q.is_cuda and 0 not in (*query.sizes, *key.sizes):
        return attend_nested(query, key, q, k, v, dropout)
    q, k, v = query.pack(q).transpose(1, 2), key.pack(k).transpose(1, 2), key.pack(v).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=key.mask, dropout_p=dropout)
    return query.unpack(out.transpose(1, 2))


def attend_nested(query: Side, key: Side, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """The same by variable-length attention, where each graph has a query and a key at least."""
    with warnings.catch_warnings():  # torch calls nested tensors a prototype in a warning at the first use
        warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
        out = F.scaled_dot_product_attention(query.nest(q), key.nest(k), key.nest(v), dropout_p=dropout)
    return out.transpose(1, 2).values()


class Dense:
    """Tokens [T, D] of a graph's extra tokens and nodes, graph by graph, which all attend to one another."""

    def __init__(self, graph: Graph, extra: int):
        self.B, self.extra, batch, N = graph.num_graphs, extra, graph.batch, graph.num_nodes
        if extra:
            each = torch.arange(self.B, device=graph.device)
            self.node = torch.arange(N, device=graph.device) + extra * (batch + 1)
            first = graph.size.cumsum(0) - graph.size + extra * each
            self.more = (first[:, None] + torch.arange(extra, device=graph.device)).flatten()
            self.order = torch.cat([self.more, self.node]).argsort()
            batch = torch.cat([each.repeat_interleave(extra), batch])[self.order]
        self.side = Side([size + extra for size in graph.sizes], batch)

    def pack(self, h: Tensor, extras: Tensor | None) -> Tensor:
        """Codes [N, D] of nodes and [B, extra, D] of extra tokens as tokens."""
        return h if extras is None else torch.cat([extras.flatten(0, 1), h])[self.order]

    def unpack(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [N, D] of nodes and [B, extra, D] of extra tokens."""
        if not self.extra:
            return tokens, tokens.new_empty(self.B, 0, tokens.size(1))
        return tokens[self.node], tokens[self.more].unflatten(0, (self.B, self.extra))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        return attend(self.side, self.side, q, k, v, dropout)


class Sparse:
    """Tokens laid flat [N + B * extra, D]; a node attends to itself, along edges into it, and to extra tokens.

    Extra tokens attend to all of their graph.
    """

    def __init__(self, graph: Graph, extra: int, pattern: Pattern | None = None):
        self.N, self.B, self.extra = graph.num_nodes, graph.num_graphs, extra

        def make(graph: Graph) -> CSR:
            return _with_extras(graph, extra, graph.csr if pattern is None else pattern(graph))

        self.csr = graph.remember(f"transformer.{extra}.{pattern}", make, shared=True)

    def pack(self, h: Tensor, extras: Tensor | None) -> Tensor:
        return h if extras is None else torch.cat([h, extras.flatten(0, 1)])

    def unpack(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        h, extras = tokens.split([self.N, self.B * self.extra])
        return h, extras.view(self.B, self.extra, h.size(1))

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


def check_heads(dim: int, heads: int) -> None:
    if dim % heads:
        raise ValueError(f"cannot split a width of {dim} into {heads} heads; choose a multiple")


class Attention(nn.Module):
    """Multi-head attention within a layout."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        check_heads(dim, heads)
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, h: Tensor, layout: Layout) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return self.out(layout.attend(q, k, v, self.dropout if self.training else 0.0).flatten(-2))


class Block(Step):
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


class CrossBlock(nn.Module):
    """Attention of tokens to a memory and an MLP, each behind a norm and beside a residual; none among the tokens.

    The decoder block of CrossMAE, arXiv:2401.14391; reference TonyLianLong/CrossMAE at 6e1b329, where the memory's norm
    stands before the block.
    """

    def __init__(self, dim: int, memory: int, heads: int, dropout: float = 0.0, attention_dropout: float = 0.0):
        super().__init__()
        check_heads(dim, heads)
        self.dim, self.heads, self.attention_dropout = dim, heads, attention_dropout
        self.norm1, self.norm2, self.norm_memory = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(memory)
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(memory, 2 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)
        glorot(self)

    def forward(self, h: Tensor, memory: Tensor, query: Side, key: Side) -> Tensor:
        """``h`` [T, dim] to [T, dim], each token reading those of ``memory`` [S, memory] that are of its graph.

        ``query`` and ``key`` say of which graph each of them is: ``Side.of(batch, graphs)``.
        """
        q = self.q(self.norm1(h)).unflatten(-1, (self.heads, -1))
        k, v = self.kv(self.norm_memory(memory)).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        read = attend(query, key, q, k, v, self.attention_dropout if self.training else 0.0)
        h = h + self.dropout(self.out(read.flatten(-2)))
        return h + self.dropout(self.mlp(self.norm2(h)))


class Embed(nn.Linear):
    """A linear map of tokens' content, which may be sparse or covered."""

    def forward(self, x: ops.Content) -> Tensor:
        return ops.linear(x, self.weight) + self.bias


class Transformer(Backbone):
    """Content [N, dim_in] to codes [N, dim] by ``layers`` blocks.

    ``attention`` is "dense", among all tokens of a graph, or "sparse", along its edges (and to itself). ``pattern``
    (graph) -> CSR may give a sparse one other neighbours, such as ``structure.Reach(hops, dilation)``. ``position``
    names how ``graph.pos`` [N, axes] is read: "sincos", "learned", "mlp" or "none". ``extra`` learned tokens a graph
    attend to all and are attended by all; the first is the class token. ``embed`` maps content to the width; None:
    content has it. ``encodings`` (graph) -> [N, dim] are added to it.
    Initialised as MAE's: Xavier uniform, biases zero, tokens normal with 0.02.
    """

    def __init__(
        self, dim_in: int, dim: int, layers: int, heads: int = 4, *, axes: int = 0, position: str = "sincos",
        attention: str = "dense", extra: int = 0, dropout: float = 0.0, attention_dropout: float = 0.0,
        embed: nn.Module | None = None, pattern: Pattern | None = None, encodings: Sequence[nn.Module] = (),
    ):  # fmt: skip
        if attention not in ATTENTION:
            raise unknown("attention", attention, ATTENTION)
        super().__init__([Block(dim, heads, dropout, attention_dropout) for _ in range(layers)])
        self.dim_in, self.attention, self.extra, self.pattern = dim_in, attention, extra, pattern
        self.norm = nn.LayerNorm(dim)
        glorot(self)
        self.embed, self.encodings = embed, nn.ModuleList(encodings)
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
        for encoding in self.encodings:
            codes = codes + encoding(graph)
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
