"""GraphCL: Graph Contrastive Learning with Augmentations, NeurIPS 2020, arXiv:2010.13902.

Reference: Shen-Lab/GraphCL at 5003879, unsupervised_TU/gsimclr.py.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from graphssl.augment import GraphView
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import glorot, mlp
from graphssl.losses import nt_xent
from graphssl.methods.base import Method
from graphssl.processes import gather


class GraphCL(Method):
    """Pulls each graph and a random view of it together and pushes the views of the batch's other graphs away.

    The paper contrasts two views; the reference, for data sets of graphs, the graph itself and one view of it. The
    batch is that of all processes, but not of the several that a process takes one after another with ``accumulate``.
    """

    why_whole = "it learns from sets of graphs, which come in batches already"

    def __init__(self, encoder: Encoder, view: GraphView, tau: float):
        super().__init__()
        self.encoder, self.view, self.tau = encoder, view, tau
        self.project = glorot(mlp(encoder.dim, encoder.dim, encoder.dim, nn.ReLU))

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        whole, seen = (self._project(g) for g in (graph, self.view(graph, generator)))
        return {"contrast": nt_xent(gather(whole), gather(seen), self.tau)}

    def _project(self, graph: Graph) -> Tensor:
        return self.project(self.encoder.pool(graph, self.encoder(graph)))

    def step_bytes(self, nodes: int, edges: int) -> int:
        """The graphs and a view of them."""
        return 2 * super().step_bytes(nodes, edges)
