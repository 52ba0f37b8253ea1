"""Which application a study has, and whether this machine can run it."""

from __future__ import annotations

from importlib.util import find_spec

from meshwise.core import messages
from meshwise.service.bank import stores
from meshwise.study.model import Study, TopologyKind
from meshwise.testbed.applications.echo import Echo
from meshwise.testbed.applications.seam import Application

_OF_BANK = ("aiohttp", "asyncpg", "httpx", "hypercorn", "opentelemetry.sdk", "redis", "starlette", "uvicorn")


def has_bank(study: Study) -> bool:
    return any(cell.shape is TopologyKind.BANK for cell in study.cells)


def application_of(study: Study) -> Application:
    """Raises MW914 where the study has the bank and its packages are not installed."""
    if not has_bank(study):
        return Echo()
    try:
        from meshwise.testbed.applications.bank.application import BankApplication
    except ModuleNotFoundError as error:
        raise messages.BANK_EXTRA.error(package=error.name) from error
    return BankApplication(study)


def require(study: Study) -> None:
    """Raises MW914, MW911, MW912: what the study's application lacks, before anything starts."""
    if not has_bank(study):
        return
    for package in _OF_BANK:
        if find_spec(package) is None:
            raise messages.BANK_EXTRA.error(package=package)
    stores.postgres_binaries()
    stores.redis_binary()
    stores.unprivileged()
