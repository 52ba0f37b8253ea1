"""Scripts of a node: what is asked when, what is answered, what an error does; without a socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.service import behaviour, grpc_framing, http1_server, http2_server
from meshwise.service.http2_blocks import PeerBlocks
from meshwise.service.loop import Loop
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.plan import Plan, PlanError, parse
from meshwise.service.script import ASKED_ERROR, Player, Script, Stage
from meshwise.service.sleeps import Sleeps
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.graph.model import Call, Concurrent, GraphService, Sleep
from meshwise.study.model import Protocol

A, B, C = (Upstream(f"10.96.0.{at}", f"{name}.test") for at, name in enumerate("abc", start=1))
MS = 10**6


def spec(*script: object, **traits: object) -> NodeSpec:
    service = GraphService("node", script=script, **traits)  # type: ignore[arg-type]
    return NodeSpec("node", scripts={"graph-g": service}, upstreams={"a": A, "b": B, "c": C}, seed=7)


class Scene:
    """A player whose calls are remembered and answered by hand, and whose loop is turned by hand."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.player = Player(loop, self._start, seed=7)
        self.asked: list[tuple[list[str], Done]] = []
        self.ended: list[tuple[str, int]] = []

    def _start(self, protocol: Protocol, calls: Sequence[Outgoing], done: Done) -> None:
        self.asked.append(([call.head.decode() for call in calls], done))

    def play(self, script: Script[str]) -> None:
        def make(name: str) -> Outgoing:
            return Outgoing(A, name.encode(), b"")

        self.player.play(Protocol.HTTP1, script, make, lambda *ending: self.ended.append(ending))

    def turn(self) -> None:
        """What the loop does before it waits."""
        while self.loop.soon:
            self.loop.soon.popleft()()

    def wait(self, until: Callable[[], bool]) -> None:
        def look(mask: int = 0) -> None:
            self.loop.running = not until()
            if self.loop.running:
                self.player.sleeps.add(MS, look)

        self.loop.running = True
        look()
        self.loop.run()


def stage(*calls: str, sleep_ms: int = 0, chance: float = 1.0) -> Stage[str]:
    return Stage(tuple((call, chance) for call in calls), sleep_ms * MS)


def test_steps_follow_each_other_and_answers_are_counted() -> None:
    with Loop() as loop:
        scene = Scene(loop)
        scene.play(Script((stage("a"), stage("b", "c"))))
        assert [names for names, _ in scene.asked] == [["a"]]
        scene.asked[0][1]("", 10)
        assert [names for names, _ in scene.asked] == [["a"], ["b", "c"]]
        assert not scene.ended
        scene.asked[1][1]("", 30)
        assert scene.ended == [("", 40)]


def test_a_failed_step_is_the_last_and_waits_for_all_of_itself() -> None:
    with Loop() as loop:
        scene = Scene(loop)
        scene.play(Script((stage("a", sleep_ms=3), stage("b"))))
        scene.asked[0][1]("connection lost", 0)
        assert not scene.ended  # it still sleeps
        scene.wait(lambda: bool(scene.ended))
        assert scene.ended == [("connection lost", 0)]
        assert len(scene.asked) == 1
        scene.player.close()


def test_nothing_is_told_before_play_returns() -> None:
    with Loop() as loop:
        scene = Scene(loop)
        scene.play(Script((), error_share=1.0))
        scene.play(Script((stage("a", chance=0.0),)))
        assert not scene.ended
        scene.turn()
        assert scene.ended == [(ASKED_ERROR, 0), ("", 0)]
        assert not scene.asked


def test_chances_come_from_the_seed_and_keep_their_share() -> None:
    def drawn() -> list[int]:
        with Loop() as loop:
            scene = Scene(loop)
            for _ in range(2000):
                scene.play(Script((stage("a", "b", chance=0.25), stage("c"))))
                for _, done in scene.asked[-1:]:
                    done("", 0)
            return [len(names) for names, _ in scene.asked]

    assert drawn() == drawn()
    calls = sum(size for size in drawn() if size)
    assert calls / 2000 == pytest.approx(0.5 + 1.0, abs=0.6)


def test_sleeps_end_in_their_order_and_not_early() -> None:
    ended: list[str] = []
    with Loop() as loop:
        sleeps = Sleeps(loop)
        sleeps.add(8 * MS, lambda: (ended.append("late"), setattr(loop, "running", False))[0])  # type: ignore[func-returns-value]
        sleeps.add(2 * MS, lambda: ended.append("early"))
        sleeps.add(0, lambda: ended.append("at once"))
        assert not ended
        loop.run()
        sleeps.close()
    assert ended == ["at once", "early", "late"]


def test_a_plan_names_a_script_and_nothing_beside_it() -> None:
    plan = Plan(bytes=9, script="graph-g")
    assert parse(str(plan)) == plan
    for wrong in ("script=A", "script=a;hops=1", "script=a;script=b", "script="):
        with pytest.raises(PlanError, match="script"):
            parse(wrong)


def test_a_node_decides_by_its_script() -> None:
    found = behaviour.decide(
        "/echo", "bytes=50;script=graph-g",
        spec(
            Sleep(MS),
            Concurrent((Call("a", 7), Sleep(3 * MS), Call("b", None, 0.5), Sleep(2 * MS))),
            Call("c"),
        ),
        1.0,
    )  # fmt: skip
    script = found.script
    assert script is not None
    assert (found.status, found.body_bytes, found.calls) == (200, 50, ())
    sleep, both, last = script.stages
    assert (sleep.calls, sleep.sleep_ns) == ((), MS)
    assert [(call.upstream, call.request_bytes, chance) for call, chance in both.calls] == [
        (A, 7, 1.0),
        (B, None, 0.5),
    ]
    assert both.sleep_ns == 3 * MS
    assert last.calls[0][0].plan == "bytes=50;script=graph-g"


def test_a_leaf_is_a_plain_echo_of_its_own_size() -> None:
    assert behaviour.decide(
        "/echo", "bytes=50;script=graph-g", spec(response_bytes=3), 1.0
    ) == behaviour.PlannedAnswer(200, 3)
    assert behaviour.decide("/echo", "bytes=50;script=graph-g", spec(), 1.0) == behaviour.PlannedAnswer(
        200, 50
    )
    missing = behaviour.decide("/echo", "script=other", spec(), 1.0)
    assert (missing.status, missing.reason) == (502, "node has no script other")


def test_errors_that_were_asked_for_are_told_from_others() -> None:
    reasons = (
        ASKED_ERROR,
        "upstream status 500",
        "upstream grpc-status 13",
        "upstream status 503",
        "connection lost",
    )
    assert [behaviour.failed(reason).status for reason in reasons] == [500, 500, 500, 502, 502]
    assert grpc_framing.status_of(500) == grpc_framing.INTERNAL


def test_a_spec_with_scripts_survives_the_process_boundary() -> None:
    one = spec(Concurrent((Call("a"), Sleep(5))), Call("b", 3, 0.5), error_share=0.1, aggregates=True)
    assert NodeSpec.parse(one.to_json()) == one
    with pytest.raises(ValueError, match="no upstreams"):
        NodeSpec.parse(spec(Call("z")).to_json())


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 16_500, 3_000_000])
def test_the_payload_of_a_message_is_told_from_its_frame(size: int) -> None:
    assert grpc_framing.payload_bytes(len(grpc_framing.frame_payload(b"x" * size))) == size


class Stage1:
    """An HTTP/1.1 server whose player ends as the test says."""

    def __init__(self, node: NodeSpec) -> None:
        self.sent = b""
        self.made: list[Outgoing] = []
        self.done: Done | None = None
        self.codec = http1_server.Http1Server(
            http1_server.RequestHeadCache(node, 1.0), lambda *_: None, self._play
        )
        self.codec.emit = self._emit

    def _emit(self, data: bytes) -> None:
        self.sent += data

    def _play(
        self,
        protocol: Protocol,
        script: Script[http1_server.PreparedHttp1Call],
        make: Callable[[http1_server.PreparedHttp1Call], Outgoing],
        done: Done,
    ) -> None:
        self.made = [make(call) for each in script.stages for call, _ in each.calls]
        self.done = done

    def ask(self, *fields: str, body: bytes = b"") -> None:
        lines = ["POST /echo HTTP/1.1", "host: a", f"content-length: {len(body)}", *fields, "", ""]
        assert self.codec.receive("\r\n".join(lines).encode() + body) == b""


PLAN = "x-plan: bytes=5;script=graph-g"


def test_http1_calls_carry_their_own_bytes_or_those_of_the_request() -> None:
    scene = Stage1(spec(Call("a", 3), Call("b"), Call("c", 0)))
    scene.ask(PLAN, "x-request-id: abc", "x-tenant: t", body=b"12345678")
    a, b, c = scene.made
    assert (len(a.body), b.body, c.body) == (3, b"12345678", b"")
    assert b"content-length: 3\r\n" in a.head
    assert b"content-length" not in c.head
    for call, host in ((a, b"a.test"), (b, b"b.test"), (c, b"c.test")):
        assert call.head.startswith(b"POST /echo HTTP/1.1\r\nhost: " + host + b":8080\r\n")
        assert b"x-request-id: abc\r\n" in call.head
        assert b"x-plan: bytes=5;script=graph-g\r\n" in call.head
    assert scene.done is not None
    scene.done("", 11)
    assert scene.sent.endswith(b"content-type: application/octet-stream\r\n\r\n" + behaviour.body_of(5))
    assert scene.codec.idle


def test_http1_answers_all_that_it_was_answered_or_the_error() -> None:
    for reason, answered, expected in (
        ("", 11, b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n"),
        (ASKED_ERROR, 0, b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n"),
        ("deadline", 0, b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n"),
    ):
        scene = Stage1(spec(Call("a"), aggregates=True))
        scene.ask(PLAN)
        assert scene.done is not None
        scene.done(reason, answered)
        assert scene.sent.startswith(expected)


def test_http2_and_grpc_heads_carry_the_script() -> None:
    from meshwise.load.wire.blocks import encode_block

    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/meshwise.Echo/Call"), (":authority", "x"),
              ("content-type", "application/grpc"), ("te", "trailers"),
              ("x-plan", "bytes=5;script=graph-g")]  # fmt: skip
    heads = http2_server.HeaderBlockCache(
        spec(Call("a"), error_share=0.5, aggregates=True), 1.0, Protocol.GRPC
    )
    head = heads.get(PeerBlocks(), encode_block(fields))
    assert head.passes_on
    assert head.script is not None
    assert (head.script.error_share, head.script.aggregates, head.body_bytes) == (0.5, True, 5)


def test_a_spec_that_is_none_is_named(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "node.json"
    file.write_text(spec(Call("z")).to_json())
    with pytest.raises(MeshwiseError) as caught:
        NodeSpec.read(file)
    assert caught.value.code == "MW901"
