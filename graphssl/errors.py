"""How the library tells a user about a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the message names, with what was expected and the way out, in one sentence."""


class Diverged(RuntimeError):
    """A loss or a weight that is no longer finite; says at which step and what to try."""


class OutOfMemory(RuntimeError):
    """Memory that does not suffice; says how much was asked for and what to try."""


class LostProcess(RuntimeError):
    """Another of several processes that is gone, does not answer or broke; says what is known of it."""


def unknown(what: str, name: str, known: Iterable[str], see: str = "") -> UserError:
    """The error for a ``name`` that is none of the ``known`` ones: suggests the nearest, else lists them all.

    Where more than twelve are known, it points at ``see`` instead of listing them.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    if near:
        way_out = f"did you mean {' or '.join(repr(n) for n in near)}?"
    elif see and len(known) > 12:
        way_out = f"see {see}"
    else:
        way_out = f"known: {', '.join(known) or 'none'}"
    return UserError(f"unknown {what} {name!r}; {way_out}")
