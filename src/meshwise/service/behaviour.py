"""What a node does for a request, as a value. Pure: the same for every protocol, no bytes of any wire.

A codec parses a head once per distinct bytes, asks `decide`, and turns the decision into bytes that it
sends forever after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from meshwise.service import plan as plans
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.service.work import rounds_for

ECHO_PATH = "/echo"
HEALTH_PATH = "/healthz"
GRPC_PATH = "/meshwise.Echo/Call"
REASON_HEADER = "x-reason"
REQUEST_ID = "x-request-id"
"""Proxies give every request its own; codecs keep it out of the bytes that they remember heads by."""

MAX_BODY_BYTES = 16 << 20
"""A request body that must be passed on is held; a longer one is refused with 413."""

_PASSED_ON = {"authorization", "traceparent", "tracestate", "b3"}
_HOP_FACTS = ("x-forwarded-", "x-envoy-")
"""What a proxy says about its own hop; an application that passed it on would lie about the next."""

_PATTERN = bytes(range(0x20, 0x60))


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make before the answer."""

    upstream: Upstream
    plan: str
    """The `x-plan` to send."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`status` is HTTP's; a codec for gRPC translates. `calls` are made before a 200 only."""

    status: int
    body_bytes: int = 0
    work_rounds: int = 0
    calls: tuple[Call, ...] = ()
    reason: str = ""


def decide(path: str, plan_text: str | None, spec: NodeSpec, rounds_per_us: float) -> Decision:
    """`path` as requested, with or without a query."""
    path = path.partition("?")[0]
    if path == HEALTH_PATH:
        return Decision(200)
    if path not in (ECHO_PATH, GRPC_PATH) and not path.startswith(ECHO_PATH + "/"):
        return Decision(404, reason="no such path")
    try:
        plan = plans.parse(plan_text or "")
    except plans.PlanError as error:
        return Decision(400, reason=str(error))
    if plan.hops and spec.next is None:
        return Decision(502, reason=f"{spec.name} has no next node")
    if not plan.hops and plan.fan > len(spec.leaves):
        return Decision(502, reason=f"{spec.name} has {len(spec.leaves)} leaves")
    return Decision(200, plan.bytes, rounds_for(plan.work_us, rounds_per_us), _calls(plan, spec))


def _calls(plan: plans.Plan, spec: NodeSpec) -> tuple[Call, ...]:
    if plan.hops:
        assert spec.next is not None
        return (Call(spec.next, str(plan.for_next())),)
    leaf_plan = str(plan.for_leaf())
    return tuple(Call(leaf, leaf_plan) for leaf in spec.leaves[: plan.fan])


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


@lru_cache(maxsize=64)
def body_of(size_bytes: int) -> bytes:
    """The body of that size: a fixed pattern, so that nothing depends on its content."""
    return (_PATTERN * (size_bytes // len(_PATTERN) + 1))[:size_bytes]
