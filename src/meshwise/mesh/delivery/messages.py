"""The protobuf messages of xDS, from descriptors that come with the package (`scripts/xds_messages.py`).

They are in a pool of their own: other packages bring messages of the same names in other versions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor

_FILE = Path(__file__).with_name("messages.binpb")


@cache
def descriptor_of(name: str) -> Descriptor | None:
    """Of the message with this full name; None where there is none."""
    try:
        return _pool().FindMessageTypeByName(name)
    except KeyError:
        return None


@cache
def message_class(name: str) -> Any:
    """Raises LookupError for a name that is not there."""
    found = descriptor_of(name)
    if found is None:
        raise LookupError(name)
    return message_factory.GetMessageClass(found)


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(_FILE.read_bytes()).file:
        pool.Add(file)
    return pool
