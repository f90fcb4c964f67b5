"""`manage.py sync_turso`: copies a project's prompts, runs and results to a libSQL/Turso database."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from autoforge.models import Project
from evaluations.terminal import new_console
from evaluations.turso import Synced, TursoError, sync_project


class Command(BaseCommand):
    help = "Copies a project to the database at AUTOFORGE_TURSO_URL: only what is new, changed or gone."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", default="demo")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(name=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']!r}.")
        console = new_console()
        started = time.monotonic()
        try:
            with console.status("comparing …") as status:
                synced = sync_project(project, on_progress=lambda now: status.update(_counts(now)))
        except TursoError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped; the next sync goes on from here.") from None
        console.print(f"{project.name}: {_counts(synced)}{_speed(synced, time.monotonic() - started)}")


def _counts(synced: Synced) -> str:
    written = [f"{count:,} {table}" for table, count in synced.written.items()]
    removed = [f"{count:,} {table} removed" for table, count in (+synced.removed).items()]
    return ", ".join([*written, *removed]) or "nothing has changed"


def _speed(synced: Synced, seconds: float) -> str:
    rows = synced.written.total()
    return f" in {seconds:.1f} s, {rows / seconds:,.0f} rows/s" if rows else ""
