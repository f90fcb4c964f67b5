"""The operator's desk for projects, members and keys."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from autoforge.models import ApiKey, Membership, Project
from autoforge.services import revoke_api_key


class MembershipInline(TabularInline):
    model = Membership
    extra = 0


@admin.register(Project)
class ProjectAdmin(ModelAdmin):
    list_display = ["name", "created_at"]
    search_fields = ["name"]
    inlines = [MembershipInline]


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """Keys are made by `manage.py create_api_key`, which shows the secret once; here they are revoked."""

    list_display = ["name", "public_id", "project", "role", "last_used_at", "expires_at", "revoked_at"]
    list_filter = ["role", "project"]
    list_select_related = ["project"]
    search_fields = ["name", "public_id"]
    readonly_fields = ["project", "public_id", "created_at", "last_used_at", "revoked_at"]
    exclude = ["secret_hash"]
    actions = ["revoke"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.action(description="Revoke the selected keys")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset:
            revoke_api_key(key)
        self.message_user(request, "The keys are revoked; open connections end within seconds.")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
