"""The real istiod in tests: named, not found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshwise.mesh.istio.istiod.binary import VARIABLE


def named_istiod() -> Path:
    """Skips the test where none is named, with the remedy."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(
            f"set {VARIABLE} to a pilot-discovery: `meshwise proxies pull istiod` gets one, or in a "
            "checkout of istio/istio `go build ./pilot/cmd/pilot-discovery` makes one "
            "(docs/fidelity.md names the commit)"
        )
    return Path(path)
