"""What `plan` says of the machine that a study needs, and of the one that it is asked on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from meshwise.core.errors import MeshwiseError
from meshwise.core.memory import available_bytes
from meshwise.core.units import format_size, plural
from meshwise.study.design.needs import needs_of
from meshwise.study.model import MeshName, Study
from meshwise.telemetry.counting import valgrind
from meshwise.testbed.local import checks

_PROXIES = {MeshName.ISTIO: "Envoy", MeshName.LINKERD: "Linkerd sidecar"}


def needs_document(study: Study) -> dict[str, Any]:
    """As plain values; units in the keys."""
    needs = needs_of(study)
    return {
        "environments": needs.environments,
        "sidecars": needs.sidecars,
        "memory_bytes": needs.memory_bytes,
        "memory_available_bytes": available_bytes(),
        "inotify_instances": 0,  # proxies watch no files since their configuration comes over streams
        "inotify_limit": int(Path("/proc/sys/fs/inotify/max_user_instances").read_text()),
        "connections": needs.connections,
    }


def needs_line(study: Study) -> str:
    """Everything of a study that runs at the same time, and what there is of it here."""
    needs = needs_of(study)
    proxies = [
        plural(count, name) for mesh, name in _PROXIES.items() if (count := needs.workloads.get(mesh, 0))
    ]
    parts = [plural(needs.environments, "environment"), *proxies]
    parts.append(f"about {format_size(needs.memory_bytes)} of memory ({format_size(available_bytes())} here)")
    return f"at the same time: {', '.join(parts)}"


def no_counter(study: Study) -> str:
    """Why a study that counts could not count on this machine, with the remedy; empty if it could."""
    if study.counting is None:
        return ""
    try:
        valgrind.find(os.environ)
    except MeshwiseError as error:
        return f"{error.what} [{error.code}]; {error.remedy}"
    return ""


def lacks(study: Study) -> list[str]:
    """Why a run would be refused on this machine, each with its remedy."""
    parts = [needs_of(study)] + ([needs_of(study, counting=True)] if study.counting else [])
    return [
        f"this machine cannot run it: {error.what} [{error.code}]; {error.remedy}"
        for needs in parts
        for error in checks.lacking(needs)
    ]
