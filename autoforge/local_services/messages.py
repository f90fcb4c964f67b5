"""What a launcher and its guardian say to each other: one line of JSON each way."""

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True)
class Message:
    """A dataclass of JSON values that travels as one line."""

    def encode(self) -> str:
        """The line, without its end."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, line: str) -> Self:
        """The message in `line`."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Order(Message):
    """Which services to start. `data_dir` None: in a directory that vanishes with them."""

    launcher_pid: int
    postgres: bool
    redis: bool
    data_dir: str | None
    is_durable: bool


@dataclass(frozen=True)
class Started(Message):
    """Environment variables that lead to the running services; or the sentence why there are none.

    `vanishing` is the directory that the guardian removes at the end, empty when data is kept.
    """

    urls: dict[str, str]
    vanishing: str = ""
    error: str = ""
