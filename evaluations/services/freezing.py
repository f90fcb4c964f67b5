"""Turns a request for a run into a frozen experiment, or into a sentence that says what to change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import msgspec
from django.conf import settings
from django.db.models import Max

from autoforge.errors import InvalidInput, NotFound
from autoforge.models import Project
from evaluations.models import Case, Dataset, Run, Shard
from evaluations.schemas import NewRun, PromptRef
from evaluations.scorers.base import ScorerError, needs_judge, parse_scorers
from prompts.llm.pricing import has_price, no_price_sentence
from prompts.llm.providers.base import Endpoint
from prompts.models import ModelEndpoint, PromptVersion
from prompts.reads import Choice, find_versions, resolve_version
from prompts.rendering import RenderError, render

_MAX_NAME_CHARS = 200
_MAX_COLUMNS = 100
_MAX_USD = Decimal(10_000_000)
_SEEDS = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Frozen:
    """The parts of a run that are snapshots."""

    dataset: Dataset
    last_case_id: int
    case_count: int
    prompts: list[dict[str, Any]]
    endpoints: list[dict[str, Any]]
    judges: list[dict[str, Any]]


def freeze(project: Project, new: NewRun) -> Frozen:
    """Everything `new` names, as it is now; call it in the transaction that writes the run.

    Raises InvalidInput.
    """
    _check_numbers(new)
    _check_columns(new)
    versions = _versions(project, new.prompts)
    endpoints = _endpoints(project, new.models)
    judges = _judges(project, new)
    if new.budget_usd is not None:
        check_prices(model.as_endpoint() for model in [*endpoints, *judges])
    dataset = _locked_dataset(project, new.dataset)
    last_case_id = dataset.cases.aggregate(last=Max("pk"))["last"]
    if last_case_id is None or not dataset.case_count:
        raise InvalidInput(f"The data set {dataset.name} has no cases: import some first.")
    _check_templates(versions, dataset)
    _check_total(new, dataset.case_count)
    return Frozen(
        dataset=dataset,
        last_case_id=last_case_id,
        case_count=dataset.case_count,
        prompts=[prompt_snapshot(version) for version in versions],
        endpoints=[_endpoint_snapshot(endpoint) for endpoint in endpoints],
        judges=[_endpoint_snapshot(judge) for judge in judges],
    )


def shards_of(run: Run) -> Iterator[Shard]:
    """Slices of consecutive cases, each about RUN_SHARD_CELLS cells. Memory: one slice."""
    size = max(1, settings.RUN_SHARD_CELLS // run.cells_per_case)
    first = number = 0
    last = None
    for count, case_id in enumerate(run.frozen_cases().values_list("pk", flat=True).iterator(), start=1):
        first, last = first or case_id, case_id
        if count % size == 0:
            yield Shard(run=run, number=number, first_case_id=first, last_case_id=last)
            first, number, last = 0, number + 1, None
    if last is not None:
        yield Shard(run=run, number=number, first_case_id=first, last_case_id=last)


def _check_numbers(new: NewRun) -> None:
    if len(new.name) > _MAX_NAME_CHARS or "\0" in new.name:
        raise InvalidInput(f"name may have at most {_MAX_NAME_CHARS} characters, and no NUL.")
    if not 1 <= new.concurrency <= settings.RUN_MAX_CONCURRENCY:
        raise InvalidInput(
            f"concurrency must be between 1 and {settings.RUN_MAX_CONCURRENCY}, not {new.concurrency}."
        )
    if new.repeats < 1:
        raise InvalidInput(f"repeats must be at least 1, not {new.repeats}.")
    if new.threshold is not None and not 0 <= new.threshold <= 1:
        raise InvalidInput(f"threshold must be between 0 and 1, not {new.threshold:g}.")
    if new.seed is not None and new.seed not in _SEEDS:
        raise InvalidInput("seed must fit into 64 bits.")
    check_budget(new.budget_usd)


def check_budget(budget_usd: Decimal | None) -> None:
    """Raises InvalidInput unless it is a positive amount, or none at all."""
    if budget_usd is not None and not (budget_usd.is_finite() and 0 < budget_usd <= _MAX_USD):
        raise InvalidInput(f"budget_usd must be above 0 and at most {_MAX_USD:,}, not {budget_usd}.")


def check_prices(endpoints: Iterable[Endpoint]) -> None:
    """Raises InvalidInput for the first that nobody can keep a budget on."""
    for endpoint in endpoints:
        if not has_price(endpoint):
            raise InvalidInput(
                f"budget_usd: {no_price_sentence(endpoint.name)} A run keeps the prices of its start."
            )


def _versions(project: Project, refs: list[PromptRef]) -> list[PromptVersion]:
    choices = [Choice(ref.name, ref.label, ref.version) for ref in refs]
    found = find_versions(project, choices)
    return [found.get(choice) or _version(project, index, choice) for index, choice in enumerate(choices)]


def _version(project: Project, index: int, ref: Choice) -> PromptVersion:
    """Raises InvalidInput, for what cannot be found."""
    if ref.label is not None and ref.version is not None:
        raise InvalidInput(f"prompts[{index}]: give a label or a version, not both.")
    try:
        return resolve_version(project, ref.name, label=ref.label, version=ref.version)
    except NotFound as error:
        raise InvalidInput(f"prompts[{index}]: {error.detail}") from None


def _endpoints(project: Project, names: list[str]) -> list[ModelEndpoint]:
    found = {e.name: e for e in project.model_endpoints.filter(name__in=names)}
    for index, name in enumerate(names):
        if name not in found:
            raise InvalidInput(f"models[{index}]: there is no model endpoint {name!r}.")
    return [found[name] for name in names]


def _judges(project: Project, new: NewRun) -> list[ModelEndpoint]:
    """The endpoints that scorers name. Raises InvalidInput for a scorer that cannot work."""
    try:
        specs = parse_scorers(new.scorers)
    except ScorerError as error:
        raise InvalidInput(str(error)) from None
    names = {spec.provider for spec in specs if spec.provider and needs_judge([spec])}
    found = list(project.model_endpoints.filter(name__in=names))
    if unknown := sorted(names - {endpoint.name for endpoint in found}):
        raise InvalidInput(f"scorers: there is no model endpoint {unknown[0]!r} to judge with.")
    return found


def _locked_dataset(project: Project, name: str) -> Dataset:
    dataset = project.datasets.select_for_update().filter(name=name).first()
    if dataset is None:
        raise InvalidInput(f"There is no data set {name!r}.")
    return dataset


def _check_templates(versions: list[PromptVersion], dataset: Dataset) -> None:
    """A prompt that the first case cannot fill will hardly be filled by the others."""
    first: Case = dataset.cases.current().order_by("pk")[0]
    for index, version in enumerate(versions):
        try:
            render(version.template, cast(Any, version.prompt.type), first.vars)
        except RenderError as error:
            raise InvalidInput(
                f"prompts[{index}]: {version.prompt.name} version {version.number} cannot be filled from the "
                f"first case of {dataset.name}: {error}"
            ) from None


def _check_columns(new: NewRun) -> None:
    columns = len(new.prompts) * len(new.models)
    if not columns:
        raise InvalidInput("A run needs at least one prompt and one model.")
    if columns > _MAX_COLUMNS:
        raise InvalidInput(f"{columns} columns (prompts × models) are over the limit of {_MAX_COLUMNS}.")


def _check_total(new: NewRun, case_count: int) -> None:
    columns = len(new.prompts) * len(new.models)
    total = case_count * columns * new.repeats
    if total > settings.RUN_MAX_CELLS:
        raise InvalidInput(
            f"{case_count} cases × {columns} columns × {new.repeats} repeats are {total:,} cells; "
            f"the limit is {settings.RUN_MAX_CELLS:,}."
        )


def prompt_snapshot(version: PromptVersion) -> dict[str, Any]:
    """What a run keeps of a prompt's version."""
    return {
        "name": version.prompt.name,
        "version": version.number,
        "type": version.prompt.type,
        "template": version.template,
        "config": version.config,
    }


def _endpoint_snapshot(endpoint: ModelEndpoint) -> dict[str, Any]:
    """Without the secret: that is read when the run is executed."""
    frozen: dict[str, Any] = msgspec.to_builtins(endpoint.as_endpoint())
    return frozen | {"api_key": None}
