// Asks why a task is skipped, and for a note. The task is the one for which it was opened, whatever is shown since.

import { keysOf } from "/web/hotkeys.js";

export class SkipDialog {
  #dialog;
  #note;
  #skip;
  #item = null;

  /** `skip({skip, note?}, item)` is called with the reason that was chosen, and what `open` was called with. */
  constructor(dialog, skip) {
    this.#dialog = dialog;
    this.#note = dialog.querySelector("textarea");
    this.#skip = skip;
    const reasons = [...dialog.querySelectorAll("[data-reason]")];
    for (const button of reasons) {
      button.addEventListener("click", () => this.#choose(button.dataset.reason));
    }
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("keydown", (event) => {
      if (event.target === this.#note || event.repeat) return;
      const at = keysOf(event).map(Number).find((number) => number >= 1 && number <= reasons.length);
      if (at) {
        event.preventDefault();
        reasons[at - 1].click();
      }
    });
  }

  open(item) {
    this.#item = item;
    this.#note.value = "";
    this.#dialog.showModal();
  }

  #choose(reason) {
    const note = this.#note.value.trim();
    this.#dialog.close();
    this.#skip({ skip: reason, ...(note && { note }) }, this.#item);
  }
}
