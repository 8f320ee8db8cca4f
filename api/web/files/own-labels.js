// One's last labels, and a way to change one as long as its task takes labels.

import { el } from "/web/dom.js";
import { ask, isSignedOut } from "/web/session.js";

const SHOWN = 50;

export class OwnLabels {
  #dialog;
  #said;
  #list;
  #change;
  #signedOut;

  /** `change({task, standing, isChange})` is called with a task to answer again, `signedOut()` if it is another's turn. */
  constructor(dialog, change, signedOut) {
    this.#dialog = dialog;
    this.#said = dialog.querySelector("[role=status]");
    this.#list = dialog.querySelector("ol");
    this.#change = change;
    this.#signedOut = signedOut;
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  }

  async open() {
    this.#list.replaceChildren();
    this.#said.textContent = "Your labels are loading …";
    this.#dialog.showModal();
    try {
      const { labels } = await ask("GET", `/v1/annotation/me/labels?limit=${SHOWN}`);
      // One that was changed is listed each time that it was handed in.
      const latest = labels.filter(({ task_id }, n) => n === labels.findIndex((each) => each.task_id === task_id));
      this.#list.replaceChildren(...latest.map((label) => this.#row(label)));
      this.#said.textContent = labels.length ? "" : "The service has no label of yours yet.";
    } catch (error) {
      this.#tell(error);
    }
  }

  #row({ task_id, label, created_at }) {
    const what = label ?? "taken back";
    const when = new Date(created_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const change = ({ target }) => this.#open(task_id, target);
    return el(
      "li", {}, el("time", { dateTime: created_at }, when), el("span", {}, what),
      el("button", { type: "button", "aria-label": `Change “${what}” of ${when}`, onclick: change }, "Change"),
    );
  }

  async #open(taskId, button) {
    button.disabled = true;
    try {
      const task = await ask("GET", `/v1/annotation/me/labels/${taskId}`);
      this.#dialog.close();
      this.#change({ task, standing: { label: task.label }, isChange: true });
    } catch (error) {
      if (error.status === 404) button.replaceWith(el("span", { className: "quiet" }, "cannot be changed any more"));
      else button.disabled = false;
      this.#tell(error);
    }
  }

  #tell(error) {
    const message = error.status === 404 ? "That task needs no more answers, so yours stays as it is." : error.message;
    this.#said.textContent = error.status ? message : "The service cannot be reached. Try again.";
    if (isSignedOut(error)) this.#signedOut();
  }
}
