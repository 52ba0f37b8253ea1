"""Writes docs/commands.md from the commands' own `--help`: `python scripts/commands_reference.py [--check]`.

With --check it writes nothing and ends with status 1 when the file is not what it would write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from meshwise.cli.main import app

TARGET = Path(__file__).parents[1] / "docs/commands.md"
WIDTH = 100
HEAD = """\
# Commands

Written by `scripts/commands_reference.py` from `--help`; do not edit.

Exit status of every command: 0 done, 1 the answer is no (nothing could be measured, a stored proxy has
changed), 2 bad input, 3 this machine or its environment cannot do it, 130 stopped by Ctrl-C, SIGTERM or
SIGHUP. Errors are two lines on stderr, `error:` with where, what and a code, and `hint:` with the remedy;
data goes to stdout. `NO_COLOR` is obeyed.

What was to be printed is never lost: if stdout cannot be written (a full disk, a closed descriptor), all
of it stands on stderr and the exit status is 3. When the reader of a pipe has gone (`| head`), the command
does its work and then ends by SIGPIPE (141 in a shell). Control characters in texts that come from
elsewhere (studies, archives, registries, servers) are shown as `\\u001b`, and are never obeyed by the
terminal.
"""


def commands() -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """(words, help, whether it is a group) of `meshwise` and all below it, in the order of the help."""
    yield from _below(typer.main.get_command(app), ("meshwise",), None)


def _below(command: Any, words: tuple[str, ...], parent: Any) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    settings = {**command.context_settings, "help_option_names": ["-h", "--help"]}
    context = command.context_class(
        command, info_name=words[-1], parent=parent, terminal_width=WIDTH, max_content_width=WIDTH, **settings
    )
    group = hasattr(command, "list_commands")
    yield words, command.get_help(context), group
    for name in command.list_commands(context) if group else ():
        yield from _below(command.get_command(context, name), (*words, name), context)


def reference() -> str:
    """The whole page."""
    sections = [HEAD]
    for words, text, _ in commands():
        name = " ".join(words)
        body = "\n".join(line.rstrip() for line in text.strip().splitlines())
        sections.append(f"## `{name}`\n\n```text\n{body}\n```\n")
    return "\n".join(sections)


def main() -> int:
    text = reference()
    if "--check" in sys.argv[1:]:
        return int(not TARGET.exists() or TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
