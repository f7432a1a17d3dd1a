"""FastRP's settings: Chen et al. 2019, arXiv:1908.11512; GTmac/FastRP at d45d1c6."""

from __future__ import annotations

import math

from graphssl.backbones import Backbone, FastRP, Layer
from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.recipes.base import Plan, Spec, recipe
from graphssl.recipes.baselines import without_training


@recipe("fastrp")
def fastrp(
    spec: Spec, *, width: int = 512, weights: str = "0,0,1,6", degree_exponent: float = -0.9,
    normalize: bool = False, epochs: int = 0,
) -> Plan:  # fmt: skip
    """Sums of powers of the transition matrix under a very sparse random projection: no training, edges only.

    ``weights`` says how much each power counts, from the first on; ``degree_exponent`` is the paper's beta, how much
    nodes with many edges count in the projection; ``normalize`` scales each node's row of each power to length one
    first. The paper leaves out the first two powers at width 512 and tunes the fourth weight and beta per data set;
    ours are one choice for all. Edges count in both directions. Each graph has a projection of its own, so codes of
    several graphs cannot be compared.
    """
    if spec.task == "graph":
        raise UserError(
            "fastrp makes codes of nodes that can only be compared within one graph; for a list of graphs take a "
            "method that pools, such as graphmae or untrained"
        )
    body = Backbone([Layer(FastRP(width, numbers(weights), degree_exponent, normalize), spec.dim, width)])
    return without_training("fastrp", Encoder(body), epochs, Transform(undirected=True))


def numbers(text: str) -> list[float]:
    """The numbers in a list such as "0,0,1,6"; UserError for anything else."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise UserError(f"weights of fastrp are {text!r}; give a number for each power, as in '0,0,1,6'")
    return found
