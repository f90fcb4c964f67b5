"""Forms of the desk: they collect; what is allowed is decided by the services."""

from decimal import Decimal
from pathlib import PurePath
from typing import Any

from django import forms
from django.db.models import QuerySet
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from autoforge.models import Project
from evaluations.models import Dataset, Run
from evaluations.schemas import NewRun, PromptRef
from evaluations.services.datasets import CaseFormat
from prompts.models import ModelEndpoint, PromptVersion

_FORMATS: dict[str, CaseFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_MAX_CHOICES = 200
_EXAMPLE_SCORERS = [{"type": "icontains", "value": "{{ expected }}"}]


class NewDatasetForm(forms.Form):
    """An empty data set; its cases are imported on its page."""

    project = forms.ModelChoiceField(queryset=Project.objects.none(), widget=UnfoldAdminSelectWidget)
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    description = forms.CharField(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))

    def __init__(self, projects: QuerySet[Project], data: Any = None) -> None:
        super().__init__(data, initial={"project": projects.first()})
        self.fields["project"].queryset = projects  # type: ignore[attr-defined]  # a ModelChoiceField's


class ImportForm(forms.Form):
    """A file of cases; its name says its format."""

    file = forms.FileField(
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ",".join(_FORMATS)}),
        help_text="CSV with a header line, or JSON lines. All rows are imported, or none.",
    )

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if PurePath(file.name).suffix.lower() not in _FORMATS:
            raise forms.ValidationError(f"The file must be named {', '.join(_FORMATS)}.")
        return file

    @property
    def format(self) -> CaseFormat:
        """Of the valid form's file."""
        return _FORMATS[PurePath(self.cleaned_data["file"].name).suffix.lower()]


class StartForm(forms.Form):
    """An experiment in one project."""

    name = forms.CharField(
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "What is this run to find out?"}),
    )
    dataset = forms.ChoiceField(label="Data set", widget=UnfoldAdminSelectWidget)
    prompts = forms.TypedMultipleChoiceField(coerce=int, widget=UnfoldAdminCheckboxSelectMultipleWidget)
    models = forms.MultipleChoiceField(widget=UnfoldAdminCheckboxSelectMultipleWidget)
    scorers = forms.JSONField(
        required=False,
        initial=_EXAMPLE_SCORERS,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 6, "spellcheck": "false"}),
        help_text="A JSON list. {{ expected }} and the variables of a case may be used in values.",
    )
    threshold = forms.FloatField(
        required=False,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
        help_text="A case passes when its weighted mean score reaches it; empty: when every scorer passes.",
    )
    concurrency = forms.IntegerField(initial=10, widget=UnfoldAdminIntegerFieldWidget)
    repeats = forms.IntegerField(initial=1, widget=UnfoldAdminIntegerFieldWidget)
    budget_usd = forms.DecimalField(
        label="Budget in US dollars",
        required=False,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
        help_text="The run stops before it would cost more. Empty: no limit.",
    )
    seed = forms.IntegerField(required=False, widget=UnfoldAdminIntegerFieldWidget)
    use_cache = forms.BooleanField(
        label="Take known answers from the cache",
        required=False,
        initial=True,
        widget=UnfoldBooleanSwitchWidget,
    )

    def __init__(self, project: Project, data: Any = None, initial: Any = None) -> None:
        super().__init__(data, initial=initial)
        self._versions = {version.pk: version for version in _versions_of(project)}
        self._choose("prompts", [(pk, _label_of(version)) for pk, version in self._versions.items()])
        endpoints = ModelEndpoint.objects.filter(project=project).order_by("name")[:_MAX_CHOICES]
        self._choose("models", [(row.name, f"{row.name} ({row.provider})") for row in endpoints])
        datasets = Dataset.objects.filter(project=project).order_by("name")[:_MAX_CHOICES]
        self._choose("dataset", [(row.name, f"{row.name} ({row.case_count:,} cases)") for row in datasets])

    def _choose(self, field: str, choices: list[tuple[Any, str]]) -> None:
        self.fields[field].choices = choices  # type: ignore[attr-defined]  # those three have choices

    def new_run(self) -> NewRun:
        """What the valid form asks for."""
        data: dict[str, Any] = dict(self.cleaned_data)
        versions = [self._versions[pk] for pk in data.pop("prompts")]
        prompts = [PromptRef(version.prompt.name, version=version.number) for version in versions]
        return NewRun(prompts=prompts, **data | {"scorers": data["scorers"] or []})

    def clean_scorers(self) -> Any:
        scorers = self.cleaned_data["scorers"]
        is_list = isinstance(scorers, list) and all(isinstance(row, dict) for row in scorers)
        if scorers and not is_list:
            raise forms.ValidationError('Write a list of scorers: [{"type": "equals", "value": "…"}].')
        return scorers


def settings_of(run: Run) -> dict[str, Any]:
    """The settings of `run` as initial values of a StartForm, to start it again."""
    versions = PromptVersion.objects.filter(prompt__project=run.project_id)
    chosen = [
        versions.filter(prompt__name=prompt["name"], number=prompt["version"]).values_list("pk", flat=True)
        for prompt in run.prompts
    ]
    same: dict[str, Any] = {
        name: getattr(run, name)
        for name in ("name", "scorers", "threshold", "concurrency", "repeats", "seed", "use_cache")
    }
    return same | {
        "dataset": run.dataset.name,
        "prompts": [pk for found in chosen for pk in found],
        "models": [endpoint["name"] for endpoint in run.endpoints],
        "budget_usd": run.budget_usd and Decimal(run.budget_usd).normalize(),
    }


def _versions_of(project: Project) -> QuerySet[PromptVersion]:
    """The newest versions to choose from, by prompt."""
    rows = PromptVersion.objects.filter(prompt__project=project).select_related("prompt")
    slim = rows.defer("template", "config", "variables").prefetch_related("labels")
    return slim.order_by("prompt__name", "-number")[:_MAX_CHOICES]


def _label_of(version: PromptVersion) -> str:
    labels = ", ".join(sorted(label.name for label in version.labels.all()))
    text = f"{version}: {version.message}" if version.message else str(version)
    return f"{text} ({labels})" if labels else text
