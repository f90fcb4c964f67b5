"""`manage.py keep_house`: delete now what is deleted every hour, and say what it was."""

from typing import Any

from django.core.management.base import BaseCommand

from autoforge.housekeeping import keep_house


class Command(BaseCommand):
    help = "Deletes the rows that AUTOFORGE_KEEP_…_DAYS calls old. Beat, or the web process, does it, too."

    def handle(self, *args: Any, **options: Any) -> None:
        for name, count in keep_house().items():
            self.stdout.write(f"{count:>8,}  {name}")
