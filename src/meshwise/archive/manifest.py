"""`manifest.json`: which content every file of an archive may have, so that no change passes for data.

    {"manifest": 1, "files": {"trials.parquet": ["<sha256>", "<sha256>"], ...}, "sha256": "<its own>"}

Files of a single trial are not listed here: their digests stand in the trial's row, and `trials.parquet` is
listed. So the manifest has the same few lines however many trials there are.

A file that grows with the study has two digests: what it was and what it is about to be. The manifest is
written first, then the file; a run that is killed at any moment between leaves one of the two. A reader
beside a run that lives reads again when the manifest has changed meanwhile. When a run ends in order there is
one digest each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from meshwise.archive.documents import damaged, json_object

MANIFEST_NAME = "manifest.json"
IMPORTED_NAME = "imported.json"
"""What an import has instead of a manifest (`archive.imported`)."""
_VERSION = 1
ABSENT = "absent"
"""Stands for the digest of a file that is not there."""


@dataclass(frozen=True)
class Manifest:
    files: Mapping[str, tuple[str, ...]]
    """Name in the directory -> SHA-256 of each content that it may have."""

    def encode(self) -> bytes:
        body = {"manifest": _VERSION, "files": {name: list(each) for name, each in self.files.items()}}
        return _encoded(body | {"sha256": _own_digest(body)})

    @classmethod
    def decode(cls, content: bytes, path: str) -> Self:
        """Raises MW608."""
        document = json_object(content, path)
        own = document.pop("sha256", None)
        if own != _own_digest(document):
            raise damaged(path, "its digest of itself does not fit")
        files = document.get("files")
        if document.get("manifest") != _VERSION or not isinstance(files, dict):
            raise damaged(path, "it is no manifest")
        for name, digests in files.items():
            if not (isinstance(digests, list) and digests and all(isinstance(each, str) for each in digests)):
                raise damaged(path, f"it has no digests of `{name}`")
        return cls({name: tuple(digests) for name, digests in files.items()})

    def allows(self, name: str, digest: str) -> bool:
        return digest in self.files.get(name, (ABSENT,))


def digest_of(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _own_digest(body: Mapping[str, object]) -> str:
    return digest_of(_encoded(body))


def _encoded(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"
