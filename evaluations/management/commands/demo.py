"""`manage.py demo`: the main job from start to end, in the terminal, with the local model."""

import asyncio
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import msgspec
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from autoforge.auth import Actor
from autoforge.models import Project
from autoforge.services import get_or_create_project
from evaluations.comparisons import Comparison, compare
from evaluations.executor import run_to_end
from evaluations.files import Experiment
from evaluations.models import Run, RunState
from evaluations.reports import RunReport, report_of
from evaluations.samples import DATASET, load_sample
from evaluations.schemas import NewRun, PromptRef
from evaluations.services import start_run
from evaluations.terminal import Picture, column_table, new_console, percent, watching
from prompts.llm.providers.local_server import LocalModelError, base_url

CONCURRENCY = 4
_PROJECT = "demo"
_PROMPT = "support/classify"
_SIGNIFICANT = 0.05
_NEXT = """Next:
  make run      the same in the browser, over REST and over WebSockets
  .venv/bin/python manage.py evaluate samples/support/evaluate.yaml      this experiment, from its file"""


class Command(BaseCommand):
    help = "Evaluates two versions of a prompt on the local model, twice, and compares them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--picture", type=Path, help="draw the output as an SVG file, for the README")

    def handle(self, *args: Any, **options: Any) -> None:
        output = Picture(new_console())
        self._run(output)
        if options["picture"]:
            output.save(options["picture"], title="make demo")

    def _run(self, output: Picture) -> None:
        _require_local_model()
        call_command("migrate", verbosity=0, interactive=False)
        project = get_or_create_project(_PROJECT)
        experiment = load_sample(project)
        output.print(f"{experiment.file.description}.\n")
        reports = [
            _evaluate(project, experiment, output, title="first pass, from the model", use_cache=False),
            _evaluate(project, experiment, output, title="second pass, from the cache", use_cache=True),
        ]
        run = Run.objects.get(pk=reports[0].run)
        comparison = compare(run, run)
        output.print(_verdict(comparison))
        path = _write(reports, comparison)
        output.print(f"\nThe numbers are in {_short(path)}. {_NEXT}")


def _evaluate(
    project: Project, experiment: Experiment, output: Picture, *, title: str, use_cache: bool
) -> RunReport:
    """One pass over the sample; the first never reads the cache, so that it is a real one."""
    new = NewRun(
        name=f"demo: {title}",
        prompts=[PromptRef(_PROMPT, version=1), PromptRef(_PROMPT, version=2)],
        models=["local"],
        dataset=DATASET,
        scorers=experiment.file.default_test.scorers,
        concurrency=CONCURRENCY,
        use_cache=use_cache,
    )
    run = start_run(project, new, actor=Actor.system(project, "demo"), enqueue=False)
    with watching(run.pk, run.total, title=title, console=output.console):
        run = run_to_end(run.pk)
    report = report_of(run)
    output.print(column_table(report.columns, title=f"{title}: {run.wall_s:.2f} s, {CONCURRENCY} at once"))
    if run.state != RunState.FINISHED or run.errors:
        raise CommandError(f"The run is {run.state} with {run.errors} errors. {run.reason}")
    return report


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _require_local_model() -> None:
    try:
        asyncio.run(base_url())
    except LocalModelError as error:
        raise CommandError(f"The local model cannot run on this machine: {error}") from error


def _verdict(found: Comparison) -> str:
    """Is the difference real? In a sentence."""
    if found.difference is None or found.difference_ci95 is None or found.p_value is None:
        return "\nNo cell was answered on both sides: there is nothing to compare."
    low, high = found.difference_ci95
    word = "real" if found.p_value < _SIGNIFICANT else "not proven"
    side = "more" if found.difference >= 0 else "less"
    return (
        f"\nVersion {found.b.version} passes {abs(found.difference):.1%} of the cases {side} than version "
        f"{found.a.version} [{percent(low)}, {percent(high)}]: the difference is {word} "
        f"(exact McNemar p = {found.p_value:.2g})."
    )


def _write(reports: list[RunReport], comparison: Comparison) -> Path:
    path: Path = settings.VAR_DIR / "demo" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"runs": reports, "comparison": comparison}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
    return path
