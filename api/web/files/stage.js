// Where the task is: its picture, its text, or a sentence on why there is nothing to see.

import { el } from "/web/dom.js";
import { Frame, loadPicture } from "/web/picture.js";

const LOADING_MS = 150; // a picture that comes sooner is not announced
const SLOW_MS = 5000; // then one may answer without it

export class Stage {
  #part;
  #onOpen;
  #item = null;
  #timers = [];

  /** `onOpen(item)` is called when a task was painted, or may be answered without its picture. */
  constructor(stage, { onOpen, onSkip }) {
    this.#part = (name) => stage.querySelector(`#${name}`);
    this.#onOpen = onOpen;
    this.frame = new Frame(this.#part("picture"));
    for (const button of stage.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.frame.do(button.dataset.zoom));
    }
    this.#part("skip-broken").addEventListener("click", onSkip);
    this.#part("reload").addEventListener("click", () => {
      this.#item.picture = loadPicture(this.#item.task);
      this.show(this.#item);
    });
  }

  /** Show a task as soon as there is something to see of it. */
  show(item) {
    this.#item = item;
    this.#timers.forEach(clearTimeout);
    this.#timers = [];
    showMetadata(item.task.metadata);
    if (item.task.text !== undefined) this.#showText(item);
    else if (item.picture.isReady) this.#showPicture(item);
    else if (item.picture.isBroken) this.#showBroken(item);
    else this.#wait(item);
  }

  /** Show a sentence instead of a task. */
  say(text, { reloads = false, skips = false } = {}) {
    this.#only("message");
    this.#part("said").textContent = text;
    this.#part("reload").hidden = !reloads;
    this.#part("skip-broken").hidden = !skips;
    if (!reloads && !skips) showMetadata(undefined);
  }

  #showText(item) {
    this.#only("text");
    this.#part("text").textContent = item.task.text;
    this.#part("text").scrollTop = 0;
    afterPaint(() => this.#onOpen(item));
  }

  #showPicture(item) {
    this.#only("picture", "zoom");
    this.frame.show(item.picture.image);
    afterPaint(() => this.#onOpen(item));
    void item.picture.isCut.then((isCut) => { if (item === this.#item) this.#part("cut").hidden = !isCut; });
  }

  #showBroken(item) {
    this.say(item.task.unsigned_reason
      ? "This picture cannot be opened, as its job has no credentials for it. You can skip it."
      : "This picture cannot be shown. You can try again, skip it, or answer all the same.",
    { reloads: !item.task.unsigned_reason, skips: true });
    afterPaint(() => this.#onOpen(item));
  }

  #wait(item) {
    this.#only();
    const later = (ms, text) => {
      this.#timers.push(setTimeout(() => this.say(text, { skips: true }), ms));
    };
    later(LOADING_MS, "The picture is loading …");
    later(SLOW_MS, "The picture is still loading. You can wait, skip it, or answer all the same.");
    this.#timers.push(setTimeout(() => this.#onOpen(item), SLOW_MS));
    void item.picture.ended.then(() => { if (item === this.#item) this.show(item); });
  }

  #only(...names) {
    this.#part("cut").hidden = true;
    for (const name of ["picture", "text", "message", "zoom"]) this.#part(name).hidden = !names.includes(name);
  }
}

/** Call when the browser has painted what the page has now. */
function afterPaint(done) {
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(null);
  });
}

/** Show what the customer shows of a task's metadata, as text. */
function showMetadata(metadata) {
  const list = document.getElementById("metadata");
  const members = Object.entries(metadata ?? {});
  list.hidden = !members.length;
  list.replaceChildren(...members.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "string" ? value : JSON.stringify(value)))));
}
