"""SelfTask: Self-supervised Learning on Graphs: Deep Insights and New Direction, Jin et al. 2020, arXiv:2006.10141.

Its pool of pretext tasks, each a linear layer on the codes of nodes or on what two of them differ by. Reference:
ChandlerBang/SelfTask-GNN at cd5ac8f, src/selfsl.py and src/distance.py, which trains them beside the labels, ours
alone. ``Partition`` and ``Cluster`` are from You et al., ICML 2020, arXiv:2006.09136. What a task asks of the graph is
worked out once a Graph.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from graphssl import structure
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import cross_entropy, edge_bce, mean_square
from graphssl.masks import Edges, Masker, Uniform
from graphssl.methods.base import Method, mark_of
from graphssl.methods.pairs import absent_pairs, counted_edges
from graphssl.ops import places

FAR = 4  # hops from which on a pair is of the last class
GROUPS = 12  # parts or clusters; the reference's 10 are as many as the protocol "partition" asks for
SOME_EDGES, SOME_NODES = Edges(0.1), Uniform(0.1)


def apart(codes: Tensor, pairs: Tensor) -> Tensor:
    """What the codes [N, D] of ``pairs`` [2, M] differ by, without sign, [M, D]."""
    return (codes[pairs[0]] - codes[pairs[1]]).abs()


class EdgeMask(Method):
    """Hides edges and tells them from as many pairs that are none by what the codes of their ends differ by.

    The reference hides each direction of an edge by itself, so that the other one tells of it, and the same ones in
    all steps; ours both together, drawn anew.
    """

    tells_edges = True

    def __init__(self, encoder: Encoder, masker: Masker = SOME_EDGES):
        super().__init__()
        self.encoder, self.masker = encoder, masker
        self.predict = nn.Linear(encoder.dim, 1)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.masker(graph, generator)
        codes = self.encoder(graph.keep_edges(~hidden))
        edges = graph.edge_index[:, counted_edges(graph, hidden)]
        absent = absent_pairs(graph, edges.size(1), generator=generator)
        return {"edges": edge_bce(self.score(codes, edges), self.score(codes, absent))}

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor:
        """Logits [M] of ``pairs`` [2, M] being edges."""
        return self.predict(apart(codes, pairs)).squeeze(1)


class AttributeMask(Method):
    """Zeroes the content of some nodes and predicts it from their codes.

    The reference first reduces the content to 256 principal components, a rotation that leaves squared errors as they
    are up to what it cuts off; ours predicts the content itself, so that batches agree on what it is.
    """

    def __init__(self, encoder: Encoder, masker: Masker = SOME_NODES):
        super().__init__()
        self.encoder, self.masker = encoder, masker
        self.predict = nn.Linear(encoder.dim, encoder.dim_in)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        hidden = self.masker(graph, generator)
        shown = graph.x * (~hidden)[:, None].to(graph.x.dtype)  # sparse rows stay sparse
        wanted = graph.counted(hidden)
        codes = self.encoder(graph.replace(x=shown), rows=wanted)
        return {"content": mean_square(self.predict(codes), graph.x[wanted])}


class PairwiseDistance(Method):
    """Tells whether two nodes are 1, 2, 3, or 4 and more hops apart; nodes without a path are of the last class.

    Each step draws ``pairs`` pairs of each class that has any, with a first node among ``sources`` random ones. The
    reference keeps all N x N distances and draws 4000 of each class from them.
    """

    why_whole = "a part of a graph does not tell how far apart its nodes are in the whole"

    def __init__(self, encoder: Encoder, pairs: int = 1000, sources: int = 64):
        super().__init__()
        self.encoder, self.pairs, self.sources = encoder, pairs, sources
        self.predict = nn.Linear(encoder.dim, FAR)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        pairs, distance = self.draw(graph, generator)
        codes = self.encoder(graph)
        return {"distance": cross_entropy(self.predict(apart(codes, pairs)), distance - 1)}

    def draw(self, graph: Graph, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Pairs [2, M] of nodes of the same graph and their distances [M] from 1 to 4."""
        N, device = graph.num_nodes, graph.device
        source = torch.randperm(N, generator=generator, device=device)[: self.sources]
        distance = structure.hops(graph, source, FAR - 1)
        distance = distance.where(graph.batch[source, None] == graph.batch, 0).flatten()
        chosen = []
        for hop in range(1, FAR + 1):
            where = places(distance == hop)
            if len(where):
                chosen.append(where[torch.randint(len(where), (self.pairs,), generator=generator, device=device)])
        place = torch.cat(chosen) if chosen else source[:0]
        return torch.stack([source[place // N], place % N]), distance[place].long()


class ClusterDistance(Method):
    """Predicts how near each node is to the centre, the node of highest degree, of each of ``parts`` METIS parts.

    Near is one over the hops, and 0 without a path, as in the reference, and 1 at the centre itself, where it has 0.
    Of one graph: parts of another have other centres.
    """

    pretexts = ("partition",)

    why_whole = "it predicts distances to the centres of parts of the whole graph"

    def __init__(self, encoder: Encoder, parts: int = GROUPS):
        super().__init__()
        self.encoder, self.parts = encoder, parts
        self.predict = nn.Linear(encoder.dim, parts)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        near = graph.remember(f"selftask.nearness.{self.parts}", self.nearness)
        return {"distance": mean_square(self.predict(self.encoder(graph)), near)}

    def nearness(self, graph: Graph) -> Tensor:
        """One over the hops from each node to the centre of each part, [N, parts]."""
        part, degree = structure.partition(graph, self.parts), structure.degree(graph)
        order = (degree * graph.num_nodes - torch.arange(graph.num_nodes, device=graph.device)).argsort()
        centre = dict(zip(part[order].tolist(), order.tolist(), strict=True))  # the last of each part stays
        hops = structure.hops(graph, torch.tensor(list(centre.values()), device=graph.device), structure.FARTHEST)
        near = hops.clamp(min=1).float().reciprocal() * (hops <= structure.FARTHEST)
        table = near.new_zeros(self.parts, graph.num_nodes)  # of a part that has no node nothing is near
        table[list(centre)] = near
        return table.T.contiguous()


class AttributeSimilarity(Method):
    """Predicts the cosine of two nodes' content, of pairs of the most similar, least similar and random nodes.

    Of each node ``count`` of each kind are found once; each step draws ``pairs`` of all these.
    """

    why_whole = "its pairs are the most and least similar of all nodes"

    def __init__(self, encoder: Encoder, pairs: int = 5000, count: int = 3):
        super().__init__()
        self.encoder, self.pairs, self.count = encoder, pairs, count
        self.predict = nn.Linear(encoder.dim, 1)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        key = f"selftask.similar.{self.count}"
        pairs, cosine = graph.remember(key, lambda g: structure.similar_pairs(g, self.count))
        drawn = torch.randperm(len(cosine), generator=generator, device=graph.device)[: self.pairs]
        similar = self.predict(apart(self.encoder(graph), pairs[:, drawn])).squeeze(1)
        return {"similarity": mean_square(similar, cosine[drawn])}


class Degree(Method):
    """Predicts the logarithm of one plus the neighbours of each node; the reference the number or three classes."""

    why_whole = "a part of a graph lacks edges, so its degrees are not the whole's"

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.predict = encoder, nn.Linear(encoder.dim, 1)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        degree = graph.remember("selftask.degree", lambda g: structure.degree(g).float().log1p())
        return {"degree": mean_square(self.predict(self.encoder(graph)).squeeze(1), degree)}


class ClusteringCoefficient(Method):
    """Predicts the share of each node's pairs of neighbours that are joined, which the reference only names."""

    why_whole = "a part of a graph lacks edges, so its triangles are not the whole's"

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.predict = encoder, nn.Linear(encoder.dim, 1)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        share = graph.remember("selftask.coefficient", structure.clustering_coefficient)
        return {"coefficient": mean_square(self.predict(self.encoder(graph)).squeeze(1), share)}


class Partition(Method):
    """Predicts which of ``parts`` METIS parts each node is of. Of one graph: parts of another have other meanings."""

    pretexts = ("partition",)

    why_whole = "it predicts parts that are cut once, of the whole graph"

    def __init__(self, encoder: Encoder, parts: int = GROUPS):
        super().__init__()
        self.encoder, self.parts = encoder, parts
        self.predict = nn.Linear(encoder.dim, parts)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        part = graph.remember(f"selftask.part.{self.parts}", lambda g: structure.partition(g, self.parts))
        return {"part": cross_entropy(self.predict(self.encoder(graph)), part)}


class Cluster(Method):
    """Predicts which of ``clusters`` k-means clusters each node's content is of. Of one graph, as Partition."""

    why_whole = "it predicts clusters that are found once, among all nodes"

    def __init__(self, encoder: Encoder, clusters: int = GROUPS):
        super().__init__()
        self.encoder, self.clusters = encoder, clusters
        self.predict = nn.Linear(encoder.dim, clusters)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        key = f"selftask.cluster.{self.clusters}"
        cluster = graph.remember(key, lambda g: structure.content_clusters(g, self.clusters))
        return {"cluster": cross_entropy(self.predict(self.encoder(graph)), cluster)}


class ContextLabel(Method):
    """Predicts how labels are distributed among the nodes within two hops. It needs labels: its codes have seen them.

    ``labels`` [N] are classes from 0, and -1 where unknown; they spread along the edges for ``rounds`` rounds first,
    each node taking the mean of its neighbours and the given ones staying as they are. Nodes whose label is given, and
    those with no label within two hops, are not predicted. In the reference's words LPContextLabel, without correction;
    a node that is one hop and also two hops away counts once here, twice there.

    The labels are no part of the weights: to load a run, hand in such an object again, and to go on with it one with
    the same labels.

        >>> train = cora.splits["public"][0].train
        >>> labels = torch.full_like(cora.y, -1)
        >>> labels[train] = cora.y[train]
        >>> encoder = Encoder(backbone("gcn", cora.dim, [128, 128]))
        >>> graphssl.pretrain(cora, ContextLabel(encoder, labels))
    """

    sees_labels = True
    labels: Tensor
    mark: Tensor  # of the labels, kept with the weights

    why_whole = "its labels are of all nodes and spread over the whole graph"

    def __init__(self, encoder: Encoder, labels: Tensor, rounds: int = 50):
        super().__init__()
        if labels.ndim != 1 or labels.is_floating_point() or not (labels >= 0).any():
            raise UserError(
                f"labels are {tuple(labels.shape)} of {labels.dtype}, expected integers [nodes] of which some are "
                "known: give the class, or -1, of each node"
            )
        self.encoder, self.rounds = encoder, rounds
        self.register_buffer("labels", labels.long(), persistent=False)
        self.register_buffer("mark", mark_of([self.labels]))
        self.own_mark = int(self.mark)
        self.key = f"selftask.context.{self.own_mark}.{rounds}"  # equal labels, equal contexts
        self.predict = nn.Linear(encoder.dim, int(labels.max()) + 1)

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        if graph.num_graphs > 1 or graph.num_nodes != len(self.labels):
            raise UserError(
                f"there are labels of {len(self.labels)} nodes, but {graph.num_nodes} nodes in {graph.num_graphs} "
                "graphs; ContextLabel learns from one whole graph with a label, or -1, for each node"
            )
        if int(self.mark) != self.own_mark:
            raise UserError("the run to go on with learned from other labels; hand in the same ones")
        context = graph.remember(self.key, lambda g: structure.label_context(g, self.labels, self.rounds))
        asked = (self.labels < 0) & (context.sum(1) > 0)
        shares = self.predict(self.encoder(graph)[asked]).softmax(1)
        return {"context": mean_square(shares, context[asked])}
