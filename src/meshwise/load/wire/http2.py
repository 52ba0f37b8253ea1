"""HTTP/2 from the client's side (RFC 9113): preassembled requests, minimal parsing, all of flow control.

Streams are known by the four bytes of their id, which spares the integer. What a header block means is
looked up by its bytes (see `blocks` for why that is right), and an answer that repeats the last one takes a
short cut.

An answer that is malformed (section 8.1.1: its fields, the order of its frames, a body that is not as long
as its content-length) fails its own request, with RST_STREAM where the stream is still open; the connection
and its other requests go on. What section 5.4.1 calls a connection error is a `WireError`. Frames on a stream
that has ended are ignored, as nghttp2 and Go do: they may have been under way when we reset it.

We ask for no dynamic table, no push, and the largest windows: bodies are counted and thrown away, so a
window bounds nothing, and window updates would be work that is not the server's. Both directions of
flow control are kept all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import CACHE_BLOCK_BYTES, BlockDecoder
from meshwise.load.wire.foreign import foreign
from meshwise.load.wire.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_STREAM_ID,
    MAX_WINDOW_BYTES,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FramingError,
)
from meshwise.load.wire.grpc_messages import PREFIX_BYTES
from meshwise.load.wire.http2_request import EncodedRequest
from meshwise.load.wire.http2_sending import Sending
from meshwise.load.wire.http2_shortcut import AnswerForm, learn
from meshwise.load.wire.http2_stream import (
    Meaning,
    ResponseStream,
    StreamError,
    begin,
    end,
    meaning_of,
    wrong_length,
)
from meshwise.load.wire.seam import Completion, ErrorKind, WireError, http_outcome, is_protocol_error, outcome

MAX_HEADER_BYTES = 256 * 1024
_REPLENISH_BYTES = 2**30
_CONNECTION = b"\0\0\0\0"
_KNOWN_BLOCKS = 512
_LEARN_EVERY = 8  # of the receives that took the long way: answers that never repeat should cost little
_OPENING = (
    frames.PREFACE
    + frames.settings(
        {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: MAX_WINDOW_BYTES,
            frames.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
        }
    )
    + frames.window_update(0, MAX_WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
)


class Http2(Sending):
    """One HTTP/2 connection (WireProtocol)."""

    _counts_messages = False
    """Whether `_count_messages` wants to see the payload of DATA."""

    def __init__(self, request: EncodedRequest, streams: int) -> None:
        super().__init__(request, streams)
        self.reasons: list[str] = []
        self.broken: WireError | None = None
        self._bodiless = request.bodiless
        self._answers: dict[bytes, ResponseStream] = {}
        self._rest = b""
        self._block: tuple[bytes, int, bytearray] | None = (
            None  # a header block that CONTINUATION goes on with
        )
        self._unacknowledged = 0
        self._decoder = BlockDecoder()
        self._meanings: dict[bytes, Meaning] = {}
        self._shape: AnswerForm | None = None
        self._until_learning = 0
        self._last_words = frames.goaway(0, frames.NO_ERROR)

    # --- the seam ------------------------------------------------------------------------------

    @property
    def used(self) -> bool:
        return self._next_id > 1

    def opening(self) -> bytes:
        return _OPENING

    def receive(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        done: list[Completion] = []
        offset = 0
        shape = self._shape
        may_learn, generation = not self._rest and not self._answers, self._decoder.generation
        if self._rest:
            data = self._rest + data
            self._rest = b""
        elif shape is not None and not self._answers and self._block is None and not self._held_back:
            offset = self._receive_alike(shape, data, now_ns, done)
            if offset == len(data):
                return done
        if not self.ready:
            self._look_at_the_first(data)
        try:
            first_end = self._receive_frames(data, offset, now_ns, done)
        except FramingError as error:
            self._last_words = frames.goaway(0, error.code)
            broken = WireError(ErrorKind.PROTOCOL, str(error))
            if not done:
                raise broken from error
            self.broken = broken  # the answers before it count
            self._end()
            return done
        if may_learn and first_end and not offset and generation == self._decoder.generation:
            if not self._until_learning and not is_protocol_error(done[0][2]):
                prefix_bytes = PREFIX_BYTES if self._counts_messages else 0
                self._shape = learn(data[:first_end], done[0][2], prefix_bytes) or self._shape
            self._until_learning = (self._until_learning + 1) % _LEARN_EVERY
        return done

    def end_of_stream(self, now_ns: int, *, clean: bool = True) -> Sequence[Completion]:
        if not self.ready:
            raise WireError(ErrorKind.RESET, "closed by the server before its HTTP/2 SETTINGS")
        self._end()
        return ()

    def farewell(self) -> bytes:
        return self._last_words

    def cancel(self, tag: int) -> bool:
        for key, open_tag in self._open.items():
            if open_tag == tag:
                if key in self._held_back:
                    self._note("the server's flow-control window had no room for the rest of the body")
                self._forget_reset(key)
                self._send(frames.rst_stream(int.from_bytes(key, "big"), frames.CANCEL))
                return True
        return True

    def open_tags(self) -> list[int]:
        return list(self._open.values())

    def _look_at_the_first(self, data: bytes) -> None:
        """A server that speaks something else says so in its first bytes."""
        who = foreign(data)
        if who and who != "HTTP/2":
            raise WireError(ErrorKind.PROTOCOL, f"the server does not speak HTTP/2 here, it answers in {who}")

    # --- receiving -----------------------------------------------------------------------------

    def _receive_alike(self, shape: AnswerForm, data: bytes, now_ns: int, done: list[Completion]) -> int:
        """Takes answers of this shape from the front; gives the offset behind the last of them."""
        offset, end = 0, len(data)
        size, starts, take = shape.size_bytes, data.startswith, self._open.pop
        head, middle, outcome = shape.head, shape.middle, shape.outcome
        second_id, tail_at = shape.second_id, shape.tail_at
        prefix, tail, trailers = shape.prefix, shape.tail, shape.trailers
        while end - offset >= size and starts(head, offset) and starts(middle, offset + 9):
            key = data[offset + 5 : offset + 9]
            if second_id and not starts(key + prefix if prefix else key, offset + second_id):
                break
            if tail_at:
                at = offset + tail_at
                if not (starts(tail, at) and starts(key + trailers, at + 5)):
                    break
            tag = take(key, -1)
            if tag < 0:
                break  # no request waits for it: the long way decides what that means
            done.append((tag, now_ns, outcome))
            offset += size
        if done:
            self._unacknowledged += len(done) * shape.data_bytes
            if self._unacknowledged >= _REPLENISH_BYTES:
                self._give_back_window()
            if self.closing:
                self.attention = True
        return offset

    def _receive_frames(self, data: bytes, offset: int, now_ns: int, done: list[Completion]) -> int:
        """Takes every whole frame; gives the offset behind the one that completed the first answer, or 0."""
        first_end, end = 0, len(data)
        while end - offset >= 9:
            length = data[offset] << 16 | data[offset + 1] << 8 | data[offset + 2]
            stop = offset + 9 + length
            if length > DEFAULT_FRAME_BYTES:
                raise FramingError(
                    frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes: {data[offset:][:24]!r}"
                )
            if stop > end:
                break
            kind, flags = data[offset + 3], data[offset + 4]
            key = data[offset + 5 : offset + 9]
            if key[0] & 0x80:
                key = (int.from_bytes(key, "big") & MAX_STREAM_ID).to_bytes(4, "big")
            if self._block is not None and kind != CONTINUATION:
                raise FramingError(frames.PROTOCOL_ERROR, "a header block that was not continued")
            try:
                if kind == DATA:
                    padding = 0
                    if flags & PADDED:
                        frames.unpad(kind, flags, data[offset + 9 : stop])
                        padding = 1 + data[offset + 9]
                    if self._counts_messages and length > padding:
                        self._count_messages(key, frames.unpad(kind, flags, data[offset + 9 : stop]))
                    self._on_data(key, flags, length - padding, length, done)
                elif kind == HEADERS:
                    block = data[offset + 9 : stop]
                    if flags & ~(END_HEADERS | END_STREAM):
                        block = frames.unpad(kind, flags, block)
                    if flags & END_HEADERS:
                        self._on_block(key, flags, block, now_ns, done)
                    else:
                        self._block = (key, flags, bytearray(block))
                else:
                    self._on_other(kind, flags, key, data[offset + 9 : stop], now_ns, done)
            except StreamError as error:
                self._fail(key, error, now_ns, done)
            offset = stop
            if not first_end and done:
                first_end = stop
        if offset < end:
            self._rest = data[offset:]
        return first_end

    def _on_data(self, key: bytes, flags: int, size: int, taken: int, done: list[Completion]) -> None:
        self._unacknowledged += taken
        if self._unacknowledged >= _REPLENISH_BYTES:
            self._give_back_window()
        stream = self._answers.get(key)
        if stream is None or not stream.status:
            if key in self._open:
                raise StreamError("DATA before the response's HEADERS")
            self._check_closed(key)
            return
        stream.body_bytes += size
        if flags & END_STREAM:
            self._finish(key, stream, done)
            return
        if stream.body_bytes > stream.expected_bytes >= 0:
            raise StreamError(wrong_length(stream))
        stream.unacknowledged += taken
        if stream.unacknowledged >= _REPLENISH_BYTES:
            self._send(frames.window_update(int.from_bytes(key, "big"), stream.unacknowledged))
            stream.unacknowledged = 0

    def _count_messages(self, key: bytes, payload: bytes) -> None:
        """Called for each DATA before it is accounted for."""

    def _give_back_window(self) -> None:
        self._send(frames.window_update(0, self._unacknowledged))
        self._unacknowledged = 0

    def _on_block(self, key: bytes, flags: int, block: bytes, now_ns: int, done: list[Completion]) -> None:
        meaning = self._meanings.get(block) or self._read_block(block)
        if key not in self._open:
            self._check_closed(key)
            return
        if meaning[3]:
            raise StreamError(meaning[3])
        stream = self._answers.get(key)
        if stream is None:
            stream = self._answers[key] = ResponseStream(now_ns)
        ends = bool(flags & END_STREAM)
        if stream.status:
            end(stream, meaning, ends=ends)
        else:
            begin(stream, meaning, ends=ends, bodiless=self._bodiless)
        if ends:
            self._finish(key, stream, done)

    def _finish(self, key: bytes, stream: ResponseStream, done: list[Completion]) -> None:
        tag = self._forget(key)
        problem = self._wrong(stream)
        if problem:
            self._note(problem)
            done.append((tag, stream.first_ns, self._malformed(stream)))
        else:
            done.append((tag, stream.first_ns, self._outcome(stream)))

    def _fail(self, key: bytes, error: StreamError, now_ns: int, done: list[Completion]) -> None:
        """A stream error: this request has failed, whatever else comes of it is ignored."""
        if key not in self._open:
            return
        stream = self._answers.get(key) or ResponseStream(now_ns)
        self._note(str(error))
        done.append((self._forget_reset(key), stream.first_ns, self._malformed(stream)))
        self._send(frames.rst_stream(int.from_bytes(key, "big"), error.code))

    def _note(self, reason: str) -> None:
        self.reasons.append(reason)
        self.attention = True

    def _wrong(self, stream: ResponseStream) -> str:
        """What is malformed in an answer that has ended; empty: nothing."""
        return wrong_length(stream)

    def _malformed(self, stream: ResponseStream) -> int:
        """The outcome of an answer that is malformed: its status is the one that came."""
        return outcome(stream.status, ErrorKind.PROTOCOL, stream.body_bytes)

    def _outcome(self, stream: ResponseStream) -> int:
        return http_outcome(stream.status, stream.body_bytes)

    def _forget(self, key: bytes) -> int:
        """Forgets a stream. A body that is not wholly sent is not sent further."""
        self._answers.pop(key, None)
        if self._held_back and self._held_back.pop(key, None) is not None:
            self._stream_windows.pop(key, None)
            self._send(frames.rst_stream(int.from_bytes(key, "big"), frames.CANCEL))
        if self.closing:
            self.attention = True
        return self._open.pop(key)

    def _read_block(self, block: bytes) -> Meaning:
        generation = self._decoder.generation
        meaning = meaning_of(self._decoder.decode(block))
        if generation != self._decoder.generation or len(self._meanings) >= _KNOWN_BLOCKS:
            self._meanings.clear()
            self._shape = None
        if generation == self._decoder.generation and len(block) <= CACHE_BLOCK_BYTES:
            self._meanings[block] = meaning
        return meaning

    def _on_other(
        self, kind: int, flags: int, key: bytes, payload: bytes, now_ns: int, done: list[Completion]
    ) -> None:
        if kind == SETTINGS:
            self._on_settings(flags, key, payload)
        elif not self.ready:
            raise FramingError(frames.PROTOCOL_ERROR, "the connection does not begin with SETTINGS")
        elif kind == WINDOW_UPDATE:
            self._on_window_update(key, payload)
        elif kind == PING:
            if len(payload) != 8:
                raise FramingError(frames.FRAME_SIZE_ERROR, "PING that is not 8 bytes long")
            if key != _CONNECTION:
                raise FramingError(frames.PROTOCOL_ERROR, "PING on a stream")
            if not flags & ACK:
                self._send(frames.ping(payload, ack=True))
        elif kind == CONTINUATION:
            self._on_continuation(flags, key, payload, now_ns, done)
        elif kind == RST_STREAM:
            code = frames.parse_code(payload)
            self._check_closed(key)
            if key in self._open:
                self._note(f"the server reset the stream: {frames.code_name(code)}")
                stream = self._answers.get(key) or ResponseStream(0)
                error = outcome(stream.status, ErrorKind.RST_STREAM, stream.body_bytes)
                done.append((self._forget_reset(key), stream.first_ns, error))
        elif kind == GOAWAY:
            if key != _CONNECTION:
                raise FramingError(frames.PROTOCOL_ERROR, "GOAWAY on a stream")
            self._on_goaway(payload, done)
        elif kind == PUSH_PROMISE:
            raise FramingError(frames.PROTOCOL_ERROR, "PUSH_PROMISE, which we had forbidden")
        elif kind == PRIORITY:
            if key == _CONNECTION:
                raise FramingError(frames.PROTOCOL_ERROR, "PRIORITY of the connection")
            if len(payload) != 5:
                raise StreamError("PRIORITY that is not 5 bytes long", frames.FRAME_SIZE_ERROR)

    def _forget_reset(self, key: bytes) -> int:
        self._held_back.pop(key, None)
        self._stream_windows.pop(key, None)
        return self._forget(key)

    def _on_continuation(
        self, flags: int, key: bytes, payload: bytes, now_ns: int, done: list[Completion]
    ) -> None:
        if self._block is None or self._block[0] != key:
            raise FramingError(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, block = self._block
        block += payload
        if len(block) > MAX_HEADER_BYTES:
            raise FramingError(
                frames.ENHANCE_YOUR_CALM, f"a header block of more than {MAX_HEADER_BYTES} bytes"
            )
        if flags & END_HEADERS:
            self._block = None
            self._on_block(key, first_flags, bytes(block), now_ns, done)

    def _on_goaway(self, payload: bytes, done: list[Completion]) -> None:
        last, code = frames.parse_goaway(payload)
        self._end()
        refused = [key for key in self._open if int.from_bytes(key, "big") > last]
        if code or refused or not self.used:
            told = f" {payload[8:][:64]!r}" if payload[8:] else ""
            self._note(f"the server said GOAWAY: {frames.code_name(code)}{told}")
        for key in refused:
            done.append((self._forget_reset(key), 0, outcome(0, ErrorKind.GOAWAY)))
