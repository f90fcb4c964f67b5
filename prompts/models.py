"""Prompts under version control, and the model endpoints that can run them."""

from typing import Any, Self

from django.db import models
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce, Now

from autoforge.encryption import decrypt
from autoforge.errors import NotFound
from autoforge.models import Project
from prompts.llm.providers.base import Endpoint, Limits, Prices
from prompts.lookups import JsonList
from prompts.names import LATEST, PRODUCTION

_KEY = models.BigIntegerField()


class PromptType(models.TextChoices):
    TEXT = "text"
    CHAT = "chat"


class PromptQuerySet(models.QuerySet["Prompt"]):
    """Reads of prompts."""

    def in_project(self, project: Project) -> Self:
        return self.filter(project=project)

    def matching(self, *, name: str | None = None, label: str | None = None, tag: str | None = None) -> Self:
        """Prompts whose name contains `name` (in any case), that have `label` and `tag`."""
        found = self
        if name:
            found = found.filter(name__icontains=name)
        if label and label != LATEST:
            found = found.filter(labels__name=label)
        return found.filter(tags__has_element=tag) if tag else found

    def with_shown_version(self, label: str | None = None) -> Self:
        """Annotates `shown_version_id`: the version at `label`, by default production else latest."""
        newest = PromptVersion.objects.filter(prompt=OuterRef("pk")).order_by("-number").values("pk")[:1]
        pointed = Label.objects.filter(prompt=OuterRef("pk"), name=label or PRODUCTION).values("version_id")
        return self.annotate(shown_version_id=Coalesce(pointed[:1], newest, output_field=_KEY))


class Prompt(models.Model):
    """A named template; its content lives in immutable, numbered versions."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    name = models.CharField(max_length=200)
    type = models.CharField(max_length=4, choices=PromptType)
    tags = models.JSONField(default=list, blank=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    objects = PromptQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="prompt_name_once_a_project")]

    def __str__(self) -> str:
        return self.name


class PromptVersionQuerySet(models.QuerySet["PromptVersion"]):
    """Reads of versions."""

    def for_show(self) -> Self:
        """With what a representation needs: prompt, `label_names`, `newest_number`."""
        siblings = PromptVersion.objects.filter(prompt=OuterRef("prompt_id"))
        newest = siblings.order_by("-number").values("number")[:1]
        labels = Label.objects.filter(version=OuterRef("pk")).order_by("name").values(item=F("name"))
        return self.select_related("prompt").annotate(
            newest_number=Subquery(newest), label_names=JsonList(labels)
        )

    def of_prompt(self, project: Project, name: str) -> Self:
        return self.filter(prompt__project=project, prompt__name=name)

    def chosen(
        self, project: Project, name: str, *, label: str | None = None, version: int | None = None
    ) -> Self:
        """The one version that a name and a label or number mean; default production, else latest."""
        own = self.of_prompt(project, name)
        if version is not None:
            return own.filter(number=version)
        # Subqueries of constants: evaluated once, and the version is then found by its key.
        siblings = PromptVersion.objects.of_prompt(project, name)
        newest = Subquery(siblings.order_by("-number").values("pk")[:1])
        labels = Label.objects.filter(prompt__project=project, prompt__name=name)
        if label == LATEST:
            return own.filter(pk=newest)
        pointed = Subquery(labels.filter(name=label or PRODUCTION).values("version_id")[:1])
        return own.filter(pk=pointed if label else Coalesce(pointed, newest, output_field=_KEY))


class PromptVersion(models.Model):
    """One immutable content of a prompt. `template` is a string, or for chats a list of messages."""

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    template: Any = models.JSONField()
    config = models.JSONField(default=dict)
    variables = models.JSONField(default=list)
    message = models.CharField(max_length=500, blank=True)
    content_hash = models.CharField(max_length=64)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(db_default=Now())

    objects = PromptVersionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["prompt", "number"], name="version_number_once_a_prompt"),
            models.UniqueConstraint(fields=["prompt", "content_hash"], name="version_content_once_a_prompt"),
        ]

    def __str__(self) -> str:
        return f"{self.prompt.name} v{self.number}"


class Label(models.Model):
    """A movable name for one version. `latest` is no row: it is the highest number."""

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="labels")
    name = models.CharField(max_length=64)
    version = models.ForeignKey(PromptVersion, on_delete=models.CASCADE, related_name="labels")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["prompt", "name"], name="label_once_a_prompt")]

    def __str__(self) -> str:
        return self.name


class LabelMove(models.Model):
    """Who pointed a label where, and when; `to_version` is NULL when the label was taken away."""

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="label_moves")
    label = models.CharField(max_length=64)
    from_version = models.PositiveIntegerField(null=True)
    to_version = models.PositiveIntegerField(null=True)
    moved_by = models.CharField(max_length=150)
    moved_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.label}: {self.from_version} → {self.to_version}"


class ProviderName(models.TextChoices):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    LOCAL = "local"
    SIMULATED = "simulated"


class ModelEndpointQuerySet(models.QuerySet["ModelEndpoint"]):
    """Reads of model endpoints."""

    def in_project(self, project: Project) -> Self:
        return self.filter(project=project)

    def get_or_404(self, name: str) -> "ModelEndpoint":
        """The endpoint called `name`. Raises NotFound."""
        endpoint = self.filter(name=name).first()
        if endpoint is None:
            raise NotFound(f"There is no model {name!r} in this project.")
        return endpoint


class ModelEndpoint(models.Model):
    """One language model that can be called. The secret is encrypted and never leaves the server."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="model_endpoints")
    name = models.CharField(max_length=100)
    provider = models.CharField(max_length=9, choices=ProviderName)
    model = models.CharField(max_length=200)
    base_url = models.CharField(max_length=500, blank=True)
    encrypted_api_key = models.TextField(blank=True)
    params = models.JSONField(default=dict, blank=True)
    input_usd_per_mtok = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    output_usd_per_mtok = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    requests_per_min = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_min = models.PositiveIntegerField(null=True, blank=True)
    max_concurrency = models.PositiveIntegerField(null=True, blank=True)
    settings = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    objects = ModelEndpointQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="endpoint_name_once_a_project")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def prices(self) -> Prices | None:
        """Its own prices in US dollars per million tokens; None leaves them to the price list."""
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        return Prices(self.input_usd_per_mtok, self.output_usd_per_mtok)

    @property
    def limits(self) -> Limits:
        return Limits(self.requests_per_min, self.tokens_per_min, self.max_concurrency)

    def as_endpoint(self) -> Endpoint:
        """What `prompts.llm` needs to call it, the decrypted secret included."""
        return Endpoint(
            project=str(self.project_id),
            name=self.name,
            provider=self.provider,
            model=self.model,
            base_url=self.base_url or None,
            api_key=decrypt(self.encrypted_api_key) if self.encrypted_api_key else None,
            params=self.params,
            prices=self.prices,
            limits=self.limits,
            settings=self.settings,
        )
