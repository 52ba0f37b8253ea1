"""The catalogue of messages is one: each code and each name once, each file's codes in its own hundred."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter

from meshwise.core import messages
from meshwise.core.errors import Message

FILES = {
    found.name: {
        name: value
        for name, value in vars(importlib.import_module(f"{messages.__name__}.{found.name}")).items()
        if isinstance(value, Message)
    }
    for found in pkgutil.iter_modules(messages.__path__)
}


def _twice(values: list[str]) -> list[str]:
    return [value for value, times in Counter(values).items() if times > 1]


def test_each_code_and_each_name_stands_once() -> None:
    assert _twice([message.code for entries in FILES.values() for message in entries.values()]) == []
    assert _twice([name for entries in FILES.values() for name in entries]) == []


def test_every_file_of_the_package_is_read_through_the_one_way_in() -> None:
    entries = {name: message for found in FILES.values() for name, message in found.items()}
    assert {name: value for name, value in vars(messages).items() if isinstance(value, Message)} == entries
    assert len(entries) > 100


def test_each_file_has_its_own_hundred_of_codes_in_order() -> None:
    hundreds = {name: {message.code[:3] for message in entries.values()} for name, entries in FILES.items()}
    assert {name: len(found) for name, found in hundreds.items()} == dict.fromkeys(FILES, 1)
    assert len(set.union(*hundreds.values())) == len(FILES)
    for entries in FILES.values():
        codes = [message.code for message in entries.values()]
        assert codes == sorted(codes)
