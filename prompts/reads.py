"""Finding versions by the names that callers use, and pages of them."""

from collections.abc import Collection, Iterable, Mapping
from functools import cache, reduce
from operator import or_
from typing import Any, NamedTuple

from django.db.models import Max, Q

from autoforge.db.statements import Statement
from autoforge.errors import InvalidInput, NotFound
from autoforge.models import Project
from autoforge.pagination import Page, PageQuery, paginate
from prompts.models import Label, Prompt, PromptVersion
from prompts.names import LATEST, PRODUCTION
from prompts.schemas import LabelMoveOut, LabelOut, LabelsOut, PromptOut, PromptsQuery

_one_prompt = Statement(lambda project, name: Prompt.objects.filter(project=project, name=name)[:1])


def get_prompt(project: Project, name: str) -> Prompt:
    """The project's prompt. Raises NotFound."""
    prompt = _one_prompt.first(project=project.pk, name=name)
    if prompt is None:
        raise NotFound(f"There is no prompt {name!r} in this project.")
    return prompt


def resolve_version(
    project: Project,
    name: str,
    *,
    label: str | None = None,
    version: int | None = None,
    for_show: bool = False,
) -> PromptVersion:
    """The version of `name` at `label` or with number `version`; by default production, else latest.

    One query, its `prompt` included; a miss looks whether the prompt exists. `for_show` reads what a
    representation needs. Raises NotFound, InvalidInput when both choices are given.
    """
    if label is not None and version is not None:
        raise InvalidInput("Give a label or a version, not both.")
    if found := _chosen_version(project, name, label, version, for_show):
        return found
    get_prompt(project, name)
    wanted = f"version {version}" if version is not None else f"label {label!r}"
    raise NotFound(f"The prompt {name!r} has no {wanted}.")


def _chosen_version(
    project: Project, name: str, label: str | None, version: int | None, for_show: bool
) -> PromptVersion | None:
    key = {"project": project.pk, "name": name}
    if version is not None:
        return _statement(for_show).first(**key, version=version)
    if label and label != LATEST:
        return _statement(for_show).first(**key, label=label)
    return _statement(for_show, label or None).first(**key)


@cache
def _statement(for_show: bool, label: str | None = None) -> Statement[PromptVersion]:
    """Chooses by the values it gets, else by `label`."""

    def build(project: Any, name: Any, **choice: Any) -> Any:
        objects = PromptVersion.objects
        versions = objects.for_show() if for_show else objects.select_related("prompt")
        return versions.chosen(project, name, **(choice or {"label": label}))[:1]

    return Statement(build)


class Choice(NamedTuple):
    """A version by its prompt's name and a label or a number; by default production, else latest."""

    name: str
    label: str | None = None
    version: int | None = None


def find_versions(project: Project, choices: Collection[Choice]) -> dict[Choice, PromptVersion]:
    """What `resolve_version` gives for each of `choices`; those for which it raises are missing.

    Three queries, however many there are.
    """
    names = {choice.name for choice in choices}
    prompts = (
        Prompt.objects.in_project(project).filter(name__in=names).annotate(newest=Max("versions__number"))
    )
    newest = dict(prompts.values_list("name", "newest"))
    labels = {choice.label for choice in choices if choice.label} | {PRODUCTION}
    pointed = Label.objects.filter(prompt__project=project, prompt__name__in=names, name__in=labels)
    numbers = {
        (name, label): number
        for name, label, number in pointed.values_list("prompt__name", "name", "version__number")
    }
    numbers |= {(name, LATEST): number for name, number in newest.items()}
    wanted = {choice: _number_of(choice, numbers) for choice in choices}
    found = _versions_of(project, {(choice.name, number) for choice, number in wanted.items() if number})
    return {
        choice: found[choice.name, number]
        for choice, number in wanted.items()
        if number and (choice.name, number) in found
    }


def _number_of(choice: Choice, numbers: Mapping[tuple[str, str], int | None]) -> int | None:
    if choice.version is not None:
        return choice.version if choice.label is None else None
    if choice.label:
        return numbers.get((choice.name, choice.label))
    return numbers.get((choice.name, PRODUCTION)) or numbers.get((choice.name, LATEST))


def _versions_of(
    project: Project, wanted: Collection[tuple[str, int]]
) -> dict[tuple[str, int], PromptVersion]:
    """Versions by their prompts' names and their numbers."""
    if not wanted:
        return {}
    any_of = reduce(or_, (Q(prompt__name=name, number=number) for name, number in wanted))
    versions = PromptVersion.objects.filter(any_of, prompt__project=project).select_related("prompt")
    return {(version.prompt.name, version.number): version for version in versions}


def version_pair(project: Project, name: str, old: int, new: int) -> tuple[PromptVersion, PromptVersion]:
    """Two versions of one prompt. Raises NotFound."""
    return resolve_version(project, name, version=old), resolve_version(project, name, version=new)


def page_of_prompts(project: Project, query: PromptsQuery) -> Page[PromptOut]:
    """Prompts by name, each shown at `query.label`, else production, else latest. Two queries."""
    prompts = (
        Prompt.objects.in_project(project)
        .matching(name=query.name, label=query.label, tag=query.tag)
        .with_shown_version(query.label)
    )
    page = paginate(prompts, query, order=["name"], show=lambda prompt: prompt)
    shown = _shown([prompt.shown_version_id for prompt in page.items])  # type: ignore[attr-defined]  # annotated
    return Page([shown[prompt.pk] for prompt in page.items if prompt.pk in shown], page.next_cursor)


def _shown(version_ids: Iterable[int]) -> dict[int, PromptOut]:
    """Representations by prompt id; a prompt deleted since the page was read is missing."""
    versions = PromptVersion.objects.for_show().filter(pk__in=version_ids)
    return {version.prompt_id: PromptOut.of(version) for version in versions}


def page_of_versions(prompt: Prompt, query: PageQuery) -> Page[PromptOut]:
    """Versions of `prompt`, newest first. One query."""
    versions = PromptVersion.objects.for_show().filter(prompt=prompt)
    return paginate(versions, query, order=["-number"], show=PromptOut.of)


def page_of_label_moves(prompt: Prompt, project: Project, query: PageQuery) -> LabelsOut:
    """All labels of `prompt` and a page of their moves, newest first. Two queries."""
    labels = prompt.labels.select_related("version").defer("version__template").order_by("name")
    moves = paginate(prompt.label_moves.all(), query, order=["-pk"], show=LabelMoveOut.of)
    current = [LabelOut.of(label, project.protected_labels) for label in labels]
    return LabelsOut(current, moves.items, moves.next_cursor)
