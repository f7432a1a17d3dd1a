"""The one place that chooses the path an op takes, the one way to force a path, and the record of what ran.

- ``reference``: plain differentiable torch on any device, the specification of every op;
- ``torch``: sparse products and chunks in torch on any device, for where nothing faster is to be had;
- ``c``: ``kernels/kernels.c``, for the CPU, compiled once at first use by the machine's own compiler;
- ``triton``: kernels for CUDA; on a CPU they run in Triton's interpreter, when forced, to be tested.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from graphssl.errors import UserError, unknown

PATHS = ("reference", "torch", "c", "triton")
_forced: ContextVar[str | None] = ContextVar("path", default=None)
_ran: dict[str, str] = {}


@contextmanager
def using(path: str) -> Iterator[None]:
    """Within, every op takes ``path``, one of PATHS, and fails where it cannot; ops without that path take their own.

    It holds for this thread, and for code that torch.compile traces within, for good.

    Raises UserError for an unknown path, or one that this machine lacks.
    """
    if path not in PATHS:
        raise unknown("path", path, PATHS)
    why = missing(path)
    if why:
        raise UserError(f"cannot take the path {path!r}: {why}")
    token = _forced.set(path)
    try:
        yield
    finally:
        _forced.reset(token)


def backend(op: str) -> str | None:
    """The path that the last call of ``op`` took; None where it has not run yet, or only in code that is compiled."""
    return _ran.get(op)


def choose(op: str, like: Tensor, paths: tuple[str, ...] = PATHS) -> str:
    """The path for a call of ``op``, which has ``paths``, on a tensor such as ``like``."""
    if not like.is_floating_point():
        paths = ("reference",)  # integers are summed as such
    return choose_on(op, like.device.type, paths)


@torch.compiler.assume_constant_result  # torch.compile keeps the path that held when it traced
def choose_on(op: str, device: str, paths: tuple[str, ...]) -> str:
    """As ``choose`` for a kind of device, where no type of number is in question."""
    path = _forced.get()
    if path is None or path not in paths:
        path = _fastest(device, paths)
    elif path == "c" and device != "cpu":
        raise UserError(f"the path 'c' runs on the CPU, but ops.{op} got a tensor on {device}; move it, or let go")
    elif path == "triton" and device == "cpu" and not interpreted():
        raise UserError(
            f"the path 'triton' runs on CUDA, but ops.{op} got a tensor on the CPU; move it there, "
            "or set TRITON_INTERPRET=1 before the start to run its interpreter"
        )
    _ran[op] = path
    return path


@cache
def kernels(path: str) -> ModuleType:
    """The module that holds the kernels of ``path``; imported at first use, since Triton takes seconds."""
    return importlib.import_module(f"graphssl.ops.kernels.in_{path}")


@cache
def missing(path: str) -> str:
    """Why this machine lacks ``path``; empty where it has it. A lack that costs speed is logged, once."""
    if path == "c":
        from graphssl.ops.kernels import in_c

        why = in_c.missing()
    elif path == "triton":
        why = "" if importlib.util.find_spec("triton") else "Triton is not installed; pip install triton"
    else:
        return ""
    if why:
        logging.getLogger("graphssl").warning("sparse ops will be slower, and as exact: %s", why)
    return why


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _fastest(device: str, paths: tuple[str, ...]) -> str:
    """The fastest of ``paths`` on a kind of device that this machine has."""
    order = {"cpu": ("c", "torch", "reference"), "cuda": ("triton", "torch", "reference")}.get(device, ("reference",))
    return next(path for path in order if path in paths and not missing(path))
