"""DGI's settings: PetarV-/DGI at f74d405, execute.py."""

from __future__ import annotations

from torch import nn

from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.methods import DGI
from graphssl.recipes.base import Plan, Published, Spec, adam, backbone_of, recipe
from graphssl.recipes.cutting import placed

README = "GraphMAE README, public split"


@recipe(
    "dgi",
    by_task={"graph": {"encoder": "gin", "norm": "batch", "width": 128, "layers": 2, "epochs": 50, "batch_size": 32}},
    published={
        "cora": {"node-linear": Published(82.3, 0.6, README)},
        "citeseer": {"node-linear": Published(71.8, 0.7, README)},
        "pubmed": {"node-linear": Published(76.8, 0.6, README)},
    },
)  # fmt: skip
def dgi(
    spec: Spec, *, encoder: str | nn.Module = "gcn", width: int = 512, layers: int = 1, heads: int = 1,
    norm: str = "none", residual: bool = False, activation: str = "prelu", pool: str = "mean", lr: float = 1e-3,
    weight_decay: float = 0.0, epochs: int = 200, batch_size: int | None = None, clip: float | None = None,
) -> Plan:  # fmt: skip
    """Nodes told from nodes with shuffled content by a summary of their graph.

    ``graphssl pretrain cora --method dgi`` has execute.py's values but for its end: the reference takes the epoch
    after which the loss did not fall for 20. On Cora and CiteSeer that was near the 200th (``--set epochs=300`` and
    metrics.jsonl), so 200 is what all train. What that reaches stands in benchmarks/results/quality.md; PubMed was
    never run here. Data without a name: the same values for one graph (meant for node classification), and for a list
    of graphs a GIN of two layers in batches of 32 (meant for graph classification).
    """
    body = backbone_of(
        spec, encoder, [width] * layers, heads=heads, norm=norm, residual=residual, activation=activation,
        **placed(spec),
    )  # fmt: skip
    return Plan(
        method=DGI(Encoder(body, pool=pool)), optimizer=adam(lr, weight_decay), epochs=epochs,
        batch_size=batch_size, clip=clip, transform=Transform(row_normalize=spec.sparse),
    )  # fmt: skip
