"""Attempts as data, and how one is carried out and judged, on a fake reach."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.support.mesh_samples import CELL, placement

from meshwise.analysis.protection import protected
from meshwise.analysis.protection_findings import protection_findings
from meshwise.archive.outcome import ProtectionTry
from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.wiring import not_applicable
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.probe import Ask, ProbeAnswer, TlsAs
from meshwise.mesh.protection.attempt import (
    ALWAYS,
    BY_CALLER,
    NEVER,
    STRICT,
    AttackStep,
    Attempt,
    AttemptOutcome,
    Seen,
)
from meshwise.mesh.protection.catalogue import ATTEMPTS, BY_KEY
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.sides import SIDES
from meshwise.mesh.protection.trying import try_once
from meshwise.report.blocks import Sentences
from meshwise.report.protection import differences, protection_blocks
from meshwise.runner.protect import Effort, protect, question_of
from meshwise.service import plan
from meshwise.service.behaviour import body_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import load_study
from meshwise.study.model import LADDER, NO_MESH, Cell, MeshName, Posture
from meshwise.study.security import POSTURES
from meshwise.testbed.fake import FakeTestbed
from meshwise.testbed.fake_reach import FakeReach

STUDIES = Path(__file__).parents[2] / "studies"
MESHES = (MeshName.ISTIO, MeshName.LINKERD)


def scene(cell: Cell = CELL, reach: FakeReach | None = None) -> Scene:
    here = placement()
    pages = {("node-1", 8080, "/"): b"", ("node-1", 15000, "/stats"): b'{"stats": []}'}
    return Scene(SIDES[cell.mesh], here, cell, reach or FakeReach(pages))


# --- the table ---------------------------------------------------------------------------------------


def test_every_attempt_says_who_where_and_how_and_names_its_sources() -> None:
    assert len(BY_KEY) == len(ATTEMPTS) >= 24
    for attempt in ATTEMPTS:
        assert attempt.who
        assert attempt.where
        assert attempt.how
        assert attempt.must
        assert set(attempt.documented) == set(MESHES)
        assert all(each.source for each in attempt.documented.values())
    assert len({attempt.words for attempt in ATTEMPTS}) == len(ATTEMPTS)


FIRST: Mapping[str, tuple[str | None, str | None]] = {
    # attempt: first posture that stops it in Istio, in Linkerd
    "sniff-request": ("permissive", "permissive"),
    "sniff-answer": ("permissive", "permissive"),
    "plaintext-call": ("strict", "strict"),
    "no-certificate": ("permissive", "strict"),
    "foreign-authority": ("permissive", "plaintext"),
    "wrong-namespace": ("strict+namespace", "strict+namespace"),
    "wrong-account": ("strict+fine", "strict+fine"),
    "stolen-from-client": (None, None),
    "stolen-other-path": ("strict+fine", "strict+fine"),
    "tls-1.2": (None, "plaintext"),
    "token-expired": ("strict+fine", None),
}


@pytest.mark.parametrize("key", FIRST)
def test_the_first_posture_that_should_stop_it(key: str) -> None:
    found = [BY_KEY[key].documented[mesh].stops.first for mesh in MESHES]
    assert tuple(each.name if each else None for each in found) == FIRST[key]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.key)
def test_what_a_rung_stops_every_higher_rung_stops(attempt: Attempt) -> None:
    for mesh in MESHES:
        stopped = [attempt.documented[mesh].stops.by(posture) for posture in LADDER]
        assert stopped == sorted(stopped)


def test_without_a_mesh_nothing_is_stopped() -> None:
    for attempt in ATTEMPTS:
        assert attempt.expected(MeshName.NONE, NO_MESH) in (
            AttemptOutcome.LET_THROUGH,
            AttemptOutcome.NOT_APPLICABLE,
        )


def test_a_mode_or_a_kind_stops() -> None:
    either = STRICT | BY_CALLER
    assert either.by(POSTURES["strict"])
    assert either.by(POSTURES["permissive+namespace"])
    assert not either.by(POSTURES["permissive+request"])
    assert not either.by(NO_MESH)
    assert NEVER.first is None
    assert ALWAYS.first == LADDER[0]


def test_what_means_nothing_is_not_tried_and_says_why() -> None:
    @dataclass(frozen=True)
    class Never(AttackStep):
        def carry_out(self, scene: Scene) -> Seen:
            raise AssertionError

    attempt = replace(BY_KEY["no-certificate"], step=Never())
    tried = try_once(attempt, scene(replace(CELL, posture=LADDER[0])))
    assert tried.outcome is AttemptOutcome.NOT_APPLICABLE
    assert tried.evidence.reason == "with mTLS disabled the port speaks no TLS"


# --- one try -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers(FakeReach):
    """Every call has this answer."""

    answer: ProbeAnswer = field(default_factory=lambda: ProbeAnswer(CallOutcome.OK))

    def call(self, pod: str, address: str, port: int, request: Ask, tls: TlsAs | None = None) -> ProbeAnswer:
        size = plan.parse(dict(request.headers)[plan.HEADER]).bytes
        return replace(self.answer, body=body_of(size)) if self.answer.body == b"right" else self.answer


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (ProbeAnswer(CallOutcome.OK, status=200, body=b"right"), AttemptOutcome.LET_THROUGH, "200"),
        (
            ProbeAnswer(CallOutcome.OK, status=200, body=b"a page of somebody"),
            AttemptOutcome.UNDECIDED,
            "200",
        ),
        (ProbeAnswer(CallOutcome.FORBIDDEN, status=403, body=b"no"), AttemptOutcome.STOPPED, "403"),
        (ProbeAnswer(CallOutcome.CLOSED, "reset"), AttemptOutcome.STOPPED, CallOutcome.CLOSED),
        (ProbeAnswer(CallOutcome.TLS_FAILED, "UNKNOWN_CA"), AttemptOutcome.STOPPED, CallOutcome.TLS_FAILED),
        (ProbeAnswer(CallOutcome.TLS_FAILED, "NO_PROTOCOLS_AVAILABLE"), AttemptOutcome.UNDECIDED, "TLS"),
        (ProbeAnswer(CallOutcome.TIMEOUT, "timed out"), AttemptOutcome.UNDECIDED, CallOutcome.TIMEOUT),
        (ProbeAnswer(CallOutcome.OTHER, "HTTP 503", status=503, body=b"no"), AttemptOutcome.STOPPED, "503"),
        (
            ProbeAnswer(CallOutcome.OTHER, "HTTP 404", status=404, fields=(("x-reason", "no such path"),)),
            AttemptOutcome.LET_THROUGH,
            "404",
        ),
    ],
)
def test_let_through_means_that_the_service_answered(
    answer: ProbeAnswer, outcome: AttemptOutcome, status: str
) -> None:
    reach = Answers({("node-1", 15000, "/stats"): b'{"stats": []}'}, answer=answer)
    tried = try_once(BY_KEY["plaintext-call"], scene(reach=reach))
    assert tried.outcome is outcome
    assert tried.evidence.status.startswith(status)


def test_what_the_proxy_counted_meanwhile_is_evidence() -> None:
    counts = iter([3, 4])

    @dataclass(frozen=True)
    class Counting(Answers):
        def get(self, pod: str, port: int, path: str) -> bytes:
            name = "http.inbound_0.0.0.0_8080;.rbac.denied"
            return f'{{"stats": [{{"name": "{name}", "value": {next(counts)}}}]}}'.encode()

    denied = ProbeAnswer(CallOutcome.FORBIDDEN, status=403, body=b"RBAC: access denied")
    tried = try_once(BY_KEY["plaintext-call"], scene(reach=Counting(answer=denied)))
    assert tried.evidence.counted == {"rbac.denied": 1}
    assert str(tried.evidence) == "403; RBAC: access denied; counted: rbac.denied 1"


def test_a_proxy_that_falls_silent_is_evidence_and_leaves_the_outcome_open() -> None:
    pages = {("node-1", 15000, "/stats"): b'{"stats": []}'}

    @dataclass(frozen=True)
    class Deadly(AttackStep):
        def carry_out(self, scene: Scene) -> Seen:
            pages.clear()
            return Seen(AttemptOutcome.STOPPED, "closed")

    attempt = replace(BY_KEY["plaintext-call"], step=Deadly())
    tried = try_once(attempt, scene(reach=FakeReach(pages)))
    assert tried.outcome is AttemptOutcome.UNDECIDED
    assert tried.harmed
    assert "fell silent" in tried.evidence.harm


def test_a_body_that_is_heard_on_the_wire_was_let_through() -> None:
    for key in ("sniff-request", "sniff-answer"):
        tried = try_once(BY_KEY[key], scene())
        assert tried.outcome is AttemptOutcome.LET_THROUGH
        assert "found in plaintext in 1 of 1 flows" in tried.evidence.wire


def test_a_call_that_failed_shows_nothing_about_the_wire() -> None:
    deaf = FakeReach({("node-1", 15000, "/stats"): b'{"stats": []}'}, frozenset({"client"}))
    tried = try_once(BY_KEY["sniff-request"], scene(reach=deaf))
    assert tried.outcome is AttemptOutcome.UNDECIDED


# --- all of them -------------------------------------------------------------------------------------


def test_a_study_gives_its_meshes_and_postures_once_each() -> None:
    study = load_study(STUDIES / "ladder.yaml")
    question = question_of(study, ATTEMPTS, 2)
    assert [(cell.mesh, cell.posture) for cell in question.cells if cell.protocol is CELL.protocol] == [
        (MeshName.NONE, NO_MESH),
        *((mesh, posture) for mesh in MESHES for posture in LADDER),
    ]
    assert len({cell.name for cell in question.cells}) == len(question.cells)


def test_every_posture_is_tried_with_what_its_mesh_has() -> None:
    question = question_of(load_study(STUDIES / "ladder.yaml"), ATTEMPTS, 2)
    assert {cell.mesh for cell in question.cells} == {MeshName.NONE, *MESHES}
    assert {cell.name: why for cell in question.cells if (why := not_applicable(cell))} == {}


def test_everything_is_tried_as_often_as_asked_and_what_is_not_proven_is_said() -> None:
    question = question_of(load_study(STUDIES / "quickstart.yaml"), ATTEMPTS, 2)
    cell = next(cell for cell in question.cells if (cell.protocol, cell.posture.name) == ("http2", "strict"))
    testbed = FakeTestbed(question, unproven={f"p01-{question.cells.index(cell):03d}"})
    with testbed:
        tries = list(protect(question, testbed, ATTEMPTS, Effort(2, 3), lambda _: None))
    of_unproven = [each for each in tries if "not proven" in each.evidence]
    assert {(each.mesh, each.posture, each.execution) for each in of_unproven} == {
        (cell.mesh, cell.posture.name, 1)
    }
    found = {(each.mesh, each.posture, each.attempt): each for each in protected(tries)}
    assert len(found) == len({(each.mesh, each.posture) for each in question.cells}) * len(ATTEMPTS)
    assert found[MeshName.ISTIO, "strict", "plaintext-call"].n == 6
    assert found[MeshName.ISTIO, "strict", "plaintext-call"].surprising
    blocks = list(protection_blocks(list(protection_findings(tries, 0.95))))
    told = {block.title: block.texts for block in blocks if isinstance(block, Sentences)}
    surprise = next(text for text in told["what surprises"] if "`plaintext-call`" in text)
    assert "was let through in 6 of 6 tries" in surprise
    assert "documented is that it is stopped" in surprise
    (undecided,) = told["undecided"]
    assert undecided.startswith(f"{cell.mesh} `{cell.posture.name}`: undecided (not tried; ")
    for each in ATTEMPTS:
        meant = each.protocol is cell.protocol and not each.not_applicable(cell.mesh, cell.posture)
        assert (f"`{each.key}`" in undecided) is bool(meant)


def tries(*outcomes: AttemptOutcome, posture: Posture = LADDER[2]) -> list[ProtectionTry]:
    return [
        ProtectionTry("istio", posture.name, "http1", "plaintext-call", 0, number, str(outcome), "{}", 1)
        for number, outcome in enumerate(outcomes)
    ]


def test_the_interval_is_of_the_share_stopped_and_what_differs_is_undecided() -> None:
    (always,) = protected(tries(*[AttemptOutcome.STOPPED] * 10))
    assert (always.outcome, always.n, always.stopped) == (AttemptOutcome.STOPPED, 10, 10)
    assert always.low == pytest.approx(0.6915, abs=1e-4)  # 0.025 ** (1 / 10)
    assert always.high == 1.0
    (mixed,) = protected(tries(AttemptOutcome.STOPPED, AttemptOutcome.LET_THROUGH, AttemptOutcome.UNDECIDED))
    assert (mixed.outcome, mixed.n, mixed.stopped) == (AttemptOutcome.UNDECIDED, 2, 1)
    (open_,) = protected(tries(AttemptOutcome.UNDECIDED))
    assert (open_.n, open_.low, open_.high) == (0, None, None)


# --- kept --------------------------------------------------------------------------------------------


def test_tries_are_kept_in_the_archive_of_their_study_and_replace_those_of_before(tmp_path: Path) -> None:
    study = load_study(STUDIES / "quickstart.yaml")
    asked = question_of(study, ATTEMPTS, 1)
    with FakeTestbed(asked) as testbed:
        found = list(protect(asked, testbed, ATTEMPTS, Effort(1, 2), lambda _: None))
        environment = testbed.environment()
    with Archive.start(tmp_path / "a", study, design(study), environment) as archive:
        assert not archive.protected
        archive.keep_protection(found[:3])
    with Archive.start(tmp_path / "a", study, design(study), environment, resume=True) as archive:
        assert archive.protected
        archive.keep_protection(found)
    reader = ArchiveReader.open(tmp_path / "a")
    assert reader.protection() == tuple(found)
    assert reader.trials().is_empty()
    assert reader.events().is_empty()
    with reader.connect() as connection:
        (count,) = connection.sql("select count(*) from protection where outcome = 'let_through'").fetchall()
    assert count == (sum(one.outcome == "let_through" for one in found),)


def test_a_table_of_tries_that_was_altered_is_refused(tmp_path: Path) -> None:
    study = load_study(STUDIES / "quickstart.yaml")
    with (
        FakeTestbed(study) as testbed,
        Archive.start(tmp_path / "a", study, design(study), testbed.environment()) as archive,
    ):
        archive.keep_protection(tries(AttemptOutcome.STOPPED))
        wrong = replace(tries(AttemptOutcome.STOPPED)[0], outcome="perhaps")
        archive.keep_protection([wrong])
    with pytest.raises(MeshwiseError, match="`outcome` is `perhaps`"):
        ArchiveReader.open(tmp_path / "a").protection()
    path = tmp_path / "a/protection.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(MeshwiseError, match=r"protection\.parquet.*digest"):
        ArchiveReader.open(tmp_path / "a")


def test_where_a_mesh_is_undecided_a_difference_says_of_which_postures_it_speaks() -> None:
    def of(mesh: MeshName, *outcomes: str) -> list[ProtectionTry]:
        return [
            ProtectionTry(mesh, posture.name, "http1", "speech-raw-on-http", 0, 0, outcome, "{}", 1)
            for posture, outcome in zip(LADDER, outcomes, strict=True)
        ]

    istio, linkerd = MESHES
    tried = [*of(istio, *["stopped"] * 5), *of(linkerd, "let_through", *["undecided"] * 4)]
    found = list(protection_findings(tried, 0.95))
    assert list(differences([each for each in found if each.tried])) == [
        "of `plaintext` (others are undecided): istio stops in `plaintext`, linkerd stops in no posture: "
        "`speech-raw-on-http`."
    ]


def test_a_posture_that_is_not_proven_leaves_what_means_nothing_in_it_and_is_told_once() -> None:
    question = question_of(load_study(STUDIES / "quickstart.yaml"), ATTEMPTS, 1)
    strict = [n for n, cell in enumerate(question.cells) if cell.posture.name == "strict"]
    testbed = FakeTestbed(question, unproven={f"p00-{n:03d}" for n in strict})
    with testbed:
        tries = list(protect(question, testbed, ATTEMPTS, Effort(1, 1), lambda _: None))
    outcomes = {one.attempt: one.outcome for one in tries if one.posture == "strict"}
    nothing = {each.key for each in ATTEMPTS if each.not_applicable(MeshName.ISTIO, POSTURES["strict"])}
    assert {key for key, outcome in outcomes.items() if outcome == "not_applicable"} == nothing
    assert {key for key, outcome in outcomes.items() if outcome == "undecided"} == outcomes.keys() - nothing
    blocks = list(protection_blocks(list(protection_findings(tries, 0.95))))
    (told,) = (each for each in blocks if isinstance(each, Sentences) and each.title == "undecided")
    assert any(
        "`strict`" in line and line.endswith("every attempt that means something there.")
        for line in told.texts
    )


def test_differences_between_meshes_are_one_sentence_with_all_their_attempts() -> None:
    def of(mesh: MeshName, attempt: str, *stopped: bool) -> list[ProtectionTry]:
        return [
            ProtectionTry(
                mesh, posture.name, "http1", attempt, 0, 0, "stopped" if yes else "let_through", "{}", 1
            )
            for posture, yes in zip(LADDER, stopped, strict=False)
        ]

    istio, linkerd = MESHES
    found = protection_findings(
        [
            *of(istio, "token-expired", False, False, False, False, True),
            *of(istio, "token-forged", False, False, False, False, True),
            *of(istio, "plaintext-call", False, False, True, True, True),
            *of(linkerd, "token-expired", *[False] * 5),
            *of(linkerd, "token-forged", *[False] * 5),
            *of(linkerd, "plaintext-call", False, False, True, True, True),
        ],
        0.95,
    )
    assert list(differences([each for each in found if each.tried])) == [
        "istio stops in `strict+fine` only, linkerd stops in no posture: `token-expired`, `token-forged`."
    ]


def test_the_page_has_every_attempt_as_the_code_has_it() -> None:
    script = STUDIES.parent / "scripts/protection_page.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False)
    assert done.returncode == 0, "stale: run `python scripts/protection_page.py`"


def test_the_page_shows_what_was_seen_of_every_attempt() -> None:
    seen = (STUDIES.parent / "docs/protection.md").read_text().partition("<!-- seen -->")[2]
    for part in seen.partition("<!-- end of seen -->")[0].split("\n### ")[1:]:
        rows = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
        assert sorted(rows) == sorted(each.key for each in ATTEMPTS), part.partition("\n")[0]
