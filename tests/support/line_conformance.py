"""The conformance suite of the seam `RawLine`: what an attempt may rely on, however its bytes get there.

Subclass it and say how to get a line to a service that answers HTTP/1.1 `GET /echo` with 200, and one to
nobody:

    class TestMine(LineConformance):
        def line(self) -> RawLine: ...
        def refused(self) -> RawLine: ...
"""

from __future__ import annotations

from meshwise.mesh.protection.talk import End, RawLine, Say, http1


class LineConformance:
    def line(self) -> RawLine:
        raise NotImplementedError

    def refused(self) -> RawLine:
        raise NotImplementedError

    def test_a_line_is_talked_over_again_and_again(self) -> None:
        with self.line() as line:
            for _ in range(2):
                heard = line.talk(Say((http1("GET", "/echo", "n", ()),)))
                assert (heard.statuses, heard.end) == ((200,), End.OPEN)
                assert heard.received.startswith(b"HTTP/1.1 200 ")

    def test_as_many_answers_are_read_as_are_asked_for(self) -> None:
        one = http1("GET", "/echo", "n", ())
        with self.line() as line:
            assert line.talk(Say((one, one), answers=2)).statuses == (200, 200)

    def test_a_line_to_nobody_says_so_when_it_is_talked_over(self) -> None:
        with self.refused() as line:
            heard = line.talk(Say((b"x",)))
        assert (heard.end, heard.answers) == (End.REFUSED, ())
        assert heard.detail
