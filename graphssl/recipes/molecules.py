"""What the recipes share for molecules: data of OGB's classes of atoms, by whatever name (``Spec.molecules``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# snap-stanford/pretrain-gnns, chem: GIN of five layers of width 300, batches of 256, Adam at 1e-3, which GraphMAE's
# and GraphCL's chem parts took over; 100 epochs there, of two million molecules
CHEM: Mapping[str, Any] = {"encoder": "gine", "width": 300, "layers": 5, "lr": 1e-3, "batch_size": 256, "epochs": 20}

# the same for what reads all layers: 64, as five of them side by side are about as wide as the one of 300
BESIDE: Mapping[str, Any] = {**CHEM, "width": 64, "pool": "mean", "edge_attr": True}
