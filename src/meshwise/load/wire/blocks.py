"""HTTP/2 header blocks (RFC 7541): written without a dynamic table, read with as little work as is correct.

Writing: every field is a static index or a literal without indexing, so a block means the same at any
time on any connection and can be assembled once and sent forever.

Reading: a block that neither inserts into the table nor resizes it is a pure function of its bytes and
of the table. `BlockDecoder` keeps the answers to such blocks until an inserting block changes the
table. After the peer has set its table to size 0 (we ask for it with SETTINGS_HEADER_TABLE_SIZE = 0)
nothing can be inserted, every block is pure, and the answers stay. Until then, or with a peer that
ignores the setting, the result is still right, only slower: the `hpack` package keeps the table.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Decoder, HPACKError
from hpack.table import HeaderTable

from meshwise.load.wire.frames import COMPRESSION_ERROR, FramingError

FieldList = tuple[tuple[bytes, bytes], ...]

STATIC_ENTRIES = len(HeaderTable.STATIC_TABLE)
_PAIR_INDEX = {pair: index for index, pair in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}
_NAME_INDEX = {name: index for index, (name, _) in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}

CACHE_ENTRIES = 512
CACHE_BLOCK_BYTES = 4096
_MAX_LIST_BYTES = 1 << 20


# --- writing -----------------------------------------------------------------------------------


def encode_integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """RFC 7541 section 5.1; `first` holds the bits above the prefix."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out = bytearray([first | limit])
    value -= limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(name: bytes, value: bytes) -> bytes:
    """A static index when the pair is in the table, else a literal without indexing. Names in lower case."""
    index = _PAIR_INDEX.get((name, value))
    if index:
        return encode_integer(index, 7, 0x80)
    name_index = _NAME_INDEX.get(name, 0)
    text = encode_integer(name_index, 4)
    if not name_index:
        text += encode_integer(len(name), 7) + name
    return text + encode_integer(len(value), 7) + value


def encode_block(fields: Iterable[tuple[str | bytes, str | bytes]]) -> bytes:
    """A block that depends on no state; the caller puts pseudo-header fields first."""
    return b"".join(encode_field(_raw(name).lower(), _raw(value)) for name, value in fields)


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


# --- reading -----------------------------------------------------------------------------------


def decode_integer(block: bytes, offset: int, prefix_bits: int) -> tuple[int, int]:
    """(value, offset behind it)"""
    limit = (1 << prefix_bits) - 1
    value = block[offset] & limit
    offset += 1
    if value < limit:
        return value, offset
    shift = 0
    while True:
        byte = block[offset]
        offset += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, offset
        if shift > 28:
            raise FramingError(COMPRESSION_ERROR, "an integer of more than five bytes in a header block")


def table_effects(block: bytes) -> tuple[bool, int | None]:
    """(does it insert into the table, the last table size that it sets or None); no string is decoded."""
    offset, end = 0, len(block)
    inserts, size = False, None
    while offset < end:
        first = block[offset]
        if first & 0x80:
            _, offset = decode_integer(block, offset, 7)
            continue
        if first & 0xE0 == 0x20:
            size, offset = decode_integer(block, offset, 5)
            continue
        inserting = bool(first & 0x40)
        inserts = inserts or inserting
        name_index, offset = decode_integer(block, offset, 6 if inserting else 4)
        for _ in range(1 if name_index else 2):
            length, offset = decode_integer(block, offset, 7)
            offset += length
    if offset > end:
        raise FramingError(COMPRESSION_ERROR, "a header block that ends inside a field")
    return inserts, size


class BlockDecoder:
    """Reads the header blocks of one peer, in the order in which they came."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=_MAX_LIST_BYTES)
        self._known: dict[bytes, FieldList] = {}
        self._table_off = False
        self.generation = 0
        """Grows whenever answers given before may no longer hold; constant once the peer's table is off."""

    def decode(self, block: bytes) -> FieldList:
        """The fields, names as sent. Raises FramingError for a block that cannot be read."""
        fields = self._known.get(block)
        return self._decode_new(block) if fields is None else fields

    def _decode_new(self, block: bytes) -> FieldList:
        try:
            inserts, size = table_effects(block)
            fields: FieldList = tuple((name, value) for name, value in self._decoder.decode(block, raw=True))
        except (HPACKError, IndexError, UnicodeError, ValueError) as error:
            raise FramingError(COMPRESSION_ERROR, f"unreadable header block: {error}") from error
        if size is not None:
            self._table_off = size == 0
            self._forget()
        elif inserts and not self._table_off:
            self._forget()
        elif len(block) <= CACHE_BLOCK_BYTES:
            if len(self._known) >= CACHE_ENTRIES:
                self._known.clear()
            self._known[block] = fields
        return fields

    def _forget(self) -> None:
        self._known.clear()
        self.generation += 1
