"""`findings.json`: written by the analysis, read by everything that shows or decides.

It says what it was made from (`made_from`: digests of the archive's files) and has a digest of itself
(`sha256`, of its content, not of its layout). So findings made before a resume, or edited since, are known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshwise.archive.contents import read
from meshwise.archive.documents import damaged, json_object
from meshwise.core import messages
from meshwise.core.files import Folder, disk_troubles

FINDINGS_NAME = "findings.json"
_MOST_BYTES = 1 << 30
MADE_FROM = (
    *("study.yaml", "study.json", "environment.json", "design.parquet", "trials.parquet"),
    *("events.parquet", "counts.parquet", "functions.parquet", "profiles.parquet", "protection.parquet"),
)
"""What decides the findings; the trials' own files have their digests in `trials.parquet`."""


def signed(document: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """The document with what it was made from (`ArchiveReader.digests`) and its own digest."""
    content = {name: value for name, value in document.items() if name != "sha256"}
    body = content | {"made_from": {name: digests[name] for name in MADE_FROM if name in digests}}
    return body | {"sha256": _own_digest(body)}


def write_findings(directory: Path, document: Mapping[str, Any], digests: Mapping[str, str]) -> Path:
    """Sign and replace the findings; returns their path. Infinite and undefined numbers are refused
    (ValueError): JSON has none, write null."""
    content = json.dumps(signed(document, digests), indent=1, allow_nan=False).encode() + b"\n"
    with disk_troubles(directory), Folder.open(directory) as folder:
        folder.write(FINDINGS_NAME, content)
    return directory / FINDINGS_NAME


def read_findings(directory: Path) -> dict[str, Any]:
    """Raises MW604 when there are none, MW608 when they cannot be read."""
    path = directory / FINDINGS_NAME
    with Folder.open(directory) as folder:
        if not folder.exists(FINDINGS_NAME):
            reason = "it has no findings.json; `meshwise analyze` writes it"
            raise messages.NOT_AN_ARCHIVE.error(str(directory), reason=reason)
        document = json_object(read(folder, FINDINGS_NAME, _MOST_BYTES), str(path))
    if "findings" not in document:
        raise damaged(str(path), "it holds no `findings`")
    return document


def outdated(document: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Why these findings are not those of the archive with these digests; empty if they are."""
    body = {name: value for name, value in document.items() if name != "sha256"}
    if "sha256" not in document or not isinstance(made_from := document.get("made_from"), dict):
        return "it does not say what it was made from, as an earlier meshwise wrote it"
    if document["sha256"] != _own_digest(body):
        return "it was changed since the analysis wrote it"
    others = [name for name in MADE_FROM if made_from.get(name) != digests.get(name)]
    return f"it was made from another {' and '.join(others)}" if others else ""


def _own_digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
