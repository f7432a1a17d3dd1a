"""What the recipes share for named sets of molecules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOLECULES = (
    "zinc-30k", "bace", "bbbp", "esol", "freesolv", "clintox", "sider", "tox21", "lipophilicity", "drugs-mini",
)  # fmt: skip

# snap-stanford/pretrain-gnns, chem: GIN of five layers of width 300, batches of 256, Adam at 1e-3, which GraphMAE's and
# GraphCL's chem parts took over; 100 epochs there, of two million molecules
CHEM: Mapping[str, Any] = {"encoder": "gine", "width": 300, "layers": 5, "lr": 1e-3, "batch_size": 256, "epochs": 20}

# the same for what reads all layers: 64, as five of them side by side are about as wide as the one of 300
BESIDE: Mapping[str, Any] = {**CHEM, "width": 64, "pool": "mean", "edge_attr": True}


def of_molecules(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """``values`` for each named set of molecules."""
    return dict.fromkeys(MOLECULES, values)
