"""`manage.py with_services [--fresh] -- CMD …`: run a command beside real local services."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from autoforge.local_services.command import add_arguments, run_with_services


class Command(BaseCommand):
    """Exits with the command's own code."""

    help = "Run a command with DATABASE_URL and REDIS_URL set to services that are started for it."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """`[--fresh] -- CMD …`"""
        add_arguments(parser)

    def handle(self, *args: Any, command: list[str], fresh: bool, **options: Any) -> None:
        """Run the command to its end."""
        sys.exit(run_with_services(command, fresh=fresh))
