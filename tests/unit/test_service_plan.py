"""The plan header, the spec, and what a node decides; no bytes of any protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.service import behaviour
from meshwise.service.plan import Plan, PlanError, parse
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.service.work import calibrate, rounds_for, work
from meshwise.study.model import SERVICE_PORTS, Protocol

NEXT = Upstream("10.96.0.2", "node-2.backend.svc.cluster.local")
LEAVES = (Upstream("10.96.0.3", "leaf-1"), Upstream("10.96.0.4", "leaf-2"))
SPEC = NodeSpec("node-1", next=NEXT, leaves=LEAVES)


def test_a_plan_is_read_and_written() -> None:
    plan = parse("bytes=1024;hops=2;fan=0;work_us=5")
    assert plan == Plan(1024, 2, 0, 5)
    assert parse(str(plan)) == plan
    assert parse("") == Plan()
    assert parse(" hops=1 ; bytes=3;") == Plan(bytes=3, hops=1)


@pytest.mark.parametrize(
    "text",
    ["bytes=-1", "bytes=x", "bytes", "size=3", "bytes=1;bytes=2", "hops=65", "bytes=99999999999", "fan=٣"],
)
def test_what_is_not_a_plan_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(PlanError, match="x-plan"):
        parse(text)


def test_a_plan_travels() -> None:
    plan = Plan(bytes=9, hops=2, fan=3, work_us=1)
    assert plan.for_next() == Plan(9, 1, 3, 1)
    assert plan.for_leaf() == Plan(9, 0, 0, 1)


def test_hops_come_before_the_fan() -> None:
    hop = behaviour.decide("/echo", "hops=1;fan=2;bytes=7", SPEC, 1.0)
    assert [(call.upstream, parse(call.plan)) for call in hop.calls] == [(NEXT, Plan(7, 0, 2))]
    fan = behaviour.decide("/echo?x=1", "fan=2;bytes=7;work_us=10", SPEC, 3.0)
    assert [call.upstream for call in fan.calls] == list(LEAVES)
    assert {call.plan for call in fan.calls} == {str(Plan(7, 0, 0, 10))}
    assert (fan.status, fan.body_bytes, fan.work_rounds) == (200, 7, 30)


@pytest.mark.parametrize(
    ("path", "plan", "status"),
    [
        ("/healthz", "nonsense", 200),
        ("/echo/deep/er", "", 200),
        ("/echoes", "", 404),
        ("/", "", 404),
        ("/echo", "nonsense", 400),
        ("/echo", "fan=3", 502),
    ],
)
def test_paths_and_refusals(path: str, plan: str, status: int) -> None:
    assert behaviour.decide(path, plan, SPEC, 1.0).status == status


def test_a_node_without_a_next_one_says_so() -> None:
    decision = behaviour.decide("/echo", "hops=1", NodeSpec("last"), 1.0)
    assert (decision.status, decision.reason) == (502, "last has no next node")


def test_what_is_passed_on() -> None:
    fields = [
        ("authorization", "Bearer t"), ("x-tenant", "a"), ("x-plan", "bytes=1"), ("x-request-id", "1"),
        ("x-forwarded-client-cert", "c"), ("x-envoy-attempt-count", "1"), ("cookie", "c"),
        ("traceparent", "t"),
    ]  # fmt: skip
    assert [name for name, _ in behaviour.passed_on(fields)] == ["authorization", "x-tenant", "traceparent"]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100_000])
def test_bodies_have_their_size(size: int) -> None:
    assert len(behaviour.body_of(size)) == size


def test_a_spec_survives_the_process_boundary(tmp_path: Path) -> None:
    spec = NodeSpec("node-1", "127.0.0.9", {Protocol.HTTP1: 1}, NEXT, LEAVES, work_rounds_per_us=1.5, cpu=1)
    file = tmp_path / "node.json"
    file.write_text(spec.to_json())
    assert NodeSpec.read(file) == spec
    assert NodeSpec.parse('{"name": "n"}').ports == SERVICE_PORTS
    assert NEXT.authority(Protocol.GRPC) == "node-2.backend.svc.cluster.local:8082"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "n", "port": 3}', '{"name": "n", "ports": {"x": 1}}']
)
def test_what_is_not_a_spec_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "node.json"
    file.write_text(text)
    with pytest.raises(MeshwiseError) as caught:
        NodeSpec.read(file)
    assert caught.value.code == "MW901"
    assert caught.value.where == str(file)


def test_work_is_a_fixed_amount() -> None:
    assert work(3) == work(3) != work(4)
    assert rounds_for(10, 2.5) == 25
    assert calibrate() > 0.01
