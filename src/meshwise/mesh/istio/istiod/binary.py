"""Which istiod is asked: the path that was given, the one that MESHWISE_ISTIOD names, else the newest stored.

MESHWISE_ISTIOD is a path of a `pilot-discovery`, or `istiod@VERSION` for one that `meshwise proxies pull` has
stored. Nothing of istiod runs unless it is asked for (`control_plane: istiod`, `meshwise mesh diff`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import ANSWER_S
from meshwise.core.process import ask
from meshwise.mesh.binaries.known import LATEST_KNOWN
from meshwise.mesh.binaries.store import OVERRIDES, locate

VARIABLE = OVERRIDES["istiod"]


def istiod_path(given: Path | None = None) -> Path:
    """Raises MW440 when there is none that could be run, and as `BinaryStore.find` for a stored one."""
    named = os.environ.get(VARIABLE, "")
    path = given or locate("istiod", os.environ)
    if path is None:
        raise _missing(named or "pilot-discovery", "none is named, and none is stored")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise _missing(path, "not an executable file")
    return path.absolute()


def facts(path: Path) -> Mapping[str, str]:
    """`version`, `revision` (`unknown` for a build that was not told them), `path`, `digest`. Raises MW440
    for another program."""
    stat = path.stat()
    return _facts(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)
def _facts(path: Path, size_bytes: int, changed_ns: int) -> Mapping[str, str]:
    try:
        answer = ask([path, "version", "--output", "json"], ANSWER_S, environment={})
        said = answer.text[answer.text.index("{") :]  # a line of its log may come before it, or after it
        told = json.JSONDecoder().raw_decode(said)[0]["clientVersion"]
        version, revision = str(told["version"]), str(told["revision"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _missing(path, f"its `version` is not istiod's ({error})") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"version": version, "revision": revision, "path": str(path), "digest": f"sha256:{digest}"}


def _missing(path: object, reason: str) -> MeshwiseError:
    return messages.ISTIOD_MISSING.error(
        path=path, reason=reason, name=f"istiod@{LATEST_KNOWN['istiod']}", variable=VARIABLE
    )
