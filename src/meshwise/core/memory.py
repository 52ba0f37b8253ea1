"""How much memory may still be taken: the machine's, and what the control groups of this process leave."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ROOT = Path("/")


def available_bytes(root: Path = _ROOT) -> int:
    """Without swapping, and within the limits of every control group (v2 or v1) that this process is in.

    `root`: where /proc and /sys are. Sources: proc(5), Documentation/admin-guide/cgroup-v2.rst of Linux.
    """
    return min([_machine(root), *(_left(group, files) for group, files in _groups(root))])


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_ENDLESS = 2**62


def _machine(root: Path) -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(root: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    """The directories of the groups, innermost first, and how their files are called."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        top, files = (root / "sys/fs/cgroup", _V2) if number == "0" else (root / "sys/fs/cgroup/memory", _V1)
        inner = top / path.lstrip("/")
        found += [(group, files) for group in (inner, *inner.parents) if group.is_relative_to(top)]
    return found


def _left(group: Path, files: tuple[str, str, str]) -> int:
    """What may be taken until the group is full; its page cache gives way."""
    limit, used = (_text(group / name).strip() for name in files[:2])
    if not limit.isdigit() or not used.isdigit():
        return _ENDLESS
    cache = re.search(rf"^{files[2]} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
    return max(0, int(limit) - int(used) + (int(cache[1]) if cache else 0))


def _text(path: Path) -> str:
    """Empty for what is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""
