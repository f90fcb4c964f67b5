"""How request bodies are read."""

from typing import ClassVar

from dmr.plugins.msgspec import MsgspecJsonParser


class StrictJsonParser(MsgspecJsonParser):
    """JSON whose types must match: "5" is not 5."""

    strict: ClassVar[bool] = True
