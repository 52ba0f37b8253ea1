"""What is known about the proxies: where their makers publish them, and which versions were tried.

No digest stands here: a digest comes from the user or from the lock file that the first pull wrote.
Sources: linkerd2 charts `values.yaml` (image), linkerd2-proxy `justfile` and release workflow (archive),
istio `pilot/docker/Dockerfile.proxyv2` and `Dockerfile.pilot` (places in the images).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from meshwise.core import messages


@dataclass(frozen=True)
class Image:
    """An OCI image and the path of the proxy inside it."""

    registry: str
    repository: str
    tag: str
    path: str


@dataclass(frozen=True)
class Release:
    """A release archive, its SHA-256 file, and the proxy's path inside it."""

    url: str
    checksum_url: str
    path: str


PROXIES = ("linkerd", "istio", "istiod")
"""`istiod` is a control plane and not a proxy; it is got and kept the same way."""
LATEST_KNOWN = {"linkerd": "edge-26.8.3", "istio": "1.30.3", "istiod": "1.30.3"}
"""The newest version of each whose interface meshwise was written against."""

_RELEASE_BASE = "https://github.com/linkerd/linkerd2-proxy/releases/download"
_OF_ISTIO = {"istio": ("istio/proxyv2", "envoy"), "istiod": ("istio/pilot", "pilot-discovery")}
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Wanted:
    """`linkerd@edge-26.8.3`, parsed."""

    proxy: str
    version: str

    def __str__(self) -> str:
        return f"{self.proxy}@{self.version}"


def parse_wanted(text: str) -> Wanted:
    """`NAME@VERSION`; `@latest-known` and no version mean LATEST_KNOWN. Raises MW801."""
    match = re.fullmatch(r"([a-z0-9]+)(?:@([A-Za-z0-9][A-Za-z0-9._-]{0,63}))?", text)
    if not match or match[1] not in PROXIES:
        raise messages.UNKNOWN_PROXY.error(text=text, known=", ".join(PROXIES))
    version = match[2] or "latest-known"
    return Wanted(match[1], LATEST_KNOWN[match[1]] if version == "latest-known" else version)


def image_of(wanted: Wanted, registry: str | None) -> Image:
    """The maker's image; `registry` (`host[:port][/prefix]`) replaces the maker's registry by a mirror."""
    if wanted.proxy == "linkerd":
        image = Image("cr.l5d.io", "linkerd/proxy", wanted.version, "usr/lib/linkerd/linkerd2-proxy")
    else:
        repository, program = _OF_ISTIO[wanted.proxy]
        image = Image("registry-1.docker.io", repository, wanted.version, f"usr/local/bin/{program}")
    if registry is None:
        return image
    scheme, separator, rest = registry.rpartition("://")
    host, _, prefix = rest.strip("/").partition("/")
    repository = f"{prefix}/{image.repository}" if prefix else image.repository
    return Image(scheme + separator + host, repository, image.tag, image.path)


def release_of(wanted: Wanted, architecture: str, base: str | None) -> Release | None:
    """The maker's release archive, or None where there is none (only linkerd versions `vX.Y.Z`)."""
    if wanted.proxy != "linkerd" or not re.fullmatch(r"v\d+\.\d+\.\d+", wanted.version):
        return None
    name = f"linkerd2-proxy-{wanted.version}-linux-{architecture}"
    url = f"{base or _RELEASE_BASE}/release%2F{wanted.version}/{name}"
    return Release(f"{url}.tar.gz", f"{url}.txt", f"{name}/linkerd2-proxy")


def machine_of(architecture: str) -> str:
    """OCI architecture -> the kernel's machine name."""
    return _ARCHITECTURES.get(architecture, architecture)


def architecture_of(machine: str) -> str:
    """The kernel's machine name -> OCI architecture."""
    return {machine_name: name for name, machine_name in _ARCHITECTURES.items()}.get(machine, machine)
