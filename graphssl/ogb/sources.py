"""Where a data set is found and whether it is OGB's: raw files, DatasetSaver's, or a file with the marks of OGB's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from graphssl.data import Dataset, load_dataset, search_path
from graphssl.data.named import CACHE
from graphssl.data.ogb_files import META, Meta, check_meta, known_meta, open_ogb, read_ogb
from graphssl.errors import UserError
from graphssl.ogb.shown import split_of
from graphssl.pretrained import fingerprint, hashed

TASKS = {"ogbn": "node", "ogbl": "link", "ogbg": "graph"}
RAW = "OGB's raw files"
FILE = "a file of graphssl's layout"
CHECKED = f"{FILE} whose graphs, labels and split are OGB's by their mark"
OFFICIAL = {
    "ogbg-molbace": "06b735339a6f3f150165529c37d2c3cf-17cf8bdb785a231cbf9f183216b3ab7f",
    "ogbg-molbbbp": "d13f85ad700f441638d28c84a86fd9cb-a2215cde51af186cdb101b6503602fd3",
    "ogbg-molesol": "32bb54958e7a6bfd3724cd57453fde57-5f7ece926f209d27f971fc6ba80c1a9e",
    "ogbg-molfreesolv": "c666cf7d312784730713875ddad125d7-801e44f3d80980f5fad553d670512332",
}
"""Marks of OGB's graphs, labels and splits; ``{name: official_mark(load_dataset(name)) for name in OFFICIAL}`` makes
them anew where the ``.npz`` files hold the arrays and splits of ogb 1.3.6 unchanged."""


def find(
    dataset: str, root: str | Path | None = None, year: int | None = None
) -> tuple[Dataset, Meta, str]:  # fmt: skip
    """The data set, what OGB says of it, and what it was read from: a folder of that path, or what has the name."""
    path = Path(dataset).expanduser()
    if (path / "raw").is_dir() or (path / META).exists():
        place, meta = open_ogb(path)
        return read_ogb(place, meta, year), meta, RAW
    if os.sep in dataset:
        raise UserError(f"{dataset} is no folder of an OGB data set: it has neither raw nor {META}; give one that has")
    name = dataset.strip().replace("_", "-")
    places = [*search_path(root), CACHE.expanduser() / "downloads"]
    for place in places:  # what DatasetSaver wrote there
        if (place / f"submission_{name.replace('-', '_')}" / META).exists():
            return find(str(place / f"submission_{name.replace('-', '_')}"), year=year)
    meta = known_meta(name)
    check_meta(meta)
    if year is not None and meta.family != "ogbl":
        raise UserError(f"year leaves out training edges of a link set, and {name!r} is none; leave it out")
    folder = _folder(name, places)
    if folder is not None:
        return read_ogb(folder, meta, year), meta, RAW
    data = load_dataset(name, root)  # a file, or a download to the cache
    folder = _folder(name, places)
    if folder is not None:
        return data if year is None else read_ogb(folder, meta, year), meta, RAW
    if data.task != TASKS[meta.family] or next(iter(data.splits), "") not in ("public", "scaffold"):
        raise UserError(
            f"the file of {name!r} is not a {TASKS[meta.family]} set with the official split; remove it, or put OGB's "
            f"own files, {name.replace('-', '_')}/raw and {name.replace('-', '_')}/split, in the folder it is in"
        )
    return data, meta, CHECKED if OFFICIAL.get(name) == official_mark(data) else FILE


def _folder(name: str, places: Sequence[Path]) -> Path | None:
    folders = [place / name.replace("-", "_") for place in places]
    return next((folder for folder in folders if (folder / "raw").is_dir()), None)


def official_mark(data: Dataset) -> str:
    """By what a set shows that its graphs, labels and split are OGB's; compared with ``OFFICIAL``."""
    split = split_of(data)
    return f"{fingerprint(data)}-{hashed([data.y, split.train, split.val, split.test])}"
