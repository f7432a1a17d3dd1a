"""The C kernels are built once, kept, shared by processes, and done without where they cannot be built."""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cases import near, pattern, run, tensors

from graphssl.ops.kernels import in_c

CC = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
SCRIPT = """
import torch
from graphssl import ops
csr = ops.CSR(torch.tensor([0, 2, 2]), torch.tensor([0, 1]), None, (2, 3))
for _ in range(2):
    x = torch.tensor([[1.0], [2.0], [4.0]], requires_grad=True)
    ops.spmm(csr, x, reduce="max"), ops.segment_softmax(csr, x[:2]), ops.dropout(x, 0.5)
    (ops.spmm(csr, x) + ops.gat_attention(csr, x[:, None], 0 * x, x[:2])[:, 0]).sum().backward()
assert x.grad.tolist() == [[1.5], [1.5], [0.0]]
ring, start = ops.CSR(torch.arange(4), torch.tensor([1, 2, 0]), None, (3, 3)), torch.tensor([0])
assert ops.sample_hops(ring, start, (1, 1)).edges.tolist() == [[1, 2], [0, 1]]
assert ops.near_nodes(ring, start, 2)[0].tolist() == [0, 1]
assert ops.induced_edges(ring, torch.tensor([0, 2]))[1].tolist() == [2]
print(ops.backend("spmm"), ops.backend("gat_attention"))
"""


def start(cache: Path, **env: str) -> subprocess.Popen:
    """A process that uses the ops, with a cache of its own, below ``cache``."""
    own = {"XDG_CACHE_HOME": str(cache / "home"), "TMPDIR": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.Popen(
        command, env={**os.environ, **own, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    """The path that it took and what it logged."""
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert len(set(out.split())) == 1
    return out.split()[0], error


def compiler(folder: Path, first: str = "") -> str:
    """A compiler that does ``first``, notes its arguments in ``folder``/calls, and does not waste time on speed."""
    script = folder / "compiler"
    script.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/calls"\n{first}\nexec "{CC}" "$@" -O0\n')
    script.chmod(0o755)
    return str(script)


def compilations(folder: Path) -> int:
    return sum(" -c " in f" {line}" for line in (folder / "calls").read_text().splitlines())


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(CC is None, reason="there is no C compiler")
def test_two_processes_build_at_once_and_a_third_takes_what_they_left(cache):
    cc = compiler(cache)
    for process in [start(cache, CC=cc) for _ in range(2)]:
        assert finish(process) == ("c", "")
    before = compilations(cache)
    assert 1 <= before <= 2
    library = Path(in_c._build([cc])._name)
    assert compilations(cache) == before
    assert list(library.parent.iterdir()) == [library]
    assert cache / "home" in library.parents
    assert {path.name for path in cache.iterdir()} == {"compiler", "calls", "home"}


def test_without_a_compiler_ops_take_torch_and_say_why_once(cache):
    path, told = finish(start(cache, PATH="", CC=""))
    assert path == "torch"
    (line,) = told.splitlines()
    assert line.startswith("sparse ops will be slower, and as exact: no C compiler was found")


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (
            "printf 'In file:\\nkernels.c:1: error: out of ideas\\nstop\\n' >&2; exit 1",
            r"\(kernels.c:1: error: out of ideas\)",
        ),
        ("exit 1", "exit status 1"),
        ("echo >&2; exit 1", "CalledProcessError"),
        ("exit 0", "No such file|cannot open"),
    ],
)
def test_a_compiler_that_fails_is_named_with_its_reason(cache, monkeypatch, does, reason):
    monkeypatch.setenv("CC", compiler(cache, f'[ "$1" = --version ] && exit; {does}'))
    library, why = in_c._library.__wrapped__()
    assert library is None
    assert re.search(f"{cache}/compiler could not build the fast CPU path.*(?:{reason})", why)
    assert not list(cache.rglob("kernels*.*"))


def test_a_compiler_that_does_not_exist_is_named(cache, monkeypatch):
    monkeypatch.setenv("CC", "/nowhere/cc")
    assert re.search("^/nowhere/cc could not build .*No such file", in_c._library.__wrapped__()[1])


@pytest.mark.skipif(CC is None, reason="there is no C compiler")
def test_a_compiler_without_openmp_will_do(cache, monkeypatch):
    monkeypatch.setenv("CC", compiler(cache, 'case "$*" in *-fopenmp*) exit 1; esac'))
    library, why = in_c._library.__wrapped__()
    assert library, why
    monkeypatch.setattr(in_c, "_library", lambda: (library, ""))
    csr = pattern(30, 20, 60, 9)
    inputs = tensors("gat_attention", csr, 2, 9)
    in_c._function.cache_clear()
    try:
        near(run("c", "gat_attention", csr, inputs), run("reference", "gat_attention", csr, inputs), 1e-12)
    finally:
        in_c._function.cache_clear()


@pytest.mark.skipif(CC is None, reason="there is no C compiler")
def test_where_the_home_cannot_be_written_the_library_is_kept_elsewhere(cache, monkeypatch):
    mkdir, refused, cc = Path.mkdir, [], compiler(cache)

    def refuse(self, *args, **kwargs):
        if cache / "home" in self.parents:
            refused.append(number)
            raise OSError(number, os.strerror(number))
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    for number in (errno.EACCES, errno.ENOTDIR, errno.EROFS):
        library = Path(in_c._build([cc])._name)
        assert library.parent.parent == cache
        assert refused[-1] == number
    assert compilations(cache) == 1  # the second and the third found what the first had built
