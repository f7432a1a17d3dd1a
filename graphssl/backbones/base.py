"""What every backbone is: a list of layers from (graph, h) to h."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from graphssl import ops
from graphssl.errors import unknown
from graphssl.graph import Graph

ACTIVATIONS = {"prelu": nn.PReLU, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU, "none": nn.Identity}


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


class Layer(nn.Module):
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
        if rows is not None and isinstance(self.norm, nn.BatchNorm1d):  # whose statistics are those of all nodes
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

    def __init__(self, layers: list[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dim_in, self.dim = layers[0].dim_in, layers[-1].dim
        self.widths = tuple(layer.dim for layer in layers)

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
