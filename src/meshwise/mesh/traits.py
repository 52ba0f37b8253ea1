"""Traits: what one has to know of two meshes before comparing them. The vocabulary of `Mesh.traits`.

Each mesh says its own values, read from the very settings that its configuration is made of. What a proof
observes on the running proxies (a fact of `Proof`) stands above what is configured. A difference that
meshwise can remove names the factor, or the key of the study file, that removes it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trait:
    name: str
    what: str
    effect: str
    """What a difference does to the numbers."""
    removed_by: str = ""
    """How to make it equal; empty when it cannot be."""
    otherwise: str = "part of what a mesh is"
    """Why it cannot be made equal."""
    fact: str = ""
    """Fact of a proof that observes it."""
    factor: str = ""
    """Field of `Cell` whose level, if it is not the mesh's default, is the value."""
    l7: bool = False
    """Means nothing to opaque TCP."""
    http1: bool = False
    """Means something to HTTP/1.1 only."""
    mtls: bool = False
    """Means something with mutual TLS only."""


_LIBRARY = "built into the proxy"
_OWN = "a default of the mesh, left as users have it"

TRAITS: tuple[Trait, ...] = (
    Trait("workers", "worker threads", "the proxy with more threads runs more in parallel",
          removed_by="`workers`, one number for every mesh", fact="workers"),
    Trait("worker_model", "how workers share the load", "decides how connections spread over CPUs"),
    Trait("build", "build", "another build of the same proxy may cost something else", fact="build"),
    Trait("http1_transport", "HTTP/1.1 between sidecars",
          "changes CPU per request and how many connections there are",
          removed_by="`http1_transport: http1` or `http2`", factor="http1_transport", l7=True, http1=True),
    Trait("protocol_detection", "protocol of a port", "detection reads the first bytes of each connection",
          otherwise=_OWN),
    Trait("tls_library", "TLS library", "another implementation of the same cryptography",
          otherwise=_LIBRARY, mtls=True),
    Trait("tls_version", "TLS version", "more or fewer round trips per connection",
          removed_by="`tls_version: 1.3`", fact="tls_version", otherwise=_LIBRARY, mtls=True),
    Trait("tls_group", "TLS key exchange",
          "cost and bytes of each handshake; nothing per request on a kept connection",
          removed_by="`tls_group: x25519mlkem768`", fact="tls_group", factor="tls_group", mtls=True),
    Trait("tls_cipher", "TLS cipher", "cost of each byte", fact="tls_cipher", otherwise=_LIBRARY, mtls=True),
    Trait("resumption", "TLS sessions resumed", "a resumed handshake verifies no certificates",
          removed_by="`resumption: off`", fact="resumption", factor="resumption", mtls=True),
    Trait("chain_depth", "certificates sent behind a side's own", "cost and bytes of each handshake",
          removed_by="`chain_depth`, one number for every mesh", fact="chain_depth", factor="chain_depth",
          mtls=True),
    Trait("crl", "list of revoked certificates", "read in each handshake",
          removed_by="`crl: off`", fact="crl", mtls=True),
    Trait("san_match", "match of the server's name", "none that was ever found; part of each handshake",
          removed_by="`san_match: exact`", fact="san_match", factor="san_match", mtls=True),
    Trait("certificate_life", "life of certificates", "how often one is issued; nothing per handshake",
          removed_by="`certificate_life`, one for every mesh", fact="certificate_life", mtls=True),
    Trait("key_type", "key of certificates", "cost of each handshake; RSA signs more slowly",
          removed_by="`key: ecdsa-p256`", fact="server_key", mtls=True),
    Trait("request_telemetry", "telemetry of requests", "work per request",
          otherwise="both are on, as users have them", l7=True),
    Trait("access_log", "access log", "work per request"),
    Trait("authorization", "when authorization is asked", "work per request, or per connection"),
    Trait("retries", "retries", "a failed request may be sent again, and then counts as answered",
          otherwise=_OWN, l7=True),
    Trait("balancing", "load balancing", "none with one endpoint, but for the bookkeeping", otherwise=_OWN),
    Trait("pool", "connections to one peer", "memory, and how requests share connections", otherwise=_OWN),
    Trait("http2_windows", "HTTP/2 flow-control windows", "throughput of large payloads",
          otherwise=_OWN, l7=True),
    Trait("keepalive", "keep-alive", "a few packets per connection and interval", otherwise=_OWN),
    Trait("connect_timeout", "connect time-out", "none while endpoints answer", otherwise=_OWN),
    Trait("queue", "limit of waiting requests", "none below saturation; beyond it one mesh refuses earlier",
          otherwise=_OWN),
)  # fmt: skip
"""In the order of the card."""

NAMES = tuple(trait.name for trait in TRAITS)
