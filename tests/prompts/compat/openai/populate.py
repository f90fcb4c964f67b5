"""Fills the database of the test server and prints, as JSON, the keys that tests need.

`python -m tests.prompts.compat.openai.populate BASE_URL_OF_THE_VENDOR`
"""

# ruff: noqa: E402  models can be imported once Django is set up
import json
import os
import sys
from decimal import Decimal

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")
django.setup()

from django.core.management import call_command

from autoforge.auth import Actor
from autoforge.models import Project, Role
from autoforge.services import create_api_key
from prompts import services
from prompts.llm.providers.base import Limits, Prices


def populate(vendor_url: str) -> dict[str, str]:
    acme, rival = Project.objects.create(name="acme"), Project.objects.create(name="rival")
    prices = Prices(Decimal(1), Decimal(2))
    for name in ("gpt", "spare"):
        services.create_endpoint(
            acme, name=name, provider="openai", model=f"vendor-{name}", base_url=vendor_url, prices=prices
        )
    for name, settings in {
        "echo": {"output": "echo"},
        "failing": {"error_rate": 1},
        "slow": {"output": "one two", "tokens_per_s": 0.01},
    }.items():
        services.create_endpoint(acme, name=name, provider="simulated", settings=settings)
    services.create_endpoint(acme, name="local", provider="local")
    services.create_endpoint(
        acme,
        name="metered",
        provider="openai",
        model="vendor-metered",
        base_url=vendor_url,
        limits=Limits(tokens_per_min=100_000),
    )
    services.create_endpoint(rival, name="secret", provider="simulated")
    actor = Actor.system(acme)
    services.create_prompt(
        acme,
        name="support/greeting",
        type="text",
        template="Hello {{ name }}",
        config={"model": "gpt", "temperature": 0.5, "max_tokens": 9},
        labels=["production"],
        actor=actor,
    )
    services.create_prompt(
        acme,
        name="careful",
        type="text",
        template="Hello {{ name }}",
        config={"model": "gpt", "fallbacks": ["failing", "spare"]},
        actor=actor,
    )
    services.create_prompt(acme, name="homeless", type="text", template="Hi", actor=actor)
    keys = {
        "editor": create_api_key(acme, name="editor", role=Role.EDITOR, rate_limit_per_min=0),
        "counted": create_api_key(acme, name="counted", role=Role.EDITOR, rate_limit_per_min=600),
        "scarce": create_api_key(acme, name="scarce", role=Role.EDITOR, rate_limit_per_min=1),
        "poor": create_api_key(
            acme, name="poor", role=Role.EDITOR, rate_limit_per_min=0, budget_usd=Decimal("0.001")
        ),
        "owner": create_api_key(acme, name="owner", role=Role.OWNER),
        "viewer": create_api_key(acme, name="viewer", role=Role.VIEWER),
        "stranger": create_api_key(rival, name="stranger", role=Role.OWNER),
    }
    secrets = {name: key.secret for name, key in keys.items()}
    return secrets | {"editor_public": keys["editor"].key.public_id}


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    json.dump(populate(sys.argv[1]), sys.stdout)
