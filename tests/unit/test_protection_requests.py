"""Attempts on HTTP, carried out on the services' own codecs: what arrives is told right, and judged right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from tests.support.mesh_samples import CELL, placement
from tests.support.stage_conformance import NotedStage

from meshwise.core.patience import USUAL
from meshwise.mesh.probe import TlsAs
from meshwise.mesh.protection import on_requests, on_time
from meshwise.mesh.protection.attempt import Attempt, AttemptOutcome, Seen
from meshwise.mesh.protection.catalogue import BY_KEY
from meshwise.mesh.protection.excess import Flood
from meshwise.mesh.protection.kept import KeptOpen
from meshwise.mesh.protection.requests import in_words, is_not_allowed, path_of
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.sides import SIDES
from meshwise.mesh.protection.smuggling import Smuggle
from meshwise.mesh.protection.spellings import Spell, Spelling
from meshwise.mesh.protection.stage import FIXED, AttackStage
from meshwise.mesh.protection.talk import End, Heard, HeardAnswer, RawLine, Say, http1_answers
from meshwise.mesh.protection.trying import try_once
from meshwise.mesh.protection.uncontrolled import judged
from meshwise.service.arrivals import Arrival, ArrivalLog
from meshwise.study.model import LADDER, NO_MESH, MeshName, Protocol
from meshwise.testbed.fake_reach import FakeReach, services_of

MINE: tuple[Attempt, ...] = (*on_requests.ATTEMPTS, *on_time.ATTEMPTS)
ALLOWED = Arrival("m", "http1", "POST", "/echo", "h", (("x-tenant", "blue"),))
REFUSED = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
STRICT_NAMESPACE = LADDER[3]


@dataclass(frozen=True)
class Guard:
    """See `RawLine`: a proxy of the test that refuses what it knows, and passes the rest on."""

    behind: RawLine
    refuses: Callable[[bytes], bool]

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is open."""

    def talk(self, say: Say) -> Heard:
        if any(map(self.refuses, say.pieces)):
            return Heard(http1_answers(REFUSED), End.OPEN, REFUSED)
        return self.behind.talk(say)


@dataclass(frozen=True)
class GuardedReach(FakeReach):
    refuses: Callable[[bytes], bool] = lambda _: False

    def line(self, pod: str, address: str, port: int, tls: TlsAs | None = None) -> RawLine:  # type: ignore[override]
        return Guard(super().line(pod, address, port, None), self.refuses)


def scene(
    refuses: Callable[[bytes], bool] = lambda _: False,
    protocol: Protocol = Protocol.HTTP1,
    stage: AttackStage | None = None,
) -> Scene:
    """Without a mesh, so in plaintext; what stands in for its proxy is `refuses`."""
    arrived = ArrivalLog()
    cell = replace(CELL, mesh=MeshName.NONE, posture=NO_MESH, protocol=protocol)
    reach = GuardedReach(services=services_of(arrived), arrived=arrived, refuses=refuses)
    return Scene(SIDES[MeshName.NONE], placement(), cell, reach, stage)


# --- what counts as let through ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, False),
        ({"target": "/echo?/../healthz"}, False),
        ({"target": "http://other:1/echo?x"}, False),
        ({"host": "other"}, False),
        ({"method": "post"}, True),
        ({"method": "DELETE"}, True),
        ({"target": "//echo"}, True),
        ({"target": "/echo/"}, True),
        ({"target": "/echo#x"}, True),
        ({"target": "http://other/healthz"}, True),
        ({"fields": (("x-tenant", "blue"), ("x-tenant", "green"))}, True),
        ({"fields": (("x-tenant", "blue"), ("x_tenant", "green"))}, True),
        ({"fields": (("x-tenant", "blue, green"),)}, True),
        ({"fields": ()}, True),
        ({"unread": "SSH"}, True),
    ],
)
def test_what_arrives_is_held_against_the_allowed_request(changes: Mapping[str, str], differs: bool) -> None:
    assert is_not_allowed(scene(), replace(ALLOWED, **changes)) is differs


def test_the_path_of_both_forms_of_a_target() -> None:
    assert path_of("http://h:1/a?b") == path_of("/a?b") == "/a"
    assert path_of("http://h") == "/"


def test_an_arrival_in_words_says_what_is_special() -> None:
    assert in_words(replace(ALLOWED, fields=(("x-tenant", "blue"), ("upgrade", "h2c"), ("a", "b")))) == (
        "POST /echo for h, x-tenant: blue, upgrade: h2c"
    )


# --- spellings ---------------------------------------------------------------------------------------


def test_without_a_mesh_every_attempt_that_means_something_comes_through() -> None:
    for attempt in MINE:
        here = scene(protocol=attempt.protocol)
        tried = try_once(attempt, here)
        assert tried.outcome is attempt.expected(MeshName.NONE, NO_MESH), (attempt.key, tried.evidence)


def spelled(spelling: Spelling, refuses: Callable[[bytes], bool]) -> Seen:
    return Spell((spelling,)).carry_out(scene(refuses))


def test_a_spelling_that_is_refused_is_stopped_and_one_that_arrives_is_told() -> None:
    lower = Spelling("lower case", method="{lower}")
    stopped = spelled(lower, lambda sent: sent.startswith(b"post "))
    assert (stopped.outcome, stopped.reason) == (AttemptOutcome.STOPPED, "403: lower case")
    through = spelled(lower, lambda _: False)
    assert through.outcome is AttemptOutcome.LET_THROUGH
    assert "arrived as post /echo for node-1.backend" in through.status


def test_what_was_made_into_the_allowed_request_is_no_success() -> None:
    same = spelled(Spelling("a query", target="{allowed}?/../healthz"), lambda _: False)
    assert (same.outcome, same.reason) == (AttemptOutcome.STOPPED, "200: a query")


def test_one_of_several_decides() -> None:
    step = Spell((Spelling("a", target="/x"), Spelling("b", target="/y")))
    seen = step.carry_out(scene(lambda sent: b" /x " in sent))
    assert seen.outcome is AttemptOutcome.LET_THROUGH
    assert seen.status.startswith("1 of 2 arrived: b")
    assert seen.reason == "not: 403: a"


def denies(sent: bytes) -> bool:
    return sent.startswith(b"DELETE ")


def test_under_a_rule_that_forbids_whatever_arrives_is_let_through() -> None:
    stage = NotedStage()
    step = BY_KEY["deny-method-case"].step
    seen = step.carry_out(scene(denies, stage=stage))
    assert seen.outcome is AttemptOutcome.LET_THROUGH
    assert stage.pushed == [("none", True), ("none", False)], "laid over it, and taken away again"


def test_a_rule_that_is_not_in_force_decides_nothing() -> None:
    at_once = replace(placement(), patience=replace(USUAL, settle_s=0.0))
    seen = BY_KEY["deny-method-case"].step.carry_out(replace(scene(stage=NotedStage()), placement=at_once))
    assert seen.outcome is AttemptOutcome.UNDECIDED
    assert seen.reason == "the rule was not in force: DELETE was answered 200, the allowed request 200"


def test_where_nothing_can_be_changed_what_needs_a_change_is_not_tried() -> None:
    for key in ("deny-method-case", "kept-caller-http1", "uncontrolled-known-port"):
        seen = BY_KEY[key].step.carry_out(scene())
        assert (seen.outcome, seen.reason) == (AttemptOutcome.NOT_APPLICABLE, FIXED)


# --- smuggling ---------------------------------------------------------------------------------------


def test_bytes_that_come_to_the_service_uncut_are_let_through_and_those_that_do_not_are_stopped() -> None:
    lengths = BY_KEY["smuggle-lengths"].step
    assert isinstance(lengths, Smuggle)
    strict = lengths.carry_out(scene())
    assert strict.outcome is AttemptOutcome.LET_THROUGH, "bytes came to the service, which refused them"
    assert "bytes that are no request here" in strict.status
    guarded = lengths.carry_out(scene(lambda sent: b"Content-Length" in sent))
    assert (guarded.outcome, guarded.reason[:4]) == (AttemptOutcome.STOPPED, "403:")


# --- kept, too much, without control -----------------------------------------------------------------


class Closing(NotedStage):
    """After its second push everything is refused."""

    def refuses(self, _: bytes) -> bool:
        return len(self.pushed) > 1


def test_a_kept_connection_that_is_refused_after_the_push_is_stopped() -> None:
    stage = Closing()
    seen = KeptOpen(LADDER[2], None).carry_out(scene(stage.refuses, stage=stage))
    assert (seen.outcome, stage.pushed) == (AttemptOutcome.STOPPED, [("strict", False), ("none", False)])
    assert seen.status.startswith("refused after 0.0 s: 403")


def test_a_kept_connection_that_goes_on_is_let_through_for_as_long_as_it_was_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshwise.mesh.protection.kept.GRACE_S", 0.0)
    seen = KeptOpen(LADDER[2], None, watch_s=0.15).carry_out(scene(stage=Closing()))
    assert seen.outcome is AttemptOutcome.LET_THROUGH
    assert seen.reason == "still open when the watch of 0.15 s ended"


def test_a_connection_that_cannot_be_opened_before_decides_nothing() -> None:
    stage = Closing([("already", False), ("closed", False)])
    seen = KeptOpen(LADDER[2], None).carry_out(scene(stage.refuses, stage=stage))
    assert (seen.outcome, seen.status) == (AttemptOutcome.UNDECIDED, "not opened")
    assert stage.pushed[-1] == ("none", False), "the posture is brought again"


def test_a_flood_of_which_some_are_refused_is_stopped() -> None:
    seen = Flood(20).carry_out(scene(lambda _: True, Protocol.HTTP2))
    assert seen.outcome is not AttemptOutcome.LET_THROUGH


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ((403,), AttemptOutcome.STOPPED),
        ((502,), AttemptOutcome.LET_THROUGH),
        ((503,), AttemptOutcome.LET_THROUGH),
        ((), AttemptOutcome.UNDECIDED),
    ],
)
def test_a_port_that_nobody_listens_on_tells_by_status(
    statuses: Sequence[int], outcome: AttemptOutcome
) -> None:
    assert judged(tuple(statuses), "heard").outcome is outcome


def test_envoy_ends_a_connection_that_none_of_its_chains_takes() -> None:
    assert judged((), "closed", ended=True).outcome is AttemptOutcome.STOPPED
    assert judged((503,), "closed", ended=True).outcome is AttemptOutcome.LET_THROUGH


def test_an_answer_of_a_flood_is_counted_by_its_status() -> None:
    heard = Heard((HeardAnswer(200, (), 0), HeardAnswer(429, (), 0)), End.OPEN)
    assert heard.statuses == (200, 429)
