"""Where these sidecars differ from Linkerd on a cluster, and what that does to a measurement."""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.seam import Fidelity

_ALWAYS = (
    Fidelity(
        "linkerd-control-plane",
        "the real linkerd2-proxy is driven by meshwise's own small control plane, not by Linkerd's; its "
        "answers mirror linkerd2's controllers for meshed pods and services without routes of their own",
        "none per request; the control plane's own cost is not Linkerd's and is not reported as such",
    ),
    Fidelity(
        "linkerd-control-transport",
        "proxies reach the control plane in plaintext over loopback, each of its services on a port of "
        "its own; on a cluster through mesh TLS, with streams that are opened anew every hour",
        "none per request; one TLS connection and its buffers less per proxy; a control plane that was "
        "gone is tried again after at most 10 s instead of 60 s, and streams do not move to a second one",
    ),
    Fidelity(
        "linkerd-renewal",
        "a proxy asks for its next certificate 100 ms after it has one, and the answer is held until a "
        "proxy of Linkerd's would have asked (after 70 % of the life, 10 s at least) or a rotation is due",
        "none per request; one idle call more per proxy; when the identity service goes, every proxy tries "
        "to connect again (after 0.1 s, then twice as long each time, up to 10 s), not only one that is due",
    ),
    Fidelity(
        "linkerd-drain",
        "a proxy that is ended has 500 ms for what is under way; Helm gives it 120 s",
        "none but where a study restarts proxies: a request that takes longer is cut off",
    ),
    Fidelity(
        "linkerd-start",
        "a shell starts each proxy, with the trust anchors and a token of that moment, as the kubelet "
        "does, and becomes the proxy",
        "none",
    ),
    Fidelity(
        "linkerd-plaintext",
        "posture `plaintext`, or a service that demands it, withholds the endpoints' TLS identity, and with "
        "it the transport header; no supported Linkerd configuration gives this, and a proxy still takes "
        "mesh TLS from every client that offers it",
        "measurement only: the step from plaintext to permissive is the cost of encryption, not a choice "
        "that a user of Linkerd has",
    ),
    Fidelity(
        "linkerd-no-claims",
        "Linkerd has no rule on JWT claims: strict+fine checks identity, method, path and header; the token "
        "travels unread",
        "strict+fine does less than Istio's; compare it with a fine posture without tokens, or say so",
    ),
    Fidelity(
        "linkerd-unmatched-route",
        "a route for everything else, which no policy opens, turns Linkerd's 404 for unmatched requests "
        "into 403",
        "one more route is compared with each request of strict+fine and of `request`",
    ),
    Fidelity(
        "linkerd-policy-order",
        "authorizations and routes are delivered in the order of their names; Linkerd's own order is that "
        "of a hash table",
        "entries of `policies` are scanned before the one that holds; on a cluster about half of them",
    ),
    Fidelity(
        "linkerd-kept-connections",
        "a posture change that leaves the transport as it is keeps the connections between sidecars, as "
        "Linkerd does; Istio's are closed",
        "none in a trial: connections are up after the warm-up in both",
    ),
    Fidelity(
        "linkerd-admin-port",
        "the administration port is open in every posture, for reading statistics alike; on a cluster the "
        "default policy holds for it too",
        "none per request",
    ),
    Fidelity(
        "linkerd-no-init-check",
        "no proxy-identity program, network validator or linkerd-await runs beside the proxy",
        "none per request",
    ),
)
_TRANSPARENT = Fidelity(
    "linkerd-transparent",
    "sidecars dial the application's port instead of naming it in a transport header, Helm's default",
    "one small frame less per connection",
)
_NO_UPGRADE = Fidelity(
    "linkerd-no-http2-upgrade",
    "HTTP/1 stays HTTP/1 between sidecars; Linkerd's default carries it over HTTP/2",
    "chosen for comparison: more connections between sidecars, less work per request",
)
_ONE_UID = Fidelity(
    "linkerd-capture",
    "an ordinary user's namespace has one uid, so outbound traffic is captured by service address and not "
    "by the proxy's uid",
    "none for calls to services",
)


def _untried(version: str) -> Fidelity:
    return Fidelity(
        "linkerd-version",
        f"meshwise was not tried with linkerd2-proxy {version}",
        "its API or its metrics may mean something else; every posture is proven all the same",
    )


ALL = (_untried("other than those that it names"), *_ALWAYS, _TRANSPARENT, _NO_UPGRADE, _ONE_UID)
"""Whatever can apply, for the page that explains them."""


def differences(transport: Transport, untried: str | None, *, privileged: bool) -> Sequence[Fidelity]:
    """`untried`: the version of a proxy that meshwise was not tried with."""
    return (
        *((_untried(untried),) if untried else ()),
        *_ALWAYS,
        *(() if transport.transport_header else (_TRANSPARENT,)),
        *(() if transport.http2_upgrade else (_NO_UPGRADE,)),
        *(() if privileged else (_ONE_UID,)),
    )
