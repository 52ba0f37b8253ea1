"""MW3xx: the load instrument."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, meshwise_fault, study_fault

BAD_URL = study_fault(
    "MW301", "`{text}` is not a URL to load: {why}", "write http://HOST:PORT/PATH or https://..."
)
BAD_HEADER = study_fault("MW302", "`{text}` is not a header: {why}", "write --header 'name: value'")
BAD_LOAD_OPTION = study_fault("MW303", "{what}", "{remedy}")
BAD_TLS_FILE = study_fault(
    "MW304", "the {what} file cannot be used: {why}", "give a PEM file that this user can read"
)
BAD_LOAD_SPEC = meshwise_fault(
    "MW305", "not a load spec: {why}", "write the file with LoadSpec.to_json of the same version"
)
CANNOT_CONNECT = environment_fault(
    "MW306",
    "no connection could be made ({kind}): {why}",
    "check that the server listens there and speaks {protocol}{tls_hint}",
)
TOO_FEW_DESCRIPTORS = environment_fault(
    "MW307",
    "{needed} connections need more file descriptors than the limit of {limit}",
    "use fewer --connections, more --processes, or raise the limit: ulimit -n {wanted}",
)
CANNOT_RESOLVE = environment_fault(
    "MW308", "the host `{host}` has no address: {why}", "check the name, or give an IP address"
)
INSTRUMENT_DIED = environment_fault(
    "MW309",
    "the instrument did not end well ({ending}): {tail}",
    "was it killed, or is the machine out of memory? Run again with --verbose",
)
CANNOT_WRITE_OUTPUT = environment_fault(
    "MW310", "the output cannot be written: {why}", "choose a directory that exists and is writable"
)
NO_RECORDS = environment_fault(
    "MW311", "no records of a load run here", "give the directory that the instrument wrote to"
)
BROKEN_RECORDS = environment_fault(
    "MW312", "the records file is not whole: {why}", "run the load again; the file was altered or cut"
)
BROKEN_TRACE = environment_fault(
    "MW314",
    "the instrument's copy of the trace is not whole: {why}",
    "run the study again; the file was altered or cut",
)
CANNOT_ENTER_NETWORK = environment_fault(
    "MW315",
    "the network namespace cannot be entered: {why}",
    "give a path that exists, and run as a user who may enter it (CAP_SYS_ADMIN)",
)
