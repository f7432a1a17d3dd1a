"""The training loop, as a generator: what to log, probe, save or stop on is the body of your for loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from graphssl.errors import Diverged, OutOfMemory, UserError
from graphssl.graph import Graph
from graphssl.methods import Method

LOCK = threading.RLock()
# names that a log line has of its own
RESERVED = {"loss", "epoch", "step", "lr", "seconds", "effective_rank", "spread", "validation_auc"}


def generator_for(seed: int, step: int, rank: int = 0, device: torch.device | str = "cpu") -> Generator:
    """The generator of one step: the same for the same (seed, step, rank), whatever was drawn before."""
    mixed = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return Generator(device).manual_seed(int(mixed >> np.uint64(1)))


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within, the default generators start from ``seed``; afterwards they are as they were."""
    device = torch.device(device)
    # the default generators belong to the whole process, so one thread at a time
    with LOCK, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def memory_advice(what: str) -> Iterator[None]:
    """Turns running out of memory within into OutOfMemory with advice; ``what`` says what was being done."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate memory" not in str(error):
            raise
        raise OutOfMemory(
            f"memory ran out in {what}; choose a smaller width or batch_size, or precision='bf16-mixed'"
        ) from error


def check_names(method: Method, named: Iterable[str]) -> None:
    """Raises UserError where a loss has a name that a log line has of its own."""
    if taken := RESERVED & {*named}:
        raise UserError(f"{type(method).__name__} calls a loss {min(taken)!r}, which the log needs; rename it")


def train(
    method: Method,
    batches: Callable[[int], Graph],
    optimizer: Optimizer,
    steps: int,
    *,
    start: int = 0,
    seed: int = 0,
    rank: int = 0,
    schedule: Callable[[float], float] | None = None,
    clip: float | None = None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yields (steps done, losses) after each optimizer step from ``start`` to ``steps``; "loss" is what was minimised.

    ``batches(step)`` is the Graph of a step, counted from 0. ``schedule`` maps the fraction of training done to a
    factor of the learning rate; where that is 0, as where a warm-up begins, it is asked half a step later, so that no
    step is lost. ``clip`` bounds the norm of the gradient. Every draw of a step comes from (seed, step, rank), so going
    on from ``start`` with the weights and the optimizer of that step gives the same bits.
    Raises Diverged where the total loss is not finite; weights are then those of the step before.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    for step in range(start, steps):
        graph = batches(step)
        device = graph.device
        generator = generator_for(seed, step, rank, device)
        factor = (schedule(step / steps) or schedule((step + 0.5) / steps)) if schedule else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        method.train()
        optimizer.zero_grad(set_to_none=True)
        with seeded(int(torch.randint(2**62, (), generator=generator, device=device)), device):
            with autocast():
                losses = method(graph, generator)
                check_names(method, losses)
                total = method.total(losses)
                beside = method.logged()
                check_names(method, beside)
            if not total.isfinite():
                shown = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
                raise Diverged(
                    f"the loss of {type(method).__name__} is not finite at step {step + 1} of {steps} ({shown}); "
                    "try a smaller lr, a clip (gradient norm), or check the features for very large values"
                )
            total.backward()
        if clip is not None:
            clip_grad_norm_(method.parameters(), clip)
        optimizer.step()
        method.after_step((step + 1) / steps)
        parts = {name: loss.detach() for name, loss in losses.items()}
        yield step + 1, {**beside, **parts, "loss": total.detach()}
