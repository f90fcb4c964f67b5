// Keeps the page of a live run current. Counters, squares and tokens come over the WebSocket of the
// realtime app where it is installed; the rest, and everything without it, is fetched again now and then.

const REFRESH_MS = 3000;
const REFRESH_WITH_SOCKET_MS = 10000;
// A refresh may take this share of the server's time at most.
const LOAD_FACTOR = 20;
const SHOWN_CELLS = 8;
const SHOWN_CHARS = 160;
const PARTS = ["run-head", "run-report", "run-grid", "run-problems"];

const page = document.getElementById("run");
const part = (id) => document.getElementById(id);
const isLive = () => part("run-head").dataset.live === "true";
const square = (cell) => page.querySelector(`[data-cell="${cell.case}:${cell.column}:${cell.repeat}"]`);
const keyOf = (cell) => `${cell.case}:${cell.column}:${cell.repeat}`;

let hasSocket = false;
let timer = 0;

function replacePart(id, fresh) {
  const old = part(id);
  const next = fresh.getElementById(id);
  // Nothing moves under the hands of somebody who is at it.
  if (!old || !next || old.contains(document.activeElement)) return;
  old.replaceWith(document.adoptNode(next));
}

async function refresh() {
  const began = performance.now();
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (response?.ok && !response.redirected) {
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const id of PARTS) replacePart(id, fresh);
  }
  if (!isLive()) showTokens(null);
  schedule((performance.now() - began) * LOAD_FACTOR);
}

function schedule(atLeastMs = 0) {
  clearTimeout(timer);
  if (isLive()) timer = setTimeout(refresh, Math.max(hasSocket ? REFRESH_WITH_SOCKET_MS : REFRESH_MS, atLeastMs));
}

function refreshSoon() {
  clearTimeout(timer);
  timer = setTimeout(refresh, 100);
}

function dollars(amount) {
  if (!amount) return "$0";
  return amount >= 0.01 ? `$${amount.toFixed(2)}` : `$${Number(amount.toPrecision(3))}`;
}

function showCounters(counters) {
  for (const place of page.querySelectorAll("[data-count]")) {
    const value = counters[place.dataset.count];
    if (value !== undefined) place.textContent = place.dataset.count.endsWith("_usd") ? dollars(value) : value;
  }
  let left = 0;
  for (const [name, count] of [["passed", counters.passed], ["failed", counters.failed], ["error", counters.errors]]) {
    const bar = page.querySelector(`.tile .bar-${name}`);
    const width = counters.total ? (100 * count) / counters.total : 0;
    bar?.setAttribute("x", left);
    bar?.setAttribute("width", width);
    left += width;
  }
  if (counters.state !== part("run-head").dataset.state) refreshSoon();
}

function showResult(row) {
  texts.delete(keyOf(row));
  const place = square(row);
  if (!place) return;
  place.className = `square square-${row.state}`;
  place.title = `case ${row.case}: ${row.state}`;
  place.href = `${page.dataset.resultUrl}${row.id}/change/`;
}

// The text that each cell in flight has received so far, by cell.
const texts = new Map();
let isDrawing = false;

function showTokens(cell) {
  if (cell) {
    const text = (texts.get(keyOf(cell)) ?? "") + cell.text;
    texts.set(keyOf(cell), text.slice(-SHOWN_CHARS));
    square(cell)?.classList.add("square-busy");
  } else {
    texts.clear();
  }
  if (!isDrawing) requestAnimationFrame(drawTokens);
  isDrawing = true;
}

function drawTokens() {
  isDrawing = false;
  const panel = part("run-tokens");
  panel.hidden = texts.size === 0;
  const lines = [...texts].slice(-SHOWN_CELLS).map(([key, text]) => {
    const [caseId, column] = key.split(":");
    const line = document.createElement("li");
    line.append(labelled("about", `case ${caseId}, column ${Number(column) + 1}`), labelled("text", text));
    return line;
  });
  panel.querySelector("ol").replaceChildren(...lines);
}

function labelled(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}

const HANDLERS = {
  progress: showCounters,
  result_recorded: ({ results }) => {
    results.forEach(showResult);
    showTokensAgain();
  },
  tokens: showTokens,
  ended: refreshSoon,
};

function showTokensAgain() {
  if (!isDrawing) requestAnimationFrame(drawTokens);
  isDrawing = true;
}

if (page && isLive()) schedule();
