"""The command `meshwise`: one small file per command, and errors turned into exit statuses.

A command's file is imported when it is asked for: the statistics behind `analyze` take longer to import than
most other commands take to run.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from keyword import iskeyword
from typing import Any

import typer
from typer.core import TyperGroup

from meshwise import __version__
from meshwise.cli.entry import while_importing
from meshwise.core.refusals import refusal
from meshwise.report.edge import INTERRUPTED, run_command

COMMANDS = (
    *("doctor", "plan", "run", "count", "protect", "analyze", "report", "profile", "trace", "query"),
    *("export", "import", "load", "mesh", "proxies", "schema"),
)
"""In the order of `--help`. Each is the function, or the `Typer` of subcommands, of its own name in the file
of its own name in this folder (`import_`, because `import` is a word of Python)."""

log = logging.getLogger(__name__)


class _Commands(TyperGroup):
    """Knows all commands by name and imports the one that is asked for.

    `Any`: Typer's base class is click's, or its own copy of it, as the version goes.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        with while_importing():
            name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
            found = getattr(importlib.import_module(f"meshwise.cli.{name}"), name)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(cmd_name)(found)
        return typer.main.get_command(alone)

    def invoke(self, ctx: Any) -> Any:
        """Here and not in `main`, because Typer would end the process without a word: on Ctrl-C, and on a
        broken pipe, which here is never that of stdout (`report.edge`)."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BaseException as error:
            if (refused := refusal(error)) is None:
                raise
            log.info("refused by the system", exc_info=error)
            raise refused from error


app = typer.Typer(
    name="meshwise",
    cls=_Commands,
    help="What each step of service-mesh security costs, measured on real proxies.",
    epilog="Start with `meshwise doctor`. A study: `meshwise plan studies/quickstart.yaml`, `meshwise run "
    "studies/quickstart.yaml --out my-study`, `meshwise analyze my-study`, `meshwise report my-study`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"meshwise {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is done, on stderr."),
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def main() -> None:
    """What `cli.entry` calls."""
    # Before numpy is imported: nothing here multiplies large matrices, and where a limit of threads is
    # reached OpenBLAS would end the process with SIGINT.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run_command(app))
