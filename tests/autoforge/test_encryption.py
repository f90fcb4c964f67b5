"""Secrets at rest: unreadable without the key, readable through a rotation."""

from typing import Any

import pytest

from autoforge.encryption import decrypt, encrypt
from autoforge.errors import Conflict


def test_a_secret_survives_the_round_trip() -> None:
    assert decrypt(encrypt("sk-ä-秘密")) == "sk-ä-秘密"


def test_the_token_hides_the_secret_and_differs_each_time() -> None:
    first, second = encrypt("sk-secret"), encrypt("sk-secret")
    assert first != second
    assert "sk-secret" not in first


def test_a_rotated_key_still_reads_what_the_old_one_wrote(settings: Any) -> None:
    settings.FIELD_ENCRYPTION_KEYS = ["old"]
    token = encrypt("sk-secret")
    settings.FIELD_ENCRYPTION_KEYS = ["new", "old"]
    assert decrypt(token) == "sk-secret"
    fresh = encrypt("sk-secret")
    settings.FIELD_ENCRYPTION_KEYS = ["new"]
    assert decrypt(fresh) == "sk-secret"
    with pytest.raises(Conflict, match="AUTOFORGE_ENCRYPTION_KEYS"):
        decrypt(token)


def test_a_tampered_token_is_refused() -> None:
    token = encrypt("sk-secret")
    with pytest.raises(Conflict):
        decrypt(token[:-2] + "AA")


def test_without_keys_the_secret_key_is_used(settings: Any) -> None:
    settings.FIELD_ENCRYPTION_KEYS = []
    token = encrypt("sk-secret")
    settings.SECRET_KEY = "another"
    with pytest.raises(Conflict):
        decrypt(token)
