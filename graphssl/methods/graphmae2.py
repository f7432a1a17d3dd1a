"""GraphMAE2: A Decoding-Enhanced Masked Self-Supervised Graph Learner, WWW 2023, arXiv:2304.04779.

Reference: THUDM/GraphMAE2 at 1a28045, models/edcoder.py.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from graphssl import ops
from graphssl.backbones import Backbone
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.heads import PReLU, mlp
from graphssl.losses import scaled_cosine
from graphssl.masks import Masker, Uniform
from graphssl.methods.base import Method
from graphssl.methods.graphmae import Loss
from graphssl.methods.masked import put_back, scaled_back
from graphssl.teacher import Teacher

HALF = Uniform(0.5)


class GraphMAE2(Method):
    """Covers the content of some nodes; decodes it from codes covered again in several ways, and predicts a teacher's.

    The codes are covered at random ``views`` times, whatever was hidden before the encoder (``remasker``), each time
    decoded, and the losses added up; ``remasker`` None zeroes the codes of the hidden nodes, once, as GraphMAE does.
    All codes, projected, predict those of a teacher that sees the whole graph; ``weight`` is that of this loss. The
    teacher follows the encoder with ``momentum``.
    """

    def __init__(
        self, encoder: Encoder, decoder: Backbone, masker: Masker = HALF, remasker: Masker | None = HALF,
        views: int = 3, weight: float = 1.0, momentum: float = 0.996, inner: int = 256, loss: Loss = scaled_cosine,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.decoder, self.loss = encoder, decoder, loss
        self.masker, self.remasker, self.views = masker, remasker, views if remasker else 1
        self.weight, self.momentum = weight, momentum
        self.bridge = nn.Linear(encoder.dim, decoder.dim_in, bias=False)
        self.mask_token = nn.Parameter(torch.empty(1, encoder.dim_in))
        nn.init.xavier_normal_(self.mask_token)
        nn.init.xavier_normal_(self.bridge.weight, gain=1.414)
        self.code_token = nn.Parameter(torch.empty(1, decoder.dim_in)) if remasker else None
        if self.code_token is not None:
            nn.init.xavier_normal_(self.code_token)
        self.project = mlp(encoder.dim, inner, encoder.dim)
        self.predict = nn.Sequential(PReLU(), nn.Linear(encoder.dim, encoder.dim))
        self.teacher, self.teacher_project = Teacher(encoder), Teacher(self.project)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.masker(graph, generator)
        codes = self.encoder(graph.replace(x=ops.cover(graph.x, hidden, self.mask_token[0])))
        wanted = graph.counted(hidden)
        said, content = self._decode(graph, codes, hidden, wanted, generator), graph.x[wanted]
        losses = [self.loss(view, content) for view in said]
        # of all nodes, as main_full_batch.py passes them; in a part of a graph of those that count
        theirs = self.teacher_project(graph.of_seeds(self.teacher(graph)))
        latent = scaled_cosine(self.predict(self.project(graph.of_seeds(codes))), theirs, 1.0)
        return {"content": torch.stack(losses).sum(), "latent": self.weight * latent}

    def _decode(
        self, graph: Graph, codes: Tensor, hidden: Tensor, wanted: Tensor, generator: Generator | None
    ) -> list[Tensor]:  # fmt: skip
        """What the decoder says of the nodes ``wanted``, [M, F], each time from codes covered anew."""
        shown, said = self.bridge(codes), []
        for _ in range(self.views):
            again = hidden if self.remasker is None else self.remasker(graph, generator)
            token = shown.new_zeros(1) if self.code_token is None else self.code_token
            said.append(self.decoder(graph, torch.where(again[:, None], token, shown), rows=wanted))
        return said

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Which nodes were hidden [N], and the content [N, F] with what was decoded for it, a mean over the views.

        The cosine error tells directions only: then what was decoded has the length of the content itself.
        """
        hidden = self.masker(graph, generator)
        codes = self.encoder(graph.replace(x=ops.cover(graph.x, hidden, self.mask_token[0])))
        said = torch.stack(self._decode(graph, codes, hidden, hidden, generator)).mean(0)
        return hidden, put_back(graph, hidden, scaled_back(graph, hidden, said, self.loss))

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, self.momentum)
        self.teacher_project.follow(self.project, self.momentum)
