"""`meshwise proxies`: get real proxies, and say which are there."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from meshwise.core import messages
from meshwise.core.errors import ExitStatus
from meshwise.core.units import format_duration, parse_duration_ns
from meshwise.mesh.binaries.known import LATEST_KNOWN, PROXIES, architecture_of, parse_wanted
from meshwise.mesh.binaries.limits import PULL_S, Deadline
from meshwise.mesh.binaries.pull import add as add_binary
from meshwise.mesh.binaries.pull import pull as pull_binary
from meshwise.mesh.binaries.store import OVERRIDES, BinaryStore, Stored, locate
from meshwise.report import edge

proxies = typer.Typer(
    help="Get the real proxies and keep them.\n\nExample: meshwise proxies pull linkerd@latest-known",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Json = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]
_Platform = Annotated[
    str | None, typer.Option("--platform", help="linux/amd64 or linux/arm64; default: this machine's.")
]


def _store() -> BinaryStore:
    return BinaryStore.of_user(os.environ)


def _architecture(wanted: str | None) -> str:
    if wanted is None:
        return architecture_of(platform.machine())
    system, _, architecture = wanted.partition("/")
    if system != "linux" or architecture not in ("amd64", "arm64"):
        raise messages.NO_SUCH_PLATFORM.error(platform=wanted, found="linux/amd64, linux/arm64")
    return architecture


@proxies.command("list")
def list_(as_json: _Json = False) -> None:
    """What is stored, and the newest version known of each proxy.

    Example: meshwise proxies list --json
    """
    stored = _store().entries()
    if as_json:
        typer.echo(json.dumps({"stored": [asdict(entry) for entry in stored], "latest_known": LATEST_KNOWN}))
        return
    table = Table("proxy", "version", "platform", "digest", "source", box=None)
    for entry in stored:
        table.add_row(
            entry.proxy,
            entry.version,
            f"linux/{entry.architecture}",
            entry.digest[:19],
            entry.source,
            style=None,
        )
    console = edge.console()
    console.print(table if stored else "no proxy is stored")
    for name in PROXIES:
        console.print(f"newest known: {name}@{LATEST_KNOWN[name]}")


@proxies.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="NAME@VERSION: linkerd@edge-YY.M.N, linkerd@vX.Y.Z, istio@1.x.y.")
    ],
    digest: Annotated[
        str | None,
        typer.Option("--digest", help="What the image index (or release archive) must be: sha256:..."),
    ] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", help="A mirror: HOST[:PORT][/PREFIX], http:// for plain HTTP.")
    ] = None,
    release_base: Annotated[
        str | None, typer.Option("--release-base", help="A mirror of the release downloads.")
    ] = None,
    timeout: Annotated[
        str, typer.Option(help="Give up when the whole pull has taken this long.")
    ] = format_duration(PULL_S * 1e9),
    platform_: _Platform = None,
    as_json: _Json = False,
) -> None:
    """Pull a proxy from its maker, check every digest, and keep it in the cache.

    The first pull of a name writes its digests to a lock file; later pulls must match it. HTTPS_PROXY is
    honoured.

    Example: meshwise proxies pull linkerd@edge-26.8.3
    """
    wanted = parse_wanted(name)
    deadline = Deadline(parse_duration_ns(timeout) / 1e9)
    console = edge.console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(str(wanted), total=None)
        stored = pull_binary(
            wanted,
            _store(),
            _architecture(platform_),
            digest=digest,
            registry=registry,
            release_base=release_base,
            deadline=deadline,
            progress=lambda received, total: bars.update(bar, completed=received, total=total),
        )
    _say(stored, as_json)


@proxies.command()
def add(
    name: Annotated[str, typer.Argument(help="NAME@VERSION under which to keep it.")],
    path: Annotated[Path, typer.Argument(help="The binary.")],
    platform_: _Platform = None,
    as_json: _Json = False,
) -> None:
    """Keep a binary that you already have; its digest is recorded.

    Example: meshwise proxies add linkerd@edge-26.8.3 ./linkerd2-proxy
    """
    _say(add_binary(path, parse_wanted(name), _store(), _architecture(platform_)), as_json)


@proxies.command()
def path(
    name: Annotated[str, typer.Argument(help="linkerd or istio, or NAME@VERSION.")], as_json: _Json = False
) -> None:
    """Print the path of the binary that a study would use; exit 3 if there is none.

    Example: meshwise proxies path linkerd
    """
    wanted = parse_wanted(name)
    found = _store().find(wanted.proxy, wanted.version) if "@" in name else locate(wanted.proxy, os.environ)
    if found is None:
        raise messages.PROXY_ABSENT.error(name=name, variable=OVERRIDES[wanted.proxy])
    typer.echo(json.dumps({"name": name, "path": str(found)}) if as_json else found)


@proxies.command()
def verify(as_json: _Json = False) -> None:
    """Hash every stored binary again; exit 1 if one has changed.

    Example: meshwise proxies verify
    """
    results = list(_store().verify())
    if as_json:
        typer.echo(json.dumps([{**asdict(entry), "intact": intact} for entry, intact in results]))
    for entry, intact in results if not as_json else ():
        word = "intact " if intact else "CHANGED"
        typer.echo(f"{word} {entry.proxy}@{entry.version} {entry.digest}")
    if not all(intact for _, intact in results):
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _say(stored: Stored, as_json: bool) -> None:
    place = str(_store().path_of(stored.digest))
    if as_json:
        typer.echo(json.dumps({**asdict(stored), "path": place}))
    else:
        typer.echo(f"{stored.proxy}@{stored.version} linux/{stored.architecture}\n{stored.digest}\n{place}")
