// One chart over time: uPlot draws, the legend beside it says the same in numbers.

import { UNKNOWN } from "./format.js";

const { uPlot } = globalThis;
const HEIGHT = 132;
// Okabe and Ito's colours as the page's style has them, and a dash for each: nobody has to tell colours apart.
const LINES = [
  { colour: "--line-1", dash: [] },
  { colour: "--line-2", dash: [7, 3] },
  { colour: "--line-3", dash: [2, 3] },
  { colour: "--line-4", dash: [9, 3, 2, 3] },
];
const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  #panel;
  #place;
  #plot = null;
  #data = [];
  #values = [];
  #notes = [];

  /** `figure` has an element .plot and a list .legend to be filled; `panel` is one of panels(). */
  constructor(figure, panel) {
    this.#panel = panel;
    this.#place = figure.querySelector(".plot");
    const legend = figure.querySelector(".legend");
    this.#values = panel.lines.map(({ name }, index) => item(legend, name, swatch(LINES[index])));
    this.#notes = (panel.notes ?? []).map(({ name }) => item(legend, name));
    new ResizeObserver(() => this.#fit()).observe(this.#place);
  }

  /** Draw the moments `at` (Unix times) with what happened up to each, between `from` and `to`. */
  show(at, spans, from, to) {
    const { lines, notes = [] } = this.#panel;
    this.#data = [at, ...lines.map(({ of }) => spans.map((span) => (span ? of(span) : null)))];
    this.#plot ??= this.#make();
    this.#plot.setData(this.#data, false);
    this.#plot.setScale("x", { min: from, max: to });
    const last = spans[spans.length - 1];
    notes.forEach(({ of, write }, index) => (this.#notes[index].textContent = last ? write(of(last)) : UNKNOWN));
    this.#say(this.#plot.cursor.idx ?? at.length - 1);
  }

  /** Take the colours of the page again. */
  restyle() {
    this.#plot?.destroy();
    this.#plot = null;
  }

  #say(index) {
    const { lines, write } = this.#panel;
    const texts = lines.map((_, line) => write(this.#data[line + 1]?.[index] ?? null));
    texts.forEach((text, line) => (this.#values[line].textContent = text));
    this.#place.setAttribute("aria-label", lines.map(({ name }, line) => `${name} ${texts[line]}`).join(", "));
  }

  #make() {
    const style = getComputedStyle(this.#place);
    const colour = (name) => style.getPropertyValue(name).trim();
    const grid = { stroke: colour("--grid"), width: 1 };
    const axis = { stroke: colour("--quiet-ink"), font: "11px system-ui, sans-serif", grid, ticks: { show: false } };
    const { write, most, steps, lines } = this.#panel;
    const options = {
      width: this.#place.clientWidth || 300,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 8, 0, 0],
      cursor: { y: false, sync: { key: "dashboard" }, drag: { x: false, y: false }, points: { size: 5 } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { x: { time: true, auto: false }, y: { range: (_, low, high) => [0, most ?? roof(high)] } },
      axes: [
        { ...axis, size: 24, space: 56, values: (_, times) => times.map((time, index) => clock(time, times[1] - times[0], index)) },
        { ...axis, size: 62, space: 30, ...(steps && { incrs: steps }), values: (_, values) => values.map((value) => write(value)) },
      ],
      series: [
        {},
        ...lines.map((line, index) => ({
          label: line.name,
          stroke: colour(LINES[index].colour),
          dash: LINES[index].dash,
          width: 1.6,
          points: { show: (_, __, first, last) => last - first < 2, size: 4 },
        })),
      ],
      hooks: { setCursor: [(plot) => this.#data.length && this.#say(plot.cursor.idx ?? this.#data[0].length - 1)] },
    };
    return new uPlot(options, [[], ...lines.map(() => [])], this.#place);
  }

  #fit() {
    const width = this.#place.clientWidth;
    if (this.#plot && width && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }
}

function roof(high) {
  return high > 0 ? high * 1.1 : 1;
}

// Hours and minutes of UTC; days where ticks are that far apart, seconds where they are close.
function clock(time, apartS, index) {
  const text = new Date(time * 1000).toISOString();
  if (apartS >= 86_400) return text.slice(5, 10);
  if (apartS >= 3600 && (index === 0 || text.slice(11, 16) === "00:00")) return `${text.slice(8, 10)}. ${text.slice(11, 16)}`;
  return apartS < 60 ? text.slice(11, 19) : text.slice(11, 16);
}

function item(legend, name, sign) {
  const line = document.createElement("li");
  const value = document.createElement("b");
  value.textContent = UNKNOWN;
  if (sign) line.append(sign);
  line.append(`${name} `, value);
  legend.append(line);
  return value;
}

function swatch({ colour, dash }) {
  const svg = document.createElementNS(SVG, "svg");
  const stroke = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 20 6");
  svg.setAttribute("aria-hidden", "true");
  stroke.setAttribute("d", "M0 3H20");
  stroke.setAttribute("stroke-dasharray", dash.join(" "));
  stroke.style.stroke = `var(${colour})`;
  svg.append(stroke);
  return svg;
}
