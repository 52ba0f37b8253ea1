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
TOO_LITTLE_MEMORY_FOR_ARMS = environment_fault(
    "MW215",
    "{environments} with {sidecars}, all at the same time, take about {needed} of memory; {available} may be "
    "taken here",
    "fewer postures or meshes in one study, a smaller topology, or `arrangement: apart`",
)
TOO_FEW_FILES_FOR_ARMS = environment_fault(
    "MW216",
    "the arms of a round have {connections} connections at the same time, for which a process needs {needed} "
    "open files; {limit} may be open here",
    "`ulimit -Hn {wanted}` as root, or `nofile` in limits.conf; or fewer `connections`, fewer postures in "
    "one study, or `arrangement: apart`",
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
NO_VALGRIND = environment_fault(
    "MW230",
    "nothing can be counted with valgrind: {reason}",
    "install it (`apt-get install valgrind`, `dnf install valgrind`), or set MESHWISE_VALGRIND to its path",
)
OLD_VALGRIND = environment_fault(
    "MW231",
    "{path} is valgrind {version}; counting needs {needed} or newer",
    "install a newer one, or set MESHWISE_VALGRIND to its path",
)
NO_COUNTER_LIBRARY = environment_fault(
    "MW232",
    "the library through which a counted process is read cannot be made: {reason}",
    "install a C compiler (`apt-get install gcc libc6-dev`), or set CC to one",
)
NOT_COUNTABLE = environment_fault(
    "MW233", "{path} cannot be counted with valgrind: {reason}", "name a dynamically linked build of it"
)
COUNTER_SILENT = environment_fault(
    "MW234",
    "{name} cannot be counted: {what}, and there was no answer within {timeout:g} s; its log ends with:\n"
    "{tail}",
    "count on a machine that is less busy; if it happens again, please report this with the log",
)
COUNTED_ENDED = proxy_fault(
    "MW235",
    "{name} {ending} while it was counted by {counter}; its log ends with:\n{tail}",
    "valgrind may not know what this build does: try another build of it or a newer valgrind",
)
NOTHING_COUNTED = environment_fault(
    "MW236",
    "{counter} counted nothing of {name} in a window: {reason}",
    "its figures are not used; please report this with `valgrind --version` and the proxy's version",
)
NO_PMU = environment_fault(
    "MW237",
    "the kernel counts no instructions of {name}: {reason}",
    "use a machine with a performance counter that the guest may read, or allow it: "
    "`sysctl -w kernel.perf_event_paranoid=2` as root; or count with valgrind",
)
