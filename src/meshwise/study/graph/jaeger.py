"""What a tracing backend says about who called whom -> `CalledServices`.

Jaeger's `/api/dependencies` (`{"data": [{"parent":, "child":, "callCount":}]}`) and the bare list of the same
links that Zipkin's `/api/v2/dependencies` has (there with `errorCount`, which has no effect).
"""

from __future__ import annotations

from typing import Any

from meshwise.study.file.problems import Problem
from meshwise.study.graph.counted import CalledServices
from meshwise.study.graph.edges import amount_of
from meshwise.study.graph.values import FileValue

_LINK = ("parent", "child", "callCount")
_LINK_WITHOUT_EFFECT = ("errorCount", "source")


def is_dependencies(value: Any) -> bool:
    if isinstance(value, dict) and "services" not in value:
        value = value.get("data")
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "parent" in value[0]


def dependencies_of(top: FileValue, problems: list[Problem]) -> CalledServices:
    found = CalledServices(counted=True)
    links = top.child("data") if isinstance(top.value, dict) else top
    for link in links.items("data"):
        keys = link.keys("a link", _LINK, _LINK_WITHOUT_EFFECT, {})
        if missing := [key for key in _LINK if key not in keys and isinstance(link.value, dict)]:
            link.bad(f"a link has `{missing[0]}`", "`parent`, `child` and `callCount`")
            continue
        words = [keys[key].word(key) for key in keys if key in _LINK]
        if len(words) < len(_LINK) or None in words:
            continue
        parent, child, count = keys["parent"], keys["child"], keys["callCount"]
        amount = amount_of(str(count.value), per_call=False)
        if amount is None:
            count.bad(f"`{str(count.value)[:40]}` is not a number of calls", "a number above 0")
            continue
        found.call(
            found.label(parent.value, parent.path, problems), found.label(child.value, child.path, problems),
            amount, parent.path, child.path,
        )  # fmt: skip
    return found
