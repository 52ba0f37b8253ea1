"""Flame graphs of profiled processes in one HTML file that needs nothing else: no script, no network.

A box is a frame, as wide as the share of samples in which it was on the stack; what it calls stands below it.
Boxes beside one another are in the order of their names, so that two graphs can be compared. Its title has
the whole name and the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from zlib import crc32

from meshwise.findings.profiles import FrameNode, ProcessProfile, ThreadUse
from meshwise.report.flame import short
from meshwise.report.svg import drawing, rect, text

WIDTH, ROW = 1180.0, 17.0
_NARROW = 0.5
_LETTER = 6.0
_SHADES = 6
_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --line: #ccc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #161618; --line: #444; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1220px; margin: 2em auto; padding: 0 1em; }
h2 { margin: 2em 0 .3em; font-size: 1.1em; } p { margin: .2em 0 .6em; }
svg { width: 100%; height: auto; } svg text { font: 10.5px monospace; fill: #1d1d1f; pointer-events: none; }
svg .bare { fill: #b9bcc4; } table { border-collapse: collapse; margin: .6em 0; }
td, th { padding: .1em .9em .1em 0; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
"""
_COLOURS = ("#f2b263", "#eea35a", "#f0bf78", "#e99a62", "#f4cb86", "#ecae6c")


def page(title: str, profiles: Sequence[ProcessProfile], threads: Sequence[tuple[str, Sequence[ThreadUse]]],
         cells: dict[str, str]) -> str:  # fmt: skip
    """`cells`: trial_id -> name of its cell."""
    shades = "".join(f"svg .s{number} {{ fill: {colour}; }}" for number, colour in enumerate(_COLOURS))
    body = "".join(_graph(number, each, cells) for number, each in enumerate(profiles))
    tables = "".join(_threads(trial_id, used, cells) for trial_id, used in threads)
    about = (
        "A box is a function, as wide as the share of samples in which it was on the stack; what it calls "
        "stands below it. Nothing here is a time: profilers slow down what they look at. A grey box has no "
        "symbol."
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}{shades}</style></head><body><h1>{escape(title)}</h1><p>{escape(about)}</p>"
        f"{body}{tables}</body></html>"
    )


def _graph(number: int, profile: ProcessProfile, cells: dict[str, str]) -> str:
    rows = profile.root.deepest()
    title = f"{profile.source}, {profile.tool}"
    parts = list(_boxes(profile.root, 0.0, 0, WIDTH / max(profile.root.samples, 1), profile.root.samples))
    words = f"{profile.root.samples} samples in trial {profile.trial_id}, {cells.get(profile.trial_id, '')}"
    picture = drawing(f"flame-{number}", WIDTH, rows * ROW, title, words, parts)
    return f"<h2>{escape(title)}</h2><p>{escape(words)}</p>{picture}"


def _boxes(node: FrameNode, x: float, row: int, per_sample: float, total: int) -> Iterator[str]:
    width = node.samples * per_sample
    if width < _NARROW:
        return
    shade = "bare" if node.name.startswith("[") else f"s{crc32(node.name.encode()) % _SHADES}"
    tip = f"{node.name}: {node.samples} samples, {node.samples / total:.1%}; itself {node.own / total:.1%}"
    yield rect(x, row * ROW, max(width - 0.5, 0.3), ROW - 1, shade, tip)
    room, name = int((width - 6) / _LETTER), short(node.name)
    if room >= 3:
        yield text(x + 3, row * ROW + 12, name if len(name) <= room else f"{name[: room - 1]}…")
    for each in sorted(node.below.values(), key=lambda below: below.name):
        yield from _boxes(each, x, row + 1, per_sample, total)
        x += each.samples * per_sample


def _threads(trial_id: str, used: Sequence[ThreadUse], cells: dict[str, str]) -> str:
    shown = [each for each in used if each.cpu_ns or each.voluntary or each.involuntary]
    head = ("thread", "CPU, ms", "waited for a CPU, ms", "gave way", "was put off")
    rows = [
        (
            f"{each.source} {each.thread}",
            f"{each.cpu_ns / 1e6:.1f}",
            f"{each.waited_ns / 1e6:.1f}",
            f"{each.voluntary:.0f}",
            f"{each.involuntary:.0f}",
        )
        for each in shown
    ]
    table = _row("th", head) + "".join(_row("td", row) for row in rows)
    title = f"Threads in trial {trial_id}, {cells.get(trial_id, '')}"
    return f"<h2>{escape(title)}</h2><table>{table}</table>"


def _row(cell: str, values: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(each)}</{cell}>' for each in values)}</tr>"
