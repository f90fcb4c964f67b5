"""An evaluation file brought into a project: prompts, endpoints and cases stored, a run made of them."""

import hashlib
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from django.db import transaction

from autoforge.auth import Actor
from autoforge.errors import Conflict
from autoforge.models import Project
from evaluations.files import EvaluationFileError, Experiment, FilePrompt, FileProvider, FileTest
from evaluations.models import Dataset, Run
from evaluations.schemas import NewCase, NewRun, PromptRef
from evaluations.services import add_cases, create_dataset, import_cases, start_run
from evaluations.services.datasets import CaseFormat
from prompts.models import ModelEndpoint, Prompt, ProviderName
from prompts.services import add_version, change_endpoint, create_endpoint, create_prompt

# Where a vendor's key is looked for, as the vendors' own tools do.
_KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
# The part between vendor and model in the field's usual ids: `openai:chat:gpt-…`.
_API_WORDS = ("chat", "messages", "completion")
_FORMATS: dict[str, CaseFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_CHUNK_BYTES = 256 * 1024


@transaction.atomic
def start_experiment(project: Project, experiment: Experiment, *, actor: Actor) -> Run:
    """The file's run, frozen and ready for `executor.run_to_end`.

    Content that is stored already is found again: the same file twice makes no new version, endpoint or
    data set. Raises EvaluationFileError, AppError.
    """
    file = experiment.file
    new = NewRun(
        name=file.description or experiment.name,
        prompts=store_prompts(project, experiment, actor=actor),
        models=[find_endpoint(project, provider).name for provider in experiment.providers],
        dataset=store_cases(project, experiment).name,
        scorers=file.default_test.scorers,
        threshold=file.default_test.threshold,
        concurrency=file.evaluate_options.max_concurrency,
        repeats=file.evaluate_options.repeat,
        use_cache=file.evaluate_options.cache,
        budget_usd=None if file.budget_usd is None else Decimal(str(file.budget_usd)),
        seed=file.seed,
    )
    return start_run(project, new, actor=actor, enqueue=False)


def store_prompts(project: Project, experiment: Experiment, *, actor: Actor) -> list[PromptRef]:
    """Every prompt of the file as a stored version; prompts of one name are its versions, in order."""
    return [
        _store_prompt(project, prompt, prompt.name or f"{experiment.name}/{number}", actor)
        for number, prompt in enumerate(experiment.prompts, start=1)
    ]


def _store_prompt(project: Project, prompt: FilePrompt, name: str, actor: Actor) -> PromptRef:
    if prompt.template is None:
        return PromptRef(name, label=prompt.label, version=prompt.version)
    content: dict[str, Any] = {
        "template": prompt.template,
        "config": prompt.config,
        "message": prompt.message,
        "labels": [prompt.label] if prompt.label else [],
        "actor": actor,
    }
    stored = Prompt.objects.in_project(project).filter(name=name).first()
    if stored is None:
        kind = "text" if isinstance(prompt.template, str) else "chat"
        return PromptRef(name, version=create_prompt(project, name=name, type=kind, **content).number)
    return PromptRef(name, version=add_version(stored, **content).version.number)


def find_endpoint(project: Project, provider: FileProvider) -> ModelEndpoint:
    """The stored endpoint that `provider` names, or what the file says of `vendor:model`, stored.

    The file is the truth: where an endpoint of that name is another model or has other parameters, the
    file's gets a name with a digest of its content. Raises EvaluationFileError.
    """
    vendor, colon, model = provider.id.partition(":")
    is_plain = not (colon or provider.label or provider.config)
    if vendor not in ProviderName or (is_plain and _stored(project, provider.id)):
        return _named(project, provider)
    name, fields = provider.label or provider.id, _endpoint_fields(vendor, model, provider.config)
    said = [vendor, fields["model"], fields["base_url"], fields["params"], fields["settings"]]
    digest = hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:8]
    for candidate in (name, f"{name}-{digest}"):
        stored = _stored(project, candidate)
        if stored is None:
            return create_endpoint(project, name=candidate, **fields)
        if said == _said_of(stored):
            return _with_key(stored, fields["api_key"])
    raise EvaluationFileError(
        f"The model {candidate!r} was changed after it had been stored from a file: delete it, or give the "
        "provider another label."
    )


def _stored(project: Project, name: str) -> ModelEndpoint | None:
    return ModelEndpoint.objects.filter(project=project, name=name).first()


def _named(project: Project, provider: FileProvider) -> ModelEndpoint:
    """The project's endpoint `provider.id`, which has its own parameters."""
    stored = _stored(project, provider.id)
    if stored is None:
        known = ", ".join(ModelEndpoint.objects.filter(project=project).values_list("name", flat=True))
        raise EvaluationFileError(
            f"There is no model {provider.id!r}: name one of this project's ({known or 'none yet'}), "
            f"or write it as vendor:model with a vendor of {', '.join(ProviderName.values)}."
        )
    if provider.config:
        raise EvaluationFileError(
            f"The model {provider.id!r} is stored with its own parameters: take 'config' away and change "
            "them there, or write the provider as vendor:model."
        )
    return stored


def _said_of(stored: ModelEndpoint) -> list[Any]:
    """What a file could say of an endpoint, but for its secret."""
    return [stored.provider, stored.model, stored.base_url or None, stored.params, stored.settings]


def _with_key(stored: ModelEndpoint, api_key: str | None) -> ModelEndpoint:
    """`stored`, with the secret that the file or the environment has now."""
    if api_key and api_key != stored.as_endpoint().api_key:
        return change_endpoint(stored, api_key=api_key)
    return stored


def _endpoint_fields(vendor: str, model: str, config: dict[str, Any]) -> Any:
    word, _, rest = model.partition(":")
    params = dict(config)
    fields = {
        "provider": vendor,
        "model": rest if word in _API_WORDS and rest else model,
        "base_url": params.pop("apiBaseUrl", None),
        "api_key": params.pop("apiKey", None) or os.environ.get(_KEY_VARIABLES.get(vendor, ""), None),
        "settings": params.pop("settings", {}),
    }
    return fields | {"params": params}


@transaction.atomic
def store_cases(project: Project, experiment: Experiment, *, name: str = "") -> Dataset:
    """The file's cases as a data set called `name`, by default after the file and its content."""
    name = name or f"{experiment.name}-{_digest(experiment)[:8]}"
    if stored := Dataset.objects.filter(project=project, name=name).first():
        return stored
    try:
        dataset = create_dataset(project, name=name, description=experiment.file.description)
    except Conflict:  # somebody stored the same file between the two queries
        return Dataset.objects.get(project=project, name=name)
    _fill(dataset, experiment)
    dataset.refresh_from_db()
    return dataset


def _fill(dataset: Dataset, experiment: Experiment) -> None:
    shared = experiment.file.default_test
    path = experiment.cases_path
    if path is None:
        add_cases(dataset, [_case(test, shared.vars, shared.metadata) for test in experiment.tests])
        return
    if shared.vars or shared.metadata:
        raise EvaluationFileError(
            f"{path}: 'defaultTest.vars' and '.metadata' need the cases in the YAML file: "
            "add them to the rows of the cases file instead."
        )
    import_cases(dataset, _chunks(path), format=_format_of(path))


def _case(test: FileTest, shared_vars: dict[str, Any], shared_metadata: dict[str, Any]) -> NewCase:
    about = {"description": test.description} if test.description else {}
    return NewCase(
        vars=shared_vars | test.vars,
        expected=test.expected,
        metadata=shared_metadata | about | test.metadata,
        scorers=test.scorers,
    )


def _format_of(path: Path) -> CaseFormat:
    try:
        return _FORMATS[path.suffix]
    except KeyError:
        raise EvaluationFileError(f"{path}: must end in {', '.join(_FORMATS)}, .yaml or .yml.") from None


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise EvaluationFileError(f"{path}: cannot be read ({error.strerror}).") from error


def _digest(experiment: Experiment) -> str:
    digest = hashlib.sha256()
    if experiment.cases_path:
        for chunk in _chunks(experiment.cases_path):
            digest.update(chunk)
    shared = experiment.file.default_test
    digest.update(msgspec.json.encode([experiment.tests, shared.vars, shared.metadata], order="sorted"))
    return digest.hexdigest()
