"""How the report speaks: names of metrics, numbers with a fixed unit per column, verdicts as words, remedies.

Rules: a verdict is a word, never a colour alone; a sentence never claims more than its interval does;
what is not distinguishable is never called zero; a flag always comes with what to do about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshwise.findings.finding import Finding
from meshwise.findings.subject import Interaction, MeshDifference, StepDifference
from meshwise.stats.verdict import Direction, Verdict
from meshwise.study.factors import BY_FIELD
from meshwise.study.security import LADDER_NAMES

MIB = 2**20


@dataclass(frozen=True)
class Form:
    """One unit and one number of decimals for everything in a column."""

    unit: str
    divisor: float = 1.0
    decimals: int = 0
    most: float = math.inf
    """A bound beyond it, either way, is shown as `>most`: an interval that wide needs no digits."""

    def value(self, number: float | None) -> str:
        if number is None or not math.isfinite(number):
            return "n/a" if number is None or math.isnan(number) else "inf"
        text = f"{number / self.divisor:.{self.decimals}f}"
        return text.removeprefix("-") if not text.strip("-0.") else text

    def level(self, finding: Finding | None) -> str:
        """A value, or `>=x` where only a lower bound is known."""
        if finding is not None and finding.estimate is None and finding.low is not None:
            return f">={self.value(finding.low)}"
        return self.value(finding.estimate if finding else None)

    def signed(self, number: float | None) -> str:
        text = self.value(number)
        return text if number is None or text.startswith(("-", "n")) or not text.strip("0.") else f"+{text}"

    def bound(self, number: float) -> str:
        """One end of an interval."""
        if abs(number) <= self.most:
            return self.value(number)
        most = f"{self.most / self.divisor:.0f}"
        return f">{most}" if number > 0 else f"<-{most}"

    def rough(self, number: float) -> str:
        """Three digits are enough for a limit."""
        decimals = max(0, min(self.decimals, 2 + _digits(abs(number) / self.divisor)))
        return f"{number / self.divisor:.{decimals}f}"

    def interval(self, low: float | None, high: float | None) -> str:
        return "" if low is None or high is None else f"[{self.bound(low)}, {self.bound(high)}]"

    def with_unit(self, number: float | None) -> str:
        return f"{self.value(number)} {self.unit}".rstrip()


_ENDLESS = 1e15
"""Beyond it no form is short; it only must not overflow."""


def form_for(unit: str, values: Iterable[float | None], half_widths: Iterable[float | None] = ()) -> Form:
    """The form in which the largest value is short, a typical half-width shows one digit, and a typical value
    two, however wide the intervals are and however far one value stands out."""
    sizes = sorted(abs(value) for value in values if value and math.isfinite(value))
    widths = sorted(
        width for width in half_widths if width is not None and math.isfinite(width) and width > 0
    )
    largest = min(max(sizes, default=0.0), _ENDLESS)
    typical_size = sizes[len(sizes) // 2] if sizes else 0.0
    shown, divisor = _unit(unit, min(largest, 5 * typical_size))
    typical = min(widths[len(widths) // 2] if widths else largest / 300, _ENDLESS) / divisor
    middle = min(typical_size, _ENDLESS) / divisor
    decimals = max(_digits(typical), _digits(middle) + 1 if middle else 0)
    digits_before = len(str(int(largest / divisor)))
    reach = max(largest, min(widths[len(widths) // 2], _ENDLESS) if widths else 0.0)
    most = _round_up(FAR_BEYOND * reach / divisor) * divisor if reach else math.inf
    return Form(shown, divisor, max(0, min(decimals, 3, 5 - digits_before)), most)


FAR_BEYOND = 10
"""Times the largest value of a column, or its typical half-width: where a bound is shown as beyond it."""


def _digits(value: float) -> int:
    """Decimals that show the first digit of a positive value."""
    return -math.floor(math.log10(value)) if value > 0 else 0


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / power) * power


def _unit(base: str, largest: float) -> tuple[str, float]:
    """`us/node` is shown as `us/node` or `ms/node`."""
    base, per, step = base.partition("/") if not base.startswith("1/") else (base, "", "")
    shown, divisor = _plain_unit(base, largest)
    return shown + per + step, divisor


def _plain_unit(base: str, largest: float) -> tuple[str, float]:
    if base == "us":
        return ("ms", 1e3) if largest >= 1e4 else ("us", 1.0)
    if base == "bytes":
        return ("MiB", MIB) if largest >= MIB / 8 else ("KiB", 2**10)
    if base == "ratio":
        return "%", 0.01
    if base == "instructions" and largest >= 1e6:
        return "thousand instructions", 1e3
    return {"rps": "requests/s", "1/s": "requests/s"}.get(base, base), 1.0


def typeset(text: str) -> str:
    """With true minus signs, for the page; the terminal keeps the plain one, which can be pasted."""
    return text.replace("-", "−")


def axis_number(value: float) -> str:
    """A tick: `0`, `0.5`, `250`, `12k`."""
    if abs(value) >= 10_000:
        return typeset(f"{value / 1000:g}k")
    return typeset(f"{value:g}")


def axis_time_us(value_us: float) -> str:
    """A tick of a time axis with its unit: `200 us`, `5 ms`, `1 s`."""
    if value_us >= 1e6:
        return f"{value_us / 1e6:g} s"
    return f"{value_us / 1e3:g} ms" if value_us >= 1e3 else f"{value_us:g} us"


def rung_order(posture: str) -> tuple[int, str]:
    """From the bottom up; any other posture (factorial studies) stands after them in alphabetical order."""
    known = posture in LADDER_NAMES
    return (LADDER_NAMES.index(posture), "") if known else (len(LADDER_NAMES), posture)


def is_neutral(field: str, value: object) -> bool:
    """Whether a level that everything has need not be said."""
    return value in BY_FIELD[field].ordinary


def is_idle(field: str, scope: Mapping[str, object]) -> bool:
    """Whether another level leaves this factor without a meaning there: no policy entries, of no kind."""
    needs = BY_FIELD[field].needs
    return needs is not None and scope.get(needs[0]) == needs[1]


def varying(scopes: Sequence[Mapping[str, object]], names: Sequence[str]) -> list[str]:
    """Factors of `names` whose levels have to be said: those that vary within one protocol (http2 has streams
    where http1 has connections; it need not be said each time), and the protocol."""
    found = []
    for name in names:
        seen: dict[object, set[object]] = {}
        for scope in scopes:
            seen.setdefault(None if name == "protocol" else scope.get("protocol"), set()).add(scope.get(name))
        if any(len(levels) > 1 for levels in seen.values()):
            found.append(name)
    return found


def varying_within(scopes: Sequence[Mapping[str, object]], names: Sequence[str]) -> list[str]:
    """The same of those that vary within one mesh: what differs between two (a key) is said elsewhere."""
    meshes = dict.fromkeys(scope.get("mesh") for scope in scopes)
    found = [varying([scope for scope in scopes if scope.get("mesh") == mesh], names) for mesh in meshes]
    return [name for name in names if any(name in each for each in found)]


def level(field: str, value: object) -> str:
    """A level of a factor, short: `800/s`, `request 1KiB`, `16 connections`."""
    return BY_FIELD[field].label(value)


@dataclass(frozen=True)
class VerdictWords:
    """`word` alone carries the meaning; `detail` says below what, or within what."""

    word: str
    detail: str = ""
    sure: bool = False

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


def verdict_words(finding: Finding | None, form: Form) -> VerdictWords:
    """`costs`, `saves`, `~ not distinguishable (below 12 us)`, ... for a difference."""
    if finding is None or finding.verdict is None:
        return VerdictWords("")
    if finding.verdict is Verdict.DISTINGUISHABLE:
        word = str(finding.direction or _direction(finding))
        more = " more" if word == Direction.COSTS else ""
        match finding.subject:
            case Interaction():
                word = f"{word}{more} together"
            case MeshDifference(_, first) | StepDifference(_, first):
                word = f"{first} {word}{more}"
        return VerdictWords(word, sure=True)
    if finding.verdict is Verdict.EQUIVALENT and finding.equivalent_within is not None:
        return VerdictWords("~ equivalent", f"within\u00a0{100 * finding.equivalent_within:g}%")
    if finding.verdict in (Verdict.NOT_DISTINGUISHABLE, Verdict.EQUIVALENT):
        limit = max((limit for limit in (finding.mde, finding.floor) if limit is not None), default=None)
        if limit is not None and limit > form.most:
            return VerdictWords("~ not distinguishable", "too\u00a0noisy")
        return VerdictWords(
            "~ not distinguishable", f"below\u00a0{form.rough(limit)}" if limit is not None else ""
        )
    return VerdictWords(str(finding.verdict))


def judged_words(step: Finding | None, over_none: Finding | None, form: Form) -> VerdictWords:
    """The verdict on a rung's step; where there is no step, on what it adds to no mesh, and saying so."""
    if step is not None or over_none is None:
        return verdict_words(step, form)
    found = verdict_words(over_none, form)
    return VerdictWords(f"vs none: {found.word}", found.detail, found.sure) if found.word else found


def _direction(finding: Finding) -> Direction:
    more = (finding.estimate or 0.0) > 0
    return Direction.COSTS if more == finding.key.entry.more_is_worse else Direction.SAVES


SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


Note = tuple[str, str]
"""A flag's words and its remedy."""


def notes_of(finding: Finding | None) -> list[Note]:
    """Of each flag that the title of its table does not say for all rows."""
    kinds = [(flag, flag.kind) for flag in finding.flags] if finding else []
    return [(kind.in_tables or flag.words, kind.remedy) for flag, kind in kinds if not kind.whole_table]


def common_notes(findings: Iterable[Finding | None]) -> list[Note]:
    """What all of several findings carry: said once at their table's title."""
    present = [finding for finding in findings if finding is not None]
    shared = [set(notes_of(finding)) for finding in present]
    return (
        [note for note in notes_of(present[0]) if all(note in each for each in shared)]
        if len(present) > 2
        else []
    )


class Footnotes:
    """Flags in the order in which they are met, each with one mark."""

    def __init__(self) -> None:
        self._flags: dict[Note, int] = {}

    def mark(self, notes: Iterable[Note]) -> str:
        """The marks of these notes: `¹ ²`; empty without any."""
        numbers = [self._flags.setdefault(note, len(self._flags) + 1) for note in notes]
        return "\u00a0".join(str(number).translate(SUPERSCRIPTS) for number in sorted(numbers))

    def lines(self) -> tuple[tuple[str, str, str], ...]:
        """Mark, flag, remedy."""
        return tuple((str(number).translate(SUPERSCRIPTS), *told) for told, number in self._flags.items())
