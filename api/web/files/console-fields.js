// Fields of forms: credentials that are kept nowhere, and what the service finds wrong with a field, said beside it.

import { el, sentence } from "/web/console-dom.js";

const S3 = [
  ["access_key_id", "Access key id", "text"],
  ["secret_access_key", "Secret access key", "password"],
  ["region", "Region", "text"],
  ["session_token", "Session token (optional)", "password"],
  ["endpoint_url", "Endpoint (not Amazon's)", "url"],
];

/** Return the fields for credentials of a store, `s3` or `gcs`. They are sent once, and go with the page. */
export function credentialFields(prefix, store) {
  const made = el("fieldset", { className: "credentials" }, el("legend", {}, "Credentials"));
  made.showStore = (now) => {
    if (made.dataset.store === now) return;
    made.dataset.store = now;
    made.replaceChildren(made.firstChild, now === "gcs" ? gcs(prefix) : el("div", { className: "grid" }, S3.map(([name, text, type]) => field(prefix, name, text, type))), el("p", { className: "hint" }, "They are sent once, kept encrypted by the service for as long as the job needs them, and not kept by this page."));
  };
  made.showStore(store);
  addEventListener("pagehide", () => inputs(made).forEach((input) => { input.value = ""; }));
  return made;
}

function gcs(prefix) {
  const id = `${prefix}-service_account_json`;
  return el("div", {}, el("label", { htmlFor: id }, "Key file of the service account, as JSON"), el("textarea", { id, name: "service_account_json", rows: 4, spellcheck: false, autocomplete: "off", autocapitalize: "none", "data-field": "credentials.service_account_json" }));
}

function field(prefix, name, text, type) {
  const id = `${prefix}-${name}`;
  // Browsers offer to keep what looks like a new password only where they are told that it is none.
  const input = el("input", { id, name, type, autocomplete: type === "password" ? "one-time-code" : "off", spellcheck: false, autocapitalize: "none", "data-field": `credentials.${name}` });
  return el("div", {}, el("label", { htmlFor: id }, text), input);
}

function inputs(fieldset) {
  return [...fieldset.querySelectorAll("input, textarea")];
}

/** Return the credentials that were typed; null if there are none. */
export function readCredentials(fieldset) {
  const given = inputs(fieldset).filter((input) => input.value.trim()).map((input) => [input.name, input.value.trim()]);
  return given.length ? Object.fromEntries(given) : null;
}

/** What is wrong with the fields of a form: a sentence at each, and those without a field above the form. */
export class Faults {
  #form;
  #summary = el("div", { className: "bad faults", role: "alert" });

  constructor(form) {
    this.#form = form;
    form.prepend(this.#summary);
  }

  clear() {
    this.#summary.replaceChildren();
    for (const shown of this.#form.querySelectorAll(".fault")) shown.remove();
    for (const input of this.#form.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
  }

  show(error) {
    this.clear();
    const details = error.details ?? [];
    const unplaced = details.filter((fault) => !this.#place(fault));
    const lines = details.length ? [`Please look at ${details.length === 1 ? "one field" : `${details.length} fields`}.`, ...unplaced.map(({ field: name, message }) => `${name}: ${message}`)] : [sentence(error)];
    this.#summary.replaceChildren(...lines.map((line) => el("p", {}, line)));
    const first = this.#form.querySelector("[aria-invalid]");
    if (first) {
      for (let details = first.closest("details"); details; details = details.parentElement.closest("details")) details.open = true;
      first.focus();
    }
  }

  #place({ field: name, message }) {
    const input = this.#find(name);
    if (!input) return false;
    const id = `${input.id}-fault`;
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", id);
    const said = document.getElementById(id);
    if (said) said.textContent += ` ${message}`;
    else input.after(el("p", { id, className: "fault bad" }, message));
    return true;
  }

  /** Find the field, or the one that it is a part of: `label_spec.options[2]` is at `label_spec.options`. */
  #find(name) {
    const fields = [...this.#form.querySelectorAll("[data-field]")];
    for (let wanted = name; wanted; wanted = wanted.replace(/(\[\d+\]|\.?[^.[\]]+)$/, "")) {
      const found = fields.find((input) => input.dataset.field === wanted);
      if (found) return found;
    }
    return fields.find((input) => input.dataset.field.startsWith(`${name}.`));
  }
}
