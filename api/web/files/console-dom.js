// What the console's pages are made of: tables, sections, pictures, numbers, and when a place may change.

import { el } from "/web/dom.js";
import { setSource } from "/web/picture.js";

export { el };

/** Return a table: `heads` are texts or elements, or {text, number}; each of `rows` has a text or an element for each of them. */
export function table(caption, heads, rows, { isCaptionSeen = false } = {}) {
  const columns = heads.map((head) => (typeof head === "string" || head instanceof Node ? { text: head } : head));
  const cell = (content, n) =>
    el(n === 0 ? "th" : "td", { scope: n === 0 ? "row" : undefined, className: columns[n].number ? "number" : "" }, content ?? "–");
  return el(
    "div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": caption },
    el(
      "table", {},
      el("caption", { className: isCaptionSeen ? "" : "unseen" }, caption),
      el("thead", {}, el("tr", {}, columns.map(({ text, number }) => el("th", { scope: "col", className: number ? "number" : "" }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
    ),
  );
}

/** Return names and values as a list; those without a value are left out. */
export function facts(entries) {
  return el("dl", {}, entries.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** Return an http(s) address as a link to a new tab, and any other one as the text that it is. */
export function link(address, text = address) {
  return isHttp(address) ? el("a", { href: address, target: "_blank", rel: "noreferrer" }, text) : el("span", {}, text);
}

/** Return a picture with its frame: what is no http(s) address, and what does not load, is shown as text. */
export function picture(address, alt) {
  if (!isHttp(address)) return el("p", { className: "quiet address" }, `Not shown here: ${address}`);
  const failed = el("p", { className: "quiet address", hidden: true }, "This picture does not load: ", link(address));
  const image = el("img", { alt, loading: "lazy" });
  image.addEventListener("error", () => {
    image.hidden = true;
    failed.hidden = false;
  });
  setSource(image, address);
  return el("div", { className: "picture" }, image, failed);
}

/** Return text as it stands in a file: what is not seen, or turns the text around, as escapes. */
export function raw(text) {
  const shown = text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
  return el("code", { className: "raw", dir: "auto" }, shown);
}

export function isHttp(address) {
  return /^https?:\/\//i.test(address);
}

/** Return a section with a heading, and the place for what is in it. */
export function section(title, ...children) {
  const id = `s-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);
}

/** Return a line that says how something goes, read out when it changes. */
export function notice(text = "") {
  const shown = el("p", { className: "notice", role: "status" }, text);
  shown.say = (now, isBad = false) => {
    shown.textContent = now;
    shown.classList.toggle("bad", isBad);
  };
  shown.fail = (error) => shown.say(sentence(error), true);
  return shown;
}

/** Return what an error says to people. */
export function sentence(error) {
  if (error instanceof TypeError) return "The service cannot be reached. Try again in a moment.";
  return error.message;
}

/** Ask a question in a dialog; return whether the answer is yes. */
export function confirm(title, text, yes) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  document.getElementById("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

const FREE_MS = 500; // a click that takes the focus away is over by then
const waiting = new Map(); // what is to be done with each place as soon as nobody uses it
let looking = null;

/** Change a place as soon as nobody uses it: has focus or a selection there, has opened something, or answers a dialog. The last change counts. */
export function whenFree(place, change) {
  waiting.set(place, change);
  changeFree();
}

/** Change a place at once, as its own user wants it. */
export function changeNow(place, change) {
  waiting.delete(place);
  change();
}

function changeFree() {
  for (const [place, change] of waiting) {
    if (isUsed(place)) continue;
    waiting.delete(place);
    change();
  }
}

function isUsed(place) {
  const selection = getSelection();
  return place.contains(document.activeElement)
    || (!selection.isCollapsed && selection.containsNode(place, true))
    || place.querySelector("details[open]") !== null
    || document.querySelector("dialog[open]") !== null;
}

for (const event of ["focusout", "selectionchange", "toggle", "close"]) {
  document.addEventListener(event, () => {
    clearTimeout(looking);
    if (waiting.size) looking = setTimeout(changeFree, FREE_MS);
  }, true);
}

const NUMBER = new Intl.NumberFormat("en");
const TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

export function number(value, digits) {
  if (value === null || value === undefined) return "–";
  return digits === undefined ? NUMBER.format(value) : value.toLocaleString("en", { maximumFractionDigits: digits });
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${number(share * 100, 1)} %`;
}

/** Return a moment as an element that has it for programs too. */
export function time(at) {
  return at ? el("time", { dateTime: at }, TIME.format(new Date(at))) : "–";
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const n = count < 1000 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), units.length - 1);
  return `${number(count / 1000 ** n, n ? 1 : 0)} ${units[n]}`;
}

/** Return a span of seconds in its two largest units. */
export function span(seconds) {
  const units = [["day", 86_400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, size] of units) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count && parts.length < 2) parts.push(`${number(count)} ${unit}${unit === "day" && count > 1 ? "s" : ""}`);
  }
  return parts.join(" ") || "0 s";
}
