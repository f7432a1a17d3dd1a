"""Arrays of images, videos, point clouds and sequences as Datasets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphssl.data.dataset import Dataset
from graphssl.data.files import default_graph_splits
from graphssl.data.given import read_labels
from graphssl.errors import UserError
from graphssl.tokens import Items


def items_of(values: Any, name: str = "data") -> Items:
    """An array of images [B, C, H, W], videos [B, T, C, H, W] or point clouds [B, P, 3]; UserError for another."""
    tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    shape = tuple(tensor.shape)
    kind = {4: "images", 5: "videos", 3: "points"}.get(len(shape))
    if kind is None:
        raise UserError(f"no {shape}")
    return Items(kind, tensor)


def item_set(items: Items, y: Any = None, name: str = "data", **fields: Any) -> Dataset:
    labels, classes = read_labels(y, len(items), "items")
    fields.setdefault("splits", default_graph_splits(labels))
    return Dataset.of_items(items, name=name, y=labels, classes=classes, **fields)
