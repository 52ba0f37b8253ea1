"""What the operating system refused, as an error of the catalogue.

For the outermost frame of a process: an OSError that no caller handled is a full disk, a
limit, a lost directory, and a person needs its name and a remedy, not a traceback.
"""

from __future__ import annotations

import errno
from pathlib import Path

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError

_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, your quota is used up",
    errno.EROFS: "choose a place on a file system that can be written",
    errno.EACCES: "choose a place where you may read and write",
    errno.EPERM: "run as a user who may, `meshwise doctor` shows what is missing",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "the machine's limit of open files is reached: end other programs, or raise fs.file-max",
    errno.EAGAIN: "a limit of processes or threads is reached: raise `ulimit -u` or a container's pids.max",
    errno.ENOMEM: "end other programs, or give the machine or the container more memory",
    errno.EFBIG: "a limit of the size of files is reached: raise `ulimit -f`",
    errno.ENOENT: "check the path",
}
_NO_ROOM = "failed to map segment from shared object"
"""Of the dynamic linker, in the words that Python passes on."""
_OTHERWISE = "mend it there; `--verbose` says where meshwise stood"


def refusal(error: BaseException) -> MeshwiseError | None:
    """The error in words, or None for what is no refusal of the system but a defect."""
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return messages.NOT_UTF8.error(text=str(error.object)[:200])
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and _NO_ROOM in str(error)):
        return _refused("no memory is left", errno.ENOMEM)
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return _refused("no further thread can be started", errno.EAGAIN)
    if type(error).__name__ == "PanicException" and "Resource temporarily unavailable" in str(error):
        return _refused("a library could start no thread", errno.EAGAIN)  # of polars, which is no Exception
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ENOENT and not _is_there(Path()):
        return messages.NO_WORKING_DIRECTORY.error()
    if (
        error.errno == errno.ENOENT
        and str(error.filename or "").startswith("/proc/")
        and not _is_there(Path("/proc/self"))
    ):
        return messages.NO_PROC.error(path=error.filename)
    return _refused(error.strerror or str(error), error.errno, str(error.filename or ""))


def _refused(what: str, number: int | None, where: str = "") -> MeshwiseError:
    remedy = _REMEDIES.get(number, _OTHERWISE) if number is not None else _OTHERWISE
    return messages.REFUSED.error(where, what=what, remedy=remedy)


def _is_there(path: Path) -> bool:
    try:
        return path.absolute().exists()
    except OSError:
        return False
