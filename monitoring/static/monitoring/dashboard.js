// The landing page: charts that go on by themselves, history by range, tables that are fetched again.

import { Chart } from "./chart.js";
import { Distribution } from "./distribution.js";
import { Series, flatten } from "./series.js";
import { DISTRIBUTION, TILES, panels } from "./panels.js";

const page = document.getElementById("dashboard");
const part = (id) => document.getElementById(id);
const figure = (id) => page.querySelector(`[data-panel="${id}"]`);

// Live rates are those of the last 10 seconds, as a crowd of requests in one second says little.
const RANGES = {
  live: new Series({ lengthS: 300, stepS: 1, windowS: 10 }),
  "1h": new Series({ lengthS: 3600, stepS: 10, windowS: 30 }),
  "24h": new Series({ lengthS: 86_400, stepS: 240 }),
  "7d": new Series({ lengthS: 604_800, stepS: 1800 }),
};
const TABLES = ["bounds", "tables"];
const REFRESH_MS = 10_000;
// The server is given this many times as long to rest as the last refresh took.
const REST_FACTOR = 20;
const STALE_S = 5;
const STATES = {
  waiting: (ms) => `back in ${Math.ceil(ms / 1000)} s`,
  closed: () => "live numbers are for members of a project",
};

// What this installation does not have has no figure on the page.
const charts = panels(page.dataset.caches.split(","))
  .filter(({ id }) => figure(id))
  .map((panel) => new Chart(figure(panel.id), panel));
const distribution = new Distribution(figure(DISTRIBUTION.id), DISTRIBUTION);
// A range that was never looked at has no past yet, and needs no present.
const followed = new Set(["live"]);
let chosen = "live";
let skewS = 0;
let heardAt = 0;
let hasPast = false;
let state = "connecting";

const now = () => Date.now() / 1000 + skewS;

async function fetchHistory(range) {
  const response = await fetch(`${page.dataset.history}?range=${range}`).catch(() => null);
  if (!response?.ok) return;
  // The clock of the history is the server's.
  const theirs = Date.parse(response.headers.get("Date") ?? "") / 1000;
  if (Math.abs(theirs - Date.now() / 1000) > 2) skewS = theirs - Date.now() / 1000;
  const past = await response.json();
  RANGES[range].fill(past);
  followed.add(range);
  // What came live is finer than any history: that only goes before it, once.
  if (!hasPast) RANGES.live.fill(past);
  hasPast = true;
  draw();
}

function hear(message) {
  if (message.type !== "snapshot" && message.type !== "event") return;
  heardAt = now();
  const numbers = flatten(message.data);
  const due = [...followed].filter((range) => RANGES[range].add(heardAt, numbers));
  tell();
  if (due.includes(chosen)) draw();
}

function draw() {
  if (document.hidden) return;
  const series = RANGES[chosen];
  const at = series.moments.map((moment) => moment.at);
  const spans = series.spans();
  const to = Math.max(series.newest, now() - 2 * series.stepS);
  for (const chart of charts) chart.show(at, spans, to - series.lengthS, to);
  distribution.show(series.whole(DISTRIBUTION.prefix));
  const latest = [...RANGES.live.spans()].reverse().find(Boolean) ?? null;
  for (const [name, { of, write }] of Object.entries(TILES)) {
    page.querySelector(`[data-tile="${name}"]`).textContent = write(latest ? of(latest) : null);
  }
}

function tell() {
  const place = part("connection");
  const isLive = state === "open" && now() - heardAt < STALE_S;
  const text = isLive ? "live" : state === "open" ? "waiting for numbers" : state;
  if (place.textContent !== text) place.textContent = text;
  place.dataset.state = isLive ? "live" : "waiting";
}

function rangeOfAddress() {
  const named = location.hash.slice(1);
  return named in RANGES ? named : "live";
}

function choose(range) {
  chosen = range;
  page.querySelector(`[name=range][value="${range}"]`).checked = true;
  history.replaceState(null, "", range === "live" ? location.pathname : `#${range}`);
  if (range !== "live") fetchHistory(range);
  draw();
}

async function refresh() {
  const began = performance.now();
  const response = document.hidden ? null : await fetch(location.pathname).catch(() => null);
  if (response?.ok && !response.redirected) {
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const id of TABLES) replacePart(part(id), fresh.getElementById(id));
  }
  setTimeout(refresh, Math.max(REFRESH_MS, (performance.now() - began) * REST_FACTOR));
}

// Nothing is taken from under the hands of somebody who is on it.
function replacePart(old, next) {
  if (next && !old.contains(document.activeElement) && !old.matches(":hover")) old.replaceWith(document.adoptNode(next));
}

async function follow() {
  const client = page.dataset.client && (await import(page.dataset.client).catch(() => null));
  if (!client?.connect) return;
  const connection = client.connect({
    onState: (next, detail) => {
      state = STATES[next]?.(detail) ?? next;
      tell();
    },
  });
  connection.subscribe("metrics", hear);
}

function restyle() {
  for (const chart of charts) chart.restyle();
  draw();
}

page.addEventListener("change", ({ target }) => target.name === "range" && choose(target.value));
document.addEventListener("visibilitychange", draw);
new MutationObserver(restyle).observe(document.documentElement, { attributeFilter: ["class"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
setInterval(tell, 1000);
setTimeout(refresh, REFRESH_MS);
addEventListener("hashchange", () => choose(rangeOfAddress()));
fetchHistory("1h").then(() => choose(rangeOfAddress()));
follow();
