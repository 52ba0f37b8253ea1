"""What meshwise's own words mean, each in a few others, for whatever is shown to people."""

from __future__ import annotations

import re
from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "sidecar": "the mesh's proxy beside each service",
    "posture": "how far a mesh secures its traffic",
    "cell": "one combination of levels",
    "trial": "one cell measured once",
    "block": "one pass over all cells, in random order",
    "execution": "one life of the proxies' processes",
    "round": "trials that run at the same time",
    "arm": "one trial of a round",
    "A/A": "a cell measured against itself, which shows what noise does",
    "twin": "the same cell on processes of its own",
    "attempt": "one way to get what a caller should not have",
    "instrument": "what sends the load and takes the times",
}


def legend(text: str) -> str:
    """Of the words that the text uses, one line; empty if it uses none."""
    used = [word for word in GLOSSARY if re.search(rf"(?<![\w/-]){re.escape(word)}s?(?![\w/-])", text)]
    return " · ".join(f"{word}: {GLOSSARY[word]}" for word in used)
