"""`proxies pull` and `add` as functions: from a name to a checked binary in the cache."""

from __future__ import annotations

import re
from pathlib import Path

from meshwise.core import messages
from meshwise.mesh.binaries.known import Release, Wanted, image_of, release_of
from meshwise.mesh.binaries.limits import Deadline
from meshwise.mesh.binaries.oci import DigestChain, is_digest, pull_file
from meshwise.mesh.binaries.store import BinaryStore, Stored, copy_binary
from meshwise.mesh.binaries.tarball import extract_member
from meshwise.mesh.binaries.transfer import Progress, Session, sha256_of


def pull(
    wanted: Wanted,
    store: BinaryStore,
    architecture: str,
    *,
    digest: str | None = None,
    registry: str | None = None,
    release_base: str | None = None,
    progress: Progress = lambda received, total: None,
    pause_s: float = 1.0,
    deadline: Deadline | None = None,
) -> Stored:
    """Pull one proxy, check its digest chain against the user's digest or the lock file, and store it.

    A linkerd version `vX.Y.Z` comes from the release archive, everything else from the image; `digest` is the
    image index's (or the archive's). `deadline`: of all of it, half an hour if none is given. Raises MW801 to
    MW816; the cache is then as it was.
    """
    if digest is not None and not is_digest(digest):
        raise messages.BAD_DIGEST.error(text=digest)
    release = release_of(wanted, architecture, release_base)
    session = Session(pause_s, deadline or Deadline())
    store.entries()  # a list that is damaged is found before something is downloaded
    with store.scratch() as folder:
        binary = folder / "proxy"
        if release is not None:
            source = release.url
            chain = _pull_release(release, binary, digest, session, progress)
        else:
            image = image_of(wanted, registry)
            source = f"{image.registry}/{image.repository}:{image.tag}"
            chain = pull_file(image, architecture, binary, digest=digest, session=session, progress=progress)
        store.check_lock(wanted, architecture, chain)
        stored = store.keep(binary, wanted, architecture, source)
        store.pin(wanted, architecture, chain)
        return stored


def _pull_release(
    release: Release, binary: Path, digest: str | None, session: Session, progress: Progress
) -> DigestChain:
    """The archive must match its own checksum file, and the user's digest if there is one."""
    checksum, _ = session.document(release.checksum_url, "text/plain", limit_bytes=4096)
    match = re.match(rb"\s*([0-9a-f]{64})\b", checksum)
    if not match:
        raise messages.BAD_MANIFEST.error(where=release.checksum_url, reason="it holds no SHA-256")
    published = f"sha256:{match[1].decode()}"
    if digest is not None and digest != published:
        raise messages.DIGEST_MISMATCH.error(where=release.checksum_url, expected=digest, found=published)
    archive = binary.with_name("archive")
    session.file(release.url, archive, published, None, progress)
    if extract_member(archive, release.path, binary, session.deadline, release.url) != "extracted":
        raise messages.NO_SUCH_FILE_IN_IMAGE.error(path=release.path, source=release.url)
    return DigestChain(index="", manifest="", layer=published, file=sha256_of(binary))


def add(path: Path, wanted: Wanted, store: BinaryStore, architecture: str) -> Stored:
    """Take a binary that the user has; its digest is recorded. Raises MW810, MW812, MW814, MW816."""
    store.entries()
    with store.scratch() as folder:
        copy_binary(path, folder / "proxy")
        return store.keep(folder / "proxy", wanted, architecture, f"added from {path.resolve()}")
