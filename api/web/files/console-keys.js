// Keys: who may come in, and with what. A key and a link are shown once, and kept nowhere but on the screen.

import { loadNames } from "/web/console-customers.js";
import { confirm, el, notice, section, time } from "/web/console-dom.js";
import { Faults } from "/web/console-fields.js";
import { IdempotencyKeys, ask } from "/web/session.js";

const PAGE = 50;
const NO_NAME = "without a name";
const ROLES = [["customer", "Customer: submits jobs"], ["annotator", "Annotator: labels"], ["reviewer", "Reviewer: labels and decides"]];

export async function show({ view, session }) {
  const page = new KeysPage(session.role === "admin");
  view.replaceChildren(...page.elements);
  await page.begin();
  return {};
}

class KeysPage {
  #isOperator;
  #names = new Map(); // of customers by their ids, for an operator
  #state = notice("Loading…");
  #once = el("div", { role: "status" });
  #list = el("div");
  #more = el("button", { type: "button", hidden: true, onclick: () => this.#next() }, "Show more");
  #form = el("div");
  #cursor = null;
  #idempotencyKeys = new IdempotencyKeys();

  constructor(isOperator) {
    this.#isOperator = isOperator;
  }

  get elements() {
    return [el("h1", {}, "Keys"), this.#once, this.#state, this.#list, this.#more, this.#form];
  }

  async begin() {
    try {
      if (this.#isOperator) this.#names = await loadNames();
      this.#form.replaceChildren(this.#buildForm());
    } catch (error) {
      this.#state.fail(error);
      return;
    }
    await this.load();
  }

  async load() {
    this.#cursor = null;
    this.#list.replaceChildren();
    await this.#next();
  }

  async #next() {
    try {
      const query = new URLSearchParams({ limit: PAGE, ...(this.#cursor ? { cursor: this.#cursor } : {}) });
      const page = await ask("GET", `/v1/keys?${query}`);
      this.#list.append(...page.keys.map((key) => this.#show(key)));
      this.#cursor = page.next_cursor;
      this.#more.hidden = this.#cursor === null;
      this.#state.say("");
    } catch (error) {
      this.#state.fail(error);
    }
  }

  #show(key) {
    const title = key.name ?? NO_NAME;
    const isOperators = key.role === "admin";
    return el(
      "section", { className: "webhook", "aria-label": `${title}, ${key.key_id}` },
      el("h2", {}, title, " ", el("span", { className: `status ${key.revoked_at ? "failed" : ""}` }, key.revoked_at ? "revoked" : isOperators ? "operator" : key.role)),
      el("p", { className: "quiet address" }, key.prefix ? `${key.prefix}…, ` : null, key.key_id, this.#whose(key)),
      el("p", { className: "quiet" }, "Made ", time(key.created_at), ", ", key.last_used_at ? ["used last ", time(key.last_used_at)] : "never used", key.revoked_at ? [", revoked ", time(key.revoked_at)] : null),
      key.current ? el("p", { className: "quiet" }, "You are signed in with this key.") : null,
      key.revoked_at || isOperators ? null : el("div", { className: "row" },
        el("button", { type: "button", onclick: () => this.#link(key), "aria-label": `New sign-in link for ${title}` }, "New sign-in link"),
        el("button", { type: "button", onclick: () => this.#revoke(key), "aria-label": `Revoke ${title}` }, "Revoke…")),
    );
  }

  #whose(key) {
    if (!this.#isOperator) return null;
    const of = (id) => this.#names.get(id) ?? id;
    if (key.role === "customer") return `, of ${of(key.customer_id)}`;
    return key.role === "admin" ? null : `, handed the tasks of ${key.customer_ids === null ? "everybody" : key.customer_ids.map(of).join(", ") || "nobody"}`;
  }

  #buildForm() {
    const name = el("input", { id: "k-name", type: "text", maxLength: 200, autocomplete: "off", "data-field": "name" });
    const role = el("select", { id: "k-role", "data-field": "role" }, ROLES.map(([value, text]) => el("option", { value }, text)));
    const customer = el("select", { id: "k-customer", "data-field": "customer_id" }, el("option", { value: "" }, "–"), [...this.#names].map(([value, text]) => el("option", { value }, text)));
    const made = el(
      "form", { noValidate: true },
      this.#isOperator ? [
        el("div", {}, el("label", { htmlFor: role.id }, "What it may do"), role),
        el("div", {}, el("label", { htmlFor: customer.id }, "Customer"), customer, el("p", { className: "hint" }, "Whose key it is. Of an annotator: whose tasks they are handed besides those of customers named before. An annotator for whom none was ever named is handed everybody's; the first one that is named limits them to it.")),
      ] : null,
      el("div", {}, el("label", { htmlFor: name.id }, "Name"), name, el("p", { className: "hint" }, this.#isOperator ? "Where a customer's key is used; of an annotator, who it is for." : "Where it is used, such as: nightly export.")),
      el("button", { className: "main" }, "Make a key"),
    );
    const faults = new Faults(made);
    made.addEventListener("submit", async (event) => {
      event.preventDefault();
      faults.clear();
      event.submitter.disabled = true;
      const body = { name: name.value.trim() || undefined, ...(this.#isOperator ? { role: role.value, customer_id: customer.value || undefined } : {}) };
      try {
        const key = await ask("POST", "/v1/keys", body, { "Idempotency-Key": this.#idempotencyKeys.of(body) });
        this.#idempotencyKeys.forget();
        made.reset();
        await this.load();
        this.#showOnce(`The key ${key.name ?? NO_NAME}`, [["Key", key.key], ["Sign-in link, good for one browser", key.sign_in_link]]);
      } catch (error) {
        faults.show(error);
      }
      event.submitter.disabled = false;
    });
    return section("Make a key", made, this.#isOperator ? null : el("p", { className: "quiet" }, "Annotators and reviewers get their keys from the operator of the service."));
  }

  /** Show secrets this once: they are kept nowhere, and are gone with the page. */
  #showOnce(what, secrets) {
    const forget = () => this.#once.replaceChildren();
    addEventListener("pagehide", forget, { once: true });
    this.#once.replaceChildren(el("div", { className: "once" },
      el("p", {}, el("strong", {}, what), ", shown this once. Whoever has it can come in: keep it where nobody else reads it."),
      secrets.map(([name, secret]) => {
        const place = el("output", { className: "secret", "aria-label": name }, secret);
        return [el("p", { className: "quiet" }, name), place, el("div", { className: "row" }, el("button", { type: "button", "aria-label": `Copy: ${name}`, onclick: (event) => copy(place, event.target) }, "Copy"))];
      }).flat(),
      el("div", { className: "row" }, el("button", { type: "button", className: "main", onclick: forget }, "I have it")),
    ));
    this.#once.scrollIntoView({ block: "nearest" });
  }

  async #link(key) {
    try {
      const { sign_in_link } = await ask("POST", `/v1/keys/${encodeURIComponent(key.key_id)}/sign-in-link`);
      this.#showOnce(`A link for ${key.name ?? NO_NAME}`, [["Sign-in link, good for one browser", sign_in_link]]);
    } catch (error) {
      this.#state.fail(error);
    }
  }

  async #revoke(key, isLast = false) {
    const text = key.current
      ? "You are signed in with it, and are signed out by this. What uses it stops working at once. This cannot be undone."
      : "What uses it stops working at once, and browsers that are signed in with it are signed out. This cannot be undone.";
    const last = "It is your last good key: then only the operator of the service can let you in again.";
    if (!(await confirm(`Revoke ${key.name ?? key.key_id}?`, isLast ? last : text, isLast ? "Revoke the last key" : "Revoke it"))) return;
    try {
      const { tasks_returned } = await ask("DELETE", `/v1/keys/${encodeURIComponent(key.key_id)}${isLast ? "?last=true" : ""}`);
      if (key.current) {
        location.assign("/");
        return;
      }
      await this.load();
      this.#state.say(tasks_returned ? `The key is revoked. ${tasks_returned} tasks of its annotator went back to others.` : "The key is revoked.");
    } catch (error) {
      if (error.code === "last_key" && !isLast) await this.#revoke(key, true);
      else this.#state.fail(error);
    }
  }
}

/** Copy a secret; where the browser does not allow that, select it, so that it can be copied by hand. */
async function copy(place, button) {
  try {
    await navigator.clipboard.writeText(place.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(place);
    button.textContent = "Selected: copy it by hand";
  }
}
