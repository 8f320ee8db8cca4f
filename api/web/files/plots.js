// Plots, drawn as SVG, each beside a table with its numbers.

import { el, number, table, whenFree } from "/web/console-dom.js";

const SVG = "http://www.w3.org/2000/svg";
const STEPS_MAX = 120;
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return a bar of parts of a whole, [{name, count, kind}], with a legend that has the numbers. */
export function parts(label, entries) {
  const whole = entries.reduce((sum, { count }) => sum + count, 0);
  let x = 0;
  const rects = entries.map(({ count, kind }) => {
    const width = whole ? (count / whole) * 100 : 0;
    const rect = svg("rect", { x, y: 0, width, height: 10, class: kind });
    x += width;
    return rect;
  });
  const said = `${label}: ${entries.map(({ name, count }) => `${number(count)} ${name}`).join(", ")}`;
  return el(
    "div", { className: "parts" },
    svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": said }, ...rects),
    el("ul", {}, entries.map(({ name, count, kind }) => el("li", {}, el("span", { className: `swatch ${kind}` }), `${number(count)} ${name}`))),
  );
}

/** Return a figure of a rate over time. Its `show` takes `{step_s, points}`; `perS` is how many seconds the rate's unit has. */
export function columns(title, perS) {
  const most = el("span", { className: "quiet" });
  const drawing = el("div", {}, el("p", { className: "quiet" }, "Nothing yet."));
  const numbers = el("div");
  const details = el("details", { hidden: true }, el("summary", {}, "Numbers"), numbers);
  const made = el("figure", {}, el("figcaption", {}, title, most), drawing, details);
  // What is open stays so, and the numbers in it follow.
  made.show = (series) => {
    const rates = fill(series).map(({ at, count }) => ({ at, rate: (count * perS) / series.step_s }));
    details.hidden = !rates.length;
    if (!rates.length) return;
    most.textContent = ` at most ${number(Math.max(...rates.map(({ rate }) => rate)), 1)}`;
    drawing.replaceChildren(draw(title, rates, series.step_s));
    whenFree(numbers, () => numbers.replaceChildren(table(title, ["From", { text: title, number: true }], rates.map(({ at, rate }) => [DAY.format(at) + at.toISOString().slice(16, 19), number(rate, 1)]))));
  };
  return made;
}

function draw(title, rates, stepS) {
  const most = Math.max(...rates.map(({ rate }) => rate));
  const clock = rates.length * stepS > 72_000 ? DAY : CLOCK;
  const rects = rates.map(({ rate }, n) => {
    const height = most ? (rate / most) * 100 : 0;
    return svg("rect", { x: n + 0.1, y: 100 - height, width: 0.8, height });
  });
  const said = `${title}, from ${clock.format(rates[0].at)} to ${clock.format(rates.at(-1).at)}: ${number(most, 1)} at the most, ${number(rates.at(-1).rate, 1)} at the end`;
  const drawing = el(
    "div", {},
    svg("svg", { class: "columns", viewBox: `0 0 ${rates.length} 100`, preserveAspectRatio: "none", role: "img", "aria-label": said }, ...rects),
    el("div", { className: "axis", "aria-hidden": "true" }, el("span", {}, clock.format(rates[0].at)), rates.length > 3 ? el("span", {}, clock.format(rates.at(-1).at)) : null),
  );
  drawing.style.maxWidth = `${Math.max(rates.length * 1.5, 5)}rem`; // a few columns are no walls
  return drawing;
}

/** Return all steps from the first to the last, those in which nothing came too; the last 120 of more. */
function fill({ step_s, points }) {
  if (!points.length) return [];
  const counts = new Map(points.map(({ at, count }) => [Date.parse(at), count]));
  const [first, last] = [Date.parse(points[0].at), Date.parse(points.at(-1).at)];
  const filled = [];
  for (let at = Math.max(first, last - (STEPS_MAX - 1) * step_s * 1000); at <= last; at += step_s * 1000) {
    filled.push({ at: new Date(at), count: counts.get(at) ?? 0 });
  }
  return filled;
}

/** Return a table of counts with a bar beside each, from [{name, count}]. */
export function bars(caption, names, entries) {
  const most = Math.max(1, ...entries.map(({ count }) => count));
  const rows = entries.map(({ name, count, more = [] }) => [
    name,
    number(count),
    ...more,
    svg("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { width: (count / most) * 100, height: 10 })),
  ]);
  return table(caption, [...names, el("span", { className: "unseen" }, "As a bar")], rows, { isCaptionSeen: true });
}
