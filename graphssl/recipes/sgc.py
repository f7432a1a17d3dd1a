"""SGC's settings: Wu et al. 2019, arXiv:1902.07153; Tiiiger/SGC, args.py."""

from __future__ import annotations

from graphssl.backbones import Backbone, Layer, Propagate
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.recipes.base import Plan, Published, Spec, recipe
from graphssl.recipes.baselines import without_training

TABLE = "arXiv:1902.07153, table 2; its classifier's weight decay tuned per data set"


@recipe(
    "sgc",
    published={
        "cora": {"node-linear": Published(81.0, 0.0, TABLE)},
        "citeseer": {"node-linear": Published(71.9, 0.1, TABLE)},
        "pubmed": {"node-linear": Published(78.9, 0.0, TABLE)},
    },
)
def sgc(spec: Spec, *, hops: int = 2, pool: str = "mean", epochs: int = 0) -> Plan:
    """Content averaged over neighbours a few times: no weights, no training.

    ``graphssl pretrain cora --method sgc`` is table 2's row (81.0 by ``node-linear``). Codes are as wide as the
    content, whose rows are normalised where they are bags of words. PubMed was never run here. Data without a name: the
    same values.
    """
    body = Backbone([Layer(Propagate(hops), spec.dim, spec.dim)])
    return without_training("sgc", Encoder(body, pool=pool), epochs, Transform(row_normalize=spec.sparse))
