"""Edges and features in files (.csv, .parquet, .npy), read in blocks."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from graphssl.data.arrow import arrow
from graphssl.errors import UserError

COLUMNS = "two columns source,target of node numbers, and weight where edges have one"
ENDINGS = (".csv", ".csv.gz", ".parquet")
Edges = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # sources, targets and weights of some edges
Blocks = Callable[[], Iterator[np.ndarray]]


def read_edges(path: Path, edges: int) -> Iterator[Edges]:
    """The edges of a file in blocks of at most so many; UserError where it cannot be read as such."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; give a file of edges ({', '.join(ENDINGS)})")
    return _parquet_edges(path, edges) if path.suffix == ".parquet" else _csv_edges(path, edges)


def open_features(path: Path, numbers: int) -> tuple[tuple[int, int], Blocks]:
    """Shape [N, F] of a file of features, and its rows in blocks of about so many ``numbers``."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; give the features as a .npy or .parquet file")
    if path.suffix == ".npy":
        try:
            x = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read {path} as one plain array ({error}); write it with numpy.save") from error
        if x.ndim not in (1, 2) or x.size == 0 or x.dtype.kind not in "biuf":
            raise UserError(f"{path} holds {x.dtype} {list(x.shape)}; expected numbers [nodes, features]")
        N, F = len(x), x.size // len(x)
        step = max(1, numbers // F)
        return (N, F), lambda: (x[a : a + step].reshape(-1, F) for a in range(0, N, step))
    if path.suffix != ".parquet":
        raise UserError(f"cannot read features from {path.name!r}; give a .npy or a .parquet file")
    file = _parquet(path)
    if not file.metadata.num_rows:
        raise UserError(f"{path} has no rows; give one a node")
    width = next(_parquet_rows(path, 1)).shape[1]
    step = max(1, numbers // width)
    return (file.metadata.num_rows, width), lambda: _parquet_rows(path, step)


def _parquet(path: Path) -> Any:
    pyarrow, parquet = arrow(path)
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path} as a .parquet file ({_line(error)}); write it again") from error


def _batches(path: Path, rows: int, columns: list[str] | None = None) -> Iterator[Any]:
    file, (pyarrow, _) = _parquet(path), arrow(path)
    try:
        yield from file.iter_batches(rows, columns=columns, use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path} as a .parquet file ({_line(error)}); write it again") from error


def _parquet_rows(path: Path, rows: int) -> Iterator[np.ndarray]:
    """Features [n, F] of a table: its numeric columns, or its one column of lists."""
    for batch in _batches(path, rows):
        columns = [_column(column, path, name) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
        if len({len(column) for column in columns}) != 1 or not batch.num_rows:
            raise UserError(f"{path} mixes numbers and lists; give numeric columns, or one column of lists")
        yield np.stack(columns, axis=1) if len(columns) > 1 else columns[0].reshape(batch.num_rows, -1)


def _column(column: Any, path: Path, name: str) -> np.ndarray:
    """The numbers in an Arrow array, those of lists one behind the other."""
    lists = str(column.type).startswith(("list", "large_list", "fixed_size_list"))
    values = column.flatten() if lists else column
    if lists and hasattr(column, "offsets") and len({*np.diff(column.offsets.to_numpy())}) > 1:
        raise UserError(f"column {name!r} of {path} holds lists of different lengths; give as many numbers a node")
    if column.null_count or values.null_count:
        raise UserError(f"column {name!r} of {path} has empty entries; fill them")
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "biuf":
        raise UserError(
            f"column {name!r} of {path} holds {column.type}, expected numbers; drop it or turn it into such"
        )
    return array


def _parquet_edges(path: Path, edges: int) -> Iterator[Edges]:
    names = _parquet(path).schema_arrow.names
    if missing := [name for name in ("source", "target") if name not in names]:
        raise UserError(f"{path} has columns {', '.join(names)} but no {missing[0]}; give {COLUMNS}")
    chosen = ["source", "target", *(["weight"] if "weight" in names else [])]
    for batch in _batches(path, edges, chosen):
        columns = [_column(batch.column(name), path, name) for name in chosen]
        for name, column in zip(chosen[:2], columns, strict=False):
            if column.dtype.kind not in "iu":
                raise UserError(f"column {name!r} of {path} holds {column.dtype}; expected whole numbers from 0")
        yield columns[0], columns[1], columns[2] if len(columns) == 3 else None


def _csv_edges(path: Path, edges: int) -> Iterator[Edges]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
            head = file.readline()
            names = [name.strip().strip('"').lower() for name in head.split(",")]
            bare = all(re.fullmatch(r"[-+.\deE]+", name) for name in names)
            if bare and len(names) not in (2, 3):
                raise UserError(f"{path} has {len(names)} columns and no header; give {COLUMNS}")
            if not bare and not {"source", "target"} <= {*names}:
                raise UserError(f"{path} has columns {', '.join(names)[:200]}; give {COLUMNS}")
            names = ["source", "target", "weight"][: len(names)] if bare else names
            chosen = [name for name in ("source", "target", "weight") if name in names]
            kind = np.dtype([(name, np.float32 if name == "weight" else np.int64) for name in chosen])
            where, line = [names.index(name) for name in chosen], 1 if bare else 2
            lines = [head] if bare else []
            while lines := [*lines, *islice(file, edges // 4 or 1)]:
                found = _numbers(lines, path, line, where, kind)
                yield found["source"], found["target"], found["weight"] if len(chosen) == 3 else None
                line, lines = line + len(lines), []
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"cannot read {path} as a table of edges ({_line(error)}); write it again") from error


def _numbers(lines: list[str], path: Path, first: int, where: list[int], kind: np.dtype) -> np.ndarray:
    """The numbers in ``lines``, the first of which is that line of the file."""

    def read(some: list[str]) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # a whole number written as 1.0
            warnings.filterwarnings("ignore", message=".*input contained no data")
            return np.loadtxt(some, kind, delimiter=",", usecols=where, comments=None, ndmin=1)

    while True:
        try:
            return read(lines)
        except (ValueError, DeprecationWarning) as error:
            if len(lines) == 1:
                raise UserError(f"line {first} of {path} is {lines[0].strip()[:80]!r}; give {COLUMNS}") from error
        half = lines[: len(lines) // 2]
        try:
            read(half)
        except (ValueError, DeprecationWarning):
            lines = half
        else:
            lines, first = lines[len(half) :], first + len(half)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
