"""The operator's desk: what every admin page shares, and the pages of projects, members and keys."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import ForeignKey, Model, QuerySet, UUIDField
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from autoforge.auth import Actor, actor_of_user
from autoforge.models import ApiKey, KeySpending, Membership, Project, Role
from autoforge.services import create_api_key, revoke_api_key


def project_roles(request: HttpRequest) -> dict[int, Role]:
    """The signed-in user's role by project id: one query a request."""
    user: Any = request.user
    # Not looked for in __dict__: until it is asked for, request.user is a wrapper with one of its own.
    roles: dict[int, Role] | None = getattr(user, "project_roles", None)
    if roles is None:
        pairs = Membership.objects.filter(user_id=user.pk).values_list("project_id", "role")
        roles = user.project_roles = {project_id: Role(role) for project_id, role in pairs}
    return roles


def actor_of(request: HttpRequest, project: Project) -> Actor:
    """The signed-in user as an actor of `project`. Raises NotAuthenticated for strangers."""
    user: Any = request.user
    return actor_of_user(
        user.pk, is_superuser=user.is_superuser, name=user.get_username(), project_name=project.name
    )


class ProjectScopedAdmin(ModelAdmin):
    """Rows of the user's projects alone, 404 for others. Viewers read; `edit_role` may change.

    Superusers may do everything. Django's own model permissions are not asked.
    """

    project_path = "project"
    edit_role = Role.EDITOR
    view_role = Role.VIEWER

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        return rows.filter(**{f"{self.project_path}__in": _projects_with(request, self.view_role)})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        # Django would redirect with a message, which answers the question whether it exists elsewhere.
        if (found := super().get_object(request, object_id, from_field)) is None:
            raise Http404
        return found

    def object_urls(self, views: dict[str, Callable[..., HttpResponse]]) -> list[URLPattern]:
        """`<object_id>/<name>/` for each view by name, reversed as `admin:<app>_<model>_<name>`."""
        kind = "uuid" if isinstance(self.opts.pk, UUIDField) else "int"
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path(
                f"<{kind}:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"{prefix}_{name.replace('-', '_')}",
            )
            for name, view in views.items()
        ]

    def has_role(self, request: HttpRequest, role: Role, obj: Model | None = None) -> bool:
        """Whether the user has `role` in the project of `obj`; without one, in any project."""
        if request.user.is_superuser:
            return True
        allowed = _projects_with(request, role)
        return bool(allowed) if obj is None else self._project_id(obj) in allowed

    def _project_id(self, obj: Any) -> int | None:
        *steps, last = self.project_path.split("__")
        for step in steps:
            obj = getattr(obj, step)
        found: int | None = getattr(obj, f"{last}_id")
        return found

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_role(request, self.view_role)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_role(request, self.view_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_role(request, self.edit_role)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_role(request, self.edit_role, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_role(request, self.edit_role, obj)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> Any:
        if db_field.related_model is Project and not request.user.is_superuser:
            kwargs["queryset"] = Project.objects.filter(pk__in=_projects_with(request, self.edit_role))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class ReadOnlyInline(TabularInline):
    """Rows of the page's object to look at; who may see the page may see them."""

    extra = 0
    can_delete = False
    show_change_link = True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _projects_with(request: HttpRequest, role: Role) -> list[int]:
    return [project for project, own in project_roles(request).items() if own.includes(role)]


# Roles in projects say what a user may do: Django's groups and permissions are not asked.
admin.site.unregister([User, Group])


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """People who may sign in; superusers alone see them."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "email", "is_active", "is_staff", "is_superuser", "last_login"]
    list_filter = ["is_active", "is_superuser"]
    filter_horizontal = []
    fieldsets = [
        (None, {"fields": ["username", "password", "email"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser"]}),
    ]
    add_fieldsets = [(None, {"fields": ["username", "password1", "password2", "is_staff"]})]


class MembershipInline(TabularInline):
    model = Membership
    extra = 0


@admin.register(Project)
class ProjectAdmin(ModelAdmin):
    list_display = ["name", "created_at"]
    search_fields = ["name"]
    inlines = [MembershipInline]


class SpendingInline(ReadOnlyInline):
    """What a key with a budget has spent, by month."""

    model = KeySpending
    fields = readonly_fields = ["month", "spent_usd"]
    ordering = ["-month"]
    show_change_link = False


@admin.register(ApiKey)
class ApiKeyAdmin(ProjectScopedAdmin):
    """Owners make and revoke the keys of their projects; a secret is shown once, as the key is made."""

    view_role = edit_role = Role.OWNER
    list_display = [
        "name",
        "public_id",
        "project",
        "role",
        "budget_usd",
        "last_used_at",
        "expires_at",
        "revoked_at",
    ]
    list_filter = ["role", ("project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["project"]
    search_fields = ["name", "public_id"]
    readonly_fields = ["project", "public_id", "role", "created_at", "last_used_at", "revoked_at"]
    exclude = ["secret_hash"]
    inlines = [SpendingInline]
    actions = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return (
            super().get_fields(request, obj)
            if obj
            else ["project", "name", "role", "expires_at", "budget_usd"]
        )

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return self.inlines if obj else []

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return self.readonly_fields if obj else []

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        new = create_api_key(
            obj.project,
            name=obj.name,
            role=Role(obj.role),
            expires_at=obj.expires_at,
            budget_usd=obj.budget_usd,
        )
        obj.pk, obj.public_id = new.key.pk, new.key.public_id
        request.new_secret = new.secret  # type: ignore[attr-defined]  # for response_add alone

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> TemplateResponse:
        """The secret in this very answer: a redirect would have to keep it somewhere."""
        frame = self.admin_site.each_context(request) | {"opts": self.opts, "title": "New key"}
        own = {
            "original": obj,
            "secret": request.new_secret,  # type: ignore[attr-defined]  # set by save_model
            "base": request.build_absolute_uri("/").rstrip("/"),
        }
        return TemplateResponse(request, "autoforge/new_key.html", frame | own)

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset:
            revoke_api_key(key)
        self.message_user(request, "The keys are revoked; open connections end within seconds.")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
