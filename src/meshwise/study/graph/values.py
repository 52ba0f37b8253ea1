"""Values of a graph file in isotope's spellings, each with its place: sizes, shares, durations, choices.

Sizes are docker's (`10K`, `1 KB`, `16mb`, a plain number of bytes; all powers of 1024: go-units RAMInBytes),
durations are Go's (`1m30s`, `2.5ms`: time.ParseDuration).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshwise.core import messages
from meshwise.core.units import format_size
from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem, did_you_mean
from meshwise.study.graph.laws import MAX_BYTES

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(?:([kmgtp])i?)?b?", re.IGNORECASE)
_GO_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(ns|us|µs|μs|ms|s|m|h)")
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
       "h": 3600 * 10**9}  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?(?:[eE]-?[0-9]{1,3})?")


@dataclass(frozen=True)
class FileValue:
    """A value of the file and its path; what is wrong with it goes to `problems`, and the answer is None."""

    value: Any
    path: Path
    problems: list[Problem]

    def bad(self, reason: str, remedy: str, *, at_key: bool = False) -> None:
        facts: dict[str, object] = {"reason": reason, "remedy": remedy}
        self.problems.append(Problem(self.path, messages.BAD_VALUE, facts, at_key=at_key))

    def child(self, part: str | int) -> FileValue:
        return FileValue(self.value[part], (*self.path, part), self.problems)

    def mapping(self, what: str) -> dict[str, FileValue]:
        if not isinstance(self.value, dict):
            self.bad(f"{what} is a mapping of keys", f"not a {kind(self.value)}")
            return {}
        return {key: self.child(key) for key in self.value}

    def keys(
        self, what: str, known: Iterable[str], without_effect: Iterable[str], notes: dict[str, int]
    ) -> dict[str, FileValue]:
        """The keys of a mapping; unknown ones are refused, those without effect are counted in `notes`."""
        found = self.mapping(what)
        known, without_effect = list(known), list(without_effect)
        for key, node in list(found.items()):
            if key in without_effect:
                notes[key] = notes.get(key, 0) + 1
            elif key not in known:
                names = [*known, *without_effect]
                facts: dict[str, object] = {
                    "key": key if len(key) <= 40 else f"{key[:40]}...",
                    "meant": did_you_mean(key, names),
                    "known": ", ".join(f"`{name}`" for name in known),
                }
                self.problems.append(Problem(node.path, messages.UNKNOWN_KEY, facts, at_key=True))
                del found[key]
        return found

    def items(self, what: str) -> list[FileValue]:
        if not isinstance(self.value, list):
            self.bad(f"`{what}` is a list", f"not a {kind(self.value)}")
            return []
        return [self.child(index) for index in range(len(self.value))]

    def word(self, what: str) -> str | None:
        if isinstance(self.value, str) and self.value:
            return self.value
        self.bad(f"`{what}` is a word", f"not a {kind(self.value)}")
        return None

    def flag(self, what: str) -> bool | None:
        if self.value in ("true", "false"):
            return bool(self.value == "true")
        self.bad(f"`{what}` is `true` or `false`", f"not {self._shown}")
        return None

    def choice(self, what: str, known: Iterable[str]) -> str | None:
        names = [str(name) for name in known]
        if self.value in names:
            return str(self.value)
        facts: dict[str, object] = {
            "text": self._shown.strip("`"), "kind": what, "known": ", ".join(f"`{name}`" for name in names),
            "meant": did_you_mean(self.value, names) if isinstance(self.value, str) else "",
        }  # fmt: skip
        self.problems.append(Problem(self.path, messages.UNKNOWN_LEVEL, facts))
        return None

    def size(self) -> int | None:
        match = _SIZE.fullmatch(self.value) if isinstance(self.value, str) else None
        if match is None:
            self.bad(f"{self._shown} is not a size", "bytes, or with a unit: `512`, `10K`, `1 MB`")
            return None
        size = int(float(match[1]) * 1024 ** (" kmgtp".index((match[2] or " ").lower())))
        if size > MAX_BYTES:
            self.bad(f"{self._shown} is too much", f"the most is {format_size(MAX_BYTES)}")
            return None
        return size

    def share(self) -> float | None:
        """An error rate: `0.01%`, or a number up to 1."""
        text = self.value if isinstance(self.value, str) else ""
        number = text.removesuffix("%").strip()
        if not _NUMBER.fullmatch(number):
            self.bad(f"{self._shown} is not an error rate", "per cent or a share: `0.1%`, `0.001`")
            return None
        share = float(number) / (100 if text.endswith("%") else 1)
        if share > 1:
            self.bad(f"the error rate {self._shown} is beyond 1", "at most `100%`, which is 1")
            return None
        return share

    def probability(self) -> float | None:
        """isotope's are whole per cent from 0 to 100, and 0 is as if none was said: the call is always made
        (isotope/service/pkg/srv/executable.go, shouldExecute). `2.5%` is understood as well."""
        text = self.value if isinstance(self.value, str) else ""
        number = text.removesuffix("%").strip()
        if not _NUMBER.fullmatch(number) or ("." in number and not text.endswith("%")):
            self.bad(
                f"{self._shown} is not a probability", "per cent, as isotope has it: `25` (or `25%`, `2.5%`)"
            )
            return None
        share = float(number) / 100
        if share > 1:
            self.bad(f"the probability {self._shown} is beyond 1", "per cent from 1 to 100")
            return None
        return share or 1.0

    def duration_ns(self) -> int | None:
        text = self.value if isinstance(self.value, str) else ""
        parts = list(_GO_PART.finditer(text))
        if text != "0" and (not parts or "".join(part[0] for part in parts) != text):
            self.bad(f"{self._shown} is not a duration", "a number and a unit: `10ms`, `1.5s`")
            return None
        return round(sum(float(part[1]) * _NS[part[2]] for part in parts))

    @property
    def _shown(self) -> str:
        if not isinstance(self.value, str):
            return f"a {kind(self.value)}"
        return f"`{self.value if len(self.value) <= 40 else self.value[:40] + '...'}`"


def kind(value: object) -> str:
    return {"dict": "mapping", "list": "list", "NoneType": "missing value"}.get(type(value).__name__, "word")
