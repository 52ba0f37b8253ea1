"""Which linkerd2-proxy runs: the one that MESHWISE_LINKERD_PROXY names, else the newest in the cache."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from meshwise.core import messages
from meshwise.core.patience import ANSWER_S
from meshwise.core.process import ProgramOutput, ask
from meshwise.mesh.binaries.known import LATEST_KNOWN
from meshwise.mesh.binaries.store import OVERRIDES, locate

PINNED = ("v2.366.0",)
"""Versions of linkerd2-proxy whose API and metrics meshwise knows (edge-26.8.3 has the first)."""
TRIED_REVISIONS = ("29637b64",)
"""Builds of one's own that were tried, by the beginning of their commit: 7 commits after v2.366.0."""

_BANNER = re.compile(r"linkerd2_proxy: (\S+) (\S+) \(([0-9a-f]+)\)")


def proxy_path() -> Path:
    """Raises MW811 when there is none, MW423 when it cannot be run."""
    path = locate("linkerd", os.environ)
    if path is None:
        raise messages.PROXY_ABSENT.error(
            name=f"linkerd@{LATEST_KNOWN['linkerd']}", variable=OVERRIDES["linkerd"]
        )
    if not os.access(path, os.X_OK):
        raise messages.NOT_LINKERD.error(path=path, reason="not an executable file")
    return path


def pinned() -> str:
    return ", ".join(PINNED)


def introduced(path: Path) -> ProgramOutput:
    """What it says when it is started without an environment. Raises MW423."""
    try:
        return ask([path], ANSWER_S, environment={})
    except (OSError, ValueError) as error:
        raise messages.NOT_LINKERD.error(path=path, reason=str(error)) from error


@lru_cache(maxsize=4)
def facts(path: Path) -> Mapping[str, str]:
    """`version`, `revision`, `build`, `path`, `digest`, `tried`. Raises MW423 for another program.

    The proxy has no `--version`: started without an environment it says its version and then, that its
    configuration is missing (exit status 64).
    """
    answer = introduced(path)
    match = _BANNER.search(answer.text)
    if not match:
        reason = f"it does not introduce itself as linkerd2-proxy; it {answer.ending}"
        raise messages.NOT_LINKERD.error(path=path, reason=reason)
    version = match[2] if match[2].startswith("v") else f"v{match[2]}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "version": version,
        "revision": match[3],
        "build": match[1],
        "path": str(path),
        "digest": f"sha256:{digest}",
        "tried": "yes" if _is_tried(version, match[3]) else f"no; meshwise was tried with {pinned()}",
    }


def untried() -> str | None:
    """The version of a binary that meshwise was not tried with; None for one that it was, or without any."""
    path = locate("linkerd", os.environ)
    found = facts(path) if path else {"tried": "yes"}
    return None if found["tried"] == "yes" else f"{found['version']} ({found['revision']})"


def _is_tried(version: str, revision: str) -> bool:
    return version in PINNED or revision.startswith(TRIED_REVISIONS)
