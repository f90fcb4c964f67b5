"""Server-sent events from bytes, however they are cut (WHATWG HTML, 9.2)."""

import msgspec


class Event(msgspec.Struct, frozen=True):
    """One event: its type ("" is "message") and its data lines joined by newlines."""

    type: str
    data: bytes


class EventParser:
    """Feed it what arrives; it gives the events that are complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._type = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes."""
        text = self._rest + chunk if self._rest else chunk
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):
                # Its line feed may be the first byte of the next chunk.
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = text.split(b"\n")
        self._rest += held
        return [event for line in lines if (event := self._line(line))]

    def finish(self) -> list[Event]:
        """What is left at the end: servers exist that forget the last blank line."""
        return self.feed(b"\n\n")

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._type, b"\n".join(self._data)) if self._data else None
        self._type, self._data = "", []
        return event
