"""The plan around a Method object of the user's own."""

from __future__ import annotations

import copy

from graphssl.data import Transform
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.methods import Method
from graphssl.recipes.base import Plan, Recipe, Spec, adam, cosine_decay


def custom(method: Method) -> Recipe:
    """A recipe that trains copies of ``method`` with Adam and the settings below; the object itself stays as it is.

    Raises UserError where it is no Method or holds no Encoder.
    """
    if not isinstance(method, Method):
        what = (
            f"the class {method.__name__}, not an object of it" if isinstance(method, type) else type(method).__name__
        )
        raise UserError(f"method must be a name, a graphssl.Method object or a Pretrained, got {what}")
    if not isinstance(getattr(method, "encoder", None), Encoder):
        raise UserError(f"{type(method).__name__} has no graphssl.Encoder as .encoder; set one: it is what is kept")

    method = copy.deepcopy(method)

    def make(
        spec: Spec, *, lr: float = 1e-3, weight_decay: float = 0.0, decay: bool = True, epochs: int = 200,
        batch_size: int | None = None, clip: float | None = None, self_loops: bool = True, row_normalize: bool = False,
    ) -> Plan:  # fmt: skip
        return Plan(
            method=copy.deepcopy(method), optimizer=adam(lr, weight_decay), epochs=epochs,
            schedule=cosine_decay if decay else None, batch_size=batch_size, clip=clip,
            transform=Transform(self_loops=self_loops, row_normalize=row_normalize),
        )  # fmt: skip

    return Recipe("custom", make, {}, {}, {})
