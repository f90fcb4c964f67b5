// Follows one run: counters from its snapshots and progress, a square for each result, the text of cells in flight.

import { connect } from "./client.js";

const SHOWN_TEXTS = 6;
const SHOWN_CHARS = 240;
// Of a larger run only the counters are shown.
const MOST_SQUARES = 5_000;

const page = document.getElementById("run");
const { run, project } = page.dataset;
const hasSquares = Number(page.dataset.total) <= MOST_SQUARES;
// Of each cell with a result: its square, and the id of that result.
const shown = new Map();
const texts = new Map();
const keyOf = ({ case: number, column, repeat }) => `${number}:${column}:${repeat}`;

// Each is taken by the first cell that ends and has none.
function drawSquares() {
  const columns = page.querySelectorAll(".cells");
  for (const column of columns) {
    for (let number = 0; number < Number(page.dataset.total) / columns.length; number++) {
      column.append(document.createElement("li"));
    }
  }
}

function showCounters(counters) {
  document.getElementById("progress").value = counters.done;
  for (const place of page.querySelectorAll("[data-count]")) {
    const name = place.dataset.count;
    if (counters[name] === undefined) continue;
    place.textContent = name.endsWith("_usd") ? `$${counters[name].toFixed(4)}` : counters[name];
  }
}

function showResults(results) {
  for (const result of results) {
    texts.delete(keyOf(result));
    if (hasSquares) showResult(result);
  }
  showTexts();
}

function showResult(result) {
  const key = keyOf(result);
  const { square, id } = shown.get(key) ?? { square: freeSquare(result.column), id: 0 };
  // A cell that is tried again has a new result: what was fetched may be older than what has been heard.
  if (result.id < id) return;
  shown.set(key, { square, id: result.id });
  square.className = result.state;
  square.title = `case ${result.case}: ${result.state}`;
}

function freeSquare(column) {
  const cells = page.querySelector(`.cells[data-column="${column}"]`);
  // A run that is executed elsewhere may grow while it is followed.
  return cells.querySelector("li:not([class])") ?? cells.appendChild(document.createElement("li"));
}

function hear({ text, ...cell }) {
  const key = keyOf(cell);
  const whole = (texts.get(key) ?? "") + text;
  texts.set(key, whole.slice(-SHOWN_CHARS));
  showTexts();
}

let isDrawing = false;

function showTexts() {
  if (!isDrawing) requestAnimationFrame(drawTexts);
  isDrawing = true;
}

function drawTexts() {
  isDrawing = false;
  const section = document.getElementById("speaking");
  section.hidden = texts.size === 0;
  const lines = [...texts].slice(0, SHOWN_TEXTS).map(([key, text]) => {
    const line = document.createElement("li");
    line.dataset.cell = key;
    line.textContent = text;
    return line;
  });
  section.querySelector("ol").replaceChildren(...lines);
}

// What was recorded before we came, or while the connection was away.
async function fetchResults() {
  let cursor = "";
  while (hasSquares && cursor !== null) {
    const query = new URLSearchParams({ limit: 200, ...(cursor && { cursor }) });
    const headers = { "X-AutoForge-Project": project };
    const response = await fetch(`/api/v1/runs/${run}/results?${query}`, { headers });
    if (!response.ok) return;
    const { items, next_cursor: next } = await response.json();
    showResults(items);
    cursor = next;
  }
}

const HANDLERS = {
  progress: showCounters,
  result_recorded: ({ results }) => showResults(results),
  tokens: hear,
  ended: ({ state }) => {
    texts.clear();
    showTexts();
    showCounters({ state, done: page.querySelector("[data-count=done]").textContent });
  },
};

function receive(message) {
  if (message.type === "event") HANDLERS[message.event]?.(message.data);
  if (message.type !== "snapshot") return;
  texts.clear();
  showCounters(message.data);
  fetchResults();
}

if (hasSquares) drawSquares();
const connection = connect({
  project,
  onState: (state, detail) => {
    const place = document.getElementById("connection");
    place.textContent = state === "waiting" ? `back in ${Math.ceil(detail / 1000)} s` : state;
    place.dataset.state = state;
  },
});
connection.subscribe(`runs.${run}`, receive);
