// From totals to what happened between two moments: the same for history and for what comes live.

// A step this many times as long as it should be is a gap: nobody recorded, nothing is drawn.
const GAP_STEPS = 3.5;

/** Numbers of a nested summary by their dotted names, as the history has them (monitoring/numbers.py). */
export function flatten(summary, prefix = "", found = {}) {
  for (const [key, value] of Object.entries(summary)) {
    if (typeof value === "number") found[prefix + key] = value;
    else if (Array.isArray(value)) flattenRows(value, prefix + key, found);
    else if (value && typeof value === "object") flatten(value, `${prefix}${key}.`, found);
  }
  return found;
}

function flattenRows(rows, name, found) {
  for (const { le_ms: bound, count, resident_bytes: bytes } of rows) {
    if (count !== undefined) found[`${name}.${bound ?? "inf"}`] = count;
    if (bytes !== undefined) found[`${name}.largest`] = Math.max(bytes, found[`${name}.largest`] ?? 0);
  }
}

/** Moments of one range, oldest first: at most as many as fit into its length. */
export class Series {
  /** Seconds: how long it is, how far apart its moments are, over how many a rate is taken. */
  constructor({ lengthS, stepS, windowS = stepS }) {
    Object.assign(this, { lengthS, stepS, windowS });
    this.moments = [];
  }

  fill({ at, numbers }) {
    const names = Object.keys(numbers);
    const past = at.map((time, index) => {
      const row = {};
      for (const name of names) {
        const value = numbers[name][index];
        if (value !== null) row[name] = value;
      }
      return { at: time, numbers: row };
    });
    // What has come live since is newer than any history.
    const newest = past.length ? past[past.length - 1].at : 0;
    this.moments = [...past, ...this.moments.filter((moment) => moment.at > newest)];
    this.#trim();
  }

  /** Whether the moment was due; one that comes too early is left out. */
  add(at, numbers) {
    const last = this.moments[this.moments.length - 1];
    if (last && at - last.at < this.stepS * 0.7) return false;
    this.moments.push({ at, numbers });
    this.#trim();
    return true;
  }

  get newest() {
    return this.moments.length ? this.moments[this.moments.length - 1].at : 0;
  }

  /** What happened up to each moment since the one a window before; null where nobody looked. */
  spans() {
    let first = 0;
    return this.moments.map((moment, index) => {
      if (index === 0) return null;
      const previous = this.moments[index - 1];
      if (moment.at - previous.at > GAP_STEPS * Math.max(this.stepS, this.windowS)) {
        first = index;
        return null;
      }
      while (first < index - 1 && moment.at - this.moments[first + 1].at >= this.windowS * 0.95) first += 1;
      return new Span(this.moments[Math.min(first, index - 1)], moment);
    });
  }

  /** What happened to the totals `family…` in the whole range, whenever processes started again in it. */
  whole(family) {
    if (this.moments.length < 2) return null;
    const sums = {};
    for (let index = 1; index < this.moments.length; index += 1) {
      const span = new Span(this.moments[index - 1], this.moments[index]);
      for (const name of Object.keys(span.after)) {
        if (name.startsWith(family)) sums[name] = (sums[name] ?? 0) + span.rise(name);
      }
    }
    return new Span({ at: this.moments[0].at, numbers: {} }, { at: this.newest, numbers: sums });
  }

  #trim() {
    const since = this.newest - this.lengthS;
    const first = this.moments.findIndex((moment) => moment.at >= since);
    if (first > 0) this.moments.splice(0, first);
  }
}

/** The time between two moments. Unknown is null. */
export class Span {
  constructor(before, after) {
    this.before = before.numbers;
    this.after = after.numbers;
    this.seconds = after.at - before.at;
  }

  /** What a number is now. */
  level(name) {
    return this.after[name] ?? null;
  }

  /** By how much a total rose. One that fell began again at 0; one that was not there was 0. */
  rise(name) {
    const after = this.after[name];
    if (after === undefined) return null;
    const before = this.before[name] ?? 0;
    return after >= before ? after - before : after;
  }

  /** The rise of the totals `family…`, of those that go on with one of `kinds`; null without any of the family. */
  rises(family, kinds = [""]) {
    let sum = null;
    for (const name of Object.keys(this.after)) {
      if (!name.startsWith(family)) continue;
      sum ??= 0;
      if (kinds.some((kind) => name.startsWith(kind, family.length))) sum += this.rise(name);
    }
    return sum;
  }

  perSecond(rise) {
    return rise === null || !this.seconds ? null : rise / this.seconds;
  }

  rate(name) {
    return this.perSecond(this.rise(name));
  }

  /** Hits among hits and misses; unknown while nobody asked. */
  share(hits, misses) {
    const found = this.rise(hits);
    const missed = this.rise(misses);
    const all = (found ?? 0) + (missed ?? 0);
    return all ? (found ?? 0) / all : null;
  }

  /** Of the histogram `prefix…`: [upper bound, how many in this bucket alone], the smallest bound first. */
  buckets(prefix) {
    return Object.keys(this.after)
      .filter((name) => name.startsWith(prefix))
      .map((name) => [name.endsWith(".inf") ? Infinity : Number(name.slice(prefix.length)), this.rise(name)])
      .sort(([one], [other]) => one - other);
  }

  /** The `share`-quantile of a histogram in the unit of its bounds, on a straight line within its bucket, as Prometheus has it. */
  quantile(prefix, share) {
    const buckets = this.buckets(prefix);
    const total = buckets.reduce((sum, [, inside]) => sum + inside, 0);
    if (!total) return null;
    let low = 0;
    let below = 0;
    for (const [bound, inside] of buckets) {
      if (below + inside >= share * total && inside) {
        if (!Number.isFinite(bound)) return low;
        return low + ((bound - low) * (share * total - below)) / inside;
      }
      below += inside;
      low = bound;
    }
    return low;
  }
}
