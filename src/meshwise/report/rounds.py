"""Rounds: how many arms ran at the same time, and how busy the CPUs were that they shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from meshwise.core.units import plural
from meshwise.report.blocks import Details, Paragraph, Row, Section, Setting, Table, TableColumn
from meshwise.report.content import Content


def rounds_line(content: Content) -> str:
    """`8 rounds of 6 arms · CPUs of the pods 41 to 83 % busy (in 1 so busy that ...) · ...`; empty without
    rounds."""
    rounds = _rounds(content)
    if not rounds:
        return ""
    arms = sorted({int(each.get("arms") or 0) for each in rounds})
    parts = [f"{plural(len(rounds), 'round')} of {' or '.join(map(str, arms))} arms"]
    if busy := sorted(100 * each["busy"] for each in rounds if _is_number(each.get("busy"))):
        ends = dict.fromkeys(f"{share:.0f}" for share in (busy[0], busy[-1]))
        crowded = sum(bool(each.get("crowded")) for each in rounds)
        too = f" (in {crowded} so busy that tails may not be compared)" if crowded else ""
        parts.append(f"CPUs of the pods {' to '.join(ends)} % busy{too}")
    else:
        parts.append("it was not read how busy the CPUs of the pods were")
    if uneven := sum(bool(each.get("saturated")) for each in rounds):
        parts.append(f"in {uneven} an arm was saturated")
    return " · ".join(parts)


def rounds_section(content: Content) -> Section | None:
    """Of the page: a row per round; None without rounds."""
    rounds = _rounds(content)
    if not rounds:
        return None
    about = (
        f"{rounds_line(content)}. The arms of a round share CPUs, so who comes behind a slow request waits "
        "for it, whichever arm it belongs to: the busier the CPUs, the less a tail is an arm's own."
    )
    columns = (
        TableColumn("round", Setting.LABEL), TableColumn("block"), TableColumn("arms"),
        TableColumn("CPUs of the pods, % busy"), TableColumn("remark", Setting.PROSE),
    )  # fmt: skip
    table = Table("rounds-table", "Rounds", columns, tuple(map(_row, rounds)))
    return Section("rounds", "Rounds", (Paragraph(about), Details(f"Every round ({len(rounds)})", (table,))))


def _row(each: Mapping[str, Any]) -> Row:
    busy = each.get("busy")
    remarks = ["tails may not be compared"] if each.get("crowded") else []
    remarks += [f"saturated: {told}" for told in each.get("saturated") or ()]
    return Row(
        (
            str(int(each.get("round") or 0) + 1),
            str(int(each.get("block") or 0) + 1),
            str(each.get("arms", "")),
            f"{100 * busy:.0f}" if _is_number(busy) else "n/a",
            "; ".join(remarks),
        )
    )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rounds(content: Content) -> Sequence[Mapping[str, Any]]:
    found = content.study.get("rounds")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
