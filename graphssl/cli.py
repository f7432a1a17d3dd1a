"""The command line: the words of the Python calls."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shlex
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from graphssl.errors import Diverged, LostProcess, OutOfMemory, UserError

if TYPE_CHECKING:
    from graphssl.recipes import Recipe

LISTS = ("methods", "datasets", "encoders", "protocols")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"graphssl: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 where it failed, 2 where it was used wrongly."""
    arguments = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest, **named: warn(message)
            return arguments.run(arguments) or 0
    except UserError as error:
        return complain(error, 2)
    except (Diverged, OutOfMemory, LostProcess) as error:
        return complain(error, 1)
    except KeyboardInterrupt as stop:
        return complain(str(stop) or "stopped", 1)
    except BrokenPipeError:  # the reader of a pipe went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return complain(f"{error.strerror or error}: {error.filename}" if error.filename else error, 1)


def warn(message: object) -> None:
    from graphssl.processes import first

    if first():
        print(f"graphssl: {message}", file=sys.stderr)


def complain(what: object, status: int) -> int:
    print("graphssl: " + " ".join(str(what).split()), file=sys.stderr)
    return status


def parser() -> Parser:
    top = Parser(prog="graphssl", description="Self-supervised pretraining for anything that is a graph.")
    top.add_argument("--version", action="version", version=f"graphssl {importlib.metadata.version('graphssl')}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)

    add = commands.add_parser("pretrain", help="pretrain an encoder without labels")
    add.add_argument(
        "dataset", metavar="DATASET", help="a name of `graphssl list datasets`, a .npz or .csv file, or a folder"
    )
    add.add_argument("--method", default="graphmae", help="a name of `graphssl list methods` (default graphmae)")
    add.add_argument("--out", type=Path, help="folder of the run (default runs/DATASET-METHOD-seedSEED)")
    add.add_argument("--encoder", help="a name of `graphssl list encoders` in place of the recipe's")
    add.add_argument("--epochs", type=int, help="default: the recipe's; 0: an untrained encoder")
    add.add_argument("--batch-size", type=int, help="graphs, items or nodes a step")
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add.add_argument("--precision", help="32-true (default) or bf16-mixed")
    add.add_argument("--early-stop", metavar="loss|rank", help="end once the loss, or the codes' rank, gets no better")
    add.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    add.add_argument("--overwrite", action="store_true", help="replace the run in OUT")
    add.add_argument("--quiet", action="store_true", help="no progress bar")
    add.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the method's recipe")
    add.set_defaults(run=pretrain)

    add = commands.add_parser("evaluate", help="judge the frozen codes of a run")
    add.add_argument("folder", metavar="DIR", type=Path, help="folder of a run")
    add.add_argument("--dataset", help="other data than the run was pretrained on")
    add.add_argument(
        "--protocol", metavar="NAME,...", help="of `graphssl list protocols` (default: all that the data set offers)"
    )
    add.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    add.add_argument("--overwrite", action="store_true", help="replace FILE")
    add.set_defaults(run=evaluate)

    add = commands.add_parser("convert", help="write a graph to a folder, to use it where it does not fit in memory")
    add.add_argument(
        "source", metavar="SOURCE",
        help="a file of edges (.csv, .csv.gz, .parquet: columns source, target and perhaps weight), a folder in OGB's "
        "layout, or what pretrain takes",
    )  # fmt: skip
    add.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the graph is written")
    add.add_argument("--x", type=Path, metavar="FILE", help="features of a file of edges: .npy or .parquet")
    add.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of features")
    add.add_argument("--undirected", action="store_true", help="add the other direction to each edge")
    add.add_argument(
        "--order", choices=("bfs", "given"), default="bfs",
        help="of nodes on the disk: neighbours near each other (default), or as they are",
    )  # fmt: skip
    add.add_argument("--name", help="of the data set (default: that of SOURCE)")
    add.add_argument("--overwrite", action="store_true", help="replace the graph in FOLDER")
    add.add_argument("--quiet", action="store_true", help="no progress bar")
    add.set_defaults(run=convert)

    add = commands.add_parser("embed", help="write the codes of a run to a file")
    add.add_argument("folder", metavar="DIR", type=Path, help="folder of a run")
    add.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help=".npy, or .csv or .parquet with the names of the nodes"
    )
    add.add_argument("--dataset", help="other data than the run was pretrained on")
    add.add_argument("--level", help="node or graph (default: what the data set is about)")
    add.add_argument("--overwrite", action="store_true", help="replace FILE")
    add.set_defaults(run=embed)

    add = commands.add_parser("plot", help="draw what a run rebuilds of images and the like, or a map of its codes")
    add.add_argument("folder", metavar="DIR", type=Path, help="folder of a run")
    add.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help=".png, .pdf or .svg; .gif of videos and skeletons"
    )
    add.add_argument(
        "--what", choices=("codes", "reconstruction"),
        help="a map of codes, or items beside what the method sees and makes of them (default: that where it can)",
    )  # fmt: skip
    add.add_argument("--dataset", help="other data than the run was pretrained on")
    add.add_argument("--overwrite", action="store_true", help="replace FILE")
    add.set_defaults(run=plot)

    add = commands.add_parser("ogb", help="make an entry of an OGB leaderboard, judged by ogb's own Evaluator")
    add.add_argument("--dataset", required=True, help="as ogbn-arxiv, or a folder of a set in OGB's layout")
    add.add_argument("--method", help="a name of `graphssl list methods` (default graphmae, or that of --from)")
    add.add_argument(
        "--from", dest="start", type=Path, metavar="DIR",
        help="go on from the run in DIR, whose other data count as external; with --epochs 0 it is judged as it is",
    )  # fmt: skip
    add.add_argument("--seeds", default="0-9", help="0-9 (default), 0,3,7; fewer than ten need --draft")
    add.add_argument("--draft", action="store_true", help="a block that is against OGB's rules, and says so")
    how = add.add_mutually_exclusive_group()
    how.add_argument(
        "--probe", dest="finetune", action="store_false", default=False,
        help="a linear probe, or decoder, of frozen codes (default)",
    )  # fmt: skip
    how.add_argument("--finetune", action="store_true", help="train the encoder on labels too")
    add.add_argument("--tune", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    add.add_argument("--decoder", help="of pairs: mlp (default), dot, own")
    add.add_argument("--val-edges", action="store_true", help="give validation edges where test pairs are scored")
    add.add_argument("--year", type=int, help="leave out training edges before that year")
    add.add_argument("--root", type=Path, help="where to look for the data set first")
    add.add_argument(
        "--out",
        type=Path,
        help="folder of the entry (default runs/ogb-DATASET-METHOD-HOW, HOW: probe, finetune or the decoder)",
    )
    add.add_argument(
        "--searched", default="", metavar="TEXT", help="what you tried to find the settings, for the block"
    )
    add.add_argument("--encoder", help="a name of `graphssl list encoders` in place of the recipe's")
    add.add_argument("--epochs", type=int, help="of pretraining; default: the recipe's")
    add.add_argument("--batch-size", type=int, help="graphs a step of pretraining, of a set of them")
    add.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add.add_argument("--quiet", action="store_true", help="no progress bar")
    add.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the method's recipe")
    add.set_defaults(run=ogb)

    add = commands.add_parser("list", help="names of " + ", ".join(LISTS))
    add.add_argument("what", metavar="|".join(LISTS), choices=LISTS, help="what to list")
    add.add_argument("pattern", nargs="?", default="*", help="as of file names: '*mae*'")
    add.set_defaults(run=list_names)

    add = commands.add_parser("doctor", help="what is installed, what is missing and what that costs")
    add.set_defaults(run=doctor)
    return top


def key_values(option: str, items: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Keys and values of an option that is given as KEY=VALUE; UserError where one is not."""
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"{option} {item} has no value; write {option} KEY=VALUE, as in {option} lr=0.001")
        yield key, value


def settings_of(recipe: Recipe, items: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` says of the recipe's settings; UserError for what has an option of its own."""
    from graphssl.recipes import parse

    settings = {key: parse(recipe, key, value) for key, value in key_values("--set", items)}
    for key in ("epochs", "batch_size", "encoder"):
        if key in settings:
            raise UserError(f"--set {key}=... is the option --{key.replace('_', '-')}; use that")
    return settings


def pretrain(a: argparse.Namespace) -> None:
    import graphssl
    from graphssl import processes
    from graphssl.data import is_path
    from graphssl.recipes import get_recipe

    recipe = get_recipe(a.method)
    settings = settings_of(recipe, a.set)
    stem = Path(a.dataset).resolve().stem.removesuffix(".csv") if is_path(a.dataset) else a.dataset
    out = a.out or Path("runs") / f"{stem.lower().replace('/', '-')}-{recipe.name}-seed{a.seed}"
    run = graphssl.pretrain(
        a.dataset, recipe.name, out=out, encoder=a.encoder, epochs=a.epochs, batch_size=a.batch_size, seed=a.seed,
        device=a.device, precision=a.precision, early_stop=a.early_stop, resume=a.resume,
        overwrite=a.overwrite, progress=not a.quiet, **settings,
    )  # fmt: skip
    if not processes.first():
        return
    loss = f", loss {run.history['loss'][0]:.4f} -> {run.history['loss'][-1]:.4f}" if run.history else ""
    planned, done = run.config["epochs"], len(run.lines)
    epochs = f"{done} of {planned} epochs" if done < planned else f"{planned} epochs"
    print(f"{recipe.name} on {run.config['spec']['name']}: {epochs}{loss}")
    print(f"saved to {out}; judge its codes: graphssl evaluate {shlex.quote(str(out))}")


def evaluate(a: argparse.Namespace) -> None:
    import graphssl

    if a.json is not None:
        graphssl.pretrained.free(a.json, a.overwrite)
    protocols = a.protocol.replace(" ", "").split(",") if a.protocol else None
    report = graphssl.load(a.folder).evaluate(a.dataset, protocols)
    print(report.table())
    if a.json is not None:
        a.json.parent.mkdir(parents=True, exist_ok=True)
        graphssl.store.write_json(a.json, report.to_json())


def convert(a: argparse.Namespace) -> None:
    from graphssl.data import convert_to_folder

    stored = convert_to_folder(
        a.source, a.to, dtype=a.dtype, undirected=a.undirected, order=a.order, name=a.name, x=a.x,
        overwrite=a.overwrite, progress=not a.quiet,
    )  # fmt: skip
    print(f"{stored.num_nodes} nodes, {stored.num_edges} edges and {stored.x.size(1)} features written to {a.to}")


def embed(a: argparse.Namespace) -> None:
    import graphssl

    path, shape = graphssl.load(a.folder).export(a.to, a.dataset, a.level, a.overwrite)
    print(f"codes {list(shape)} written to {path}")


def plot(a: argparse.Namespace) -> None:
    import graphssl

    print(f"drawn to {graphssl.load(a.folder).plot(a.to, a.dataset, a.overwrite, a.what)}")


def ogb(a: argparse.Namespace) -> None:
    import graphssl
    from graphssl.ogb import leaderboard, parse_tuning
    from graphssl.recipes import get_recipe

    recipe = get_recipe(a.method or "graphmae") if a.start is None else graphssl.load(a.start).recipe
    entry = leaderboard(
        a.dataset, a.method, start=a.start, seeds=a.seeds, out=a.out, root=a.root, draft=a.draft, finetune=a.finetune,
        decoder=a.decoder, val_edges=a.val_edges, year=a.year, encoder=a.encoder, epochs=a.epochs,
        batch_size=a.batch_size, device=a.device, tuning=parse_tuning(key_values("--tune", a.tune)),
        searched=a.searched, progress=not a.quiet, **settings_of(recipe, a.set),
    )  # fmt: skip
    print(entry.block())
    print(f"written to {entry.folder}")


def list_names(a: argparse.Namespace) -> None:
    import graphssl
    from graphssl.data import origin
    from graphssl.probes import get_protocol
    from graphssl.recipes import get_recipe

    names = getattr(graphssl, f"list_{a.what}")(a.pattern)
    if not names:
        raise UserError(f"none of the {a.what} is like {a.pattern!r}; see graphssl list {a.what}")
    for name in names:
        about = ""
        if a.what == "methods":
            about = (get_recipe(name).make.__doc__ or "").strip().splitlines()[0]
        elif a.what == "protocols":
            about = get_protocol(name).about
        elif a.what == "datasets":
            about = origin(name)
        wide = 26 if a.what == "datasets" else 14
        lines = textwrap.wrap(about, 100 - wide) or [""]
        print(f"{name:<{wide}}{lines[0]}".rstrip(), *(" " * wide + line for line in lines[1:]), sep="\n")


PACKAGES = {
    "torch": "required", "torch-geometric": "required", "numpy": "required", "scipy": "required",
    "scikit-learn": "required", "safetensors": "required", "tqdm": "required", "lightning-fabric": "required",
    "matplotlib": "drawing (plot); pip install 'graphssl[plot]'",
    "pillow": "folders of images, CIFAR-10's JPEGs, moving pictures (.gif); pip install 'graphssl[images]'",
    "av": "folders of videos; pip install 'graphssl[images]'",
    "pyarrow": "tables of edges, features and codes (.parquet); pip install 'graphssl[parquet]'",
    "networkx": "networkx graphs as input; pip install networkx",
    "dgl": "DGL graphs as input; pip install dgl",
    "ogb": "OGB's data sets and leaderboard entries; pip install 'graphssl[ogb]'",
    "rdkit": "molecules from SMILES; pip install 'graphssl[molecules]'",
    "triton": "fast sparse ops on CUDA; pip install triton",
}  # fmt: skip


def doctor(a: argparse.Namespace) -> int:
    import torch

    from graphssl import ops
    from graphssl.data import search_path

    missing = []
    for package, use in PACKAGES.items():
        try:
            print(f"{package:<18}{importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{package:<18}missing: {use}")
            missing += [package] if use == "required" else []
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: everything runs on the CPU"
    mkl = "with" if torch.backends.mkl.is_available() else "without"
    print(f"{'GPU':<18}{gpu}")
    print(f"{'CPU':<18}{torch.get_num_threads()} threads, {mkl} MKL")
    fast = ops.missing("c")
    print(f"{'sparse ops':<18}{f'in torch, several times slower: {fast}' if fast else 'in C, compiled here'} (CPU)")
    for folder in search_path():
        print(f"{'data':<18}{folder}{'' if folder.is_dir() else ' (not there)'}")
    return complain(f"required packages are missing: {', '.join(missing)}; pip install graphssl", 1) if missing else 0


if __name__ == "__main__":
    sys.exit(main())
