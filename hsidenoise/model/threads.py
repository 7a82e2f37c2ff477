"""Work on blocks side by side: threads that share the operations on one small block mostly wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """What `work` makes of the items, in their order: on a CPU by as many threads as PyTorch has, one for each.

    An item is computed as by a single thread, however many there are. Gradients, and GPUs, take one item after the
    other.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or torch.is_grad_enabled():
        yield from map(work, items)
        return
    inference = torch.is_inference_mode_enabled()

    def alone(item: Item) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # modes are a thread's own
            return work(item)

    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(alone, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # threads yet to come begin with what was said last
