// Keeps the page of a live run current. Where the installation has a WebSocket client, counters, squares and
// tokens come over it; everything else, and all of it without the client, is fetched again now and then.

const REFRESH_MS = 3000;
const REFRESH_BESIDE_SOCKET_MS = 4000;
// The server is given this many times as long to rest as the last refresh took.
const REST_FACTOR = 20;
const SHOWN_CELLS = 8;
const SHOWN_CHARS = 160;
const REMEMBERED_CELLS = 2000;
const PARTS = ["run-head", "run-report", "run-grid", "run-problems"];

const page = document.getElementById("run");
const part = (id) => document.getElementById(id);
const isLive = () => part("run-head").dataset.live === "true";
const keyOf = (cell) => `${cell.case}:${cell.column}:${cell.repeat}`;
const squareOf = (cell) => page.querySelector(`[data-cell="${keyOf(cell)}"]`);

let connection = null;
let timer = 0;

function schedule(delayMs) {
  clearTimeout(timer);
  timer = setTimeout(refresh, delayMs);
}

async function refresh() {
  const began = performance.now();
  const response = await fetch(location.href).catch(() => null);
  if (response?.ok && !response.redirected) {
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const id of PARTS) replacePart(id, fresh);
  }
  if (isLive()) {
    const rest = (performance.now() - began) * REST_FACTOR;
    schedule(Math.max(connection ? REFRESH_BESIDE_SOCKET_MS : REFRESH_MS, rest));
  } else {
    leave();
  }
}

function replacePart(id, fresh) {
  const old = part(id);
  const next = fresh.getElementById(id);
  if (!old || !next) return;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  // Nothing is taken from under the hands of somebody who types or presses a button.
  if (focused?.matches("input") || old.matches(":active")) return;
  keepDone(old, next);
  old.replaceWith(document.adoptNode(next));
  if (focused?.id) part(focused.id)?.focus();
}

// The page that was fetched may be older than what has come over the socket since.
function keepDone(old, next) {
  const pending = new Map();
  for (const square of next.querySelectorAll(".square:not([href])")) pending.set(square.dataset.cell, square);
  for (const done of old.querySelectorAll(".square[href]")) pending.get(done.dataset.cell)?.replaceWith(done);
}

function leave() {
  connection?.close?.();
  connection = null;
  texts.clear();
  drawSoon();
}

function showCounters(counters) {
  for (const place of page.querySelectorAll("[data-count]")) {
    const name = place.dataset.count;
    const value = counters[name];
    if (value === undefined) continue;
    place.textContent = name.endsWith("_usd") ? dollars(value) : value.toLocaleString("en-US");
  }
  drawProgress(counters);
  if (counters.state !== part("run-head").dataset.state) schedule(100);
}

function dollars(amount) {
  if (!amount) return "$0";
  return amount >= 0.01 ? `$${amount.toFixed(2)}` : `$${Number(amount.toPrecision(3))}`;
}

function drawProgress({ passed, failed, errors, total }) {
  let left = 0;
  for (const [name, count] of Object.entries({ passed, failed, error: errors })) {
    const bar = part("run-head").querySelector(`.bar-${name}`);
    const width = total ? (100 * count) / total : 0;
    bar?.setAttribute("x", left);
    bar?.setAttribute("width", width);
    left += width;
  }
}

function showResults({ results }) {
  for (const row of results) {
    texts.delete(keyOf(row));
    const square = squareOf(row);
    if (!square) continue;
    square.className = `square square-${row.state}`;
    square.title = `case ${row.case}: ${row.state}`;
    square.href = `${page.dataset.results}${row.id}/change/`;
  }
  drawSoon();
}

// What each cell in flight has received so far, by cell, in the order in which they began.
const texts = new Map();
let isDrawing = false;

function showTokens(cell) {
  const key = keyOf(cell);
  const square = squareOf(cell);
  // Tokens may come later than the result that they belong to.
  if (square?.href) return;
  const text = (texts.get(key) ?? "") + cell.text;
  if (texts.size >= REMEMBERED_CELLS) texts.clear();
  texts.set(key, text.slice(-SHOWN_CHARS));
  square?.classList.add("square-busy");
  drawSoon();
}

function drawSoon() {
  if (!isDrawing) requestAnimationFrame(drawTokens);
  isDrawing = true;
}

function drawTokens() {
  isDrawing = false;
  const panel = part("run-tokens");
  panel.hidden = texts.size === 0;
  panel.querySelector("ol").replaceChildren(...[...texts].slice(-SHOWN_CELLS).map(lineOf));
}

function lineOf([key, text]) {
  const [caseId, column] = key.split(":");
  const line = document.createElement("li");
  const name = page.querySelector(`[data-column="${column}"]`)?.dataset.name ?? "";
  line.append(span("about", `case ${caseId}, ${name}`), span("text", text));
  return line;
}

function span(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

const HANDLERS = {
  progress: showCounters,
  result_recorded: showResults,
  tokens: showTokens,
  ended: () => schedule(100),
};

function receive(message) {
  if (message.type === "snapshot") showCounters(message.data);
  else if (message.type === "event") HANDLERS[message.event]?.(message.data);
}

async function follow() {
  const client = page.dataset.client && (await import(page.dataset.client).catch(() => null));
  if (!client?.connect) return;
  connection = client.connect({ project: page.dataset.project });
  connection.subscribe(`runs.${page.dataset.run}`, receive);
}

if (page && isLive()) {
  schedule(REFRESH_MS);
  follow();
}
