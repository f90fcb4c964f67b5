"""A project worth copying, and whether a copy is what it should be."""

from collections.abc import Callable
from typing import Any

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations import executor
from evaluations.models import Case, Dataset, Result, Run
from evaluations.schemas import NewCase, NewRun, PromptRef
from evaluations.services import add_cases, create_dataset, start_run
from prompts.models import Label, Prompt, PromptVersion
from prompts.services import add_version, create_endpoint, create_prompt, move_label

SECRET = "sk-endpoint-secret-0123456789"
Rows = list[tuple[Any, ...]]


def fill(project: Project, *, settings: dict[str, Any] | None = None) -> Run:
    """A prompt with two versions, a model, ten cases, and a run of both versions over them."""
    actor = Actor.system(project)
    prompt = create_prompt(project, name="greet", type="text", template="Say {{ q }}", actor=actor).prompt
    add_version(prompt, template="Please say {{ q }}", actor=actor)
    move_label(prompt, label="production", version=2, actor=actor)
    how = settings or {"output": "echo"}
    create_endpoint(project, name="sim", provider="simulated", settings=how, api_key=SECRET)
    cases = [
        NewCase(vars={"q": f"{project.name} {i}"}, expected=f"Say {project.name} {i}") for i in range(10)
    ]
    add_cases(create_dataset(project, name="many"), cases)
    return evaluate(project)


def evaluate(project: Project, **changes: Any) -> Run:
    """One more run over them, to its end."""
    run = begin(project, **changes)
    executor.run_to_end(run.pk)
    return Run.objects.get(pk=run.pk)


def begin(project: Project, *, enqueue: bool = False, **changes: Any) -> Run:
    new = NewRun(
        prompts=[PromptRef("greet", version=1), PromptRef("greet", version=2)],
        models=["sim"],
        dataset="many",
        scorers=[{"type": "equals", "value": "{{ expected }}"}],
        **changes,
    )
    return start_run(project, new, actor=Actor.system(project), enqueue=enqueue)


def assert_equal(read: Callable[[str], Rows], *projects: Project) -> None:
    """The target holds exactly the rows of the projects, and their results' values."""
    for table, model, path in (
        ("prompts", Prompt, "project"),
        ("prompt_versions", PromptVersion, "prompt__project"),
        ("labels", Label, "prompt__project"),
        ("datasets", Dataset, "project"),
        ("cases", Case, "dataset__project"),
        ("runs", Run, "project"),
    ):
        here = model.objects.filter(**{f"{path}__in": projects}).values_list(f"{path}__name", "pk")
        there = read(f"SELECT project, id FROM {table}")
        assert sorted(there) == sorted((name, _id(key)) for name, key in here), table
    names = ("run__project__name", "pk", "run_id", "case_id", "state", "output", "score", "latency_ms")
    here = Result.objects.filter(run__project__in=projects).order_by("pk").values_list(*names)
    there = read(
        "SELECT project, id, run_id, case_id, state, output, score, latency_ms FROM results ORDER BY id"
    )
    assert there == [(*row[:2], str(row[2]), *row[3:]) for row in here]
    unfinished = read("SELECT project FROM sync_state WHERE finished_at IS NULL")
    assert unfinished == []


def _id(key: Any) -> Any:
    return key if isinstance(key, int) else str(key)
