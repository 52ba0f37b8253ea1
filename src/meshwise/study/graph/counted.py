"""Calls between services, said one by one with how often -> the services of a call graph.

What a list of calls, a drawing (DOT) and a tracing backend's dependencies have in common: pairs of caller and
callee, each with an amount. Two meanings of an amount:
- *per call*: how often the caller makes this call for one that it gets (1 where nothing is said);
- *counted*: calls that were seen in some time. What a service gets is the sum of the counts into it, so it
  makes count / sum calls for one that it gets. Of a service that is not called the most frequent call is
  made once.
A service makes all its calls at once. An amount of 2.3 is two calls, and a third with probability 0.3. A pair
that stands there several times is made as often as all of them together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshwise.core import messages
from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.graph.laws import MAX_STEPS, Places, is_label
from meshwise.study.graph.model import Call, Concurrent, GraphService
from meshwise.study.topology import BACKEND, CLIENT

PER_CALL_WORDS = ("calls_per_request", "probability")
COUNTED_WORDS = ("weight", "count", "calls", "callcount")
"""What a column or an attribute with amounts is called, in lower case."""

_LEAST = 1e-6
"""Of a rest that is a call of its own: below it a ratio of counts was a whole number."""


@dataclass
class CalledServices:
    """What was said so far. `client` as a caller marks an entrypoint and is no service."""

    counted: bool = False
    names: dict[str, Path] = field(default_factory=dict)
    """Services in the order of their first mention, and where that stands."""
    namespaces: dict[str, str] = field(default_factory=dict)
    amounts: dict[tuple[str, str], float] = field(default_factory=dict)
    calls_at: dict[tuple[str, str], Path] = field(default_factory=dict)
    """Where each pair stands first: the callee's place."""
    declared: dict[str, Path] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)
    """Kubernetes name -> the name that the file has."""

    def take(self, name: str, at: Path) -> None:
        self.names.setdefault(name, at)

    def call(self, caller: str, callee: str, amount: float, caller_at: Path, callee_at: Path) -> None:
        if caller == CLIENT:
            self.declared.setdefault(callee, callee_at)
        else:
            self.take(caller, caller_at)
        self.take(callee, callee_at)
        self.calls_at.setdefault((caller, callee), callee_at)
        self.amounts[caller, callee] = self.amounts.get((caller, callee), 0.0) + amount

    def label(self, said: str, at: Path, problems: list[Problem]) -> str:
        """The Kubernetes name that is made from a name of another tool: `node_0` -> `node-0`."""
        made = re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")
        made = f"s{made}" if made[:1].isdigit() else made
        made = made[:63].rstrip("-")
        if not is_label(made):
            facts: dict[str, object] = {
                "reason": f"`{said[:40]}` gives no name of a service", "remedy": "letters and digits",
            }  # fmt: skip
            problems.append(Problem(at, messages.BAD_VALUE, facts))
            return made
        if self._said.setdefault(made, said) != said:
            reason = f"`{self._said[made][:40]}` and `{said[:40]}` would both be named `{made}`"
            problems.append(impossible(at, reason, "rename one of them"))
        return made

    def notes(self) -> tuple[str, ...]:
        """What was made of the file and is not in it, for the plan of the study."""
        found = []
        changed = [(said, made) for made, said in self._said.items() if said != made]
        if changed:
            said, made = changed[0]
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            found.append(f"names are made into those of Kubernetes: `{said[:40]}` is `{made}`{more}")
        if self.counted:
            found.append(
                "amounts are taken as counted calls: a service makes each call as often as the counts say for"
                " one that it gets itself; one that is not called makes its most frequent call once"
            )
        return tuple(found)

    def entrypoints(self) -> dict[str, Path]:
        """Those that the client calls, or else those that are not called, with their places."""
        if self.declared:
            return self.declared
        called = {callee for _, callee in self.amounts}
        return {name: at for name, at in self.names.items() if name not in called}

    def services(self, problems: list[Problem]) -> list[GraphService]:
        scripts = self._scripts(problems)
        return [
            GraphService(
                name,
                self.namespaces.get(name, BACKEND),
                (Concurrent(scripts[name]),) if scripts[name] else (),
            )
            for name in self.names
        ]

    def places(self, root: Path) -> Places:
        return Places(root, list(self.names.values()), self.calls_at)

    def _scripts(self, problems: list[Problem]) -> Mapping[str, tuple[Call, ...]]:
        got: dict[str, float] = {}
        made: dict[str, float] = {}
        for (caller, callee), amount in self.amounts.items():
            got[callee] = got.get(callee, 0.0) + amount
            made[caller] = max(made.get(caller, 0.0), amount)
        found: dict[str, tuple[Call, ...]] = dict.fromkeys(self.names, ())
        refused: set[str] = set()
        for (caller, callee), amount in self.amounts.items():
            if caller == CLIENT or caller in refused:
                continue
            each = amount / (got.get(caller) or made[caller]) if self.counted else amount
            calls = () if each > MAX_STEPS else _calls(callee, each)
            if each > MAX_STEPS or len(found[caller]) + len(calls) > MAX_STEPS:
                what = f"`{caller}` calls more than {MAX_STEPS} services"
                if each > MAX_STEPS:
                    what = f"`{caller}` calls `{callee}` {each:.3g} times for one call (at most {MAX_STEPS})"
                problems.append(impossible(self.calls_at[caller, callee], what, "fewer calls"))
                refused.add(caller)
                continue
            found[caller] += calls
        return found


def _calls(callee: str, amount: float) -> tuple[Call, ...]:
    whole = int(amount + _LEAST)
    rest = round(amount - whole, 9)
    return (Call(callee),) * whole + ((Call(callee, probability=rest),) if rest >= _LEAST else ())
