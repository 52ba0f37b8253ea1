"""Scripts of a graph file -> steps. A step is a sleep, a call, or a list of such that run at once."""

from __future__ import annotations

from meshwise.study.file.document import Path
from meshwise.study.graph.laws import MAX_STEPS
from meshwise.study.graph.model import Call, Concurrent, Sleep, Step
from meshwise.study.graph.values import FileValue

_COMMANDS = ("sleep", "call")
_CALL = ("service", "size", "payloadSize", "probability")
_CALL_WITHOUT_EFFECT = ("hostname", "extra-header", "call-override")


def script_of(
    node: FileValue, request_bytes: int | None, calls_at: dict[str, Path], notes: dict[str, int]
) -> tuple[Step, ...]:
    """`request_bytes`: of calls that do not say. Notes in `calls_at` where each service is first called."""
    items = node.items("script")
    if len(items) > MAX_STEPS:
        node.bad(f"a script of {len(items)} steps is too long", f"at most {MAX_STEPS}")
        return ()
    found: list[Step] = []
    for item in items:
        if not isinstance(item.value, list):
            single = _command(item, request_bytes, calls_at, notes)
            found += [] if single is None else [single]
            continue
        inner = item.items("script")
        if not 0 < len(inner) <= MAX_STEPS:
            item.bad(f"{len(inner)} commands at once", f"from 1 to {MAX_STEPS}")
            continue
        if any(isinstance(each.value, list) for each in inner):
            item.bad("lists of commands at once are not nested", "one list inside a script, no deeper")
            continue
        commands = [_command(each, request_bytes, calls_at, notes) for each in inner]
        found.append(Concurrent(tuple(command for command in commands if command is not None)))
    return tuple(found)


def _command(
    node: FileValue, request_bytes: int | None, calls_at: dict[str, Path], notes: dict[str, int]
) -> Sleep | Call | None:
    keys = node.keys("a command", _COMMANDS, (), notes)
    if len(keys) != 1:
        if isinstance(node.value, dict) and set(node.value) <= set(_COMMANDS):
            node.bad("a command is one of `sleep` and `call`", "a list entry (`- `) for each")
        return None
    if (sleep := keys.get("sleep")) is not None:
        duration_ns = sleep.duration_ns()
        return None if duration_ns is None else Sleep(duration_ns)
    call = keys["call"]
    if not isinstance(call.value, dict):
        service = call.word("call")
        return None if service is None else _called(Call(service, request_bytes), call.path, calls_at)
    said = call.keys("a call", _CALL, _CALL_WITHOUT_EFFECT, notes)
    if "service" not in said:
        call.bad("a call names its service", "add `service:`")
        return None
    if "size" in said and "payloadSize" in said:
        said["payloadSize"].bad("`size` and `payloadSize` are the same", "keep `size`", at_key=True)
    service = said["service"].word("service")
    size = said.get("size") or said.get("payloadSize")
    own_bytes = request_bytes if size is None else size.size()
    probability = said["probability"].probability() if "probability" in said else 1.0
    if service is None or probability is None:
        return None
    return _called(Call(service, own_bytes, probability), said["service"].path, calls_at)


def _called(call: Call, path: Path, calls_at: dict[str, Path]) -> Call:
    calls_at.setdefault(call.service, path)
    return call
