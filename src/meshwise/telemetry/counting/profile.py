"""Reads what callgrind wrote of one window: instructions by function, without those that a function calls.

The format is version 1 of callgrind's profile data (valgrind's manual, "Callgrind Format Specification"):
`ob=` names the object file and `fn=` the function that the following cost lines belong to; names are written
once with a number and later by the number alone; the cost line behind `calls=` is what the called functions
cost and is left out. The `summary:` of the first part after a zero is wrong in 3.19, so sums are made here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from meshwise.telemetry.counting.seam import Function

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")
_RECURSION = re.compile(r"'\d+$")
"""callgrind's mark of a function within itself."""
UNKNOWN = "???"


def functions(lines: Iterable[str]) -> Mapping[Function, int]:
    """Instructions of each function that has some. Raises ValueError for what is no profile."""
    names: dict[tuple[str, str], str] = {}
    costs: Counter[Function] = Counter()
    binary = function = ""
    positions, events = 1, ["Ir"]
    inclusive = known = False
    for line in lines:
        if line[:1] in "0123456789+-*" and line.strip():
            if inclusive:
                inclusive = False
            else:
                costs[Function(binary, function)] += _cost(line, positions, events)
            continue
        key, separator, value = line.rstrip("\n").partition("=")
        match key if separator else line.partition(":")[0]:
            case "ob":
                binary = _named(names, "ob", value)
            case "fn":
                function = _RECURSION.sub("", _named(names, "fn", value))
            case "cob":
                _named(names, "ob", value)
            case "cfn":
                _named(names, "fn", value)
            case "calls":
                inclusive = True
            case "positions":
                positions = len(line.split()) - 1
            case "events":
                events = line.split()[1:]
                known = "Ir" in events
                if not known:
                    break
    if not known:
        raise ValueError("it is no profile of callgrind's")
    return {each: cost for each, cost in costs.items() if cost}


def _cost(line: str, positions: int, events: list[str]) -> int:
    """Values that are nought at the end of a line may be left out."""
    values = line.split()[positions:]
    at = events.index("Ir")
    return int(values[at]) if at < len(values) else 0


def _named(names: dict[tuple[str, str], str], kind: str, text: str) -> str:
    """`(3) name` gives a number its name, `(3)` stands for it, anything else is a name itself."""
    match = _NAME.fullmatch(text)
    if match is None:
        name = text
    elif match[2] is None:
        name = names[kind, match[1]]
    else:
        name = names[kind, match[1]] = match[2]
    return "" if kind == "ob" and name == UNKNOWN else name
