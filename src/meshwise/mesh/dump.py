"""What proxies say of themselves after a failed trial, for a person to read: bounded, and without secrets.

Rules of this file:
- It never makes a failure worse: a proxy that does not answer is a file that says so.
- Keys are not in what proxies tell (Envoy redacts them); whatever looks like one, or like a token or a
  password, is removed as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.reach import Reach
from meshwise.mesh.together import together

MOST_BYTES = 512 << 10
"""Of one file: all of a sidecar that knows thirty services."""
MOST_PODS = 8
"""The client's first; a fault of one proxy shows in those of its peers."""

_BLOT = "[redacted]"
_SECRETS: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), _BLOT),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+"), _BLOT),
    (re.compile(r"(?i)\bbearer\s+(?!\[)[^\s\"']+"), f"Bearer {_BLOT}"),
    (re.compile(r"(\b[a-z][a-z+]*://[^\s:/@\"]*):[^\s@/\"]+@"), rf"\1:{_BLOT}@"),
)
"""Private keys; JSON Web Tokens; other bearers; passwords in URLs."""


def readable(text: str) -> str:
    """Without secrets, and cut where it is too long."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    if len(text) <= MOST_BYTES:
        return text
    return f"{text[:MOST_BYTES]}\n... {len(text) - MOST_BYTES} characters more were left out\n"


def ask_all(reach: Reach, port: int, pods: Sequence[str], questions: Mapping[str, str]) -> dict[str, str]:
    """`port`: of the proxies' administration. `questions`: file name to path. Answers by `pod.file`."""

    def ask(pod: str) -> dict[str, str]:
        found = {}
        for file, path in questions.items():
            try:
                text = reach.get(pod, port, path).decode(errors="replace")
            except MeshwiseError as error:
                text = f"{error}\n"
            found[f"{pod}.{file}"] = readable(text)
        return found

    return {name: text for answers in together(ask, pods[:MOST_PODS]) for name, text in answers.items()}
