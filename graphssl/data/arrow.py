"""The optional package that reads and writes tables (.parquet)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphssl.errors import UserError


def arrow(path: Path) -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet; UserError where they are not installed, which ``path`` needs."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path.name} needs the package pyarrow, which is not installed; pip install 'graphssl[parquet]'"
        ) from error
    return pyarrow, parquet
