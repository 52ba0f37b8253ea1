"""`findings.json`: written by the analysis, read by everything that shows or decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.core.files import Folder, disk_troubles

FINDINGS_NAME = "findings.json"


def write_findings(directory: Path, document: Mapping[str, Any]) -> Path:
    """Replace the findings; returns their path. Infinite and undefined numbers are refused (ValueError):
    JSON has none, write null."""
    path = directory / FINDINGS_NAME
    with disk_troubles(directory), Folder.open(directory) as folder:
        folder.write(FINDINGS_NAME, json.dumps(document, indent=1, allow_nan=False).encode() + b"\n")
    return path


def read_findings(directory: Path) -> dict[str, Any]:
    """Raises MW604 when there are none, MW608 when they cannot be read."""
    path = directory / FINDINGS_NAME
    if not path.is_file():
        reason = "it has no findings.json; `meshwise analyze` writes it"
        raise messages.NOT_AN_ARCHIVE.error(str(directory), reason=reason)
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise messages.DAMAGED.error(str(path), reason=f"not JSON: {error}") from error
    if not isinstance(document, dict) or "findings" not in document:
        raise messages.DAMAGED.error(str(path), reason="it holds no `findings`")
    return document
