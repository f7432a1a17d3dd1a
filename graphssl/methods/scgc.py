"""SCGC: Self-Supervised Contrastive Graph Clustering, Kulatilleke et al. 2022, arXiv:2204.12656.

Reference: gayanku/SCGC at e604e6a, train.py and models.py, which start from the autoencoder of bdy9527/SDCN at 04702c7.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Generator, Tensor, nn

from graphssl import ops, processes
from graphssl.backbones import Backbone
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import full_precision, mean_square
from graphssl.methods.base import Method


class SCGC(Method):
    """Reconstructs content at first; then pulls codes to those of near nodes, and to the centres of soft clusters.

    The first share ``warmup`` of training is an autoencoder's (the reference reads a finished one from a file). Then
    k-means on the codes sets the ``clusters`` centres (0: none), and the loss is ``alpha`` times the contrast with the
    ends of ``walks`` random walks of ``hops`` steps from each node, plus ``beta`` times the divergence of the soft
    clusters from what they would be if they were surer of themselves, plus ``gamma`` times the reconstruction, which is
    of ``content_nodes`` random nodes a step (all, in the reference, after its start). With ``influence`` all nodes on a
    walk are positives, not the last alone; with ``gamma`` 0 too, it is SCGC*. ``decoder`` is None where nothing is
    reconstructed. ``negatives`` are drawn for each node as in ``info_nce``; None: all nodes are. Going on from a run
    that is past its warm-up, there is no other.
    """

    progress: Tensor  # how much of training is done
    begun: Tensor  # whether the warm-up is over; both are kept with the weights

    why_whole = "its clusters and near nodes are of the whole graph"

    def __init__(
        self, encoder: Encoder, decoder: Backbone | None, clusters: int = 0, hops: int = 2, influence: bool = False,
        walks: int = 8, tau: float = 1.0, alpha: float = 2.0, beta: float = 0.1, gamma: float = 1.0,
        warmup: float = 2 / 3, content_nodes: int = 256, negatives: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.decoder, self.hops, self.influence, self.walks = encoder, decoder, hops, influence, walks
        self.tau, self.weights, self.negatives = tau, {"content": gamma, "near": alpha, "clusters": beta}, negatives
        self.warmup, self.content_nodes = warmup, content_nodes
        self.centres = nn.Parameter(torch.zeros(clusters, encoder.dim)) if clusters else None
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("begun", torch.tensor(False))

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        some = torch.randperm(graph.num_nodes, generator=generator, device=graph.device)[: self.content_nodes]
        shown = torch.zeros_like(graph.batch, dtype=torch.bool).index_fill(0, some, True)
        if self.decoder is not None and not self.begun and self.progress < self.warmup:
            part = graph.keep_nodes(shown)
            return {"content": mean_square(self.decoder(part, self.encoder(part)), part.x)}
        codes = self.encoder(graph)
        if not self.begun:
            self._begin(codes.detach(), generator)
        losses = {}
        if self.decoder is not None and self.weights["content"]:
            part = graph.keep_nodes(shown)
            losses["content"] = mean_square(self.decoder(part, codes[shown]), part.x)
        near = near_nodes(graph, self.walks, self.hops, self.influence, generator)
        losses["near"] = near_contrast(codes, near, self.tau, self.negatives, generator)
        if self.centres is not None:
            losses["clusters"] = refinement(soft_clusters(codes, self.centres))
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighed sum; in the warm-up the reconstruction alone."""
        weights = self.weights if "near" in losses else {"content": 1.0}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def after_step(self, progress: float) -> None:
        self.progress.fill_(progress)

    @property
    def settled(self) -> bool:
        """False in the warm-up, whose loss is another."""
        return bool(self.begun)

    @torch.no_grad()
    def clusters(self, codes: Tensor) -> Tensor:
        """How much each row of ``codes`` [N, D] belongs to each cluster, [N, C]; rows sum to one.

        ``run.method.clusters(run.embed())``, and ``.argmax(1)`` for one cluster a node. Raises UserError where there
        are none.
        """
        if self.centres is None:
            raise UserError("this SCGC has no clusters; say how many there are: pretrain(..., 'scgc', clusters=...)")
        if not self.begun:
            raise UserError("the clusters are found after the warm-up, which is not over; train on, or lower warmup")
        return soft_clusters(codes.to(self.centres.device), self.centres).to(codes.device)

    def step_bytes(self, nodes: int, edges: int) -> int:
        """With the codes of the near nodes."""
        near = self.walks * (self.hops if self.influence else 1)
        return super().step_bytes(nodes, edges) + 4 * nodes * 2 * near * self.encoder.dim

    @torch.no_grad()
    def _begin(self, codes: Tensor, generator: Generator | None) -> None:
        """Ends the warm-up: the centres are those of k-means on ``codes`` [N, D] of the first process."""
        self.begun.fill_(True)
        if self.centres is None:
            return
        if len(codes) < len(self.centres):
            raise UserError(f"cannot find {len(self.centres)} clusters among {len(codes)} nodes; choose fewer clusters")
        from sklearn.cluster import KMeans  # slow to import

        if processes.rank() == 0:
            seed = int(torch.randint(2**31, (), generator=generator, device=codes.device))
            with threadpool_limits(1):  # its threads add in any order
                found = KMeans(len(self.centres), n_init=20, random_state=seed).fit(codes.float().cpu().numpy())
            self.centres.copy_(torch.from_numpy(found.cluster_centers_))
        processes.copy_first([self.centres])


def near_nodes(
    graph: Graph, walks: int, hops: int, influence: bool = False, generator: Generator | None = None
) -> Tensor:
    """Where ``walks`` random walks of ``hops`` steps from each node end, [N, walks], or all nodes on them.

    Each step goes along an edge into the node, or stays, all as likely: row i of (D^-1 (A + I))^hops says how often
    node i's walks end where, so that a mean over draws stands for the reference's dense power of the matrix; with
    ``influence`` [N, hops * walks] stands for the mean of the powers 1 to ``hops`` (its sum, in the reference).
    """
    csr, at = graph.csr, torch.arange(graph.num_nodes, device=graph.device).repeat(walks)
    begin, degree = csr.ptr[:-1].long(), csr.degree.long()
    visited = []
    for _ in range(hops):
        draw = torch.rand(len(at), generator=generator, device=at.device, dtype=torch.float64)
        place = (draw * (degree[at] + 1)).long()
        going = (place < degree[at]).nonzero().squeeze(1)
        at = at.index_copy(0, going, csr.col[begin[at[going]] + place[going]].long())
        visited.append(at)
    return torch.cat(visited if influence else visited[-1:]).view(-1, graph.num_nodes).t()


@full_precision
def near_contrast(
    codes: Tensor, near: Tensor, tau: float, negatives: int | None = None, generator: Generator | None = None
) -> Tensor:
    """-log of the mean of exp(cos / tau) of each row with its rows ``near`` [N, K], over its sum with all N rows.

    A mean over the rows of ``codes`` [N, D]; a row's cosine with itself counts as 0. The reference's ``Ncontrast``, up
    to a constant and with ``tau`` the inverse of its own. Memory grows with N, time with its square; ``negatives``
    draws that many of the other rows, see ``ops.info_nce``.
    """
    z = F.normalize(codes, dim=1)
    itself = near == torch.arange(len(z), device=z.device)[:, None]
    pulled = torch.where(itself, 0.0, (z[:, None] * z[near]).sum(2) / tau)
    own = z.square().sum(1) / tau
    among = ops.info_nce(z, z, tau, False, False, negatives, generator) + own  # log of the sum with the row itself
    among = among + torch.log1p(((-among).exp() - (own - among).exp()).clamp(min=-1 + 1e-6))
    return (among - pulled.logsumexp(1) + math.log(near.size(1))).mean()


@full_precision
def soft_clusters(codes: Tensor, centres: Tensor) -> Tensor:
    """How much each row of ``codes`` [N, D] belongs to each of ``centres`` [C, D], [N, C]; rows sum to one.

    Student's t with one degree of freedom, eq. 1 of DEC, arXiv:1511.06335.
    """
    apart = codes.square().sum(1, keepdim=True) - 2 * codes @ centres.T + centres.square().sum(1)
    kernel = 1 / (1 + apart.clamp(min=0))
    return kernel / kernel.sum(1, keepdim=True)


@full_precision
def refinement(soft: Tensor) -> Tensor:
    """KL divergence of ``soft`` clusters [N, C] from their own squares over their sizes, a mean over N.

    The target takes no gradient. DEC eq. 2 and 3.
    """
    sharp = soft.detach().square() / soft.detach().sum(0)
    sharp = sharp / sharp.sum(1, keepdim=True)
    return F.kl_div(soft.log(), sharp, reduction="batchmean")
