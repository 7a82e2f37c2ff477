"""Work shared out among threads: all of it, once, whatever happens."""

from __future__ import annotations

import threading

import pytest
import torch

from hsidenoise.model.threads import in_parts, share_out, side_by_side

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def items(count):
    """A generator, which threads cannot share as it is."""
    yield from range(count)


@torch.no_grad()
def test_every_item_is_done_once_by_some_thread():
    done, by = [], set()
    together = threading.Barrier(3, timeout=60)

    def work(item):
        if item < 3:
            together.wait()  # three at a time, or never
        done.append(item)
        by.add(threading.get_ident())

    share_out(work, items(1000), CPU)
    assert sorted(done) == list(range(1000))
    assert len(by) == 3


@torch.no_grad()
def test_a_failure_in_a_thread_is_the_callers():
    def work(item):
        if item == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        share_out(work, items(10), CPU)


@torch.no_grad()
def test_results_come_in_order_and_a_thread_computes_alone():
    found = list(side_by_side(lambda item: (item, torch.get_num_threads()), items(20), CPU))
    assert found == [(item, 1) for item in range(20)]


def test_with_gradients_nothing_is_shared():
    by = []
    share_out(lambda item: by.append(threading.get_ident()), items(4), CPU)
    assert by == [threading.get_ident()] * 4


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2, 3, 4, 31])
def test_parts_are_the_whole(size):
    x = torch.randn(2, size, 5)
    out = torch.empty_like(x)
    in_parts(lambda a, b: torch.mul(a, 2, out=b), x, out)
    assert torch.equal(out, 2 * x)


@torch.no_grad()
def test_threads_are_in_the_callers_mode():
    with torch.inference_mode():
        seen = list(side_by_side(lambda _: torch.is_inference_mode_enabled(), items(3), CPU))
    assert seen == [True] * 3
