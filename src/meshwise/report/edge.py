"""Where text leaves meshwise: what is printed passes here, by whatever code it was written.

Rules of this file:
- Text is never trusted. Study keys, texts of an archive, names in registries and answers of servers reach a
  terminal with their control characters made visible, and nothing in them is read as markup.
- An output that fails loses nothing: what stdout does not take is written to stderr in the end, and the exit
  status says it (3). A pipe that its reader closed ends the command as the shell expects (SIGPIPE), after it
  has done its work. If stderr is not read, nothing changes.
- Every character arrives: what an encoding lacks is written in another way, never raised as an error.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, BinaryIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from meshwise.core import messages
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.core.refusals import refusal

PIPED_WIDTH = 100
INTERRUPTED = 130
_BROKEN_PIPE = 128 + signal.SIGPIPE
_PATIENCE = 2
"""Signals that wait until the clean-up after the first one is done; one more ends the process at once."""

# C0 without tab and newline, DEL, C1, marks that turn the direction of writing, line separators, surrogates;
# what has no width (but the joiners, which languages need), the byte order mark, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_PLAINER = {
    "µ": "u",
    "–": "-",
    "—": "-",
    "·": "|",
    "×": "x",
    "±": "+-",
    "…": "...",
    "√": "v",
    "‼": "!",
    "─": "-",
    "→": "->",
}


def visible(text: str) -> str:
    """The text with what a terminal would obey, or a reader not see, written as JSON writes it: `\\u001b`.

    A byte of a path that is not UTF-8 (a lone surrogate) is among it."""
    return _UNSEEN.sub(lambda found: _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def encoded(text: str, encoding: str) -> bytes:
    """The text's bytes; a character that the encoding lacks in plainer letters, or as JSON writes it."""
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        return b"".join(_letter(letter, encoding) for letter in text)


def _letter(letter: str, encoding: str) -> bytes:
    for attempt in (letter, _PLAINER.get(letter, letter)):
        with suppress(UnicodeEncodeError):
            return attempt.encode(encoding)
    return _escaped(letter).encode("ascii")


class _VisibleConsole(Console):
    """Rich, with the texts of all that it renders made visible; its own colours stay.

    Strings before their width is measured, and whatever else there is when it is rendered.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console on stdout: colour only on a terminal (and not with NO_COLOR, even an empty one); piped, 100
    columns. Strings are text, never markup."""
    stream = sys.stderr if stderr else sys.stdout
    outlet = getattr(stream, "rich_proxied_file", stream)  # rich itself looks no deeper than one layer

    def made(columns: int | None) -> Console:
        return _VisibleConsole(
            file=outlet, highlight=False, emoji=False, markup=False, width=columns,
            no_color="NO_COLOR" in os.environ or None,
        )  # fmt: skip

    found = made(width)
    return found if width is not None or found.is_terminal else made(PIPED_WIDTH)


# --- the two streams -------------------------------------------------------------------------------


class _Outlet(io.TextIOBase):
    """One descriptor. Writing never raises: `failed` says why not; `kept` is all the text there was, of
    stdout: to stderr progress may go for hours."""

    def __init__(self, fd: int, encoding: str) -> None:
        self._fd, self._encoding = fd, encoding
        self.failed: OSError | None = None
        self.kept: list[str] = []

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in typeshed, a property in io
        return self._encoding

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._fd == 1:
            self.kept.append(text)
        self.write_bytes(encoded(text, self._encoding))
        return len(text)

    def write_bytes(self, data: bytes | memoryview) -> None:
        if self.failed is None:
            try:
                write_all(self._fd, data)
            except OSError as error:
                self.failed = error


class _Text(io.TextIOBase):
    """What `print`, `logging` and `typer.echo` write to: an outlet, and every text made visible.

    `rich_proxied_file`: where rich finds the outlet itself, since its colours are escapes too.
    """

    encoding, errors = "utf-8", "strict"
    """All characters: the outlet finds a way for those that it lacks."""

    def __init__(self, outlet: _Outlet) -> None:
        self.rich_proxied_file = outlet

    def fileno(self) -> int:
        return self.rich_proxied_file.fileno()

    def isatty(self) -> bool:
        return self.rich_proxied_file.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("text is written here, not bytes")
        return self.rich_proxied_file.write(visible(text))


class _Bytes(io.RawIOBase):
    """Data that go to an outlet as they are, and are not kept; `tell` counts them."""

    def __init__(self, outlet: _Outlet) -> None:
        self._outlet, self._written = outlet, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._outlet.write_bytes(view)
        self._written += view.nbytes
        return view.nbytes


def binary_stdout() -> BinaryIO:
    """stdout for data: never raises, and what it did not take is said at the end."""
    outlet = getattr(sys.stdout, "rich_proxied_file", None)
    return cast(BinaryIO, _Bytes(outlet)) if isinstance(outlet, _Outlet) else sys.stdout.buffer


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of it, also into a pipe that another program has made non-blocking. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            select.select((), (fd,), ())


def _hold_open() -> None:
    """A standard descriptor that is closed gets a place that refuses to be used, or else the next file that
    is opened would take its number and be written into."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if fd == 0 else os.O_RDONLY)


@contextmanager
def _streams() -> Iterator[tuple[_Outlet, _Outlet]]:
    """stdout and stderr of this process, replaced within the block."""
    _hold_open()
    former = sys.stdout, sys.stderr
    out, err = (
        _Outlet(fd, getattr(stream, "encoding", None) or "utf-8")
        for fd, stream in zip((1, 2), former, strict=True)
    )
    sys.stdout, sys.stderr = _Text(out), _Text(err)
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = former


# --- the whole command -----------------------------------------------------------------------------


def run_command(command: Callable[[], object]) -> int:
    """Run it and return its exit status: 0 done, 1 the answer is no, 2 bad input, 3 environment, 130 after
    Ctrl-C, SIGTERM or SIGHUP. Does not return when the reader of stdout has gone: SIGPIPE ends the process.

    An exception that is no error of the catalogue is a defect: raised.
    """
    with _streams() as (out, err), _stoppable():
        status, said = _outcome(command)
        if out.failed is not None and out.failed.errno != errno.EPIPE:
            err.write("".join(out.kept))
            lost = messages.OUTPUT_LOST.error(why=out.failed.strerror)
            said += f"error: {lost}\n"
            status = lost.exit_status
        sys.stderr.write(said)
    if out.failed is not None and out.failed.errno == errno.EPIPE and status != INTERRUPTED:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        return _BROKEN_PIPE  # it is blocked
    return status


def _outcome(command: Callable[[], object]) -> tuple[int, str]:
    """Exit status, and what is said at the end."""
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None), ""
    except KeyboardInterrupt:
        return INTERRUPTED, "interrupted\n"
    except MeshwiseError as error:
        return error.exit_status, f"error: {error}\n"
    except BaseException as error:
        if (refused := refusal(error)) is None:
            raise
        return refused.exit_status, f"error: {refused}\n"
    return ExitStatus.DONE, ""


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, by KeyboardInterrupt, so that what it owns is cleaned
    up; those that follow wait for that. One that the caller ignores (nohup) stays ignored."""
    seen = 0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            raise KeyboardInterrupt
        if seen > 1 + _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    ]
    former = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
