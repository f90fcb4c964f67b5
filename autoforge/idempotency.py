"""Idempotency-Key: a request sent twice is carried out once and answered alike."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, IntegrityError, InterfaceError, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from autoforge.db.threads import in_db_thread
from autoforge.errors import Conflict, InvalidInput
from autoforge.models import IdempotentRequest, Project

logger = logging.getLogger(__name__)

MAX_KEY_CHARS = 200
# A claim not renewed for this long was lost with its process: the next try may run.
ABANDONED_AFTER = timedelta(minutes=5)
RENEWED_EVERY_S = 60.0


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
    """`answer_once` for async views, which may take long; a caller that leaves gives the key free again."""
    if not (key := _key(request)):
        return await produce()
    match await _begin_or_give_up(request, project, key):
        case HttpResponse() as first_answer:
            return first_answer
        case claim:
            try:
                async with _renewed(claim):
                    response = await produce()
            except BaseException:
                await asyncio.shield(in_db_thread(claim.delete)())
                raise
            # Its work is done: a caller who leaves now gets the answer when it asks again.
            await asyncio.shield(in_db_thread(_keep)(claim, response))
            return response


async def _begin_or_give_up(
    request: HttpRequest, project: Project, key: str
) -> IdempotentRequest | HttpResponse:
    """`_begin`; a caller that leaves meanwhile leaves no claim behind, which the thread would still write."""
    beginning = asyncio.ensure_future(in_db_thread(_begin)(request, project, key))
    try:
        return await asyncio.shield(beginning)
    except asyncio.CancelledError:
        await asyncio.shield(_give_up(beginning))
        raise


async def _give_up(beginning: asyncio.Future[IdempotentRequest | HttpResponse]) -> None:
    await asyncio.wait({beginning})
    if beginning.exception() is None and isinstance(claim := beginning.result(), IdempotentRequest):
        await in_db_thread(claim.delete)()


@asynccontextmanager
async def _renewed(claim: IdempotentRequest) -> AsyncIterator[None]:
    """While the block is at work the claim does not look abandoned."""
    renewing = asyncio.create_task(_renew(claim))
    try:
        yield
    finally:
        renewing.cancel()


async def _renew(claim: IdempotentRequest) -> None:
    ours = IdempotentRequest.objects.filter(pk=claim.pk, status=None)
    while True:
        await asyncio.sleep(RENEWED_EVERY_S)
        try:
            await in_db_thread(ours.update)(created_at=Now())
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The claim on an Idempotency-Key was not renewed: %s", error)


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
