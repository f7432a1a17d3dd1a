"""HPM: Hard Patches Mining for Masked Image Modeling, CVPR 2023, arXiv:2304.05919.

Reference: Haochen-Wang409/HPM at fa489c3, models_mae_learn_loss.py and engine_pretrain.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl.backbones import Side, Transformer
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import full_precision, mean_square
from graphssl.masks import lowest_in, share
from graphssl.methods.base import Method
from graphssl.methods.masked import fill, put_back, target
from graphssl.teacher import Teacher


class HPM(Method):
    """A masked autoencoder that learns which nodes are hard to rebuild and hides more and more of those.

    A second decoder, ``predictor``, gives each hidden node a number, and is trained to put those of a graph in the
    order of their errors. A teacher, which follows, sees the whole graph and gives all nodes such numbers: of the share
    ``ratio`` that is hidden of each graph, a share that grows from 0 to ``hardest`` with the progress of training are
    the nodes with the highest numbers, the others are random. ``momentum`` is the teacher's at first and rises until a
    tenth is left of what it lacks of 1: 0.999 to 0.9999, which the reference reaches at epoch 100. ``dim`` is the width
    of the content and ``normalize`` as in MAE. Memory grows with the square of a graph's hidden nodes. Its masks are
    guided by its own loss, so ``propose`` makes them here: a masker knows of no teacher.
    """

    progress: Tensor  # how much of training is done, kept with the weights

    why_whole = "it ranks the hidden nodes of a graph, all of them, by how hard they are"

    def __init__(
        self, encoder: Encoder, decoder: Transformer, predictor: Transformer, dim: int, ratio: float = 0.75,
        hardest: float = 0.5, momentum: float = 0.999, normalize: bool = True,
    ):  # fmt: skip
        super().__init__()
        if not (0 < ratio <= 1 and 0 <= hardest <= 1):
            raise ValueError(f"cannot hide a share of {ratio}, {hardest} of it hard; choose shares up to 1")
        if predictor.dim_in != decoder.dim_in:
            raise ValueError(f"decoder and predictor read widths {decoder.dim_in} and {predictor.dim_in}; choose one")
        self.ratio, self.hardest, self.momentum, self.normalize = ratio, hardest, momentum, normalize
        self.register_buffer("progress", torch.zeros(()))
        self.encoder, self.decoder, self.predictor = encoder, decoder, predictor
        self.bridge = nn.Linear(encoder.dim, decoder.dim_in)
        self.mask_token = nn.Parameter(torch.empty(decoder.dim_in).normal_(std=0.02))
        self.read = nn.Linear(decoder.dim, dim)
        self.rate = nn.Linear(predictor.dim, 1)  # reference: the mean of as many numbers as the content has
        self.teacher = Teacher(self._predicting())

    def _predicting(self) -> nn.ModuleList:
        return nn.ModuleList([self.encoder, self.bridge, self.predictor, self.rate])

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.propose(graph, generator)
        tokens = self._tokens(graph, hidden)
        said, true = self.read(self.decoder(graph, tokens, rows=hidden)), target(graph, hidden, self.normalize)
        rated = self.rate(self.predictor(graph, tokens, rows=hidden)).squeeze(1)
        error = (said.detach() - true).square().mean(1)
        order = ranking(rated, error, Side.of(graph.batch[hidden], graph.num_graphs))
        return {"content": mean_square(said, true), "order": order}

    def _tokens(self, graph: Graph, hidden: Tensor) -> Tensor:
        """What both decoders read, [N, D]: codes of the visible nodes and the mask token for the others."""
        return fill(self.bridge(self.encoder(graph.keep_nodes(~hidden))), hidden, self.mask_token)

    def propose(self, graph: Graph, generator: Generator | None = None) -> Tensor:
        """True [N] where a node is to be hidden at this point of training."""
        wanted = share(self.ratio, graph.size, 1)
        hard = lowest_in(-self.hardness(graph), share(self.hardest * float(self.progress), wanted), *_parts(graph))
        draw = torch.rand(graph.num_nodes, generator=generator, device=graph.device)
        return lowest_in(draw.masked_fill(hard, -1.0), wanted, *_parts(graph))

    @torch.no_grad()
    def hardness(self, graph: Graph) -> Tensor:
        """What the teacher, which sees all, says of how hard each node is to rebuild, [N]; only the order counts."""
        parts: Any = self.teacher.module
        encoder, bridge, predictor, rate = parts
        return rate(predictor(graph, bridge(encoder(graph)))).squeeze(1)

    def after_step(self, progress: float) -> None:
        self.progress.fill_(progress)
        self.teacher.follow(self._predicting(), 1 - (1 - self.momentum) * (1 - 0.9 * progress))

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], and the content [N, dim] with what was decoded in their place."""
        hidden = self.propose(graph, generator)
        said = self.read(self.decoder(graph, self._tokens(graph, hidden), rows=hidden))
        return hidden, put_back(graph, hidden, said, self.normalize)


def _parts(graph: Graph) -> tuple[Tensor, Tensor]:
    return graph.batch, graph.size


@full_precision
def ranking(rated: Tensor, error: Tensor, side: Side) -> Tensor:
    """Cross-entropy of sigmoid(``rated`` i - ``rated`` j) over pairs of one graph with ``error`` i above ``error`` j.

    Both [M], of the nodes that ``side`` tells the graphs of; a mean over all such pairs, zero where there are none. No
    gradient to errors.
    """
    real = side.pack(torch.ones_like(error)) > 0
    rated, error = side.pack(rated), side.pack(error.detach())
    pairs = (error[:, :, None] > error[:, None]) & real[:, :, None] & real[:, None]
    loss = F.softplus(rated[:, None] - rated[:, :, None])
    return (loss * pairs).sum() / pairs.sum().clamp(min=1)
