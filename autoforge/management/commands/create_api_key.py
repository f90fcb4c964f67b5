"""`manage.py create_api_key`: make a key and print its secret, once."""

from argparse import ArgumentParser
from typing import Any

import msgspec
from django.core.management.base import BaseCommand

from autoforge.models import Role
from autoforge.services import create_api_key, get_or_create_project


class Command(BaseCommand):
    help = "Creates an API key in a project (made when missing) and prints the secret once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--role", choices=Role.values, default=Role.EDITOR.value)
        parser.add_argument("--name", default="command line")
        parser.add_argument("--rate-limit", type=int, help="requests per minute; 0: no limit")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        project = get_or_create_project(options["project"])
        role = Role(options["role"])
        new = create_api_key(
            project, name=options["name"], role=role, rate_limit_per_min=options["rate_limit"]
        )
        shown = {
            "public": new.key.public_id,
            "secret": new.secret,
            "role": role.value,
            "project": project.name,
        }
        if options["json"]:
            self.stdout.write(msgspec.json.encode(shown).decode())
            return
        for name, value in shown.items():
            self.stdout.write(f"{name:<8} {value}")
        self.stdout.write("The secret is shown this once.")
