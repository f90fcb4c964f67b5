"""What a measurement says: what was sent, from where, the figures, and whether they suffice."""

from datetime import datetime
from typing import Literal

import msgspec

Better = Literal["lower", "higher", ""]


class Latencies(msgspec.Struct, kw_only=True):
    """Percentiles of one kind of request, in milliseconds; `hdr` is the whole histogram, in microseconds."""

    kind: str
    count: int
    errors: dict[str, int]
    per_s: float
    ms: dict[str, float]
    hdr: str


class Figure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One number. `noise` is its standard deviation within the measurement; `must` and `aim` its bounds."""

    name: str
    value: float
    unit: str = ""
    better: Better = ""
    noise: float | None = None
    must: float | None = None
    aim: float | None = None

    @property
    def suffices(self) -> bool:
        """Whether it is within what must hold."""
        return self.must is None or self._reaches(self.must)

    @property
    def verdict(self) -> str:
        if not self.suffices:
            return "MISSED"
        if self.aim is not None and self._reaches(self.aim):
            return "aim reached"
        return "holds" if self.must is not None else "below the aim"

    def _reaches(self, bound: float) -> bool:
        return self.value <= bound if self.better == "lower" else self.value >= bound


class Origin(msgspec.Struct, kw_only=True):
    """Where the load came from and what else went on there."""

    host: str
    cpu: str
    cores: int
    memory_gib: float
    system: str
    versions: dict[str, str]
    load_average: float


class Report(msgspec.Struct, kw_only=True):
    """One measurement; `parts` when it is made of several. `cores` is CPU time per second, by who used it.

    `problem` says why nothing could be measured.
    """

    command: str
    sent: str = ""
    seconds: float = 0.0
    started_at: datetime | None = None
    origin: Origin | None = None
    latencies: list[Latencies] = []
    figures: list[Figure] = []
    cores: dict[str, float] = {}
    notes: list[str] = []
    problem: str = ""
    parts: list["Report"] = []

    def all_figures(self) -> dict[str, Figure]:
        """By name, those of parts with the part's command before it."""
        figures = {figure.name: figure for figure in self.figures}
        for part in self.parts:
            figures |= {f"{part.command}: {name}": figure for name, figure in part.all_figures().items()}
        return figures

    def missed(self) -> dict[str, Figure]:
        """The figures that are not within what must hold, by name."""
        return {name: figure for name, figure in self.all_figures().items() if not figure.suffices}
