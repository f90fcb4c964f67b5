"""Idempotency-Key: a request sent twice is carried out once and answered alike."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from autoforge.db.threads import in_db_thread
from autoforge.errors import Conflict, InvalidInput
from autoforge.models import IdempotentRequest, Project

MAX_KEY_CHARS = 200
# An answer not written after this long was lost with its process: the next try may run.
ABANDONED_AFTER = timedelta(minutes=5)


def answer_once(request: HttpRequest, project: Project, produce: Callable[[], HttpResponse]) -> HttpResponse:
    """`produce()`, or for 24 h the first answer to the same Idempotency-Key and request.

    Raises Conflict for another request under the same key, or while the first is still at work. Only
    successful answers are kept: a refused request may be mended and sent again under its key.
    """
    if not (key := _key(request)):
        return produce()
    match _begin(request, project, key):
        case HttpResponse() as first_answer:
            return first_answer
        case claim:
            try:
                response = produce()
            except BaseException:
                claim.delete()
                raise
            _keep(claim, response)
            return response


async def answer_once_async(
    request: HttpRequest, project: Project, produce: Callable[[], Awaitable[HttpResponse]]
) -> HttpResponse:
    """`answer_once` for async views; a caller that leaves gives the key free again."""
    if not (key := _key(request)):
        return await produce()
    match await in_db_thread(_begin)(request, project, key):
        case HttpResponse() as first_answer:
            return first_answer
        case claim:
            try:
                response = await produce()
            except BaseException:
                await asyncio.shield(in_db_thread(claim.delete)())
                raise
            await in_db_thread(_keep)(claim, response)
            return response


def _key(request: HttpRequest) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > MAX_KEY_CHARS:
        raise InvalidInput(f"Idempotency-Key may have at most {MAX_KEY_CHARS} characters.")
    return key


def _begin(request: HttpRequest, project: Project, key: str) -> IdempotentRequest | HttpResponse:
    """Our claim on `key`, or the first answer given under it."""
    claim, is_ours = _claim(project, key, _fingerprint(request))
    return claim if is_ours else _replay(claim)


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
    """Drop every expired answer, and this key's claim if its process died."""
    now = timezone.now()
    IdempotentRequest.objects.filter(created_at__lt=now - settings.IDEMPOTENCY_TTL).delete()
    abandoned = IdempotentRequest.objects.filter(project=project, key=key, status=None)
    abandoned.filter(created_at__lt=now - ABANDONED_AFTER).delete()


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
    # An update: a claim thought abandoned may be gone, and its answer is still the caller's.
    kept = IdempotentRequest.objects.filter(pk=claim.pk)
    kept.update(status=response.status_code, body=response.content)
