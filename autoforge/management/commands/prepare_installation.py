"""`manage.py prepare_installation`: tables, sample project and logins, before the first request."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS

from autoforge.installation import introduction, prepare, write_environment
from autoforge.ports import port_number


class Command(BaseCommand):
    help = (
        "Checks the settings, migrates the database, loads the sample project once, prints the logins, "
        "writes var/serve.env."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=port_number, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        self.check(databases=[DEFAULT_DB_ALIAS])
        self.stdout.write(introduction(prepare(), options["port"]))
        write_environment(options["port"])
