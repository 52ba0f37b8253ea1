"""The command `meshwise`: registers one small file per command and turns errors into exit statuses."""

from __future__ import annotations

import logging
import sys

import typer

from meshwise import __version__
from meshwise.cli import analyze, doctor, load, plan, proxies, report, run, schema
from meshwise.core.errors import ExitStatus, MeshwiseError

app = typer.Typer(
    name="meshwise",
    help="What each step of service-mesh security costs, measured on real proxies.",
    epilog="Start with `meshwise doctor`, then `meshwise run studies/quickstart.yaml --out my-study`.",
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


app.command("doctor")(doctor.doctor)
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.command("analyze")(analyze.analyze)
app.command("report")(report.report)
app.command("load")(load.load)
app.command("schema")(schema.schema)
app.add_typer(proxies.proxies, name="proxies")


def main() -> None:
    """Entry point. Exit status as DESIGN says: 0 done, 1 the answer is no, 2 bad input, 3 environment."""
    try:
        app()
    except MeshwiseError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(ExitStatus.DONE)
