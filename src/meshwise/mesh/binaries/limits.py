"""What a download may cost at most: in time, and in what an answer becomes when it is decoded.

The other side is not trusted before a digest matched, and a tag's first answer has no digest to match. So
each size has a bound of its own, and all of a pull together have one deadline.
"""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from meshwise.core import messages

DOCUMENT_BYTES = 4 << 20
"""An index, a manifest, a token: image-spec's own advice for a manifest."""
LAYER_BYTES = 2 << 30
IMAGE_BYTES = 4 << 30
"""All layers of an image that may have to be read until the proxy is found."""
BINARY_BYTES = 1 << 30
UNPACKED_BYTES = 8 << 30
"""Of one archive: a gigabyte of zeros is a megabyte of gzip."""
TAR_HEADER_BYTES = 1 << 20
"""A long name, or the attributes of one member (pax)."""
PULL_S = 1800.0
SILENCE_S = 30.0
"""A server that sends nothing for so long is given up, and asked again."""


@dataclass(frozen=True)
class Deadline:
    """When a pull has to be done; passed down to all that waits."""

    allowed_s: float = PULL_S
    silence_s: float = SILENCE_S
    begun_s: float = field(default_factory=time.monotonic)

    def left_s(self, where: str) -> float:
        """Seconds until then. Raises MW815 when there are none."""
        left_s = self.begun_s + self.allowed_s - time.monotonic()
        if left_s <= 0:
            raise messages.DOWNLOAD_TOO_SLOW.error(where=where, limit=self.allowed_s)
        return left_s

    def wait_s(self, where: str) -> float:
        """How long one read may wait. Raises MW815."""
        return min(self.left_s(where), self.silence_s)

    def pause(self, pause_s: float, where: str) -> None:
        """Sleep between two attempts. Raises MW815."""
        time.sleep(min(pause_s, self.left_s(where)))


def parse_json(text: bytes, what: str) -> dict[str, object]:
    """A JSON object from outside. Raises ValueError, with words, for anything else, however deep."""
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{what} is not JSON") from error
    if not isinstance(document, dict):
        raise ValueError(f"{what} is not a JSON object")
    return document


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """A small regular file. Raises OSError, or ValueError when it is another thing or larger."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would hang the open
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise ValueError(f"it is larger than {limit_bytes} bytes")
    return content
