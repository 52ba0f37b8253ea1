"""The user's cache of proxies, by digest, and the lock file that pins what a name meant.

$XDG_CACHE_HOME/meshwise/proxies/sha256-<hex>/proxy     the binary
$XDG_CACHE_HOME/meshwise/proxies/incoming-*/            of one pull or add, locked while it is at work
$XDG_CACHE_HOME/meshwise/proxies/index.json             name -> digest, source, chain
$XDG_CONFIG_HOME/meshwise/proxies.lock.json             name/platform -> chain, written by the first pull

Rules of this file: a binary gets its name when it is whole and checked, and only then is it listed, and only
then pinned; lists are changed under a lock, and appear whole; what a killed pull left is removed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.core.files import Folder
from meshwise.core.modes import make_directory
from meshwise.mesh.binaries.known import Wanted, architecture_of, machine_of, parse_wanted
from meshwise.mesh.binaries.limits import BINARY_BYTES, DOCUMENT_BYTES, parse_json, read_bounded
from meshwise.mesh.binaries.oci import DigestChain, is_digest
from meshwise.mesh.binaries.transfer import own_files, sha256_of

OVERRIDES = {
    "linkerd": "MESHWISE_LINKERD_PROXY",
    "istio": "MESHWISE_ENVOY",
    "istiod": "MESHWISE_ISTIOD",
}
_INCOMING = "incoming-"
_ELF_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l", 3: "i386", 243: "riscv64"}


@dataclass(frozen=True)
class Stored:
    """A proxy in the cache."""

    proxy: str
    version: str
    architecture: str
    digest: str
    source: str
    stored_at: str


@dataclass(frozen=True)
class BinaryStore:
    """The cache in `directory` and the lock file `lock`."""

    directory: Path
    lock: Path

    @classmethod
    def of_user(cls, environment: Mapping[str, str]) -> BinaryStore:
        home = Path(environment.get("HOME", "/"))
        cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
        config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        return cls(cache / "meshwise" / "proxies", config / "meshwise" / "proxies.lock.json")

    def path_of(self, digest: str) -> Path:
        return self.directory / digest.replace(":", "-") / "proxy"

    @property
    def index(self) -> Path:
        return self.directory / "index.json"

    def entries(self) -> tuple[Stored, ...]:
        """Newest first. Raises MW812."""
        listed = _read_json(self.index).get("proxies", [])
        if not isinstance(listed, list):
            raise messages.STORE_DAMAGED.error(where=str(self.index), reason="`proxies` is not a list")
        entries = [_stored(entry, self.index) for entry in listed]
        return tuple(sorted(entries, key=lambda entry: entry.stored_at, reverse=True))

    def find(self, proxy: str, version: str | None = None) -> Path | None:
        """The newest stored binary of this proxy for this machine, or of that version: the one that was kept.

        Raises MW812, or MW817 when it has changed: what is measured would not be what the name says.
        """
        here = architecture_of(platform.machine())
        for entry in self.entries():
            if entry.proxy == proxy and entry.architecture == here and version in (None, entry.version):
                path = self.path_of(entry.digest)
                if os.path.lexists(path):
                    self._require_as_kept(entry)
                    return path
        return None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder on the cache's own file system, gone afterwards; those of killed processes go too.

        Raises MW816.
        """
        with own_files(self.directory):
            make_directory(self.directory)
            self._sweep()
            folder, held = self._locked_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    def _locked_folder(self) -> tuple[Path, int]:
        while True:
            folder = Path(tempfile.mkdtemp(dir=self.directory, prefix=_INCOMING))
            # Until it is locked another process may take it for a leftover.
            with contextlib.suppress(FileNotFoundError):
                held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(held, fcntl.LOCK_EX)
                if folder.exists():
                    return folder, held
                os.close(held)

    def _sweep(self) -> None:
        for folder in self.directory.glob(f"{_INCOMING}*"):
            with contextlib.suppress(OSError):  # another's at work, or just removed
                held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                finally:
                    os.close(held)

    def keep(self, binary: Path, wanted: Wanted, architecture: str, source: str) -> Stored:
        """Take a checked binary of `scratch` into the cache and list it; `source` says where it is from.

        Raises MW810, MW814, MW816.
        """
        machine = elf_machine(binary, source)
        if machine != machine_of(architecture):
            raise messages.WRONG_ARCHITECTURE.error(
                path=source, found=machine, machine=machine_of(architecture)
            )
        stored = Stored(
            wanted.proxy,
            wanted.version,
            architecture,
            sha256_of(binary),
            source,
            datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        place = self.path_of(stored.digest)
        with own_files(place):
            binary.chmod(0o755)
            make_directory(place.parent)
            with Folder.open(self.directory) as folder:
                folder.folder(place.parent.name).close()  # a link there would lead out of the cache
            binary.rename(place)

        def add(content: dict[str, Any]) -> dict[str, Any]:
            others = [entry for entry in self.entries() if _name(entry) != _name(stored)]
            return {"proxies": [asdict(entry) for entry in (stored, *others)]}

        _change_json(self.index, add)
        return stored

    def check_lock(self, wanted: Wanted, architecture: str, chain: DigestChain) -> None:
        """Compare with what the first pull of this name wrote, if there was one. Raises MW809, MW812."""
        name = _pin_name(wanted, architecture)
        pinned = _read_json(self.lock).get(name)
        if pinned is None:
            return
        for what, found in asdict(chain).items():
            expected = pinned.get(what, "") if isinstance(pinned, dict) else ""
            if found != expected:
                raise messages.LOCK_MISMATCH.error(
                    where=str(self.lock), what=f"the {what}", name=name, found=found, expected=expected
                )

    def pin(self, wanted: Wanted, architecture: str, chain: DigestChain) -> None:
        """Write down what this name means from now on, unless that is written: after `keep` has kept it.

        Raises MW809, MW812, MW816.
        """
        name = _pin_name(wanted, architecture)
        _change_json(self.lock, lambda pins: {name: asdict(chain), **pins})
        self.check_lock(wanted, architecture, chain)  # another pull may have been the first

    def verify(self) -> Iterator[tuple[Stored, bool]]:
        """Hash every stored binary again: (entry, whether it still is what was stored)."""
        for entry in self.entries():
            yield entry, self._as_kept(entry)

    def _as_kept(self, entry: Stored) -> bool:
        """Whether the binary is a plain file, in a folder that is none elsewhere, with the entry's digest."""
        place = self.path_of(entry.digest)
        try:
            with Folder.open(self.directory) as folder, folder.folder(place.parent.name) as inner:
                return f"sha256:{inner.sha256(place.name, BINARY_BYTES)}" == entry.digest
        except OSError:
            return False

    def _require_as_kept(self, entry: Stored) -> None:
        if not self._as_kept(entry):
            name = f"{entry.proxy}@{entry.version}"
            raise messages.PROXY_CHANGED.error(path=self.path_of(entry.digest), name=name)


def locate(proxy: str, environment: Mapping[str, str]) -> Path | None:
    """The binary to use: the environment's override (a path, or NAME@VERSION of a stored one), else the
    newest in the cache, else None."""
    if override := environment.get(OVERRIDES[proxy]):
        if not override.startswith(f"{proxy}@"):
            return Path(override)
        return BinaryStore.of_user(environment).find(proxy, parse_wanted(override).version)
    return BinaryStore.of_user(environment).find(proxy)


def copy_binary(path: Path, target: Path) -> None:
    """A copy of a regular file of a size that a proxy may have. Raises MW814, MW816."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise messages.NOT_A_BINARY.error(path=path, reason=error.strerror or str(error)) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise messages.NOT_A_BINARY.error(path=path, reason="it is not a regular file")
    with os.fdopen(descriptor, "rb", buffering=0) as given:
        if found.st_size > BINARY_BYTES:
            reason = f"it has {found.st_size} bytes; a proxy has at most {BINARY_BYTES}"
            raise messages.NOT_A_BINARY.error(path=path, reason=reason)
        _machine_of(given.read(20), str(path))  # before a gigabyte is copied
        given.seek(0)
        with own_files(target), target.open("wb") as out:
            left = found.st_size
            while left and (chunk := given.read(min(left, 1 << 20))):
                out.write(chunk)
                left -= len(chunk)
        if left:
            raise messages.NOT_A_BINARY.error(path=path, reason="it became shorter while it was read")


def elf_machine(path: Path, source: str) -> str:
    """The machine name that an ELF executable is built for. Raises MW814, which names `source`."""
    try:
        with path.open("rb") as binary:
            head = binary.read(20)
    except OSError as error:
        raise messages.NOT_A_BINARY.error(path=source, reason=error.strerror or str(error)) from error
    return _machine_of(head, source)


def _machine_of(head: bytes, source: str) -> str:
    if len(head) < 20 or head[:4] != b"\x7fELF":
        raise messages.NOT_A_BINARY.error(path=source, reason="it is not an ELF file")
    (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])
    return _ELF_MACHINES.get(machine, f"ELF machine {machine}")


def _name(entry: Stored) -> tuple[str, str, str]:
    return entry.proxy, entry.version, entry.architecture


def _pin_name(wanted: Wanted, architecture: str) -> str:
    return f"{wanted}/linux-{architecture}"


def _stored(entry: object, index: Path) -> Stored:
    """One entry of the index. Its digest becomes a path, so it has to be one."""
    names = {field.name for field in fields(Stored)}
    if (
        not isinstance(entry, dict)
        or set(entry) != names
        or not all(isinstance(value, str) for value in entry.values())
        or not is_digest(entry["digest"])
    ):
        raise messages.STORE_DAMAGED.error(where=str(index), reason="an entry is not one of meshwise")
    return Stored(**entry)


def _read_json(path: Path) -> dict[str, Any]:
    """Empty if there is no such file. Raises MW812."""
    try:
        return parse_json(read_bounded(path, DOCUMENT_BYTES), "it")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise messages.STORE_DAMAGED.error(where=str(path), reason=reason) from error


def _change_json(path: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Replace the file by what `change` makes of it, one process after the other. Raises MW812, MW816."""
    with own_files(path):
        make_directory(path.parent)
        held = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        text = json.dumps(change(_read_json(path)), indent=2, sort_keys=True) + "\n"
        with own_files(path), Folder.open(path.parent) as folder:
            folder.write(path.name, text.encode())
    finally:
        os.close(held)
