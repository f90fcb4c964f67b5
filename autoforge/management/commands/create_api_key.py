"""`manage.py create_api_key`: make a key and print its secret, once."""

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from autoforge.errors import AppError
from autoforge.models import Project, Role
from autoforge.services import NewKey, create_api_key, get_or_create_project


class Command(BaseCommand):
    help = "Creates an API key in a project (made when missing) and prints the secret once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--role", choices=Role.values, default=Role.EDITOR.value)
        parser.add_argument("--name", default="command line")
        parser.add_argument("--rate-limit", type=int, help="requests per minute; 0: no limit")
        parser.add_argument("--budget-usd", type=_usd, help="for calls of models, a calendar month")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        role = Role(options["role"])
        try:
            project, new = _make(
                options["project"], options["name"], role, options["rate_limit"], options["budget_usd"]
            )
        except AppError as error:
            raise CommandError(error.detail) from error
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


@transaction.atomic
def _make(
    project_name: str, name: str, role: Role, rate_limit: int | None, budget_usd: Decimal | None
) -> tuple[Project, NewKey]:
    """Both or neither."""
    project = get_or_create_project(project_name)
    new = create_api_key(project, name=name, role=role, rate_limit_per_min=rate_limit, budget_usd=budget_usd)
    return project, new


def _usd(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError(text) from error
