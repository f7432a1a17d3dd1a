"""How a recipe's settings cut raw items into tokens."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from graphssl.errors import UserError
from graphssl.recipes.base import Spec
from graphssl.tokens import Tokenizer, from_json

FIELDS = {"patch": "size", "frames": "frames", "groups": "groups", "neighbours": "neighbours", "edges": "edges"}


def tokenizer_for(spec: Spec, edges: str | None = None, **given: Any) -> Tokenizer | None:
    """How ``spec``'s items are cut: as the data set does, with what is ``given`` (not None) in its place.

    ``edges`` holds where the tokenizer has a choice of edges. None for a data set of graphs. UserError for a setting
    that this kind of data has not.
    """
    asked = {key: value for key, value in given.items() if value is not None}
    if spec.tokens is None:
        if asked:
            raise UserError(f"{spec.name!r} holds graphs, which are not cut; leave out {', '.join(asked)}")
        return None
    usual: Any = from_json(spec.tokens)
    known = {field.name for field in fields(usual)}
    for key in asked:
        if FIELDS[key] not in known:
            fits = ", ".join(name for name, field in FIELDS.items() if field in known) or "nothing"
            raise UserError(f"{key} is no setting for {spec.kind}, which take {fits}; leave it out")
    changes = {FIELDS[key]: value for key, value in asked.items()}
    if edges is not None and "edges" in known:
        changes.setdefault("edges", edges)
    return replace(usual, **changes)


def width_of(spec: Spec, tokenizer: Tokenizer | None) -> int:
    """Width of a node's content once items are cut so."""
    return spec.dim if tokenizer is None else tokenizer.width(spec.shape)


def position_of(spec: Spec, position: str | None) -> str:
    """``position``, or what suits the data: sines and cosines for grids, an MLP for places in space, else none."""
    if position is not None:
        return position
    if not spec.axes:
        return "none"
    return "mlp" if spec.kind in ("graphs", "points") else "sincos"


def placed(spec: Spec) -> dict[str, Any]:
    """What ``backbone_of`` is to be told of where nodes stand, for transformers."""
    return {"axes": spec.axes, "position": position_of(spec, None)}
