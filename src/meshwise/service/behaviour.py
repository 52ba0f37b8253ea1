"""What a node does for a request, as a value. Pure: the same for every protocol, no bytes of any wire.

A codec parses a head once per distinct bytes, asks `decide`, and turns the decision into bytes that it
sends forever after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from meshwise.service import plan as plans
from meshwise.service.script import ASKED_ERROR, Script, Stage
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.service.work import rounds_for
from meshwise.study.graph.model import Call as ScriptCall
from meshwise.study.graph.model import Sleep, Step
from meshwise.study.graph.sums import steps_at_once
from meshwise.study.protocol import Streaming

ECHO_PATH = "/echo"
HEALTH_PATH = "/healthz"
GRPC_PATH = "/meshwise.Echo/Call"
STREAM_PATHS = {
    Streaming.CLIENT: "/meshwise.Echo/ClientStream",
    Streaming.SERVER: "/meshwise.Echo/ServerStream",
    Streaming.BIDI: "/meshwise.Echo/BidiStream",
}
REASON_HEADER = "x-reason"
REQUEST_ID = "x-request-id"
"""Proxies give every request its own; codecs keep it out of the bytes that they remember heads by."""

MAX_BODY_BYTES = 16 << 20
"""A request body that must be passed on is held; a longer one is refused with 413."""

_PASSED_ON = {"authorization", "traceparent", "tracestate", "b3"}
_HOP_FACTS = ("x-forwarded-", "x-envoy-")
"""What a proxy says about its own hop; an application that passed it on would describe the wrong hop."""

_ASKED = (ASKED_ERROR, "upstream status 500", "upstream grpc-status 13")
"""Ways in which an error that the graph asks for comes to a node."""

_PATTERN = bytes(range(0x20, 0x60))

SMALL_BODY_BYTES = 64 << 10
"""Bodies up to this size are kept once made."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call to make before the answer."""

    upstream: Upstream
    plan: str
    """The `x-plan` to send."""
    request_bytes: int | None = None
    """None: the body of the request that is being answered."""


@dataclass(frozen=True, slots=True)
class PlannedAnswer:
    """`status` is HTTP's; a codec for gRPC translates. `calls` are made, or `script` is played, before a 200
    only."""

    status: int
    body_bytes: int = 0
    work_rounds: int = 0
    calls: tuple[PlannedCall, ...] = ()
    reason: str = ""
    script: Script[PlannedCall] | None = None


def decide(path: str, plan_text: str | None, spec: NodeSpec, rounds_per_us: float) -> PlannedAnswer:
    """`path` as requested, with or without a query."""
    path = path.partition("?")[0]
    if path == HEALTH_PATH:
        return PlannedAnswer(200)
    if path not in (ECHO_PATH, GRPC_PATH) and not path.startswith(ECHO_PATH + "/"):
        return PlannedAnswer(404, reason="no such path")
    try:
        plan = plans.parse(plan_text or "")
    except plans.PlanError as error:
        return PlannedAnswer(400, reason=str(error))
    if plan.script:
        return _scripted(plan, spec)
    if plan.hops and spec.next is None:
        return PlannedAnswer(502, reason=f"{spec.name} has no next node")
    if not plan.hops and plan.fan > len(spec.leaves):
        return PlannedAnswer(502, reason=f"{spec.name} has {len(spec.leaves)} leaves")
    return PlannedAnswer(200, plan.bytes, rounds_for(plan.work_us, rounds_per_us), _calls(plan, spec))


def _calls(plan: plans.Plan, spec: NodeSpec) -> tuple[PlannedCall, ...]:
    if plan.hops:
        assert spec.next is not None
        return (PlannedCall(spec.next, str(plan.for_next())),)
    leaf_plan = str(plan.for_leaf())
    return tuple(PlannedCall(leaf, leaf_plan) for leaf in spec.leaves[: plan.fan])


def _scripted(plan: plans.Plan, spec: NodeSpec) -> PlannedAnswer:
    """What the spec says under the plan's name; a node that neither waits, fails nor calls just answers."""
    service = spec.scripts.get(plan.script)
    if service is None:
        return PlannedAnswer(502, reason=f"{spec.name} has no script {plan.script}")
    size = plan.bytes if service.response_bytes is None else service.response_bytes
    if not service.script and not service.error_share:
        return PlannedAnswer(200, size)
    stages = tuple(_stage(step, str(plan), spec) for step in service.script)
    return PlannedAnswer(200, size, script=Script(stages, service.error_share, service.aggregates))


def _stage(step: Step, plan: str, spec: NodeSpec) -> Stage[PlannedCall]:
    parts = steps_at_once(step)
    calls = [part for part in parts if isinstance(part, ScriptCall)]
    sleeps = [part.duration_ns for part in parts if isinstance(part, Sleep)]
    return Stage(
        tuple(
            (PlannedCall(spec.upstreams[call.service], plan, call.request_bytes), call.probability)
            for call in calls
        ),
        max(sleeps, default=0),
    )


def failed(reason: str) -> PlannedAnswer:
    """The answer of a script that did not end well: 500 where that error was asked for, here or further down
    (as isotope's service answers), else 502."""
    return PlannedAnswer(500 if reason in _ASKED else 502, reason=reason)


def passed_on(fields: Iterable[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The request fields (names in lower case) that go with a call, without `x-plan` and the request id,
    which the caller of this function writes itself."""
    return [
        (name, value)
        for name, value in fields
        if name in _PASSED_ON
        or (
            name.startswith("x-")
            and not name.startswith(_HOP_FACTS)
            and name not in (plans.HEADER, REQUEST_ID)
        )
    ]


def body_of(size_bytes: int) -> bytes:
    """The body of that size: a fixed pattern, so that nothing depends on its content."""
    return _small_body(size_bytes) if size_bytes <= SMALL_BODY_BYTES else _body(size_bytes)


def _body(size_bytes: int) -> bytes:
    return (_PATTERN * (size_bytes // len(_PATTERN) + 1))[:size_bytes]


_small_body = lru_cache(maxsize=512)(_body)
