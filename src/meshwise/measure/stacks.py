"""What profilers saw, by process: where time went, as a tree of frames and as functions by their own time;
and what the kernel says of each thread. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import polars as pl

from meshwise.findings.profiles import FrameNode, ProcessProfile, ThreadUse
from meshwise.telemetry.labels import read_labels


def busiest(profile: ProcessProfile, most: int) -> list[tuple[str, float]]:
    """The functions in which most was seen, each with its share of all samples, its callees left out."""
    own: Counter[str] = Counter()
    due = [*profile.root.below.values()]
    while due:
        node = due.pop()
        own[node.name] += node.own
        due += node.below.values()
    return [(name, count / profile.root.samples) for name, count in own.most_common(most) if count]


def profiles_of(stacks: pl.DataFrame) -> list[ProcessProfile]:
    """`profiles.parquet` -> one per trial, process and tool, in the order of their rows."""
    found: dict[tuple[str, str, str], FrameNode] = {}
    for row in stacks.iter_rows(named=True):
        root = found.setdefault((row["trial_id"], row["source"], row["tool"]), FrameNode("all"))
        _add(root, row["stack"].split(";"), row["samples"])
    return [ProcessProfile(*key, root) for key, root in found.items()]


def _add(root: FrameNode, frames: Iterable[str], samples: int) -> None:
    root.samples += samples
    node = root
    for frame in frames:
        node = node.below.setdefault(frame, FrameNode(frame))
        node.samples += samples


def threads_of(telemetry: pl.DataFrame) -> list[ThreadUse]:
    """A trial's telemetry -> its threads, the busiest of each process first. One that was not read at both
    ends is left out."""
    read: dict[tuple[str, str, str], list[float]] = {}
    chosen = telemetry.filter(pl.col("metric").cast(pl.String).str.starts_with("thread_")).sort("t_ns")
    for row in chosen.iter_rows(named=True):
        labels = read_labels(row["labels"])
        kind = labels.get("kind", row["metric"])
        read.setdefault((row["source"], f"{labels['thread']}/{labels['tid']}", kind), []).append(row["value"])
    names = dict.fromkeys((source, thread) for source, thread, _ in read)
    used = [
        ThreadUse(source, thread, *(_change(read.get((source, thread, kind), ())) for kind in _KINDS))
        for source, thread in names
        if len(read.get((source, thread, _KINDS[0]), ())) > 1
    ]
    return sorted(used, key=lambda each: (each.source, -each.cpu_ns))


_KINDS = ("thread_cpu_ns", "thread_wait_ns", "voluntary", "involuntary")


def _change(values: Sequence[float]) -> float:
    return values[-1] - values[0] if values else 0.0
