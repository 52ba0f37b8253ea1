"""One file out of an OCI or Docker image, with the whole digest chain checked.

index -> manifest -> layer -> file. Each step's bytes are hashed and compared with what the step before
(or the user, or the lock file) said. Source: OCI distribution-spec and image-spec (manifest.md, layer.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.mesh.binaries.known import Image
from meshwise.mesh.binaries.limits import DOCUMENT_BYTES, IMAGE_BYTES, parse_json
from meshwise.mesh.binaries.tarball import extract_member
from meshwise.mesh.binaries.transfer import Progress, Session, sha256_of, sha256_of_bytes

_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ACCEPT = ", ".join(_INDEX_TYPES + _MANIFEST_TYPES)
_MOST_NAMED, _WORD = 20, 40
"""How much of a list from outside stands in an error."""


@dataclass(frozen=True)
class DigestChain:
    """The digests from the tag down to the file; `index` is empty for an image without an index."""

    index: str
    manifest: str
    layer: str
    file: str


@dataclass(frozen=True)
class _Descriptor:
    digest: str
    size_bytes: int


def pull_file(
    image: Image, architecture: str, target: Path, *, digest: str | None, session: Session, progress: Progress
) -> DigestChain:
    """Put `image.path` of the image into `target` and return its chain of digests.

    `digest`: what the index (or the manifest of a single-platform image) must be, if the user gave one.
    Raises MW802 to MW808, MW815.
    """
    base = f"{_with_scheme(image.registry)}/v2/{image.repository}"
    source = f"{image.registry}/{image.repository}:{image.tag}"
    top_url = f"{base}/manifests/{digest or image.tag}"
    top, media_type = session.document(top_url, _ACCEPT)
    top_digest = sha256_of_bytes(top)
    if digest is not None and top_digest != digest:
        raise messages.DIGEST_MISMATCH.error(where=top_url, expected=digest, found=top_digest)
    document = _parse(top, source)
    if str(document.get("mediaType", media_type)) in _INDEX_TYPES or "manifests" in document:
        index_digest = top_digest
        wanted = _platform(document, architecture, source)
        body, _ = session.document(f"{base}/manifests/{wanted.digest}", _ACCEPT)
        manifest_digest = sha256_of_bytes(body)
        if manifest_digest != wanted.digest:
            raise messages.DIGEST_MISMATCH.error(where=source, expected=wanted.digest, found=manifest_digest)
        document = _parse(body, source)
    else:
        index_digest, manifest_digest = "", top_digest
    for layer in reversed(_layers(document, source)):
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="layer-") as scratch:
            blob = Path(scratch) / "layer"
            session.file(f"{base}/blobs/{layer.digest}", blob, layer.digest, layer.size_bytes, progress)
            found = extract_member(blob, image.path, target, session.deadline, f"{source} {layer.digest}")
        if found == "extracted":
            return DigestChain(index_digest, manifest_digest, layer.digest, sha256_of(target))
        if found == "removed":
            break
    raise messages.NO_SUCH_FILE_IN_IMAGE.error(path=image.path, source=source)


def _with_scheme(registry: str) -> str:
    """Plain HTTP only where the user wrote it, as for a registry on loopback."""
    return registry if "://" in registry else f"https://{registry}"


def _parse(body: bytes, source: str) -> Mapping[str, Any]:
    try:
        return parse_json(body, "it")
    except ValueError as error:
        raise messages.BAD_MANIFEST.error(where=source, reason=error) from error


def _descriptor(entry: object, source: str) -> _Descriptor:
    if not isinstance(entry, dict) or not is_digest(entry.get("digest")):
        raise messages.BAD_MANIFEST.error(where=source, reason="an entry has no sha256 digest")
    size = entry.get("size")
    if type(size) is not int or size < 0:
        raise messages.BAD_MANIFEST.error(where=source, reason="an entry has no size")
    return _Descriptor(str(entry["digest"]), size)


def _platform(index: Mapping[str, Any], architecture: str, source: str) -> _Descriptor:
    entries = index.get("manifests")
    if not isinstance(entries, list):
        raise messages.BAD_MANIFEST.error(where=source, reason="the index lists no manifests")
    found = []
    for entry in entries:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(platform, dict):
            continue
        found.append(f"{platform.get('os')}/{platform.get('architecture')}")
        if found[-1] == f"linux/{architecture}":
            descriptor = _descriptor(entry, source)
            if descriptor.size_bytes > DOCUMENT_BYTES:
                raise messages.DOWNLOAD_TOO_LARGE.error(where=source, limit=DOCUMENT_BYTES)
            return descriptor
    named = ", ".join([name[:_WORD] for name in found[:_MOST_NAMED]] + ["..."] * (len(found) > _MOST_NAMED))
    raise messages.NO_SUCH_PLATFORM.error(
        where=source, platform=f"linux/{architecture}", found=named or "none"
    )


def _layers(manifest: Mapping[str, Any], source: str) -> Sequence[_Descriptor]:
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers:
        raise messages.BAD_MANIFEST.error(where=source, reason="the manifest lists no layers")
    found = [_descriptor(layer, source) for layer in layers]
    if sum(layer.size_bytes for layer in found) > IMAGE_BYTES:
        raise messages.DOWNLOAD_TOO_LARGE.error(where=source, limit=IMAGE_BYTES)
    return found


def is_digest(text: object) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hexadecimal digits."""
    if not isinstance(text, str) or not text.startswith("sha256:"):
        return False
    hexadecimal = text.removeprefix("sha256:")
    return len(hexadecimal) == 64 and set(hexadecimal) <= set("0123456789abcdef")
