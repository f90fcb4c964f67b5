"""The OpenAPI document describes the routes of prompts, models and completions from their types."""

from typing import Any

import pytest

from tests.conftest import ApiClient


@pytest.fixture
def document(nobody: ApiClient, db: None) -> dict[str, Any]:
    return nobody.get("/api/v1/openapi.json").expect(200)


def test_every_route_and_method_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    verbs = {"get", "post", "put", "patch", "delete"}
    methods = {path: set(item) & verbs for path, item in document["paths"].items()}
    expected = {
        "/prompts": {"get", "post"},
        "/prompts/{name}": {"get", "patch", "delete"},
        "/prompts/{name}/versions": {"get", "post"},
        "/prompts/{name}/diff": {"get"},
        "/prompts/{name}/render": {"post"},
        "/prompts/{name}/labels": {"get"},
        "/prompts/{name}/labels/{label}": {"put", "delete"},
        "/completions": {"post"},
        "/models": {"get", "post"},
        "/models/{name}": {"get", "patch", "delete"},
        "/models/{name}/check": {"post"},
    }
    assert {path: methods.get(f"/api/v1{path}") for path in expected} == expected


def test_the_secret_is_only_in_what_is_sent(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert "api_key" in schemas["NewEndpoint"]["properties"]
    assert "api_key" not in schemas["EndpointOut"]["properties"]
    assert schemas["NewPrompt"]["additionalProperties"] is False


def test_the_readable_page_is_there(nobody: ApiClient, db: None) -> None:
    assert b"openapi" in nobody.get("/api/docs").expect(200)
