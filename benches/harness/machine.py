"""Describes the machine and the software of a measurement; names no host and no path."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "windlass",
    "torch",
    "safetensors",
    "huggingface_hub",
    "transformers",
    "numpy",
    "fastsafetensors",
    "runai-model-streamer",
    "tensorizer",
    "flashpack",
)
GIBIBYTE = 2**30


def describe_machine(work_folder: Path) -> dict[str, str]:
    """Return the facts that a reader needs to judge the numbers."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIBIBYTE:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "virtual machine": "yes"
        if "hypervisor" in _field(Path("/proc/cpuinfo"), "flags")
        else "no",
        "transparent huge pages": _setting(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "unwritten files": _write_back_limits(),
        "file system": _file_system(work_folder),
        "disk": _disk(work_folder),
        "python": platform.python_version(),
        "compiler": _compiler(),
        "commit": _commit(),
    }


def package_versions() -> dict[str, str]:
    """Versions of the libraries that take part, those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _field(source: Path, name: str) -> str:
    for line in source.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _setting(source: Path) -> str:
    """Return the bracketed word of a sysfs choice such as `always [madvise] never`."""
    try:
        return source.read_text().partition("[")[2].partition("]")[0]
    except OSError:
        return "unknown"


def _write_back_limits() -> str:
    """Return how much may wait to be written before the kernel writes, and before writers wait."""
    limits = [
        Path(f"/proc/sys/vm/{name}").read_text().strip()
        for name in ("dirty_background_ratio", "dirty_ratio")
    ]
    return f"written from {limits[0]} % of memory on, writers wait from {limits[1]} %"


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, from the longest mount point."""
    folder = folder.resolve()
    best, kind = 0, "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount_point = Path(left.split()[4])
        depth = len(mount_point.parts)
        if folder.is_relative_to(mount_point) and depth >= best:
            best, kind = depth, right.split()[0]
    return kind


def _disk(folder: Path) -> str:
    """Return what sysfs tells of the block device below `folder`."""
    device = folder.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    if not (block / "queue").is_dir():
        block = block.parent  # A partition: its queue is the disk's.
    if not (block / "queue").is_dir():
        return "unknown"
    read_ahead = (block / "queue/read_ahead_kb").read_text().strip()
    rotational = (block / "queue/rotational").read_text().strip() == "1"
    kind = "rotational" if rotational else "solid state"
    return f"{block.name} ({kind}, read-ahead {read_ahead} KiB)"


def _compiler() -> str:
    return _answer(["cc", "--version"]).partition("\n")[0]


def _commit() -> str:
    """Return the commit of this repository, with `+` where the working tree differs."""
    return _answer(["git", "describe", "--always", "--abbrev=12", "--dirty=+"])


def _answer(command: list[str]) -> str:
    """Return what a program says, or `unknown` where it is missing or fails."""
    program = shutil.which(command[0])
    if program is None:
        return "unknown"
    answer = subprocess.run(  # noqa: S603
        [program, *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return answer.stdout.strip() or "unknown"


def environment() -> dict[str, str]:
    """Return the environment of every engine: nobody downloads, nobody draws."""
    quiet = {"HF_HUB_OFFLINE": "1", "WINDLASS_NO_PROGRESS": "1", "TQDM_DISABLE": "1"}
    return os.environ | quiet


def require_linux() -> None:
    """Stop where cache states cannot be made and shown."""
    if sys.platform != "linux":
        sys.exit("benches: Linux only: the page cache is controlled by fadvise and cachestat")
