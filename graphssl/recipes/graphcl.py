"""GraphCL's settings: Shen-Lab/GraphCL at 5003879, unsupervised_TU; figures from GraphMAE's README."""

from __future__ import annotations

from torch import nn

from graphssl.augment import DropEdges, DropNodes, DropSubgraph, GraphView, MaskNodes, MoveEdges, OneOf, Subgraph
from graphssl.errors import unknown
from graphssl.methods import GraphCL
from graphssl.recipes.base import Plan, Published, Spec, adam, recipe
from graphssl.recipes.infograph import check_graphs, reader_of
from graphssl.recipes.molecules import BESIDE

README = "GraphMAE README (KDD 2022)"

VIEWS = {
    "nodes": ("nodes",), "edges": ("edges",), "content": ("content",), "subgraph": ("subgraph",),
    "random2": ("nodes", "subgraph"), "random3": ("nodes", "subgraph", "edges"),
    "random4": ("nodes", "subgraph", "edges", "content"),
    "bonds": ("bonds",), "removed": ("removed",), "chemical": ("content", "bonds", "removed"),
}  # fmt: skip

SOCIAL = {"view": "random3"}  # section 4.3: moved edges help social networks and hurt some molecules
# transferLearning_MoleculeNet_PPI/chem/pretrain_graphcl.py at cdaae48 (tau, mean) with MolCLR's views and their share
CHEMICAL = {**BESIDE, "view": "chemical", "ratio": 0.25, "tau": 0.1}


@recipe(
    "graphcl",
    by_name={"imdb-binary": SOCIAL, "imdb-multi": SOCIAL, "collab": SOCIAL, "reddit-binary": SOCIAL},
    of_molecules=CHEMICAL,
    published={
        "mutag": {"graph-svm": Published(86.80, 1.34, README)},
        "proteins": {"graph-svm": Published(74.39, 0.45, README)},
        "nci1": {"graph-svm": Published(77.87, 0.41, README)},
        "imdb-binary": {"graph-svm": Published(71.14, 0.44, README)},
        "imdb-multi": {"graph-svm": Published(48.58, 0.67, README)},
        "collab": {"graph-svm": Published(71.36, 1.15, README)},
        "reddit-binary": {"graph-svm": Published(89.53, 0.84, README)},
    },
)  # fmt: skip
def graphcl(
    spec: Spec, *, encoder: str | nn.Module = "gin", width: int = 32, layers: int = 3, dropout: float = 0.0,
    norm: str = "batch", activation: str = "relu", pool: str = "sum", view: str = "random2", ratio: float = 0.1,
    kept: float = 0.2, tau: float = 0.2, lr: float = 0.01, weight_decay: float = 0.0, epochs: int = 20,
    batch_size: int = 128, edge_attr: bool | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Contrast between each graph and a random view of it.

    Molecules have the settings of GraphCL's chem part, with 64 for its width of 300 and fewer epochs, and MolCLR's
    views. All others have the settings of the reference's go.sh: three GIN layers of width 32 whose codes, laid side by
    side, are summed over the nodes, and 20 epochs of batches of 128. Which views it used for which data
    set it does not say; ours follow the paper's section 4.3. Measured here: benchmarks/results/quality.md. Meant for
    sets of graphs; data without a name has the signature's values.

    ``view`` is "nodes" (some are dropped), "edges" (some join other nodes), "content" (of some nodes is zeroed),
    "subgraph" (a random walk's), or one of several for each graph: "random2" is nodes or subgraph, "random3" edges too,
    "random4" content too. Of MolCLR (arXiv:2102.10056) there are "bonds" (edges go, both directions at once), "removed"
    (a connected piece goes) and "chemical": content, bonds or removed. ``ratio`` is the share that is dropped, moved or
    zeroed, ``kept`` the share of the nodes that a subgraph keeps, ``tau`` the temperature. ``edge_attr`` None lets a
    "gine", "gen" or "gps" read the edges' attributes where the data has any, True a "gin" too.
    """
    check_graphs("graphcl", spec, batch_size, "grace")
    seen = view_named("graphcl", view, ratio, kept)
    reader = reader_of(
        spec, encoder, [width] * layers, pool, dropout=dropout, norm=norm, activation=activation, edge_attr=edge_attr
    )
    method = GraphCL(reader, seen, tau)
    return Plan(method=method, optimizer=adam(lr, weight_decay), epochs=epochs, batch_size=batch_size, clip=clip)


def view_named(method: str, name: str, ratio: float, kept: float) -> GraphView:
    """The view of that name in ``VIEWS``; UserError for another, which says of which ``method``."""
    if name not in VIEWS:
        raise unknown(f"view of {method}", name, VIEWS)
    makers: dict[str, GraphView] = {
        "nodes": DropNodes(ratio), "edges": MoveEdges(ratio), "content": MaskNodes(ratio), "subgraph": Subgraph(kept),
        "bonds": DropEdges(ratio), "removed": DropSubgraph(ratio),
    }  # fmt: skip
    return OneOf(tuple(makers[part] for part in VIEWS[name]))
