"""`manage.py evaluate FILE.yaml`: a run from a file, for the terminal and for CI."""

import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand

from autoforge.auth import Actor
from autoforge.errors import AppError, InvalidInput
from autoforge.services import get_or_create_project
from evaluations.executor import run_to_end
from evaluations.experiments import start_experiment
from evaluations.files import EvaluationFileError, read_evaluation_file
from evaluations.models import Run, RunState
from evaluations.reports import RunReport, report_of
from evaluations.terminal import column_table, new_console, watching

PASSED, SOME_FAILED, BROKEN = 0, 100, 1


class Command(BaseCommand):
    """Exit code 0: all passed. 100: some failed. 1: errors, or the run could not be carried out."""

    help = "Evaluates a file (promptfoo's words); exit code 0 all passed, 100 some failed, 1 error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE.yaml")
        parser.add_argument("--project", default="demo")
        parser.add_argument("--no-cache", action="store_true", help="call the models even for known answers")
        parser.add_argument("-j", "--max-concurrency", type=int)
        parser.add_argument("-o", "--output", type=Path, help="write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run, report = self._evaluate(**options)
        except (EvaluationFileError, AppError) as error:
            self.stderr.write(str(error))
            sys.exit(BROKEN)
        except KeyboardInterrupt:
            self.stderr.write("cancelled; what was done is kept")
            sys.exit(BROKEN)
        if options["output"]:
            options["output"].write_bytes(msgspec.json.format(msgspec.json.encode(report)))
        sys.exit(_exit_code(run))

    def _evaluate(self, **options: Any) -> tuple[Run, RunReport]:
        if options["output"]:
            _check_output(options["output"])
        experiment = read_evaluation_file(options["file"])
        choices = experiment.file.evaluate_options
        choices.cache = choices.cache and not options["no_cache"]
        if options["max_concurrency"] is not None:
            choices.max_concurrency = options["max_concurrency"]
        project = get_or_create_project(options["project"])
        run = start_experiment(project, experiment, actor=Actor.system(project, "evaluate"))
        console = new_console()
        with watching(run.pk, run.total, title=experiment.name, console=console):
            run = run_to_end(run.pk)
        report = report_of(run)
        console.print(column_table(report.columns, title=run.name))
        if run.state != RunState.FINISHED:
            console.print(f"The run is {run.state}: {run.reason}")
        return run, report


def _check_output(path: Path) -> None:
    """Raises InvalidInput when the report could not be written there, before the run is paid."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"{path}: no file can be written there: name one in a folder that exists.")


def _exit_code(run: Run) -> int:
    if run.errors or run.state != RunState.FINISHED:
        return BROKEN
    return SOME_FAILED if run.failed else PASSED
