"""Work on blocks side by side: threads that share the operations on one small block mostly wait for each other."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """What `work` makes of the items, in their order: on a CPU by as many threads as PyTorch has, one for each.

    An item is computed as by a single thread, however many there are. Gradients, and GPUs, take one item after the
    other.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or torch.is_grad_enabled():
        return map(work, items)
    inference = torch.is_inference_mode_enabled()

    def alone(item: Item) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # modes are a thread's own
            return work(item)

    return _pool(threads).map(alone, items)


def share_out(work: Callable[[Item], None], items: Iterable[Item], device: torch.device) -> None:
    """As `side_by_side` for work that puts its results where they belong: threads take the next item by themselves.

    Small items, a millisecond each, would else wait for the thread that hands them out.
    """
    left = iter(list(items))  # which threads may share, unlike a generator

    def several(_: int) -> None:
        for item in left:
            work(item)

    for _ in side_by_side(several, range(torch.get_num_threads()), device):
        pass


def in_parts(work: Callable[..., object], *tensors: Tensor) -> None:
    """`work` on parts of tensors (N, m, ...), along m, side by side."""
    parts = zip(*(x.chunk(torch.get_num_threads(), 1) for x in tensors), strict=True)

    def alone(part: tuple[Tensor, ...]) -> None:
        work(*part)

    share_out(alone, parts, tensors[0].device)


def blocked(x: Tensor) -> bool:
    """Whether work on it is worth cutting into blocks: on a CPU, in float32, without gradients."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """They stay: the memory that a new thread works in is mapped afresh, which can take as long as the work."""
    pool = ThreadPoolExecutor(threads, "block", initializer=_alone)
    started = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(threads)  # threads yet to come, of others too, begin with what was said last
    return pool


def _alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # without being asked once, a thread would take at its first operation what is set by then


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has no threads but its own
