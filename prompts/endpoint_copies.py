"""Endpoints as calls need them, remembered by each process for less than a second."""

import time
from functools import partial

import msgspec
from django.conf import settings

from autoforge.caching import process_copies
from autoforge.copies import Group, Kept, SingleFlight
from autoforge.models import Project
from prompts.llm.providers.base import Endpoint
from prompts.models import ModelEndpoint

_copies = process_copies()
_flights: SingleFlight[Endpoint] = SingleFlight()
_decoder = msgspec.json.Decoder(Endpoint)


def remembered_endpoint(project: Project, name: str) -> Endpoint | None:
    """The endpoint called `name`, if this process read it within PROCESS_CACHE_S: no query."""
    kept = _copies.get(_group(project.pk, name), ())
    return _decoder.decode(kept.body) if kept else None


def load_endpoint(project: Project, name: str) -> Endpoint:
    """The endpoint called `name`, from the database unless it is remembered. Raises NotFound.

    Threads that want the same at the same time share one query.
    """
    if remembered := remembered_endpoint(project, name):
        return remembered
    # A read that began before a change is not joined after it.
    key = (project.pk, name, _copies.epoch)
    return _flights.run(key, partial(_load, project, name), join_s=settings.PROCESS_CACHE_S)


def _load(project: Project, name: str) -> Endpoint:
    epoch, read_at = _copies.epoch, time.monotonic()
    found = ModelEndpoint.objects.in_project(project).get_or_404(name)
    endpoint = found.as_endpoint()
    kept = Kept("", msgspec.json.encode(endpoint))
    _copies.put(_group(project.pk, name), (), kept, epoch=epoch, read_at=read_at)
    return endpoint


def forget_endpoint(project_id: int, name: str) -> None:
    """To be called after the commit that changed it; other processes forget by themselves."""
    _copies.forget(_group(project_id, name))


def _group(project_id: int, name: str) -> Group:
    return (project_id, name)
