"""The few shapes of PromQL that panels are made of."""

_WINDOW = "$__rate_interval"


def per_second(series: str, by: str = "") -> str:
    """How fast counters rise, over all processes, machines and labels but those of `by`."""
    return f"sum{_by(by)}(rate({series}[{_WINDOW}]))"


def quantile(share: float, histogram: str, by: str = "", *, where: str = "") -> str:
    """Where `share` of a histogram's observations is reached. `where` are matchers in braces."""
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{where}[{_WINDOW}])))"


def quantiles(histogram: str, *, where: str = "") -> dict[str, str]:
    """P50, P95 and P99 by their legends."""
    return {f"P{share * 100:g}": quantile(share, histogram, where=where) for share in (0.5, 0.95, 0.99)}


def mean(histogram: str, by: str = "", *, where: str = "") -> str:
    """The mean of a histogram's observations."""
    return f"{per_second(f'{histogram}_sum{where}', by)} / {per_second(f'{histogram}_count{where}', by)}"


def share_of_hits(cache: str = ".+") -> str:
    """The part of the reads that were hits, of each cache whose name matches."""
    reads = "autoforge_cache_reads_total"
    hits = per_second(f'{reads}{{cache=~"{cache}", layer!="load"}}', "cache")
    every = per_second(f'{reads}{{cache=~"{cache}"}}', "cache")
    return f"({hits} or 0 * {every}) / {every}"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
