"""Completions that some clients of a crowd ask for while everybody listens: are their tokens late?"""

import asyncio
import itertools
import os
from time import monotonic
from typing import Any

import msgspec

from monitoring.perf.follower import Follower

# The simulated model: when its first token is due, and how long the whole answer takes.
WORDS, TOKENS_PER_S, LATENCY_S = 40, 50.0, 0.2
OUTPUT = " ".join(["word"] * WORDS)
SETTINGS: dict[str, Any] = {
    "latency_ms": LATENCY_S * 1000,
    "tokens_per_s": TOKENS_PER_S,
    "output": OUTPUT,
}
WHOLE_S = LATENCY_S + (WORDS - 1) / TOKENS_PER_S
_PAUSE_S = 0.5


class Completions:
    """Milliseconds beyond the model's own time, of first tokens and of whole answers."""

    def __init__(self, model: str) -> None:
        self.first_ms: list[float] = []
        self.whole_ms: list[float] = []
        self._model = model
        self._numbers = itertools.count()
        self._asked: dict[str, float] = {}
        self._started: set[str] = set()
        self._is_stopped = False

    def start(self, follower: Follower) -> None:
        """Let `follower` ask, and ask again half a second after each answer."""
        if self._is_stopped:
            return
        id = str(next(self._numbers))
        # Nobody asked this before: a cached answer would be no test.
        messages = [{"role": "user", "content": os.urandom(8).hex()}]
        asked = {"type": "complete", "id": id, "model": self._model, "messages": messages}
        self._asked[id] = monotonic()
        follower.say(msgspec.json.encode(asked))

    def stop(self) -> None:
        """Ask no more."""
        self._is_stopped = True

    def read(self, follower: Follower, type: str, id: str) -> None:
        """An answer's token, or its end."""
        if id not in self._asked:
            return
        elapsed_s = monotonic() - self._asked[id]
        if type == "token" and id not in self._started:
            self._started.add(id)
            self.first_ms.append(round((elapsed_s - LATENCY_S) * 1000, 2))
        elif type != "token":
            if type == "completed":
                self.whole_ms.append(round((elapsed_s - WHOLE_S) * 1000, 2))
            del self._asked[id]
            asyncio.get_running_loop().call_later(_PAUSE_S, self.start, follower)
