"""Rows of the foundation that are of no use after a while."""

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db.models import Q
from django.utils import timezone

from autoforge.housekeeping import add_chore, days_ago, delete_in_batches
from autoforge.models import ApiKey, IdempotentRequest


def register() -> None:
    """Once a process."""
    add_chore("answers to Idempotency-Keys", delete_answers)
    add_chore("sessions", delete_sessions)
    add_chore("entries of the admin's log", delete_admin_log)
    add_chore("API keys", delete_keys)


def delete_answers() -> int:
    """Nobody may ask for them any more."""
    expired = timezone.now() - settings.IDEMPOTENCY_TTL
    return delete_in_batches(IdempotentRequest.objects.filter(created_at__lt=expired))


def delete_sessions() -> int:
    """Of users who have not come back."""
    return delete_in_batches(Session.objects.filter(expire_date__lt=timezone.now()))


def delete_admin_log() -> int:
    """Who changed what in the admin, long ago."""
    before = days_ago("admin_log")
    return delete_in_batches(LogEntry.objects.filter(action_time__lt=before)) if before else 0


def delete_keys() -> int:
    """Keys that have been revoked or expired for long."""
    before = days_ago("dead_keys")
    dead = Q(revoked_at__lt=before) | Q(expires_at__lt=before)
    return delete_in_batches(ApiKey.objects.filter(dead)) if before else 0
