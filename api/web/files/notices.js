// Short messages that stay until they are closed; the same one again is counted. A new question stays in sight, so that
// it is another one is news for a while only.

import { el } from "/web/dom.js";

const SHOWN_MAX = 3;
const NEWS_MS = 10_000;
const COUNT = new WeakMap();

/** Show a sentence. Of those of one kind with the same text there is one, with its number. */
export function tell(text, { kind }) {
  const list = document.getElementById("notices");
  const same = [...list.children].find((each) => each.dataset.kind === kind && each.dataset.text === text);
  const notice = same ?? made(text, kind);
  const count = (COUNT.get(notice) ?? 0) + 1;
  COUNT.set(notice, count);
  const what = kind === "refused" ? `${count === 1 ? "An answer was" : `${count} answers were`} not taken. ${text}` : text;
  notice.firstChild.textContent = what;
  if (kind === "question") [...list.children].filter((each) => each.dataset.kind === kind).forEach((each) => each.remove());
  list.append(notice);
  if (kind === "question") setTimeout(() => notice.remove(), NEWS_MS);
  while (list.children.length > SHOWN_MAX) list.firstChild.remove();
}

function made(text, kind) {
  const notice = el("p", { "data-kind": kind, "data-text": text }, el("span"),
    el("button", { type: "button", "aria-label": "Close this message", onclick: () => notice.remove() }, "✕"));
  return notice;
}
