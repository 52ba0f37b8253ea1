"""A difference flame graph of one step, as SVG: groups of functions, and functions above one another.

Two drawings in one. What a request costs: every box is as wide as the costlier of both rungs. What changed:
as wide as the change. Colour, sign and words tell whether it became more or less; its title has its numbers.
Two levels, because a counter's calls between functions would have to be made into stacks by guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from meshwise.findings.pictures import Flame, FlameFunction
from meshwise.report.svg import drawing, rect, text

WIDTH, ROW, GAP = 920.0, 19.0, 1.0
_NARROW = 0.7
"""Boxes below this width are not drawn: their group shows them."""
_LETTER = 5.9
_STEPS = (0.005, 0.05, 0.5)
"""Changes, as shares of the larger side, from which a box has the next stronger colour."""

Size = Callable[[FlameFunction], float]


def flame_drawing(name: str, title: str, flame: Flame) -> str:
    """`name` is unique in the page."""
    before = sum(each.before for each in flame.functions)
    after = sum(each.after for each in flame.functions)
    head = f"{title}: {before:,.0f} → {after:,.0f} instructions per request ({after - before:+,.0f})"
    parts = [text(0, 14, head, "number")]
    y = 24.0
    for label, size in (("what it costs", _cost), ("what changed", _change)):
        parts.append(text(0, y + 12, label, "tick"))
        parts += _graph(flame.functions, size, y + 18)
        y += 18 + 2 * ROW + 10
    description = f"{len(flame.functions)} functions in {flame.executions} lives of the proxies"
    return drawing(name, WIDTH, y, title, description, parts)


def _cost(function: FlameFunction) -> float:
    return max(function.before, function.after, 0.0)


def _change(function: FlameFunction) -> float:
    return abs(function.after - function.before)


def _graph(functions: Sequence[FlameFunction], size: Size, top: float) -> list[str]:
    whole = sum(map(size, functions))
    if not whole:
        return [text(0, top + 13, "nothing", "tick")]
    parts, x = [], 0.0
    for group, members in groupby(functions, key=lambda each: each.group):
        own = sorted(members, key=lambda each: -size(each))
        width = WIDTH * sum(map(size, own)) / whole
        before, after = sum(each.before for each in own), sum(each.after for each in own)
        parts += _box(x, top, width, group, FlameFunction(group, group, before, after))
        inner = x
        for each in own:
            part = WIDTH * size(each) / whole
            parts += _box(inner, top + ROW, part, short(each.name), each)
            inner += part
        x += width
    return parts


def _box(x: float, y: float, width: float, label: str, function: FlameFunction) -> list[str]:
    if width < _NARROW:
        return []
    change = function.after - function.before
    tip = (
        f"{function.name} ({function.group}): {function.before:,.0f} → {function.after:,.0f} ({change:+,.0f})"
    )
    parts = [rect(x, y, max(width - GAP, 0.4), ROW - GAP, f"flame {_shade(function)}", tip)]
    room = int((width - 6) / _LETTER)
    if room >= 3:
        sign = {"up": "+ ", "do": "− "}.get(_shade(function)[:2], "")
        shown = f"{sign}{label}"
        parts.append(
            text(x + 3, y + 13, shown if len(shown) <= room else f"{shown[: room - 1]}…", "tick flamed")
        )
    return parts


def _shade(function: FlameFunction) -> str:
    """`same`, `up1` to `up3`, `down1` to `down3`."""
    larger = max(abs(function.before), abs(function.after))
    share = abs(function.after - function.before) / larger if larger else 0.0
    strength = sum(share >= step for step in _STEPS)
    return "same" if not strength else f"{'up' if function.after > function.before else 'down'}{strength}"


def short(name: str) -> str:
    """The last two parts of a function's path, without types in brackets: `h2::hpack::Table<T>::index` ->
    `Table::index`."""
    plain, depth = "", 0
    for at, letter in enumerate(name):
        if letter in "<([{":
            depth += 1
        elif letter in ">)]}" and not name.startswith("->", at - 1):
            depth = max(0, depth - 1)
        elif not depth:
            plain += letter
    found = [part for part in plain.split("::") if part.strip()]
    return "::".join(found[-2:]) or name
