// The list of jobs: its filter is in the address, its progress comes from the stream.

import { el, notice, number, time } from "/web/console-dom.js";
import { parts } from "/web/plots.js";
import { ask } from "/web/session.js";

const PAGE = 20;
const PAGE_MAX = 100;
const SETTLE_MS = 300; // jobs that the list has not come in a burst
const STATUSES = ["accepted", "processing", "completed", "failed", "cancelled"];

export async function show({ view, query, session }) {
  const isOperator = session.role === "admin";
  const state = notice("Loading…");
  const list = el("ul", { className: "jobs" });
  const more = el("button", { type: "button", hidden: true }, "Show more");
  const filter = { status: query.get("status") ?? "", search: query.get("search") ?? "", customer: query.get("customer") ?? "" };
  const customers = isOperator ? await names() : new Map();
  let cards = new Map();
  let cursor = null;
  let turn = Promise.resolve(); // the load that is under way, or was last
  let arrivals = 0; // jobs that the stream has told of since the list was read

  async function read(limit, after) {
    const asked = new URLSearchParams({ limit, ...(after ? { cursor: after } : {}) });
    for (const [name, value] of Object.entries(filter)) if (value) asked.set(name, value);
    return ask("GET", `/v1/jobs?${asked}`);
  }

  /** Show the next page, or all that is shown anew: then nothing is taken away that may be read. One after the other. */
  function load(isFirst) {
    if (!isFirst) more.disabled = true; // else a click that is half done would be lost
    turn = turn.then(() => loadNow(isFirst)).then(() => { more.disabled = false; });
    return turn;
  }

  async function loadNow(isFirst) {
    const wanted = isFirst ? Math.max(PAGE, cards.size + arrivals) : PAGE;
    const jobs = [];
    try {
      let after = isFirst ? null : cursor;
      if (isFirst) arrivals = 0;
      do {
        const page = await read(jobs.length < wanted ? Math.min(wanted - jobs.length, PAGE_MAX) : PAGE, after);
        jobs.push(...page.jobs);
        after = page.next_cursor;
      } while (isFirst && after && kept(jobs) < cards.size);
      for (const job of jobs) cards.get(job.job_id)?.update(job);
      arrange(isFirst ? jobs : [...[...cards.values()].map(({ job }) => job), ...jobs]);
      cursor = after;
      more.hidden = cursor === null;
      more.textContent = filter.search && jobs.length < PAGE ? "Search on" : "Show more";
      say();
    } catch (error) {
      state.fail(error);
    }
  }

  /** Count the jobs that are shown already; any, where some of these may be of another status by now. */
  function kept(jobs) {
    return filter.status ? jobs.length : jobs.filter(({ job_id }) => cards.has(job_id)).length;
  }

  /** Show the cards of jobs in their order. Those that are there already are left where they are, with the focus. */
  function arrange(jobs) {
    const shown = new Map(jobs.map((job) => [job.job_id, cards.get(job.job_id) ?? card(job, customers)]));
    for (const [id, { item }] of cards) if (!shown.has(id)) item.remove();
    let next = list.firstElementChild;
    for (const { item } of shown.values()) {
      if (item === next) next = next.nextElementSibling;
      else list.insertBefore(item, next);
    }
    cards = shown;
  }

  function say() {
    if (cards.size) state.say(`${number(cards.size)}${cursor ? " or more" : ""} ${cards.size === 1 && !cursor ? "job" : "jobs"}, newest first`);
    else if (cursor) state.say("None among the newest 1,000 jobs.");
    else if (filter.search || filter.status || filter.customer) state.say("No job is like that.");
    else state.say("There are no jobs yet.");
  }

  more.addEventListener("click", () => load(false));
  view.replaceChildren(
    el("div", { className: "title" }, el("h1", {}, isOperator ? "Jobs of all customers" : "Jobs"), isOperator ? null : el("a", { className: "button main", href: "/console?page=new" }, "New job")),
    form(filter, customers), state, list, more,
  );
  await load(true);
  const strangers = new Set(); // jobs of other pages, and new ones
  let loading = null;
  return {
    onBegin: () => load(true),
    onJob: (progress) => {
      const known = cards.get(progress.job_id);
      if (known) known.update(progress);
      if (known || strangers.has(progress.job_id)) return;
      strangers.add(progress.job_id);
      arrivals += 1;
      clearTimeout(loading);
      loading = setTimeout(() => load(true), SETTLE_MS);
    },
  };
}

/** Return the names of all customers by their ids, for an operator. */
async function names() {
  const { customers } = await ask("GET", "/v1/customers").catch(() => ({ customers: [] }));
  return new Map(customers.map(({ customer_id, name }) => [customer_id, name]));
}

function form(filter, customers) {
  const whose = [["", "all customers"], ...customers].map(([id, name]) => el("option", { value: id, selected: id === filter.customer }, name));
  const options = ["", ...STATUSES].map((status) => el("option", { value: status, selected: status === filter.status }, status || "any status"));
  return el(
    "form", { className: customers.size ? "filter wide" : "filter", role: "search", onsubmit: go },
    el("div", {}, el("label", { htmlFor: "search" }, "Search"), el("input", { id: "search", name: "search", type: "search", maxLength: 200, value: filter.search, placeholder: "id, question or manifest" })),
    el("div", {}, el("label", { htmlFor: "status" }, "Status"), el("select", { id: "status", name: "status" }, options)),
    customers.size ? el("div", {}, el("label", { htmlFor: "customer" }, "Customer"), el("select", { id: "customer", name: "customer" }, whose)) : null,
    el("button", {}, "Show"),
  );
}

// The policy lets no form be sent anywhere; its fields go into the address.
function go(event) {
  event.preventDefault();
  const asked = new URLSearchParams([...new FormData(event.target)].filter(([, value]) => value));
  location.assign(`/console${asked.size ? `?${asked}` : ""}`);
}

/** Return the entry of a job, and what updates it. */
function card(job, customers) {
  const status = el("span", { className: "status" });
  const waits = el("p", { className: "quiet" });
  const bar = el("div");
  const item = el(
    "li", {},
    el("h2", {}, el("a", { href: `/console?job=${encodeURIComponent(job.job_id)}` }, job.label_spec.question), " ", status),
    el("p", { className: "quiet address" }, `${customers.size ? `${customers.get(job.customer_id) ?? job.customer_id} · ` : ""}${job.job_id} · ${job.manifest.url} · `, time(job.created_at)),
    bar, waits,
  );
  function update(progress) {
    status.textContent = progress.status;
    status.className = `status ${progress.status}`;
    const open = progress.total_tasks - progress.tasks_done - progress.tasks_failed;
    bar.replaceChildren(progressBar(progress, open));
    waits.textContent = progress.waiting_for?.reason ?? "";
    waits.hidden = !progress.waiting_for;
  }
  update(job);
  return { job, item, update };
}

export function progressBar({ tasks_done, tasks_failed }, open) {
  return parts("Progress", [
    { name: "done", count: tasks_done, kind: "done" },
    { name: "failed", count: tasks_failed, kind: "failed" },
    { name: "open", count: open, kind: "open" },
  ]);
}
