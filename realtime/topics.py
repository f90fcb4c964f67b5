"""What can be subscribed to: who may, and what its state is right now."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model

from autoforge.auth import Actor
from evaluations.models import LIVE_STATES, Run
from evaluations.schemas import RunOut
from prompts.models import Prompt

# The state of a topic, as anything that msgspec turns into JSON; None when that project has no such thing.
Read = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as one project sees it.

    `group` names it among all projects. `read` runs in a thread. With `interval_s` nobody sends events:
    the state itself is read that often and sent as event `sample`. `run_id` is of a run's topic.
    """

    name: str
    group: str
    read: Read
    is_for_staff: bool = False
    interval_s: float | None = None
    run_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    read: Read
    interval_s: float


_sources: dict[str, _Source] = {}


def register_source(name: str, read: Read, *, interval_s: float = 1.0) -> None:
    """Let staff follow `read()` as topic `name`. For the composition root: we know no app beside us."""
    _sources[name] = _Source(read, interval_s)


def find(name: str, actor: Actor) -> Topic | None:
    """The topic that `actor` means by `name`; None when no such topic can exist. Asks no database."""
    if name == "prompts":
        project_id = actor.project.pk
        return Topic(name, prompts_group(project_id), partial(_prompts, project_id))
    if name.startswith("runs."):
        return _run_topic(name, actor)
    if source := _sources.get(name):
        return Topic(name, f"source.{name}", source.read, is_for_staff=True, interval_s=source.interval_s)
    return None


def is_staff(actor: Actor) -> bool:
    """Whether a signed-in member of the staff is behind `actor`; an API key never is."""
    users = get_user_model()._default_manager
    return (
        actor.user_id is not None and users.filter(pk=actor.user_id, is_active=True, is_staff=True).exists()
    )


def live_runs(ids: Collection[UUID]) -> set[UUID]:
    """Those of `ids` that have not ended: one query."""
    return set(Run.objects.live().filter(pk__in=ids).values_list("pk", flat=True))


def is_over(state: Any) -> bool:
    """Whether `state`, as a topic was read, says that nothing more happens there."""
    return isinstance(state, RunOut) and state.state not in LIVE_STATES


def run_group(project_id: int, run_id: UUID) -> str:
    """The project is part of it: a group cannot be joined by guessing ids of other projects."""
    return f"runs.{project_id}.{run_id.hex}"


def prompts_group(project_id: int) -> str:
    return f"prompts.{project_id}"


def _run_topic(name: str, actor: Actor) -> Topic | None:
    run_id = _canonical_uuid(name.removeprefix("runs."))
    if run_id is None:
        return None
    project_id = actor.project.pk
    return Topic(name, run_group(project_id, run_id), partial(_run, project_id, run_id), run_id=run_id)


def _canonical_uuid(text: str) -> UUID | None:
    """Only the usual spelling: everybody in a group must know the topic by the same name."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text else None


def _prompts(project_id: int) -> dict[str, int]:
    return {"prompts": Prompt.objects.filter(project_id=project_id).count()}


def _run(project_id: int, run_id: UUID) -> RunOut | None:
    run = Run.objects.filter(pk=run_id, project_id=project_id).select_related("dataset").first()
    return RunOut.of(run) if run else None
