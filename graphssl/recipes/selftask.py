"""SelfTask's settings: ChandlerBang/SelfTask-GNN at cd5ac8f, scripts/basic/run.sh and src/selfsl.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.masks import Edges, Uniform
from graphssl.methods import Method, MultiTask
from graphssl.methods.selftask import (
    GROUPS,
    AttributeMask,
    AttributeSimilarity,
    Cluster,
    ClusterDistance,
    ClusteringCoefficient,
    Degree,
    EdgeMask,
    PairwiseDistance,
    Partition,
)
from graphssl.recipes.base import Plan, Spec, adam, backbone_of, balance_named, names_in, recipe
from graphssl.recipes.cutting import placed


@dataclass(frozen=True)
class Task:
    """How a task is built from an encoder, a share to hide and a number of groups, and what data it fits."""

    make: Callable[[Encoder, float, int], Method]
    edges: bool = True  # it learns from edges
    groups: bool = False  # it cuts one graph into groups, which those of another have nothing to do with

    def fits(self, spec: Spec) -> bool:
        return (spec.edges > 0 or not self.edges) and (spec.graphs == 1 or not self.groups)


TASKS = {
    "attribute-mask": Task(lambda encoder, mask, groups: AttributeMask(encoder, Uniform(mask)), edges=False),
    "attribute-similarity": Task(lambda encoder, mask, groups: AttributeSimilarity(encoder), edges=False),
    "cluster": Task(lambda encoder, mask, groups: Cluster(encoder, groups), edges=False, groups=True),
    "cluster-distance": Task(lambda encoder, mask, groups: ClusterDistance(encoder, groups), groups=True),
    "clustering-coefficient": Task(lambda encoder, mask, groups: ClusteringCoefficient(encoder)),
    "degree": Task(lambda encoder, mask, groups: Degree(encoder)),
    "edge-mask": Task(lambda encoder, mask, groups: EdgeMask(encoder, Edges(mask))),
    "pairwise-distance": Task(lambda encoder, mask, groups: PairwiseDistance(encoder)),
    "partition": Task(lambda encoder, mask, groups: Partition(encoder, groups), groups=True),
}


def task_named(name: str, spec: Spec, encoder: Encoder, *, mask: float = 0.1, groups: int = GROUPS) -> Method:
    """The pretext task ``name`` of ``TASKS`` around ``encoder``, which may be shared with others.

    Raises UserError for data that the task does not fit.
    """
    task = TASKS[name]
    if task.edges and spec.edges == 0:
        others = ", ".join(repr(other) for other in TASKS if not TASKS[other].edges)
        raise UserError(
            f"task {name!r} learns from edges, but the data has none; choose one of {others}, or give edges"
        )
    if task.groups and spec.graphs > 1:
        others = ", ".join(repr(other) for other in TASKS if not TASKS[other].groups)
        raise UserError(
            f"task {name!r} cuts one graph into groups, but the data has {spec.graphs} graphs, whose groups have "
            f"nothing in common; choose one of {others}"
        )
    if task.groups and not 2 <= groups <= spec.nodes:
        raise UserError(f"task {name!r} cannot make {groups} groups of {spec.nodes} nodes; choose 2 to {spec.nodes}")
    return task.make(encoder, mask, groups)


@recipe("selftask", by_task={"graph": {"encoder": "gin", "norm": "batch", "dropout": 0.2, "lr": 1e-3, "epochs": 50}})
def selftask(
    spec: Spec, *, tasks: str = "pairwise-distance", balance: str = "mgda", encoder: str | nn.Module = "gcn",
    width: int = 128, layers: int = 2, heads: int = 4, dropout: float = 0.5, norm: str = "none",
    activation: str = "prelu", pool: str = "mean", mask: float = 0.1, groups: int = GROUPS, lr: float = 0.01,
    weight_decay: float = 0.0,
    epochs: int = 200, edge_attr: bool = True, batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Basic pretext tasks of the SelfTask paper and of You et al., ICML 2020, without labels: one, or several at once.

    ``graphssl pretrain cora --method selftask --set tasks=degree``, or ``tasks=degree,edge-mask``, which ``balance``
    weighs as in ``paretognn``; "all" takes those of the nine that fit the data. They are "attribute-mask" (predict the
    content of nodes whose content is hidden), "attribute-similarity" (how alike two nodes' content is), "cluster" (the
    k-means cluster of the content), "cluster-distance" (how near the centres of METIS parts are),
    "clustering-coefficient", "degree", "edge-mask" (hidden edges against absent ones), "pairwise-distance" (how many
    hops two nodes are apart) or "partition" (the METIS part). The paper trains each beside the labels and reports
    that accuracy, so no published figure is of this use; the task that takes labels is
    ``graphssl.methods.ContextLabel``.

    ``mask`` is the share of nodes or edges that are hidden. ``groups`` is the number of parts or clusters; the
    reference has 10 for Cora and CiteSeer (PubMed: 30), but 10 parts are what the protocol "partition" asks for, and no
    task should be its own exam. Parts, clusters and similar pairs are those of seed 0, whatever the run's seed is.
    Width, dropout and ``lr`` are the reference's; its ``weight_decay`` of 5e-4 and its ReLU let codes shrink to nothing
    where no labels hold against it and the loss is a small squared error.

    "cluster", "cluster-distance" and "partition" are of one graph and refuse a list; all but "attribute-mask",
    "attribute-similarity" and "cluster" refuse data without edges. ``edge_attr`` lets a GIN's messages carry the edges'
    attributes where the data has any. Data without a name: the same, and a GIN for a list of graphs.
    """
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, dropout=dropout, norm=norm, activation=activation,
        edge_attr=edge_attr, **placed(spec),
    )  # fmt: skip
    shared = Encoder(body, pool=pool)
    fitting = [name for name, task in TASKS.items() if tasks != "all" or task.fits(spec)]
    names = names_in(tasks, fitting, "task of selftask")
    made = {name: task_named(name, spec, shared, mask=mask, groups=groups) for name in names}
    return Plan(
        method=MultiTask(made, balance_named(balance, len(made))) if len(made) > 1 else made[names[0]],
        optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size, clip=clip,
        transform=Transform(undirected=True, row_normalize=spec.sparse),
    )  # fmt: skip
