"""MW8xx: getting proxies, registries."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, study_fault

UNKNOWN_PROXY = study_fault(
    "MW801",
    "`{text}` is not a proxy that can be pulled",
    "write NAME or NAME@VERSION with NAME one of: {known}",
)
NO_SUCH_FILE_IN_IMAGE = environment_fault(
    "MW802",
    "no `{path}` in {source}",
    "check the version; `meshwise proxies list` shows the newest known one",
)
DOWNLOAD_REFUSED = environment_fault(
    "MW803",
    "the server refused the download ({status})",
    "check the name and version; behind a mirror give it with `--registry HOST[/PREFIX]`",
)
DOWNLOAD_UNREACHABLE = environment_fault(
    "MW804",
    "not reached in {attempts} attempts: {reason}",
    "check the network or set HTTPS_PROXY; a binary that you already have can be taken with "
    "`meshwise proxies add NAME@VERSION PATH`",
)
DOWNLOAD_TOO_LARGE = environment_fault(
    "MW805",
    "the answer is larger than {limit} bytes",
    "this is not the image or archive of a proxy; check the address",
)
DIGEST_MISMATCH = environment_fault(
    "MW806",
    "content does not match its digest: expected {expected}, found {found}",
    "do not use it; pull again, and if it stays so, ask the operator of the registry or mirror",
)
BAD_MANIFEST = environment_fault(
    "MW807",
    "not a usable image manifest: {reason}",
    "check the registry address and that it serves OCI or Docker images",
)
NO_SUCH_PLATFORM = environment_fault(
    "MW808", "the image has no platform {platform}; it has: {found}", "choose one of them with `--platform`"
)
LOCK_MISMATCH = environment_fault(
    "MW809",
    "{what} of {name} is {found}, but the lock file says {expected}",
    "the tag may have been moved; if you trust the new content, remove the entry from the lock file "
    "and pull again",
)
WRONG_ARCHITECTURE = environment_fault(
    "MW810",
    "`{path}` is {found}, this machine runs {machine}",
    "get the build for {machine} (see `--platform`)",
)
PROXY_ABSENT = environment_fault(
    "MW811",
    "the proxy of {name} is not on this machine",
    "`meshwise proxies pull {name}` gets it; or point {variable} at a binary that you have",
)
STORE_DAMAGED = environment_fault(
    "MW812",
    "the list of stored proxies cannot be read: {reason}",
    "remove this file and pull or add the proxies again",
)
BAD_DIGEST = study_fault("MW813", "`{text}` is not a digest", "write `sha256:` and 64 hexadecimal digits")
NOT_A_BINARY = environment_fault(
    "MW814", "`{path}` is not an executable: {reason}", "give the path of the proxy's own binary"
)
DOWNLOAD_TOO_SLOW = environment_fault(
    "MW815",
    "the download was not done within {limit:g} s",
    "give it longer with `--timeout`, or take another mirror with `--registry`",
)
CACHE_UNWRITABLE = environment_fault(
    "MW816",
    "the cache of proxies cannot be written: {reason}",
    "free space, or set XDG_CACHE_HOME and XDG_CONFIG_HOME to directories where you may write",
)
PROXY_CHANGED = environment_fault(
    "MW817",
    "{path} is not what was kept as {name}",
    "`meshwise proxies pull {name}` keeps it anew, or `meshwise proxies add {name} FILE`",
)
