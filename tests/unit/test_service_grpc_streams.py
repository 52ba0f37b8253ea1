"""gRPC streams at a node, against the h2 library; without a socket."""

from __future__ import annotations

import contextlib

import h2.events
import h2.exceptions
import h2.settings
import pytest
from tests.support.http2_talk import CALL, SPEC, Talk

from meshwise.service import grpc_framing
from meshwise.service.behaviour import STREAM_PATHS
from meshwise.service.grpc_streams import HELD_BYTES, GrpcServer, StreamHeads
from meshwise.study.model import Protocol
from meshwise.study.protocol import Streaming

ASKED = grpc_framing.frame_payload(b"asking")


def talk() -> Talk:
    return Talk(heads=StreamHeads(SPEC, 1.0, Protocol.GRPC), server=GrpcServer)


def call(kind: Streaming, plan: str) -> list[tuple[str, str]]:
    return [(name, STREAM_PATHS[kind] if name == ":path" else value) for name, value in CALL] + [
        ("x-plan", plan)
    ]


def begun(ground: Talk, kind: Streaming, plan: str) -> int:
    stream_id = ground.client.get_next_available_stream_id()
    ground.client.send_headers(stream_id, call(kind, plan))
    ground.flush()
    return stream_id


def say(ground: Talk, stream_id: int, data: bytes, *, end: bool = False) -> list[bytes]:
    """The DATA that came for it."""
    before = len(ground.events)
    ground.client.send_data(stream_id, data, end_stream=end)
    ground.flush()
    came = [event for event in ground.events[before:] if isinstance(event, h2.events.DataReceived)]
    return [event.data for event in came if event.stream_id == stream_id]


def test_many_messages_up_and_one_down() -> None:
    ground = talk()
    for ending in (False, True):  # the end with the last message, and alone
        stream_id = begun(ground, Streaming.CLIENT, "bytes=3")
        assert say(ground, stream_id, ASKED[:2]) == []
        assert say(ground, stream_id, ASKED[2:] + ASKED, end=ending) == (
            [grpc_framing.frame_payload(b' !"')] if ending else []
        )
        if not ending:
            say(ground, stream_id, b"", end=True)
        _, body, trailers = ground.answer(stream_id)
        assert (body, trailers["grpc-status"]) == (grpc_framing.frame_payload(b' !"'), "0")
    assert ground.server.idle


def test_one_message_up_and_many_down_each_in_a_frame() -> None:
    ground = talk()
    stream_id = begun(ground, Streaming.SERVER, "bytes=2;messages=5")
    assert say(ground, stream_id, ASKED, end=True) == [grpc_framing.frame_payload(b" !")] * 5
    headers, _, trailers = ground.answer(stream_id)
    assert (headers[":status"], headers["content-type"]) == ("200", "application/grpc")
    assert trailers["grpc-status"] == "0"


def test_a_server_stream_waits_for_the_windows() -> None:
    ground = talk()
    ground.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 30})
    ground.flush()
    stream_id = begun(ground, Streaming.SERVER, "bytes=2;messages=9")
    message = grpc_framing.frame_payload(b" !")
    came = b"".join(say(ground, stream_id, ASKED, end=True))
    assert came == (9 * message)[:30]
    while len(came) < 9 * len(message):
        before = len(ground.events)
        ground.client.increment_flow_control_window(13, stream_id)
        ground.flush()
        new = [e.data for e in ground.events[before:] if isinstance(e, h2.events.DataReceived)]
        assert new, "the server does not go on"
        came += b"".join(new)
    assert came == 9 * message
    assert ground.answer(stream_id)[2]["grpc-status"] == "0"


def test_a_dialogue_answers_each_message_as_it_comes() -> None:
    ground = talk()
    stream_id = begun(ground, Streaming.BIDI, "bytes=2")
    message = grpc_framing.frame_payload(b" !")
    assert say(ground, stream_id, ASKED) == [message]
    assert say(ground, stream_id, ASKED[:7]) == []
    assert say(ground, stream_id, ASKED[7:] + 2 * ASKED) == [message] * 3
    assert say(ground, stream_id, ASKED, end=True) == [message]
    assert ground.answer(stream_id)[2]["grpc-status"] == "0"
    assert ground.server.idle


def test_a_dialogue_without_a_message_is_an_empty_answer() -> None:
    ground = talk()
    stream_id = ground.ask(call(Streaming.BIDI, "bytes=2"))
    headers, body, trailers = ground.answer(stream_id)
    assert (headers[":status"], body, trailers["grpc-status"]) == ("200", b"", "0")


def test_streams_do_not_mix() -> None:
    ground = talk()
    one, two = begun(ground, Streaming.BIDI, "bytes=1"), begun(ground, Streaming.BIDI, "bytes=4")
    assert say(ground, one, ASKED[:4]) == []
    assert say(ground, two, ASKED) == [grpc_framing.frame_payload(b' !"#')]
    assert say(ground, one, ASKED[4:], end=True) == [grpc_framing.frame_payload(b" ")]
    say(ground, two, b"", end=True)
    assert ground.answer(two)[2]["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("kind", "plan", "body", "status"),
    [
        (Streaming.CLIENT, "bytes=1", ASKED[:-1], "13"),
        (Streaming.SERVER, "bytes=1", 2 * ASKED, "13"),
        (Streaming.SERVER, "bytes=1", b"", "13"),
        (Streaming.CLIENT, "bytes=1", b"\1" + ASKED[1:], "12"),
        (Streaming.BIDI, "bytes=1", b"\1" + ASKED[1:], "12"),
        (Streaming.CLIENT, "bytes=1;hops=1", ASKED, "12"),
        (Streaming.BIDI, "bytes=x", ASKED, "3"),
        (Streaming.SERVER, "bytes=1000000;messages=1000", ASKED, "3"),
    ],
)
def test_what_is_wrong_is_told_by_a_status(kind: Streaming, plan: str, body: bytes, status: str) -> None:
    ground = talk()
    stream_id = begun(ground, kind, plan)
    say(ground, stream_id, body, end=True)
    headers, _, _ = ground.answer(stream_id)
    assert (headers[":status"], headers["grpc-status"]) == ("200", status)
    assert headers["grpc-message"]
    assert ground.server.idle


def test_what_is_wrong_in_the_middle_is_told_by_trailers() -> None:
    ground = talk()
    stream_id = begun(ground, Streaming.BIDI, "bytes=2")
    say(ground, stream_id, ASKED)
    say(ground, stream_id, ASKED[:-1], end=True)
    _, body, trailers = ground.answer(stream_id)
    assert (body, trailers["grpc-status"]) == (grpc_framing.frame_payload(b" !"), "13")
    assert ground.server.idle


def test_a_stream_that_the_caller_resets_is_forgotten() -> None:
    ground = talk()
    stream_id = begun(ground, Streaming.BIDI, "bytes=2")
    say(ground, stream_id, ASKED)
    ground.client.reset_stream(stream_id)
    ground.flush()
    assert ground.server.idle


def test_a_caller_that_takes_no_answers_is_cut_off() -> None:
    ground = talk()
    ground.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    ground.flush()
    stream_id = begun(ground, Streaming.BIDI, "bytes=100000")
    for _ in range(HELD_BYTES // 100_000):
        say(ground, stream_id, ASKED)
    assert not ground.of_type(h2.events.StreamReset)
    with contextlib.suppress(h2.exceptions.StreamClosedError):
        for _ in range(3):
            say(ground, stream_id, ASKED)
    [reset] = ground.of_type(h2.events.StreamReset)
    assert reset.stream_id == stream_id
    assert ground.server.idle


def test_unary_calls_are_as_they_were() -> None:
    ground = talk()
    _, body, trailers = ground.answer(ground.ask([*CALL, ("x-plan", "bytes=3")], ASKED))
    assert (body, trailers["grpc-status"]) == (grpc_framing.frame_payload(b' !"'), "0")
    unknown = [(name, "/meshwise.Echo/Nope" if name == ":path" else value) for name, value in CALL]
    assert ground.answer(ground.ask(unknown, ASKED))[0]["grpc-status"] == "12"
