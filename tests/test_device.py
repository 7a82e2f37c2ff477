"""Devices, free memory and failures for want of it; CUDA is imitated, so no GPU is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hsidenoise import device
from hsidenoise.errors import DeviceError, SceneTooLargeError, UsageError

GIB = 1 << 30


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that the machine has this many GPUs."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Imaginary {index}")

    return pretend


@pytest.mark.parametrize(
    ("count", "name", "expected"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (1, "auto", "cuda:0"),
        (1, "cpu", "cpu"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_pick(gpus, count, name, expected):
    gpus(count)
    assert device.pick(name) == torch.device(expected)


@pytest.mark.parametrize("name", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:1 ", "cpu:0", "cuda:٣", "mps"])
def test_malformed_names_are_refused_with_the_choices(gpus, name):
    gpus(2)
    with pytest.raises(DeviceError, match=r"--device .* use auto, cpu, cuda or cuda:N .*cuda:1 \(Imaginary 1\), cpu"):
        device.pick(name)


def test_missing_gpu_names_what_is_there(gpus):
    gpus(1)
    with pytest.raises(DeviceError, match=r"--device cuda:1: no such GPU; use one of: cuda:0 \(Imaginary 0\), cpu"):
        device.pick("cuda:1")


@pytest.mark.parametrize(("built", "reason"), [(None, "built without CUDA"), ("13.0", "finds no usable GPU")])
def test_no_cuda_says_why(gpus, monkeypatch, built, reason):
    gpus(0)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(DeviceError, match=rf"--device cuda: .*{reason}; use --device cpu") as caught:
        device.pick("cuda")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2


def test_free_memory_of_a_gpu_counts_the_reserve(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: seen.append(where) or (5 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 1 * GIB)
    assert device.free_memory(torch.device("cuda", 1)) == 7 * GIB
    assert seen == [torch.device("cuda", 1)]


def test_free_memory_of_this_machine_is_plausible():
    free = device.free_memory(torch.device("cpu"))
    assert 16 << 20 < free < 1 << 50


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A made-up /proc and /sys/fs/cgroup; returns a function that writes files into them."""
    monkeypatch.setattr(device, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(device, "_CGROUP", tmp_path / "cgroup")

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("proc/meminfo", f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {32 << 20} kB\n")
    return write


def test_memory_without_groups_is_what_is_available(system):
    assert device.free_memory(torch.device("cpu")) == 32 * GIB


def v2(system, group, limit, used, cache=0):
    system(f"cgroup/{group}memory.max", f"{limit}\n")
    system(f"cgroup/{group}memory.current", f"{used}\n")
    system(f"cgroup/{group}memory.stat", f"anon 5\ninactive_file {cache}\nactive_file 7\n")


def test_cgroup_v2_the_tightest_ancestor_binds(system):
    system("proc/self/cgroup", "0::/slurm/job_1/step_0\n")
    v2(system, "slurm/job_1/step_0/", "max", 2 * GIB)
    v2(system, "slurm/job_1/", 8 * GIB, 3 * GIB, cache=GIB)
    v2(system, "slurm/", 60 * GIB, 4 * GIB)
    assert device.free_memory(torch.device("cpu")) == 6 * GIB


def test_cgroup_v2_unlimited(system):
    system("proc/self/cgroup", "0::/\n")
    v2(system, "", "max", 2 * GIB)
    assert device.free_memory(torch.device("cpu")) == 32 * GIB


def test_cgroup_without_statistics_still_limits(system):
    system("proc/self/cgroup", "0::/\n")
    system("cgroup/memory.max", str(4 * GIB))
    system("cgroup/memory.current", str(GIB))
    assert device.free_memory(torch.device("cpu")) == 3 * GIB


def test_cgroup_v1_in_a_container_whose_path_is_the_hosts(system):
    system("proc/self/cgroup", "11:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n")
    system("cgroup/memory/memory.limit_in_bytes", str(4 * GIB))
    system("cgroup/memory/memory.usage_in_bytes", str(3 * GIB))
    system("cgroup/memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {GIB}\n")
    assert device.free_memory(torch.device("cpu")) == 2 * GIB


def test_cgroup_overdrawn_is_zero(system):
    system("proc/self/cgroup", "0::/\n")
    v2(system, "", GIB, 2 * GIB)
    assert device.free_memory(torch.device("cpu")) == 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"SC_PAGE_SIZE": 4096, "SC_AVPHYS_PAGES": 1000, "SC_PHYS_PAGES": 3000}, 4096 * 1000),
        ({"SC_PAGE_SIZE": 16384, "SC_PHYS_PAGES": 3000}, 16384 * 1500),
    ],
)
def test_memory_without_proc(monkeypatch, tmp_path, names, expected):
    monkeypatch.setattr(device, "_PROC", tmp_path)
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.sysconf_names", names)
    monkeypatch.setattr("os.sysconf", names.__getitem__)
    assert device.free_memory(torch.device("cpu")) == expected


def test_memory_without_anything(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "_PROC", tmp_path)
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    monkeypatch.delattr("os.sysconf")
    assert device.free_memory(torch.device("cpu")) == 2 * GIB


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 60), lambda: np.empty(1 << 60, np.uint8)])
def test_real_allocation_failures_are_oom(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert device.is_oom(caught.value)


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:80] . DefaultCPUAllocator: not enough memory: you tried"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shape '[2, 3]' is invalid for input of size 5"), False),
        (ValueError("out of memory"), False),
        (SceneTooLargeError("scene.img announces 9 TB"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_is_oom(exc, expected):
    assert device.is_oom(exc) is expected
