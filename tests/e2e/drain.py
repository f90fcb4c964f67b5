"""`python -m tests.e2e.drain DATABASE RUN`: a worker process on the database of a test."""

import os
import sys
from uuid import UUID

import django
from django.conf import settings


def main(database: str, run_id: str) -> None:
    """Drain the run and end."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")
    settings.DATABASES["default"]["NAME"] = database
    django.setup()
    from evaluations import executor

    executor.drain_here(UUID(run_id))


if __name__ == "__main__":
    main(*sys.argv[1:])
