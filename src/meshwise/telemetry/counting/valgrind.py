"""Which valgrind is there, whether it is new enough, and the library that is preloaded into what it runs."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshwise.core import messages
from meshwise.core.patience import ANSWER_S
from meshwise.core.process import ask

VARIABLE = "MESHWISE_VALGRIND"
OLDEST = (3, 19)
"""The first that Envoy 1.40 and linkerd2-proxy are known to survive. Since 3.18 it can be told from inside
to trace system calls (VALGRIND_CLO_CHANGE)."""
SOURCE = Path(__file__).with_name("inside.c")
ADDR_NO_RANDOMIZE = 0x004_0000
"""personality(2), linux/personality.h."""
_COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class Valgrind:
    path: Path
    version: str


def find(environment: Mapping[str, str]) -> Valgrind:
    """MESHWISE_VALGRIND, or the one on PATH. Raises MW230 when there is none, MW231 when it is too old."""
    named = environment.get(VARIABLE)
    path = named or shutil.which("valgrind", path=environment.get("PATH"))
    if path is None:
        raise messages.NO_VALGRIND.error(reason="there is none on PATH")
    try:
        said = ask([path, "--version"], ANSWER_S, environment=environment)
    except (OSError, ValueError) as error:
        raise messages.NO_VALGRIND.error(reason=f"{path}: {words_of(error)}") from error
    match = re.search(r"^valgrind-((\d+)\.(\d+)\S*)", said.text, re.MULTILINE)
    if said.status or match is None:
        raise messages.NO_VALGRIND.error(reason=f"{path} --version {said.ending}")
    if (int(match[2]), int(match[3])) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise messages.OLD_VALGRIND.error(path=path, version=match[1], needed=needed)
    return Valgrind(Path(path).absolute(), match[1])


def compile_library(scratch: Path, environment: Mapping[str, str]) -> bytes:
    """The preloaded library, compiled in a directory below `scratch` that goes again. Raises MW232."""
    named = environment.get("CC")
    candidates = (named,) if named else _COMPILERS
    compiler = next(
        filter(None, (shutil.which(each, path=environment.get("PATH")) for each in candidates)), None
    )
    if compiler is None:
        raise messages.NO_COUNTER_LIBRARY.error(reason=f"no C compiler ({', '.join(candidates)}) is on PATH")
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        made = Path(directory) / "inside.so"
        words = [compiler, *["-shared", "-fPIC", "-O2", "-o"], str(made), str(SOURCE), "-lpthread"]
        try:
            done = ask(words, ANSWER_S, environment={**environment, "TMPDIR": directory})
        except (OSError, ValueError) as error:
            raise messages.NO_COUNTER_LIBRARY.error(reason=f"{compiler}: {words_of(error)}") from error
        if done.status or not made.exists():
            raise messages.NO_COUNTER_LIBRARY.error(reason=f"{compiler} {done.ending}")
        return made.read_bytes()


def words_of(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def may_fix_addresses() -> bool:
    """Whether a process here may ask for addresses that are not randomised; a container's filter of system
    calls may forbid it. Tried in a process of its own, as it cannot be taken back by its children."""
    program = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).personality({ADDR_NO_RANDOMIZE}) < 0)"
    return ask([sys.executable, "-I", "-S", "-c", program], ANSWER_S).status == 0


def interpreter(program: Path) -> bool | None:
    """Whether this ELF program is loaded by an interpreter (PT_INTERP), so that a library can be preloaded;
    None for what is not a little-endian 64-bit ELF file (elf(5))."""
    with program.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return None
        first, size, count = (
            int.from_bytes(head[at : at + length], "little") for at, length in ((32, 8), (54, 2), (56, 2))
        )
        file.seek(first)
        table = file.read(size * count)
    kinds = [int.from_bytes(table[at : at + 4], "little") for at in range(0, len(table), size or 1)]
    return 3 in kinds


def open_to(uid: int, path: Path) -> bool:
    """Whether a user without rights of their own may read this file by its path."""
    resolved = path.resolve()
    return all(_allows(uid, parent, 0o1) for parent in resolved.parents) and _allows(uid, resolved, 0o4)


def _allows(uid: int, path: Path, bit: int) -> bool:
    found = path.stat()
    return bool(found.st_mode & (bit << 6 if found.st_uid == uid else bit))
