"""SimGRACE: Graph Contrastive Learning without Data Augmentation, WWW 2022, arXiv:2202.03104.

Reference: junxia97/SimGRACE, unsupervised_TU/simgrace.py; read in the copy mpanpan/SimGRACE at d6decf0.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import glorot, mlp
from graphssl.losses import nt_xent
from graphssl.methods.base import Method
from graphssl.processes import gather


class SimGRACE(Method):
    """Pulls the codes that the encoder and a perturbed copy give of a graph together; other graphs are pushed away.

    Each parameter of the copy is off by a normal draw of ``eta`` times that parameter's standard deviation, anew each
    step (eq. 2). The projection is not perturbed, and no gradient flows through the copy, as in the reference. The
    batch is that of all processes, each of which perturbs a copy of its own, but not of the several that a process
    takes one after another with ``accumulate``.
    """

    why_whole = "it learns from sets of graphs, which come in batches already"

    def __init__(self, encoder: Encoder, tau: float, eta: float):
        super().__init__()
        self.encoder, self.tau, self.eta = encoder, tau, eta
        self.project = glorot(mlp(encoder.dim, encoder.dim, encoder.dim, nn.ReLU))

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        with torch.no_grad():
            weights = self.perturbed(generator)
            target = self._project(graph, functional_call(self.encoder, weights, (graph,)))
        codes = self._project(graph, self.encoder(graph))
        return {"contrast": nt_xent(gather(target), gather(codes), self.tau)}

    def perturbed(self, generator: Generator | None = None) -> dict[str, Tensor]:
        """The encoder's parameters with noise, and copies of its buffers, by name; a single number gets no noise."""
        weights = {name: buffer.clone() for name, buffer in self.encoder.named_buffers()}
        for name, p in self.encoder.named_parameters():
            noise = torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype)
            weights[name] = p.detach() + self.eta * noise * (p.detach().std() if p.numel() > 1 else 0.0)
        return weights

    def _project(self, graph: Graph, codes: Tensor) -> Tensor:
        return self.project(self.encoder.pool(graph, codes))
