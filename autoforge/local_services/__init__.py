"""Real PostgreSQL and Valkey from pip alone, for tests and for `make serve` when none is configured."""

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.launcher import local_services

__all__ = ["ServiceError", "local_services"]
