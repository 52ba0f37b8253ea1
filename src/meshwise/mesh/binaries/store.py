"""The user's cache of proxies, by digest, and the lock file that pins what a name meant.

$XDG_CACHE_HOME/meshwise/proxies/sha256-<hex>/proxy     the binary
$XDG_CACHE_HOME/meshwise/proxies/index.json             name -> digest, source, chain
$XDG_CONFIG_HOME/meshwise/proxies.lock.json             name/platform -> chain, written by the first pull
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from meshwise.core import messages
from meshwise.mesh.binaries.known import Wanted, architecture_of, machine_of, parse_wanted
from meshwise.mesh.binaries.oci import Chain
from meshwise.mesh.binaries.transfer import sha256_of

OVERRIDES = {"linkerd": "MESHWISE_LINKERD_PROXY", "istio": "MESHWISE_ENVOY"}
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
class Store:
    """The cache in `directory` and the lock file `lock`."""

    directory: Path
    lock: Path

    @classmethod
    def of_user(cls, environment: Mapping[str, str]) -> Store:
        home = Path(environment.get("HOME", "/"))
        cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
        config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        return cls(cache / "meshwise" / "proxies", config / "meshwise" / "proxies.lock.json")

    def path_of(self, digest: str) -> Path:
        return self.directory / digest.replace(":", "-") / "proxy"

    def entries(self) -> tuple[Stored, ...]:
        """Newest first. Raises MW812."""
        entries = [Stored(**entry) for entry in _read_json(self.directory / "index.json").get("proxies", [])]
        return tuple(sorted(entries, key=lambda entry: entry.stored_at, reverse=True))

    def find(self, proxy: str, version: str | None = None) -> Path | None:
        """The newest stored binary of this proxy for this machine, or of that version."""
        here = architecture_of(platform.machine())
        for entry in self.entries():
            if entry.proxy == proxy and entry.architecture == here and version in (None, entry.version):
                path = self.path_of(entry.digest)
                if path.is_file():
                    return path
        return None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder on the cache's own file system, gone afterwards."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="incoming-") as folder:
            yield Path(folder)

    def keep(self, binary: Path, wanted: Wanted, architecture: str, source: str) -> Stored:
        """Copy a checked binary into the cache and list it. Raises MW810, MW814 for anything else."""
        machine = elf_machine(binary)
        if machine != machine_of(architecture):
            raise messages.WRONG_ARCHITECTURE.error(
                path=binary, found=machine, machine=machine_of(architecture)
            )
        digest = sha256_of(binary)
        stored = Stored(
            wanted.proxy,
            wanted.version,
            architecture,
            digest,
            source,
            datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        place = self.path_of(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(binary, place.with_suffix(".new"))
        place.with_suffix(".new").chmod(0o755)
        place.with_suffix(".new").rename(place)
        others = [entry for entry in self.entries() if _name(entry) != _name(stored)]
        _write_json(
            self.directory / "index.json", {"proxies": [asdict(entry) for entry in (stored, *others)]}
        )
        return stored

    def check_lock(self, wanted: Wanted, architecture: str, chain: Chain) -> None:
        """Compare with what the first pull of this name wrote, or write it. Raises MW809."""
        pins = dict(_read_json(self.lock))
        name = f"{wanted}/linux-{architecture}"
        pinned = pins.get(name)
        if pinned is None:
            _write_json(self.lock, {**pins, name: asdict(chain)})
            return
        for what, found in asdict(chain).items():
            expected = pinned.get(what, "") if isinstance(pinned, dict) else ""
            if found != expected:
                raise messages.LOCK_MISMATCH.error(
                    where=str(self.lock), what=f"the {what}", name=name, found=found, expected=expected
                )

    def verify(self) -> Iterator[tuple[Stored, bool]]:
        """Hash every stored binary again: (entry, whether it still is what was stored)."""
        for entry in self.entries():
            path = self.path_of(entry.digest)
            yield entry, path.is_file() and sha256_of(path) == entry.digest


def locate(proxy: str, environment: Mapping[str, str]) -> Path | None:
    """The binary to use: the environment's override (a path, or NAME@VERSION of a stored one), else the
    newest in the cache, else None."""
    if override := environment.get(OVERRIDES[proxy]):
        if not override.startswith(f"{proxy}@"):
            return Path(override)
        return Store.of_user(environment).find(proxy, parse_wanted(override).version)
    return Store.of_user(environment).find(proxy)


def elf_machine(path: Path) -> str:
    """The machine name that an ELF executable is built for. Raises MW814."""
    try:
        with path.open("rb") as binary:
            head = binary.read(20)
    except OSError as error:
        raise messages.NOT_A_BINARY.error(path=path, reason=error.strerror or str(error)) from error
    if len(head) < 20 or head[:4] != b"\x7fELF":
        raise messages.NOT_A_BINARY.error(path=path, reason="it is not an ELF file")
    (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])
    return _ELF_MACHINES.get(machine, f"ELF machine {machine}")


def _name(entry: Stored) -> tuple[str, str, str]:
    return entry.proxy, entry.version, entry.architecture


def _read_json(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        content = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise messages.STORE_DAMAGED.error(where=str(path), reason=str(error)) from error
    if not isinstance(content, dict):
        raise messages.STORE_DAMAGED.error(where=str(path), reason="it is not a JSON object")
    return content


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    aside.rename(path)
