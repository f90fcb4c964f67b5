// How long requests took in the range that is shown: a bar for each bucket of the histogram.

import { UNKNOWN, bound, count, milliseconds, percent } from "./format.js";

// Slower than this is slower than a request should be.
const TARGET_MS = 200;

export class Distribution {
  #place;
  #legend;
  #prefix;

  constructor(figure, { prefix }) {
    this.#place = figure.querySelector(".plot");
    this.#legend = figure.querySelector(".legend");
    this.#prefix = prefix;
    this.#place.classList.add("bars");
  }

  show(whole) {
    const buckets = whole?.buckets(this.#prefix) ?? [];
    const total = buckets.reduce((sum, [, inside]) => sum + inside, 0);
    const most = Math.max(...buckets.map(([, inside]) => inside), 1);
    this.#place.replaceChildren(...buckets.map(([upTo, inside]) => bar(upTo, inside, total, most)));
    const slow = buckets.filter(([upTo]) => upTo > TARGET_MS).reduce((sum, [, inside]) => sum + inside, 0);
    const median = whole?.quantile(this.#prefix, 0.5) ?? null;
    const texts = [
      `${total ? count(total) : UNKNOWN} requests`,
      `half within ${median === null ? UNKNOWN : milliseconds(median)}`,
      `slower than ${milliseconds(TARGET_MS)}: ${total ? percent(slow / total) : UNKNOWN}`,
    ];
    this.#legend.replaceChildren(...texts.map(line));
    this.#place.setAttribute("aria-label", texts.join(", "));
  }
}

function bar(upTo, inside, total, most) {
  const place = document.createElement("span");
  const rise = document.createElement("i");
  const label = document.createElement("small");
  rise.style.height = inside ? `max(2px, ${(100 * inside) / most}%)` : "0";
  label.textContent = bound(upTo);
  place.title = `up to ${bound(upTo)}${upTo < 1000 ? " ms" : ""}: ${count(inside)}, ${total ? percent(inside / total) : UNKNOWN}`;
  if (upTo > TARGET_MS) place.className = "slow";
  place.append(rise, label);
  return place;
}

function line(text) {
  const element = document.createElement("li");
  element.textContent = text;
  return element;
}
