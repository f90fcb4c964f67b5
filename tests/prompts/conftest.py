"""Fixtures of the prompt tests: a prompt, an endpoint that needs no vendor, and what was announced."""

from collections.abc import Iterator
from typing import Any

import pytest

from autoforge.auth import Actor
from autoforge.models import Project
from prompts import services
from prompts.events import PromptEvent, prompt_event
from prompts.models import ModelEndpoint, Prompt


@pytest.fixture
def prompt(project: Project, actor: Actor) -> Prompt:
    """support/greeting, version 1: "Hello {{ name }}"."""
    version = services.create_prompt(
        project, name="support/greeting", type="text", template="Hello {{ name }}", actor=actor
    )
    return version.prompt


@pytest.fixture
def endpoint(project: Project) -> ModelEndpoint:
    """A simulated model that echoes."""
    return services.create_endpoint(project, name="echo", provider="simulated", settings={"output": "echo"})


@pytest.fixture
def announced() -> Iterator[list[PromptEvent]]:
    """Every prompt event sent during the test."""
    heard: list[PromptEvent] = []

    def listen(event: PromptEvent, **_: Any) -> None:
        heard.append(event)

    prompt_event.connect(listen)
    yield heard
    prompt_event.disconnect(listen)
