// How the dashboard writes numbers. Unknown is "–", never 0.

export const UNKNOWN = "–";

const MIB = 2 ** 20;
// What the steps of an axis of bytes may be.
export const BINARY_STEPS = Array.from({ length: 16 }, (_, power) => MIB * 2 ** (power - 1));

function digits(value) {
  const size = Math.abs(value);
  return size >= 100 ? 0 : size >= 10 ? 1 : 2;
}

function plain(value, most = digits(value)) {
  return value.toLocaleString("en-US", { maximumFractionDigits: most });
}

const known = (write) => (value) => (value === null || value === undefined ? UNKNOWN : write(value));

export const count = known((value) => plain(value));
export const perSecond = known((value) => `${plain(value)}/s`);
export const milliseconds = known((value) => (value < 1000 ? `${plain(value)} ms` : `${plain(value / 1000)} s`));
export const percent = known((value) => `${plain(value * 100, value > 0.9995 || value < 0.1 ? 2 : 1)} %`);
export const bytes = known((value) => (value < 1024 * MIB ? `${plain(value / MIB)} MiB` : `${plain(value / MIB / 1024)} GiB`));
export const dollars = known((value) => (!value ? "$0" : value >= 0.01 ? `$${plain(value, value < 100 ? 2 : 0)}` : `$${Number(value.toPrecision(2))}`));
export const dollarsPerHour = known((value) => `${dollars(value)}/h`);
/** The same where there is little room. */
export const aboutDollarsPerHour = known((value) => (value > 0 && value < 0.01 ? "< $0.01/h" : dollarsPerHour(value)));

/** The upper bound of a bucket, in milliseconds, as short as an axis needs it. */
export function bound(ms) {
  if (!Number.isFinite(ms)) return "∞";
  return ms < 1000 ? `${ms}` : `${ms / 1000}s`;
}
