// The instructions of a job, beside its tasks: open the first time, and again when their version changes.

import { el } from "/web/dom.js";
import { render } from "/web/markdown.js";
import { ask } from "/web/session.js";

const READ = "refinery-instructions-read";
const READ_MAX = 200; // versions

export class Instructions {
  #panel;
  #text;
  #button;
  #version = null;

  constructor(panel, text, button) {
    this.#panel = panel;
    this.#text = text;
    this.#button = button;
    button.addEventListener("click", () => this.toggle(panel.hidden));
  }

  /** Show what a task's `instructions` name, `{job_id, version}`; nothing for undefined. */
  async show(wanted) {
    const version = wanted?.version ?? null;
    if (version === this.#version) return;
    this.#version = version;
    this.#button.hidden = version === null;
    this.toggle(false);
    if (version === null) return;
    this.#text.replaceChildren("The instructions are loading …");
    const isNew = !readVersions().includes(version);
    if (isNew) this.toggle(true);
    const text = await this.#load(wanted);
    if (version !== this.#version) return;
    this.#text.replaceChildren(...(text === null ? [this.#retry(wanted)] : render(text)));
    if (isNew && text !== null) note(version);
  }

  toggle(isOpen) {
    this.#panel.hidden = !isOpen || this.#version === null;
    this.#button.setAttribute("aria-expanded", String(!this.#panel.hidden));
  }

  async #load(wanted) {
    try {
      return (await ask("GET", `/v1/annotation/jobs/${wanted.job_id}`)).instructions ?? "";
    } catch {
      return null;
    }
  }

  #retry(wanted) {
    const again = () => {
      this.#version = null;
      void this.show(wanted);
    };
    return el("button", { type: "button", onclick: again }, "The instructions could not be loaded. Try again");
  }
}

/** Return the versions that were read on this device; none where that cannot be told. */
function readVersions() {
  try {
    const versions = JSON.parse(localStorage.getItem(READ));
    return Array.isArray(versions) ? versions : [];
  } catch {
    return [];
  }
}

function note(version) {
  try {
    localStorage.setItem(READ, JSON.stringify([...readVersions(), version].slice(-READ_MAX)));
  } catch {
    // Then they are open again the next time.
  }
}
