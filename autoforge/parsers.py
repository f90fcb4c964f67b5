"""How request bodies are read."""

import re
from typing import Any, ClassVar

from django.http import HttpRequest
from dmr.parsers import DeserializeFunc, Raw
from dmr.plugins.msgspec import MsgspecJsonParser

from autoforge.errors import AppError, InvalidInput

# \u0000 as JSON writes it, but not the six characters of an escaped backslash before u0000.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def holds_nul(content: Raw) -> bool:
    """Whether JSON spells U+0000, which no text column can hold."""
    return _NUL.search(content) is not None


class StrictJsonParser(MsgspecJsonParser):
    """JSON whose types must match: "5" is not 5. Refuses what no database column can hold."""

    strict: ClassVar[bool] = True

    def parse(
        self,
        to_deserialize: Raw,
        deserializer_hook: DeserializeFunc | None = None,
        *,
        request: HttpRequest,
        model: Any,
    ) -> Any:
        if not to_deserialize:
            raise AppError("This request needs a JSON object as its body.")
        if holds_nul(to_deserialize):
            raise InvalidInput("The body holds the character U+0000, which cannot be stored: remove it.")
        return super().parse(to_deserialize, deserializer_hook, request=request, model=model)
