"""The conformance suite of the seam `Reach`: what a proof may rely on, however its calls are made.

Subclass it and say how to reach a program that answers HTTP/1.1 on the loopback of the pod `node-1`:

    class TestMine(ReachConformance):
        def reach(self) -> Reach: ...
        port = ...  # where it listens; it answers `GET /echo` with 200 and any other path with 404
        address = ...  # where a call of another pod reaches it over the link of `node-1`
"""

from __future__ import annotations

from dataclasses import replace
from secrets import token_bytes

import pytest

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.probe import Ask
from meshwise.mesh.protection.talk import End, Say
from meshwise.mesh.reach import Reach
from meshwise.study.model import Protocol

REQUEST = Ask(Protocol.HTTP1, "node-1", "GET", "/echo", ())


class ReachConformance:
    port: int
    closed_port: int
    address = "127.0.0.1"

    def reach(self) -> Reach:
        raise NotImplementedError

    def test_a_call_is_answered(self) -> None:
        assert self.reach().call("node-1", "127.0.0.1", self.port, REQUEST).seen is CallOutcome.OK

    def test_a_call_to_nobody_is_an_answer_too(self) -> None:
        answer = self.reach().call("node-1", "127.0.0.1", self.closed_port, REQUEST)
        assert answer.seen is CallOutcome.CLOSED
        assert answer.detail

    def test_who_listens_is_told(self) -> None:
        assert self.reach().listens("node-1", self.port)
        assert not self.reach().listens("node-1", self.closed_port)

    def test_a_question_gives_the_body_again_and_again(self) -> None:
        reach = self.reach()
        assert {reach.get("node-1", self.port, "/echo") for _ in range(3)} == {b"ok"}

    def test_what_is_not_200_is_an_error_that_names_the_pod(self) -> None:
        with pytest.raises(MeshwiseError) as caught:
            self.reach().get("node-1", self.port, "/other")
        assert caught.value.code == messages.ADMIN_SILENT.code
        assert "node-1" in str(caught.value)

    def test_nobody_is_an_error_that_names_the_pod(self) -> None:
        with pytest.raises(MeshwiseError) as caught:
            self.reach().get("node-1", self.closed_port, "/echo")
        assert "node-1" in str(caught.value)

    def test_a_line_to_nobody_says_so_when_it_is_talked_over(self) -> None:
        with self.reach().line("node-1", "127.0.0.1", self.closed_port) as line:
            assert line.talk(Say((b"x",))).end is End.REFUSED

    def test_what_speaks_no_tls_chooses_nothing(self) -> None:
        assert isinstance(self.reach().choice("node-1", "127.0.0.1", self.port, "name"), str)

    def test_an_answer_says_what_it_was(self) -> None:
        answer = self.reach().call("node-1", "127.0.0.1", self.port, REQUEST)
        assert answer.status == 200
        assert answer.field("no-such-field") == ""

    def test_who_sits_on_the_wire_reads_what_is_said_in_plaintext_and_nothing_of_before(self) -> None:
        reach, marker, former = self.reach(), token_bytes(32), token_bytes(32)
        reach.call("client", self.address, self.port, replace(REQUEST, body=former))
        with reach.overhear("node-1") as listen:
            assert not listen().found(former)
            reach.call("client", self.address, self.port, replace(REQUEST, body=marker))
            first, again = listen(), listen()
        assert len(first.found(marker)) == 1
        assert again.found(marker), "nothing is forgotten"
        assert not again.found(former)
        assert first.packets > 0
