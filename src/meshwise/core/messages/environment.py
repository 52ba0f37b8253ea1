"""MW2xx: the machine, processes and files."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, proxy_fault, study_fault

NO_WORLD = environment_fault(
    "MW201",
    "no isolated world can be made on this machine: {reason}",
    "run as root, or allow unprivileged user namespaces; `meshwise doctor` shows what is missing",
)
WORLD_ENDED = environment_fault(
    "MW202",
    "meshwise's own processes were {ending}",
    "look for an out-of-memory kill or a crash (`dmesg`); what is complete is kept, go on with `--resume`",
)
NO_SECRETS_PLACE = environment_fault(
    "MW203",
    "no directory to cover with a memory-backed one for keys; tried {tried}",
    "create an empty directory `/mnt`",
)
CANNOT_START = environment_fault(
    "MW210", "{name} could not be started: {reason}", "check memory and `ulimit -u`"
)
ENDED_EARLY = proxy_fault(
    "MW211",
    "{name} {ending} before {what}; its log ends with:\n{tail}",
    "read the log above; `meshwise doctor` checks the binaries",
)
NOT_READY = proxy_fault(
    "MW212",
    "{name}: not {what} within {timeout:g} s; its log ends with:\n{tail}",
    "read the log above; on a busy machine wait until it is idle",
)
WILL_NOT_DIE = environment_fault(
    "MW213", "{name} (process {pid}) does not end even on SIGKILL", "it hangs in the kernel: look at `dmesg`"
)
TOO_MANY_WATCHES = environment_fault(
    "MW214",
    "{envoys} Envoys watch their files with {needed} inotify instances; all programs of a user may "
    "have {limit} together",
    "`sysctl fs.inotify.max_user_instances={wanted}` as root, or a smaller topology",
)
TOO_LITTLE_MEMORY_FOR_ARMS = environment_fault(
    "MW215",
    "{sidecars} sidecars and their services at the same time take about {needed} of memory; {available} may "
    "be taken here",
    "fewer postures or meshes in one study, a smaller topology, or `arrangement: apart`",
)
REFUSED = environment_fault("MW220", "the system refused: {what}", "{remedy}")
NO_WORKING_DIRECTORY = environment_fault(
    "MW221", "the working directory does not exist any more", "`cd` to one that does"
)
NO_PROC = environment_fault(
    "MW222", "`{path}` is not there", "mount the process file system: mount -t proc proc /proc"
)
NOT_UTF8 = study_fault(
    "MW223", "`{text}` is not UTF-8", "files of a study keep paths as UTF-8: give another name"
)
OUTPUT_LOST = environment_fault(
    "MW224", "standard output cannot be written: {why}", "send it where there is space, or to a terminal"
)
