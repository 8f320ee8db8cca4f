// Webhooks: where a customer is told, the secrets that sign it, and what was sent, with another try.

import { customerLink, loadNames } from "/web/console-customers.js";
import { confirm, el, notice, number, section, time } from "/web/console-dom.js";
import { Faults } from "/web/console-fields.js";
import { ask } from "/web/session.js";

const EVENTS = ["job.processing", "job.completed", "job.failed", "job.cancelled", "task.settled"];
const PAGE = 10;
const LOOK_MS = 2_000;
const LOOKS_MAX = 15;

export async function show({ view, session }) {
  const page = new WebhooksPage(session.role === "customer");
  view.replaceChildren(...page.elements);
  await page.load();
  return {};
}

class WebhooksPage {
  #isOwner; // an operator sees everybody's, and may send a message again
  #names = new Map(); // of customers by their ids, for an operator
  #state = notice("Loading…");
  #list = el("div");
  #others = el("div"); // that have messages in the log
  #secret = el("div", { role: "status" });

  constructor(isOwner) {
    this.#isOwner = isOwner;
  }

  get elements() {
    return [
      el("h1", {}, "Webhooks"), this.#secret, this.#state, this.#list, this.#others,
      ...(this.#isOwner ? [this.#form(), section("The default secret", el("p", {}, "It signs what goes to the callback URLs of jobs and tasks that are not registered here."), el("button", { type: "button", onclick: () => this.#rotate("default-secret", "the default secret") }, "New default secret…"))] : []),
    ];
  }

  async load() {
    try {
      if (!this.#isOwner) this.#names = await loadNames();
      const webhooks = [];
      let cursor = null;
      do {
        const query = new URLSearchParams({ all: "true", limit: 100, ...(cursor ? { cursor } : {}) });
        const page = await ask("GET", `/v1/webhooks?${query}`);
        webhooks.push(...page.webhooks);
        cursor = page.next_cursor;
      } while (cursor && webhooks.length < 500);
      const [own, others] = [true, false].map((isOwn) => webhooks.filter(({ registered }) => registered === isOwn).map((each) => this.#show(each)));
      this.#list.replaceChildren(...own);
      this.#others.replaceChildren(...(others.length ? [section("Not registered", el("p", { className: "quiet" }, "Deleted, or named by jobs or tasks alone; here as long as there are messages in their logs."), ...others)] : []));
      this.#state.say(own.length ? "" : "There are none yet.");
    } catch (error) {
      this.#state.fail(error);
    }
  }

  #show(webhook) {
    const path = `/v1/webhooks/${encodeURIComponent(webhook.webhook_id)}`;
    const log = el("div");
    const details = el("details", {}, el("summary", {}, "What was sent"), log);
    details.addEventListener("toggle", () => details.open && showLog(path, log));
    const buttons = [
      webhook.registered && el("button", { type: "button", onclick: () => this.#rotate(webhook.webhook_id, webhook.callback_url) }, "New secret…"),
      el("button", { type: "button", onclick: () => this.#remove(path, webhook) }, webhook.registered ? "Delete…" : "Drop what waits…"),
    ].filter(Boolean);
    return el(
      "section", { className: "webhook", "aria-label": webhook.callback_url },
      el("h2", { className: "address" }, webhook.callback_url),
      el("p", { className: "quiet" }, webhook.registered ? `Told of ${webhook.events.join(", ")}, since ` : "Since ", time(webhook.created_at)),
      this.#isOwner ? null : el("p", { className: "quiet" }, "Of ", customerLink(webhook.customer_id, this.#names)),
      webhook.disabled_at ? el("p", { className: "bad" }, "Switched off, as it has answered 410, since ", time(webhook.disabled_at)) : null,
      this.#isOwner ? el("div", { className: "row" }, buttons) : null,
      details,
    );
  }

  #form() {
    const url = el("input", { id: "w-url", type: "url", required: true, placeholder: "https://my-service.example/hook", "data-field": "callback_url" });
    const events = EVENTS.map((name) => el("input", { type: "checkbox", id: `w-${name}`, value: name, checked: true }));
    const made = el(
      "form", { noValidate: true },
      el("label", { htmlFor: "w-url" }, "Address, https"), url,
      el("fieldset", {}, el("legend", {}, "Told of"), events.map((input) => el("p", { className: "check" }, input, el("label", { htmlFor: input.id }, input.value)))),
      el("button", { className: "main" }, "Add it"),
    );
    const faults = new Faults(made);
    made.addEventListener("submit", async (event) => {
      event.preventDefault();
      faults.clear();
      event.submitter.disabled = true;
      try {
        const added = await ask("POST", "/v1/webhooks", { callback_url: url.value.trim(), events: events.filter(({ checked }) => checked).map(({ value }) => value) });
        made.reset();
        this.#showSecret(added.callback_url, added.secret);
        await this.load();
      } catch (error) {
        faults.show(error);
      }
      event.submitter.disabled = false;
    });
    return section("Add a webhook", made);
  }

  /** Show a secret this once: it is kept nowhere, and is gone with the page. */
  #showSecret(what, secret) {
    const place = el("output", { className: "secret" }, secret);
    this.#secret.replaceChildren(el("div", { className: "once" },
      el("p", {}, el("strong", {}, "The secret of "), el("span", { className: "address" }, what), ", shown this once. Keep it where your service reads it."),
      place,
      el("div", { className: "row" }, el("button", { type: "button", onclick: () => this.#secret.replaceChildren() }, "I have it")),
    ));
    this.#secret.scrollIntoView({ block: "nearest" });
  }

  async #rotate(id, what) {
    if (!(await confirm("Make a new secret?", `For a day ${what} is signed with the one before as well.`, "Make a new secret"))) return;
    try {
      const { secret } = await ask("POST", `/v1/webhooks/${encodeURIComponent(id)}/rotate`, {});
      this.#showSecret(what, secret);
    } catch (error) {
      this.#state.fail(error);
    }
  }

  async #remove(path, webhook) {
    const [title, text, yes, said] = webhook.registered
      ? ["Delete this webhook?", "Nothing more is sent to", "Delete it", "The webhook is deleted."]
      : ["Drop what waits?", "Nothing that happened so far is sent to", "Drop it", "Nothing waits any more."];
    if (!(await confirm(title, `${text} ${webhook.callback_url}: messages that wait are dropped. This cannot be undone.`, yes))) return;
    try {
      await ask("DELETE", path);
      await this.load();
      this.#state.say(said);
    } catch (error) {
      this.#state.fail(error);
    }
  }
}

/** Show the log of an endpoint, the newest first. */
async function showLog(path, place) {
  const state = notice("Loading…");
  const list = el("ul", { className: "log" });
  const more = el("button", { type: "button", hidden: true, onclick: () => next() }, "Show more");
  let cursor = null;
  place.replaceChildren(state, list, more);

  async function next() {
    try {
      const query = new URLSearchParams({ limit: PAGE, ...(cursor ? { cursor } : {}) });
      const page = await ask("GET", `${path}/deliveries?${query}`);
      list.append(...page.deliveries.map((message) => show(message)));
      cursor = page.next_cursor;
      more.hidden = cursor === null;
      state.say(list.children.length ? "" : "Nothing was sent yet.");
    } catch (error) {
      state.fail(error);
    }
  }

  function show(message) {
    const item = el("li");
    item.replaceChildren(...entry(message, () => replay(message, item)));
    return item;
  }

  /** Send a message again, and look what comes of it. */
  async function replay(message, item) {
    try {
      await ask("POST", `/v1/webhooks/deliveries/${encodeURIComponent(message.delivery_id)}/replay`);
      state.say("It is sent again.");
      for (let looks = 0; looks < LOOKS_MAX; looks += 1) {
        await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
        const { deliveries } = await ask("GET", `${path}/deliveries?limit=100`);
        const now = deliveries.find(({ delivery_id }) => delivery_id === message.delivery_id);
        if (!now || now.attempts.length <= message.attempts.length) continue;
        item.replaceChildren(...entry(now, () => replay(now, item)));
        state.say(`It was sent again: ${now.status}.`);
        return;
      }
      state.say("It is sent again as soon as it is its turn; load this page again later.");
    } catch (error) {
      state.fail(error);
    }
  }

  await next();
}

function entry(message, onReplay) {
  return [
    el("p", {}, el("span", { className: `status ${message.status}` }, message.status), ` ${message.event}, `, time(message.created_at), message.next_attempt_at ? [", next try ", time(message.next_attempt_at)] : null),
    el("ol", {}, message.attempts.map((each) => el("li", {}, time(each.attempted_at), `: ${each.status_code ?? each.error ?? "no answer"}, ${number(each.duration_ms)} ms${each.error && each.status_code ? `, ${each.error}` : ""}`))),
    el("details", {}, el("summary", {}, "Body"), el("code", { className: "raw", dir: "auto" }, message.body)),
    el("button", { type: "button", onclick: onReplay, "aria-label": `Send ${message.event} again, ${message.delivery_id}` }, "Send again"),
  ];
}
