"""What training and choosing see of a data set: no test labels, no test pairs."""

from __future__ import annotations

from dataclasses import replace

from graphssl.data import Dataset, Split
from graphssl.errors import UserError
from graphssl.pretrained import hashed


def split_of(data: Dataset, hidden: bool = False) -> Split:
    """The official split; UserError where a part of it is empty, but for test pairs that are ``hidden``."""
    split = next(iter(data.splits.values()))[0]
    for part, rows in (("training", split.train), ("validation", split.val), ("test", split.test)):
        if not rows.numel() and not (hidden and part == "test"):
            raise UserError(f"the split of {data.name!r} has no {part} part, which a leaderboard entry needs")
    return split


def hide(data: Dataset) -> Dataset:
    """``data`` without the labels of its test rows, or without its test pairs: all that training and choosing see."""
    split = split_of(data)
    if data.task == "link":
        empty = split.test[:, :0]
        return data.replace(splits={"link": (replace(split, test=empty, test_absent=empty),)})
    if data.y is None:
        raise UserError(f"data set {data.name!r} has no labels, which a leaderboard entry needs")
    y = data.y.clone()
    y[split.test] = float("nan") if y.is_floating_point() else -1
    return data.replace(y=y)


def to_pretrain(shown: Dataset) -> Dataset:
    """What pretraining sees: no label, no test graph of a graph set, and of a link set the training edges."""
    if shown.task == "graph":
        return shown.training().replace(name=shown.name, known=shown.known, y=None)
    return shown.replace(with_val=None) if shown.task == "link" else shown.replace(y=None, splits={})


def split_mark(shown: Dataset) -> str:
    """By what an entry tells that labels and split are the same, as far as training and choosing see them."""
    split = split_of(shown, hidden=True)
    return hashed([shown.y, split.train, split.val, split.test, split.val_absent])
