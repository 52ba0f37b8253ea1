"""A work model of muBench (https://github.com/mSvcBench/muBench, Docs/Manual.md) -> services with scripts.

What it means there (ServiceCell/ExternalServiceExecutor.py): the groups of `external_services` run at the
same time; within a group services are called one after another, each with its own probability (1 where none
is said), of `seq_len` that are drawn from them when that is fewer than there are. Here:
- A service is called with the product of both chances; chances are independent of each other.
- With several groups, step k of the script has the k-th call of every group at once: a group waits for the
  others between its calls.
- `mean_response_size` (kB, 1000 bytes) is the size of every answer; muBench draws it.
- Other work (CPU, memory, disk) and what concerns its deployment have no effect, and the notes say so.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any

from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem
from meshwise.study.graph.counted import CalledServices
from meshwise.study.graph.laws import MAX_BYTES, Places
from meshwise.study.graph.model import Call, Concurrent, GraphService, Sleep, Step
from meshwise.study.graph.values import FileValue
from meshwise.study.topology import BACKEND

_OURS = ("external_services", "internal_service")
_GROUP = ("seq_len", "services", "probabilities")
_SHARE = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,18})?(?:[eE]-?[0-9]{1,2})?")


def is_work_model(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and "services" not in value
        and all(isinstance(each, dict) and any(key in each for key in _OURS) for each in value.values())
    )


def work_model_of(
    top: FileValue, problems: list[Problem]
) -> tuple[list[GraphService], dict[str, Path], Places, tuple[str, ...]]:
    """Services, those that are not called with their places, all places, and notes."""
    names = CalledServices()  # for their labels alone
    ignored: set[str] = set()
    waiting = False
    services: list[GraphService] = []
    calls_at: dict[tuple[str, str], Path] = {}
    for said, node in top.mapping("a work model").items():
        name = names.label(said, node.path, problems)
        groups = node.child("external_services").items("external_services") if (
            "external_services" in node.value
        ) else []  # fmt: skip
        sequences: list[list[Call]] = []
        for group in groups:
            sequences.append([])
            for service, chance, at in _group(group):
                callee = names.label(service, at, problems)
                calls_at.setdefault((name, callee), at)
                if chance:
                    sequences[-1].append(Call(callee, probability=chance))
        waiting |= len(sequences) > 1 and max(map(len, sequences)) > 1
        own_steps, response_bytes = _work(node, ignored)
        ignored |= {f"`{key}`" for key in node.value if key not in _OURS}
        services.append(
            GraphService(name, BACKEND, (*own_steps, *_steps(sequences)), response_bytes=response_bytes)
        )
    places = Places(top.path, [(*top.path, said) for said in top.value], calls_at)
    called = {callee for service in services for callee in service.callees}
    roots = {
        service.name: at
        for service, at in zip(services, places.services, strict=True)
        if service.name not in called
    }
    notes = list(names.notes())
    if ignored:
        notes.append(f"the work model says {', '.join(sorted(ignored)[:12])}, without effect here")
    if waiting:
        notes.append("groups of a work model wait for each other between their calls")
    return services, roots, places, tuple(notes)


def _group(node: FileValue) -> list[tuple[str, float, Path]]:
    """(service, chance, place) of each call."""
    keys = node.keys("a group of external services", _GROUP, (), {})
    if "services" not in keys:
        return []
    items = keys["services"].items("services")
    chances = keys["probabilities"].mapping("`probabilities`") if "probabilities" in keys else {}
    length = keys.get("seq_len")
    drawn = len(items)
    if length is not None:
        if isinstance(length.value, str) and re.fullmatch(r"[0-9]{1,9}", length.value):
            drawn = min(int(length.value), drawn)
        else:
            length.bad("`seq_len` is a number of services", "for example `100`: all of them")
    found = []
    for item in items:
        service = item.word("services")
        if service is None:
            continue
        chance = 1.0
        if (said := chances.get(service)) is not None:
            text = said.value if isinstance(said.value, str) else ""
            chance = float(text) if _SHARE.fullmatch(text) else -1.0
            if not 0 <= chance <= 1:
                said.bad(f"`{text[:40]}` is not a probability", "from 0 to 1")
                continue
        # muBench names a second call of a service `s1__2` (its `service.split("__")[0]`)
        found.append((service.split("__")[0], chance * drawn / len(items), item.path))
    return found


def _steps(sequences: list[list[Call]]) -> tuple[Step, ...]:
    found: list[Step] = []
    for at_once in zip_longest(*sequences):
        calls = tuple(call for call in at_once if call is not None)
        found.append(calls[0] if len(calls) == 1 else Concurrent(calls))
    return tuple(found)


def _work(node: FileValue, ignored: set[str]) -> tuple[tuple[Step, ...], int | None]:
    """What the service does itself: sleeps, and the bytes of its answer."""
    if not isinstance(work := node.value.get("internal_service"), dict):
        return (), None
    steps: list[Step] = []
    size: int | None = None
    for function, given in work.items():
        ignored.add(f"`{function}`")
        if not isinstance(given, dict):
            continue
        at = node.child("internal_service").child(function)
        said = given.get("mean_response_size", given.get("mean_bandwidth"))
        if said is not None:
            key = "mean_response_size" if "mean_response_size" in given else "mean_bandwidth"
            number = _number(at.child(key), MAX_BYTES / 1000)
            size = size if number is None else round(1000 * number)
        sleep = given.get("sleep_stress")
        if isinstance(sleep, dict) and sleep.get("run") == "true" and "sleep_time" in sleep:
            seconds = _number(at.child("sleep_stress").child("sleep_time"), 3600)
            steps += [] if seconds is None else [Sleep(round(seconds * 1e9))]
    return tuple(steps), size


def _number(node: FileValue, most: float) -> float | None:
    text = node.value if isinstance(node.value, str) else ""
    if _SHARE.fullmatch(text) and float(text) <= most:
        return float(text)
    node.bad(f"`{text[:40]}` is not a number up to {most:g}", "correct it")
    return None
