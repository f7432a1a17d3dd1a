"""What every backbone is: a list of layers from (graph, h) to h."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from graphssl import ops
from graphssl.errors import UserError, unknown
from graphssl.graph import Graph
from graphssl.heads import PReLU

ACTIVATIONS = {"prelu": PReLU, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU, "none": nn.Identity}


def activation_named(name: str) -> nn.Module:
    """A new activation by its name in ``ACTIVATIONS``."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over all nodes at hand; a single node is normalised with the running statistics."""

    def forward(self, h: Tensor) -> Tensor:
        if self.training and h.size(0) == 1:
            return nn.functional.batch_norm(
                h, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(h)


NORMS = {"batch": BatchNorm, "layer": nn.LayerNorm, "none": nn.Identity}


def norm_named(name: str, dim: int) -> nn.Module:
    """A new normalisation of width ``dim`` by its name in ``NORMS``."""
    if name not in NORMS:
        raise unknown("norm", name, NORMS)
    return nn.Identity() if name == "none" else NORMS[name](dim)


def edge_attributes(graph: Graph, width: int, like: Tensor) -> Tensor:
    """What edges carry, [E, width], in the type of ``like``; UserError where they carry nothing."""
    if graph.edge_attr is None:
        raise UserError(
            f"the encoder was built for edges with {width} attributes, but this graph's have none; "
            "give edge_attr, or build it with edge_attr=False"
        )
    return graph.edge_attr.reshape(graph.num_edges, width).to(like.dtype)


class Step(nn.Module):
    """A layer of a backbone.

    With ``checkpoint`` set only its input is kept for the backward, which computes the rest anew: Chen et al. 2016,
    arXiv:1604.06174. What is drawn anew is the same, and norms take note of each batch once.
    """

    dim_in: int
    dim: int
    checkpoint = False

    def __call__(self, *inputs: Any) -> Any:
        if not (self.checkpoint and torch.is_grad_enabled()):
            return super().__call__(*inputs)
        # a tensor of its own beside the inputs tells which device's draws to repeat where content is sparse
        here, call = next(self.parameters()), super().__call__
        return checkpoint(
            lambda _, *inputs: call(*inputs), here, *inputs, use_reentrant=False,
            context_fn=lambda: (nullcontext(), Unnoticed(self)),
        )  # fmt: skip


class Unnoticed:
    """Within, norms of ``module`` leave their running statistics as they are; may be entered again."""

    def __init__(self, module: nn.Module):
        self.norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()  # type: ignore[union-attr]

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


class Layer(Step):
    """Dropout, a convolution, then residual, norm and activation, in the order of GraphMAE's reference code.

    With ``norm_last`` the norm stands behind the activation, as in InfoGraph's and GraphCL's. ``conv`` maps (graph,
    content [N, dim_in], rows) to [N, dim], or to the ``rows`` asked for.
    """

    def __init__(
        self, conv: nn.Module, dim_in: int, dim: int, *, dropout: float = 0.0, norm: str = "none",
        activation: str = "none", residual: bool = False, norm_last: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.conv, self.dim_in, self.dim, self.dropout, self.norm_last = conv, dim_in, dim, dropout, norm_last
        self.norm, self.activation = norm_named(norm, dim), activation_named(activation)
        self.residual: nn.Module | None = None
        if residual:
            self.residual = nn.Identity() if dim_in == dim else Project(dim_in, dim)

    def forward(self, graph: Graph, h: ops.Content, rows: Tensor | None = None) -> Tensor:
        """``h`` [N, dim_in] to [N, dim]; with a boolean ``rows`` [N] only those rows come back."""
        if rows is not None and isinstance(self.norm, _BatchNorm):  # whose statistics are those of all nodes
            return self(graph, h)[rows]
        h = ops.dropout(h, self.dropout if self.training else 0.0)
        out = self.conv(graph, h, rows)
        if self.residual is not None:
            kept = self.residual(h)
            out = out + (kept if rows is None else kept[rows])
        return self.norm(self.activation(out)) if self.norm_last else self.activation(self.norm(out))


class Project(nn.Linear):
    """A linear map without bias that takes sparse and covered rows as they are."""

    def __init__(self, dim_in: int, dim: int):
        super().__init__(dim_in, dim, bias=False)

    def forward(self, x: ops.Content) -> Tensor:
        return ops.linear(x, self.weight)


class Backbone(nn.Module):
    """``layers`` one after another; a method may walk them itself, with another graph for each."""

    def __init__(self, layers: Sequence[Step]):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dim_in, self.dim = layers[0].dim_in, layers[-1].dim
        self.widths = tuple(layer.dim for layer in layers)

    @property
    def checkpointed(self) -> bool:
        """Whether a backward is left layers' inputs only."""
        return all(getattr(layer, "checkpoint", False) for layer in self.layers)

    def forward(self, graph: Graph, h: ops.Content, rows: Tensor | None = None) -> Tensor:
        """Content [N, dim_in] to codes [N, dim]; with a boolean ``rows`` [N] only the codes of those rows."""
        *first, last = self.layers
        for layer in first:
            h = layer(graph, h)
        return last(graph, h, rows)

    def walk(self, graph: Graph, h: ops.Content) -> Iterator[Tensor]:
        """The codes after each layer."""
        for layer in self.layers:
            out: Tensor = layer(graph, h)
            yield out
            h = out


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, ``module`` is in evaluation mode; afterwards each part of it is in the mode it was in."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training
