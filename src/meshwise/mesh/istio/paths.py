"""What a proxy with `normalize_path` makes of a path before anything judges it; for the simulation.

As Envoy 1.40 was seen to do it (RFC 3986 6.2.2): a backslash is a slash, characters that need no escape lose
it, dot segments are resolved, and what may not stand in a path is escaped. The query stays.
"""

from __future__ import annotations

import re

_NEEDS_NO_ESCAPE = re.compile(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")
_MAY_NOT_STAND = re.compile(r'["<>^`{|}]')


def normalised(path: str) -> str:
    before, mark, query = path.partition("?")
    plain = _NEEDS_NO_ESCAPE.sub(lambda found: chr(int(found[1], 16)), before.replace("\\", "/"))
    escaped = _MAY_NOT_STAND.sub(lambda found: f"%{ord(found[0]):02X}", _without_dots(plain))
    return f"{escaped}{mark}{query}"


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    ends_open = segments[-1] in (".", "..") and kept
    return "/" + "/".join(kept) + ("/" if ends_open else "")
