"""What this machine really gives: cores, memory, disk, bf16, a compiler. Reads /proc and cgroups, no torch."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Hardware:
    """Facts about the machine, container limits included."""

    cores: int
    """Usable CPU cores (affinity and cgroup quota, rounded down, at least 1)."""
    memory_bytes: int
    """Memory that this process may use (physical or cgroup limit, the smaller)."""
    cpu: str
    """Processor name."""
    flags: frozenset[str]
    """CPU feature flags as the kernel names them."""
    compiler: str | None
    """Path of a C++ compiler, which `torch.compile` needs on a CPU; None without one."""

    @property
    def bf16_is_fast(self) -> bool:
        """Whether the CPU has bf16 multiply-add instructions (AVX-512 BF16, AMX or Arm BF16)."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _cgroup_cores() -> float:
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if quota not in ("", "max"):
        return int(quota) / int(period or 100000)
    old_quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
    old_period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    if old_quota not in ("", "-1") and old_period:
        return int(old_quota) / int(old_period)
    return float("inf")


def _memory_limit() -> int:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        limit = 8 << 30
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(path).strip()
        if text.isdigit():
            limit = min(limit, int(text))
    return limit


@lru_cache(maxsize=1)
def hardware() -> Hardware:
    """Facts about this machine, read once."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags: set[str] = set()
    name = platform.processor() or platform.machine()
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags.update(value.split())
        elif key.strip() == "model name":
            name = value.strip()
    return Hardware(
        cores=max(1, int(min(affinity, _cgroup_cores()))),
        memory_bytes=_memory_limit(),
        cpu=name,
        flags=frozenset(flags),
        compiler=os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++"),
    )


def disk_free(path: Path) -> int:
    """Free bytes on the disk that holds `path` (or its nearest existing parent)."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def peak_bytes() -> int:
    """Highest resident memory of this process so far, in bytes."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):  # unlike ru_maxrss, not inherited from the process that started this one
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
