"""From what happened to whom it may concern: events of the other apps become messages of topics."""

import logging
from typing import Any

import msgspec
from django.conf import settings

from evaluations import events as runs
from evaluations.events import RunEvent
from prompts import events as prompts
from prompts.events import PromptEvent
from realtime import hub, publisher, topics
from realtime.bus import LocalBus, Message

logger = logging.getLogger(__name__)

NAMES: dict[type[RunEvent | PromptEvent], str] = {
    runs.RunProgressed: "progress",
    runs.ResultRecorded: "result_recorded",
    runs.CellTokens: "tokens",
    runs.RunEnded: "ended",
    prompts.VersionCreated: "version_created",
    prompts.LabelMoved: "label_moved",
    prompts.VersionDeleted: "version_deleted",
    prompts.PromptDeleted: "prompt_deleted",
}


def connect() -> None:
    """Listen to the other apps."""
    runs.run_event.connect(relay, dispatch_uid="realtime")
    prompts.prompt_event.connect(relay, dispatch_uid="realtime")


def relay(sender: object, event: RunEvent | PromptEvent, **_: object) -> None:
    """Send `event` to its topic. From any thread; never waits, never raises."""
    try:
        if name := NAMES.get(type(event)):
            publish(_group_of(event), name, event)
    except Exception:
        logger.exception("An event could not be relayed")


def publish(group: str, name: str, event: RunEvent | PromptEvent) -> None:
    """To every process when they share Redis, else to this one if anybody here follows."""
    if settings.REDIS_URL:
        publisher.publisher.publish(Message(group, name, _data_of(event)))
        return
    for local in hub.running():
        if group in local.feeds and isinstance(local.bus, LocalBus):
            local.bus.put(Message(group, name, _data_of(event)))


def _group_of(event: RunEvent | PromptEvent) -> str:
    if isinstance(event, RunEvent):
        return topics.run_group(event.project_id, event.run_id)
    return topics.prompts_group(event.project_id)


def _data_of(event: RunEvent | PromptEvent) -> bytes:
    """The event's fields as JSON: without the ids that its topic says already, money as numbers."""
    fields: dict[str, Any] = msgspec.structs.asdict(event)
    for name, value in list(fields.items()):
        if name in ("project_id", "run_id"):
            del fields[name]
        elif name.endswith("_usd"):
            fields[name] = float(value)
    return msgspec.json.encode(fields)
