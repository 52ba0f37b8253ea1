"""Rows of the table of factors (`study.factors`): how two sidecars convince each other in a TLS handshake.

Each concerns connections, not requests: it shows where connections are new (`requests_per_connection`,
`churn`), and in what is counted per handshake.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from meshwise.core.units import format_duration, parse_duration_ns, plural
from meshwise.study.factor import ColumnKind, Factor, FactorRole, SlopeUnit, column
from meshwise.study.file.scalars import choice, one_of, quantity, unit
from meshwise.study.levels import Resumption, SanMatch, TlsVersion
from meshwise.study.security import MtlsMode, Posture

MOST_REVOKED = 10_000
LEAST_LIFE_S = 5
DAY_S = 86_400
_MOST_LIFE_S = 90 * DAY_S
"""istiod's own limit, MAX_WORKLOAD_CERT_TTL (security/pkg/cmd/constants.go)."""


def with_mtls(posture: Posture) -> bool:
    return posture.mtls in (MtlsMode.PERMISSIVE, MtlsMode.STRICT)


def _life_s(text: str) -> int:
    """Whole seconds, as certificates have them (RFC 5280 section 4.1.2.5). Raises MW101."""
    return parse_duration_ns(text) // 10**9


def _life(seconds: Any) -> str:
    return format_duration(seconds * 1e9) if isinstance(seconds, int | float) else str(seconds)


_Life = Annotated[
    int,
    BeforeValidator(unit(_life_s, _MOST_LIFE_S, "2160h")),
    Field(ge=LEAST_LIFE_S),
    quantity(r"^([0-9.]+ *(s|m|h) *)+$", ["24h", "10m", "30s"]),
]
_Revoked = Annotated[
    int,
    BeforeValidator(lambda text: 0 if text == "off" else text),
    Field(ge=0, le=MOST_REVOKED),
    WithJsonSchema(
        {"anyOf": [{"enum": ["off", False]}, {"type": "integer", "minimum": 0, "maximum": MOST_REVOKED}]}
    ),
]
# An editor checks what YAML makes of a word: of 1.2 a number, of `on` and `off` in its version 1.1 a truth.
_version, _ = choice("TLS version", list(TlsVersion), TlsVersion)
_Version = Annotated[TlsVersion, _version, WithJsonSchema({"enum": [*map(str, TlsVersion), 1.2, 1.3]})]
_resumption, _ = choice("way of resumption", list(Resumption), Resumption)
_Resumption = Annotated[
    Resumption, _resumption, WithJsonSchema({"enum": [*map(str, Resumption), True, False]})
]

VALIDATION: tuple[Factor, ...] = (
    Factor(
        field="chain_depth", key="chain_depth", role=FactorRole.FREE, default=1, ordinary=(1,), numeric=True,
        stepped=True,
        type=Annotated[int, Field(ge=1, le=3)], concerns=with_mtls,
        about="Certificates of authorities that a side sends behind its own. Default: 1.",
        columns=column(
            "chain_depth", ColumnKind.INT, "certificates of authorities that are sent behind the leaf", True,
        ),
        heading="chain", short=lambda depth: plural(depth, "intermediate"),
        spoken=lambda depth, _: f"{plural(depth, 'intermediate certificate')} sent",
        named=lambda cell: f"depth{cell.chain_depth}" if cell.chain_depth != 1 else "",
        growth=SlopeUnit(
            1, "each further intermediate certificate", "/certificate", "intermediate certificates sent"
        ),
    ),
    Factor(
        field="crl_entries", key="crl", role=FactorRole.FREE, default=0, ordinary=(0,), numeric=True,
        stepped=True,
        type=_Revoked, concerns=with_mtls,
        about="Entries of the list of revoked certificates that is read in each handshake. "
        "Default: off, no list.",
        columns=column(
            "crl_entries", ColumnKind.INT, "entries of the list of revoked certificates; 0: none is read",
            True,
        ),
        says_none=True, heading="revoked", text=lambda count: str(count) if count else "off",
        short=lambda count: f"list of {count:g} revoked" if count else "no revocation list",
        spoken=lambda count, _: f"a list of {count:d} revoked certificates" if count else "",
        named=lambda cell: f"crl{cell.crl_entries}" if cell.crl_entries else "",
        growth=SlopeUnit(
            1000, "each further thousand revoked certificates", "/1000 entries",
            "length of the list of revoked certificates",
        ),
    ),
    Factor(
        field="san_match", key="san_match", role=FactorRole.FREE, read=SanMatch,
        stepped=True,
        type=one_of("match of names", SanMatch), default=SanMatch.EXACT, ordinary=(SanMatch.EXACT,),
        concerns=with_mtls,
        about="What a client's sidecar wants of the server's name: all of it, or that it begins with the "
        "trust domain. Default: exact.",
        columns=column(
            "san_match", ColumnKind.TEXT,
            "what the client's sidecar wants of the server's name: `exact`, `prefix`", True,
        ),
        heading="names", short=lambda kind: f"names {kind}",
        spoken=lambda kind, _: f"names matched {'exactly' if kind == SanMatch.EXACT else 'by prefix'}",
        named=lambda cell: "san-prefix" if cell.san_match is SanMatch.PREFIX else "",
    ),
    Factor(
        field="tls_version", key="tls_version", role=FactorRole.FREE, read=TlsVersion, type=_Version,
        stepped=True,
        default=TlsVersion.DEFAULT, ordinary=(TlsVersion.DEFAULT,), concerns=with_mtls,
        about="Version of TLS between sidecars. Default: what each mesh uses unasked, 1.3 in both.",
        columns=column(
            "tls_version", ColumnKind.TEXT, "version of TLS between sidecars: `default`, `1.2`, `1.3`", True
        ),
        heading="TLS", short=lambda version: f"TLS {version}",
        spoken=lambda version, _: "" if version == TlsVersion.DEFAULT else f"TLS {version}",
        named=lambda cell: f"tls{cell.tls_version}" if cell.tls_version is not TlsVersion.DEFAULT else "",
    ),
    Factor(
        field="certificate_life_s", key="certificate_life", role=FactorRole.FREE, default=DAY_S,
        stepped=True,
        ordinary=(DAY_S,), numeric=True, type=_Life, concerns=with_mtls,
        about="How long a certificate of a sidecar is valid. Default: 24h, as in both meshes.",
        columns=column(
            "certificate_life_s", ColumnKind.INT, "how long a certificate of a sidecar is valid, seconds",
            True,
        ),
        heading="valid", text=_life, short=lambda seconds: f"certificates of {_life(seconds)}",
        spoken=lambda seconds, _: f"certificates of {_life(seconds)}",
        named=lambda cell: (
            f"valid{cell.certificate_life_s}s" if cell.certificate_life_s != DAY_S else ""
        ),
    ),
    Factor(
        field="resumption", key="resumption", role=FactorRole.FREE, read=Resumption,
        stepped=True,
        type=_Resumption, default=Resumption.DEFAULT,
        ordinary=(Resumption.DEFAULT,), concerns=with_mtls,
        about="Whether a new connection between sidecars resumes an earlier TLS session. Default: what each "
        "mesh does unasked; istio does, linkerd does not.",
        columns=column(
            "resumption", ColumnKind.TEXT,
            "whether a new connection resumes an earlier TLS session: `default`, `on`, `off`", True,
        ),
        heading="resumption",
        short=lambda way: {"on": "sessions resumed", "off": "no session resumed"}.get(
            str(way), f"resumption {way}"
        ),
        spoken=lambda way, _: {"on": "sessions resumed", "off": "no session resumed"}.get(str(way), ""),
        named=lambda cell: (
            f"resumption-{cell.resumption}" if cell.resumption is not Resumption.DEFAULT else ""
        ),
    ),
)  # fmt: skip
