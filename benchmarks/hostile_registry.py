"""`meshwise proxies pull` against hostile registries: each pull ends in time, with words, in bounds.

    python benchmarks/hostile_registry.py [--seconds 60] [--seed 1]

Each pull is a process of its own, against a registry on loopback that is wrong in one to three ways drawn
from the seed: what it says over HTTP, what its documents hold, what its layers decode to, when it falls
silent. Figures: pulls, and of these the ones that ended in a traceback, ran over their deadline, took more
than 256 MiB, left something in the cache, or wrote a lock file for what was not kept. These must be 0.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from meshwise.mesh.binaries.store import BinaryStore

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.registry import digest_of, layer

PATH = "usr/lib/linkerd/linkerd2-proxy"
TAG = "edge-26.8.3"
BINARY = b"\x7fELF\x02\x01\x01" + bytes(11) + struct.pack("<H", 62) + bytes(range(256)) * 400
ALLOWED_S = 3.0
GRACE_S = 12.0
"""Beside the deadline: Python and its imports on a busy machine, five attempts at a connection."""
MEMORY_BYTES = 256 << 20
PULL = """
import resource, sys
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.binaries.known import parse_wanted
from meshwise.mesh.binaries.limits import Deadline
from meshwise.mesh.binaries.pull import pull
from meshwise.mesh.binaries.store import BinaryStore
from pathlib import Path
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
url, cache, allowed = sys.argv[1:]
store = BinaryStore(Path(cache) / "cache", Path(cache) / "lock.json")
try:
    pull(parse_wanted("linkerd@edge-26.8.3"), store, "amd64", registry=url, pause_s=0.01,
         deadline=Deadline(float(allowed), 0.5))
    said = "kept"
except MeshwiseError as error:
    said = error.code
print(said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""


# --- what a registry says --------------------------------------------------------------------------


def _json(chance: random.Random, good: bytes) -> bytes:
    junk: list[Callable[[], bytes]] = [
        lambda: b"[" * chance.choice((1000, 300_000)),
        lambda: b'{"layers":' * 100_000,
        lambda: b'{"manifests": ' + json.dumps([{"platform": {"os": "x" * 99}}] * 30_000).encode() + b"}",
        lambda: (
            b'{"layers": '
            + json.dumps([{"digest": digest_of(b""), "size": 10 ** chance.randrange(30)}]).encode()
            + b"}"
        ),
        lambda: b'{"layers": [{"digest": "' + digest_of(b"").encode() + b'", "size": ' + b"9" * 5000 + b"}]}",
        lambda: good[: chance.randrange(len(good))],
        lambda: bytes(byte ^ (chance.random() < 0.01) for byte in good),
        lambda: b" " * (5 << 20),
        lambda: b"\xff\xfe" + good,
        lambda: b"null",
    ]
    return chance.choice(junk)()


def _header(name: str, size: int, kind: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def _layer(chance: random.Random) -> bytes:
    """Small to send, large or endless or broken to decode."""
    import gzip

    kind = chance.choice((b"L", b"K", b"x", b"g", b"S", b"0", b"1", b"D"))
    size = chance.choice((0, 1, 511, 1 << 20, 600 << 20, 8 << 30, (1 << 33) - 1))
    name = chance.choice((PATH, "a", "../../etc/passwd", "usr/lib/.wh.linkerd"))
    start = _header(name, size, kind)
    repeated: list[Callable[[], bytes]] = [
        lambda: start * chance.randrange(1, 20_000),
        lambda: start + bytes(min(size, 64 << 20)),
        lambda: (_header("a", 5, b"L") + b"name\0".ljust(512, b"\0")) * 10_000,
        lambda: start[: chance.randrange(512)],
        lambda: bytes(chance.randrange(256) for _ in range(2048)),
        lambda: _header("a", 1000, b"x") + b"1000 path=".ljust(999, b"z") + b"\n" + bytes(24),
    ]
    content = chance.choice(repeated)()
    packed: list[Callable[[], bytes]] = [
        lambda: gzip.compress(content, 1, mtime=0),
        lambda: content[: 4 << 20],
        lambda: gzip.compress(content, 1, mtime=0)[:-5],
        lambda: b"\x28\xb5\x2f\xfd" + content[:1000],
    ]
    return chance.choice(packed)()


def _answer(chance: random.Random, url: str, wrong: str, status: bytes, content: bytes) -> tuple[bytes, str]:
    """The bytes of one answer, and how it goes on: `close`, `silent`, `drip`, `flood`."""
    length = str(len(content)).encode()
    if wrong == "length":
        length = chance.choice(
            (b"-1", b"0", b"1e9", b"", b"99999999999999999999", b"\xb2", str(len(content) * 3).encode())
        )
    fields = [b"Content-Type: application/json", b"Content-Length: " + length]
    after = "close"
    if wrong == "chunked":
        fields[1] = b"Transfer-Encoding: chunked"
        content = (
            chance.choice((b"-1\r\n", b"-5\r\n", b"zz\r\n", b"ffffffffffff\r\n", b"%x\r\n" % len(content)))
            + content
        )
        after = chance.choice(("close", "flood"))
    elif wrong == "redirect":
        there = chance.choice(
            (url, url + "/more" * 100, "ftp://127.0.0.1/", "file:///etc/passwd", "http://[::1", "//", "")
        )
        status, fields = b"302 Found", [b"Location: " + there.encode()]
    elif wrong == "token":
        realm = chance.choice((f"{url}/token", "file:///etc/passwd", "http://[", "", "http://127.0.0.1:1/t"))
        status, fields = (
            b"401 Unauthorized",
            [f'WWW-Authenticate: Bearer realm="{realm}",service="x"'.encode()],
        )
    elif wrong == "headers":
        fields += [b"X-%d: %s" % (number, b"y" * 1000) for number in range(chance.choice((90, 200)))]
    elif wrong == "continue":
        return b"HTTP/1.1 100 Continue\r\n\r\n" * chance.choice((10, 10_000)), "drip"
    elif wrong == "status":
        status = chance.choice((b"500 no", b"429 later", b"206 part", b"999 what", b"abc", b"200", b"418"))
    elif wrong in ("silent", "drip", "flood"):
        after = wrong
        content = content[: chance.randrange(len(content) + 1)]
    return b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + content, after


WRONG = (
    "length", "chunked", "redirect", "token", "headers", "continue", "status", "silent", "drip", "flood",
    "json", "layer", "digest", "cut",
)  # fmt: skip


class Registry:
    """One listener; what it does wrong is drawn anew for each pull (`err`)."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended = threading.Event()
        self.err(random.Random(0))
        threading.Thread(target=self._serve, daemon=True).start()

    def err(self, chance: random.Random) -> tuple[str, ...]:
        self._chance = chance
        self._wrong = {
            chance.choice(("index", "manifest", "blob", "token")): chance.choice(WRONG)
            for _ in range(chance.choice((1, 1, 2, 3)))
        }
        self._blob = _layer(chance) if "layer" in self._wrong.values() else layer({PATH: BINARY})
        entry = {"digest": digest_of(self._blob), "size": len(self._blob)}
        self._manifest = json.dumps({"layers": [entry]}).encode()
        platform = {"os": "linux", "architecture": "amd64"}
        digest = digest_of(self._manifest if "digest" not in self._wrong.values() else b"other")
        self._index = json.dumps(
            {"manifests": [{"digest": digest, "size": len(self._manifest), "platform": platform}]}
        ).encode()
        return tuple(f"{where}:{what}" for where, what in sorted(self._wrong.items()))

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(10)
                path = connection.recv(65536).split(b" ")[1].decode()
                where = next((name for name in ("token", "blob", "sha256") if name in path), "index").replace(
                    "sha256", "manifest"
                )
                content = {
                    "token": b'{"token": "x"}',
                    "blob": self._blob,
                    "index": self._index,
                    "manifest": self._manifest,
                }[where]
                wrong = self._wrong.get(where, "")
                if wrong == "json" and where != "blob":
                    content = _json(self._chance, content)
                if wrong == "cut":
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content[:7]
                    )
                    return
                said, after = _answer(self._chance, self.url, wrong, b"200 OK", content)
                connection.sendall(said)
                self._after(connection, after)
            except (OSError, IndexError, UnicodeDecodeError):
                return

    def _after(self, connection: socket.socket, after: str) -> None:
        end = time.monotonic() + 10
        while after != "close" and not self._ended.is_set() and time.monotonic() < end:
            if after == "silent":
                self._ended.wait(0.2)
                continue
            connection.sendall(b"1" if after == "drip" else b"1" * (1 << 16))
            if after == "drip":
                self._ended.wait(0.02)


# --- the campaign ----------------------------------------------------------------------------------


def one(url: str, cache: Path) -> tuple[str, float, int, str]:
    """(what it said, seconds, memory in bytes, stderr) of one pull."""
    begun = time.monotonic()
    words = [sys.executable, "-c", PULL, url, str(cache), str(ALLOWED_S)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=ALLOWED_S + GRACE_S + 10, check=False
        )
    except subprocess.TimeoutExpired:
        return "hang", time.monotonic() - begun, 0, ""
    said = done.stdout.split()
    if len(said) != 2:
        return "traceback", time.monotonic() - begun, 0, done.stderr
    return said[0], time.monotonic() - begun, int(said[1]) << 10, done.stderr


def is_clean(cache: Path, said: str) -> bool:
    """Nothing but what was kept; a pin only for what was kept."""
    store = BinaryStore(cache / "cache", cache / "lock.json")
    files = {path.name for path in (cache / "cache").rglob("*") if path.is_file()}
    if said == "kept":
        return (
            files == {"proxy", "index.json"}
            and store.lock.exists()
            and all(good for _, good in store.verify())
        )
    return not files and not store.lock.exists() and not list((cache / "cache").glob("incoming-*"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    registry, end = Registry(), time.monotonic() + options.seconds
    outcomes: collections.Counter[str] = collections.Counter()
    bad: list[str] = []
    longest, largest, number = 0.0, 0, 0
    while time.monotonic() < end:
        number += 1
        chance = random.Random(f"{options.seed} {number}")
        how = registry.err(chance)
        with tempfile.TemporaryDirectory(prefix="meshwise-hostile-") as directory:
            said, seconds, memory, stderr = one(registry.url, Path(directory))
            outcomes[said] += 1
            longest, largest = max(longest, seconds), max(largest, memory)
            faults = {
                "traceback": said == "traceback",
                "over its deadline": seconds > ALLOWED_S + GRACE_S,
                "too much memory": memory > MEMORY_BYTES,
                "something left": said not in ("traceback", "hang") and not is_clean(Path(directory), said),
            }
        bad += [
            f"{what}: pull {number} ({', '.join(how)}): {stderr[-800:]}"
            for what, is_so in faults.items()
            if is_so
        ]
    registry.close()
    print("\n".join(bad))
    told = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items()))
    print(f"seed {options.seed}: {number} pulls in {options.seconds:.0f} s; {told}")
    print(
        f"faults {len(bad)}; longest {longest:.1f} s, most memory {largest / 2**20:.0f} MiB beside Python's"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
