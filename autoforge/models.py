"""Who owns things and who may touch them: projects, memberships, API keys."""

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Role(models.TextChoices):
    """What a member or a key may do; each includes the one before."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do everything `other` may."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)


class Project(models.Model):
    """The tenant: everything else belongs to exactly one."""

    name = models.SlugField(max_length=64, unique=True)
    protected_labels = models.JSONField(
        default=list, blank=True, help_text='Labels that only owners may move, as a list: ["production"].'
    )
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's role in a project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_membership_per_user")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}: {self.role}"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """Reads of API keys."""

    def usable(self) -> "ApiKeyQuerySet":
        """Keys that are neither revoked nor expired."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)


class ApiKey(models.Model):
    """A public id and a secret of which only the SHA-256 is kept (the secret has 256 random bits)."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    public_id = models.CharField(max_length=40, unique=True)
    secret_hash = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=8, choices=Role)
    rate_limit_per_min = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty: the default. 0: no limit."
    )
    budget_usd = models.DecimalField(
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="US dollars a calendar month (UTC) for calls of models, runs excepted. Empty: no budget.",
    )
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = ApiKeyQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class KeySpending(models.Model):
    """What a key with a budget has spent in a month, calls under way included at the most they can cost."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="spending")
    month = models.DateField(help_text="Its first day.")
    spent_usd = models.DecimalField(max_digits=20, decimal_places=12, default=Decimal(0))

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "month"], name="one_spending_per_month")]
        verbose_name_plural = "spending"

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}: {self.spent_usd:f}"


class IdempotentRequest(models.Model):
    """The first answer to a request that carried an Idempotency-Key.

    While it is made, `status` is NULL and `created_at` is moved on from time to time.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.BinaryField(default=b"")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="one_answer_per_key")]
        indexes = [models.Index(fields=["created_at"], name="idempotent_created")]

    def __str__(self) -> str:
        return self.key
