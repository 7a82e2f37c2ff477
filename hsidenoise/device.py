"""Where the network runs, how much memory is free there, and whether a failure was for want of it."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DeviceError, HSIDenoiseError

if TYPE_CHECKING:
    import torch

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_ASSUMED = 2 << 30  # where the system tells nothing (Windows): a small laptop's share
_OOM_TEXTS = (
    "out of memory",  # CUDA driver and allocator
    "not enough memory",  # CPU allocator, Windows
    "can't allocate memory",  # CPU allocator, Linux and macOS
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def pick(name: str) -> torch.device:
    """The device of that name.

    Parameters
    ----------
    name
        ``"auto"`` (CUDA if there is any, else the CPU), ``"cpu"``, ``"cuda"`` (the first) or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        There is no such device, or no such name.
    """
    import torch

    match = re.fullmatch(r"auto|cpu|cuda(?::([0-9]+))?", name)
    if match is None:
        raise DeviceError(f"--device {name!r} is not a device; use auto, cpu, cuda or cuda:N (here: {_present()})")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index = int(match[1] or 0)
    if not torch.cuda.is_available():
        without = torch.version.cuda is None and torch.version.hip is None
        reason = "this PyTorch is built without CUDA" if without else "PyTorch finds no usable GPU"
        raise DeviceError(f"--device {name}: {reason}; use --device cpu (here: {_present()})")
    if index >= torch.cuda.device_count():
        raise DeviceError(f"--device {name}: no such GPU; use one of: {_present()}")
    return torch.device("cuda", index)


def count(name: str) -> int:
    """GPUs that the device of that name stands for; torch, slow to import, is asked only where there may be one.

    Raises
    ------
    DeviceError
        As `pick`.
    """
    if name == "cpu" or (name == "auto" and _without_driver()):
        return 0
    if pick(name).type == "cpu":
        return 0
    import torch

    return torch.cuda.device_count() if name == "auto" else 1


def _without_driver() -> bool:
    """Whether there is no GPU for certain: neither NVIDIA's driver, which PyTorch needs, nor AMD's."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def _present() -> str:
    """The devices of this machine, for messages."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ", ".join([f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count)] + ["cpu"])


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on `device` now.

    On CUDA what the driver has left plus what PyTorch holds in reserve; on the CPU `machine_memory`.
    """
    if device.type == "cuda":
        import torch

        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserve
    return machine_memory()


def machine_memory() -> int:
    """Bytes the system can give without swapping, or less where a control group (container, batch job) sets a limit."""
    return max(0, min([_system_memory(), *_group_memory()]))


def _system_memory() -> int:
    """Memory the system can give without swapping."""
    try:
        for line in (_PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no /proc: macOS, BSD, Windows
    if not hasattr(os, "sysconf"):
        return _ASSUMED
    page = os.sysconf("SC_PAGE_SIZE")
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return page * os.sysconf("SC_AVPHYS_PAGES")
    return page * os.sysconf("SC_PHYS_PAGES") // 2  # macOS tells only what is built in


def _group_memory() -> list[int]:
    """What is left under each limit of the control groups this process is in (cgroup v1 and v2)."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUP, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _CGROUP / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # A limit binds whoever is below it. Inside a container the path may be the host's, and not there at all.
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root):
                left += _left_in(group, *names)
    return left


def _left_in(group: Path, limit: str, usage: str, cache: str) -> list[int]:
    """Limit minus usage of one control group, as a list of one; empty where there is no limit."""
    try:
        most, used = (group / limit).read_text().strip(), int((group / usage).read_text())
    except OSError:
        return []  # the root group has no such files
    if most == "max":
        return []
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        stat = {}
    # File cache counts as used, yet the kernel drops it when asked: reading a large scene must not look like want.
    return [int(most) - used + int(stat.get(cache, 0))]


def is_oom(exc: BaseException) -> bool:
    """Whether `exc` means that memory, of the device or of the machine, ran out, so that a smaller tile may do."""
    import torch

    if isinstance(exc, HSIDenoiseError):  # a scene refused as too large stays refused
        return False
    if isinstance(exc, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(exc, RuntimeError) and any(text in str(exc) for text in _OOM_TEXTS)
