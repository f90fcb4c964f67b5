"""`manage.py load_sample`: bring the sample project into the database, once."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from autoforge.services import get_or_create_project
from evaluations.samples import load_sample


class Command(BaseCommand):
    help = "Loads the sample prompts, cases and models into a project; what exists is left alone."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", default="demo")

    def handle(self, *args: Any, **options: Any) -> None:
        project = get_or_create_project(options["project"])
        load_sample(project)
        if options["verbosity"]:
            self.stdout.write(f"The sample is in the project {project.name}.")
