"""Header blocks of a peer, remembered by their bytes without the request id. No socket.

A block is a function of its bytes alone as long as the peer's dynamic table is empty. We ask every peer for
that (SETTINGS_HEADER_TABLE_SIZE = 0); `PeerBlocks` knows whether it holds, and only then are meanings shared
among connections. Every proxy writes a new `x-request-id` into each request, so its value is cut out of the
bytes that a block is remembered by. That is sound: the cut begins behind the name, the bytes before it are
the same in all blocks of one key, and when the first of them was read it was checked that a field of that
name begins there (RFC 7541 is read from left to right, so the same prefix is the same fields).
"""

from __future__ import annotations

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from meshwise.load.wire.blocks import BlockDecoder, FieldList, decode_integer, encode_integer, table_effects
from meshwise.service.behaviour import REQUEST_ID


def literal_names(name: str) -> tuple[bytes, bytes]:
    """The name of a field as a literal, Huffman coded (as proxies write it) and plain."""
    plain = name.encode()
    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(plain)
    return encode_integer(len(coded), 7, 0x80) + coded, encode_integer(len(plain), 7) + plain


_NAMES = literal_names(REQUEST_ID)


def cut_request_id(block: bytes) -> tuple[bytes, bytes, int]:
    """(what the block is remembered by, the raw literal of the id's value, where the value begins);
    the block itself, b"" and -1 when it has no such field."""
    return cut(block, _NAMES)


def cut(block: bytes, names: tuple[bytes, bytes]) -> tuple[bytes, bytes, int]:
    """The same of any field whose value has less than 127 bytes, by its `literal_names`."""
    for name in names:
        at = block.find(name)
        if at > 0:
            at += len(name)
            stop = at + 1 + (block[at] & 0x7F) if at < len(block) else at
            if block[at : at + 1] not in (b"\x7f", b"\xff") and stop <= len(block):
                return block[:at] + block[stop:], block[at:stop], at
    return block, b"", -1


def id_field(raw_value: bytes) -> bytes:
    """A field of the request id from the raw literal of its value."""
    return b"\x00" + _NAMES[0] + raw_value if raw_value else b""


def begins_id_value(block: bytes, at: int) -> bool:
    """Is there, read from the start, a field with a literal name whose value begins at `at`?"""
    offset, end = 0, len(block)
    while offset < end:
        first = block[offset]
        if first & 0x80:
            _, offset = decode_integer(block, offset, 7)
            continue
        if first & 0xE0 == 0x20:
            _, offset = decode_integer(block, offset, 5)
            continue
        name_index, offset = decode_integer(block, offset, 6 if first & 0x40 else 4)
        if not name_index:
            length, offset = decode_integer(block, offset, 7)
            offset += length
        if offset == at:
            return not name_index
        length, offset = decode_integer(block, offset, 7)
        offset += length
    return False


class PeerBlocks:
    """The coding state of one peer."""

    __slots__ = ("_decoder", "_off", "table_empty")

    def __init__(self) -> None:
        self._decoder = BlockDecoder()
        self._off = False
        """The peer has set its table to size 0 and to no other since."""
        self.table_empty = True
        """Nothing is in the dynamic table: blocks without a size update mean the same on any connection."""

    def decode(self, block: bytes) -> tuple[FieldList, bool]:
        """(fields, may the meaning be shared among connections). Raises FramingError."""
        fields = self._decoder.decode(block)
        inserts, size = table_effects(block)
        shared = self.table_empty and size is None and (self._off or not inserts)
        if size is not None:
            self._off = size == 0
            self.table_empty = self.table_empty or self._off
        if inserts and not self._off:
            self.table_empty = False
        return fields, shared
