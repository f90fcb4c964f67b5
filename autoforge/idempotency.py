"""Idempotency-Key: a request sent twice is carried out once and answered alike."""

import hashlib
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from autoforge.errors import Conflict, InvalidInput
from autoforge.models import IdempotentRequest, Project

MAX_KEY_CHARS = 200
# An answer not written after this long was lost with its process: the next try may run.
ABANDONED_AFTER = timedelta(minutes=5)


def answer_once(request: HttpRequest, project: Project, produce: Callable[[], HttpResponse]) -> HttpResponse:
    """`produce()`, or for 24 h the first answer to the same Idempotency-Key and body.

    Raises Conflict for another body under the same key, or while the first is still at work. Only
    successful answers are kept: a refused request may be mended and sent again under its key.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return produce()
    if len(key) > MAX_KEY_CHARS:
        raise InvalidInput(f"Idempotency-Key may have at most {MAX_KEY_CHARS} characters.")
    claim, is_ours = _claim(project, key, _fingerprint(request))
    if not is_ours:
        return _replay(claim)
    try:
        response = produce()
    except BaseException:
        claim.delete()
        raise
    _keep(claim, response)
    return response


def _fingerprint(request: HttpRequest) -> str:
    digest = hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode())
    digest.update(request.body)
    return digest.hexdigest()


def _claim(project: Project, key: str, fingerprint: str) -> tuple[IdempotentRequest, bool]:
    _forget_old(project, key)
    try:
        with transaction.atomic():
            return IdempotentRequest.objects.create(project=project, key=key, fingerprint=fingerprint), True
    except IntegrityError:
        claim = IdempotentRequest.objects.filter(project=project, key=key).first()
    if claim is None:  # it was given up between the two queries
        raise Conflict("Another request with this Idempotency-Key has just failed: send this one again.")
    if claim.fingerprint != fingerprint:
        raise Conflict("This Idempotency-Key was used with another request: use a new key.")
    return claim, False


def _forget_old(project: Project, key: str) -> None:
    now = timezone.now()
    mine = IdempotentRequest.objects.filter(project=project, key=key)
    mine.filter(created_at__lt=now - settings.IDEMPOTENCY_TTL).delete()
    mine.filter(status=None, created_at__lt=now - ABANDONED_AFTER).delete()


def _replay(claim: IdempotentRequest) -> HttpResponse:
    if claim.status is None:
        raise Conflict("The first request with this Idempotency-Key is still at work: try again in a moment.")
    headers = {"Idempotent-Replayed": "true"}
    return HttpResponse(
        bytes(claim.body), status=claim.status, content_type="application/json", headers=headers
    )


def _keep(claim: IdempotentRequest, response: HttpResponse) -> None:
    if response.status_code >= 400:
        claim.delete()
        return
    claim.status, claim.body = response.status_code, response.content
    claim.save(update_fields=["status", "body"])
