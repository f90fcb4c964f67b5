"""Provider secrets encrypted at rest (Fernet: AES-128-CBC + HMAC-SHA-256)."""

import base64
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from django.conf import settings

from autoforge.errors import Conflict
from autoforge.lazy import lazy

if TYPE_CHECKING:
    from cryptography import fernet
else:
    fernet = lazy("cryptography.fernet")


def encrypt(text: str) -> str:
    """A token only this installation's keys can read."""
    return _fernet().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """The text behind `token`. Raises Conflict when no configured key fits."""
    try:
        return _fernet().decrypt(token.encode()).decode()
    except fernet.InvalidToken as error:
        raise Conflict(
            "A stored secret cannot be decrypted with the configured keys: "
            "put the key that wrote it into AUTOFORGE_ENCRYPTION_KEYS, or store the secret again."
        ) from error


def _fernet() -> "fernet.MultiFernet":
    return _fernet_of(tuple(settings.FIELD_ENCRYPTION_KEYS) or (settings.SECRET_KEY,))


@lru_cache(maxsize=4)
def _fernet_of(keys: tuple[str, ...]) -> "fernet.MultiFernet":
    digests = (hashlib.sha256(b"autoforge.encryption:" + key.encode()).digest() for key in keys)
    return fernet.MultiFernet([fernet.Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])
