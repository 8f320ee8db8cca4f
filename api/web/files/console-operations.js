// Operations, for those who run the service: who has how much of Prefect, what waits, and what was mended lately.

import { customerLink, loadNames } from "/web/console-customers.js";
import { el, isHttp, link, notice, number, section, span, table, time, whenFree } from "/web/console-dom.js";
import { ask } from "/web/session.js";

const LOOK_MS = 5_000;
const QUEUES = {
  runs_under_way: "Jobs that a run has in hand",
  runs_waiting: "Jobs that wait for a run",
  outbox: "Messages to Prefect",
  webhooks: "Messages to webhooks",
};

export async function show({ view }) {
  const state = notice("Loading…");
  const place = el("div");
  view.replaceChildren(el("h1", {}, "Operations"), state, place);

  let names = new Map();

  async function load() {
    try {
      const found = await ask("GET", "/v1/operations");
      const ids = [...found.customers, ...found.failing_endpoints].map(({ customer_id }) => customer_id);
      if (ids.some((id) => !names.has(id))) names = await loadNames();
      whenFree(place, () => place.replaceChildren(...report(found, names)));
      state.say("");
    } catch (error) {
      state.fail(error);
    }
    setTimeout(look, LOOK_MS);
  }

  function look() {
    if (document.hidden) document.addEventListener("visibilitychange", load, { once: true });
    else void load();
  }

  await load();
  return {};
}

function report(found, names) {
  const run = (id, text = "run") => (id && isHttp(found.prefect_ui_url) ? link(`${found.prefect_ui_url}/runs/flow-run/${encodeURIComponent(id)}`, text) : "–");
  const job = (id) => el("a", { href: `/console?job=${encodeURIComponent(id)}` }, id);
  const whose = (id) => customerLink(id, names);
  const count = (text) => ({ text, number: true });
  return [
    table("Queues", ["What waits", count("How many"), count("The first since")], found.queues.map((queue) => [QUEUES[queue.name] ?? queue.name, number(queue.depth), queue.oldest_s === null ? "–" : span(queue.oldest_s)]), { isCaptionSeen: true }),
    section("Customers", list(found.customers, "Nobody waits, and nothing is under way.", () => table("Shares of Prefect", ["Customer", count("Under way"), count("Waiting"), count("The first since")], found.customers.map((each) => [whose(each.customer_id), number(each.under_way), number(each.waiting), each.oldest_s === null ? "–" : span(each.oldest_s)])))),
    section("Work in hand", list(found.runs, "Prefect has nothing in hand.", () => table("Work that Prefect has in hand or that is in trouble", ["Job", "What", "Since", "In Prefect", count("Runs"), count("Failed tries"), "Why"], found.runs.map((each) => [job(each.job_id), each.kind.replace("_", " "), each.launched_at ? time(each.launched_at) : "waits", run(each.flow_run_id), number(each.launches), number(each.tries), each.reason])))),
    section("Outbox", list(found.outbox, "Prefect was told everything.", () => table("What Prefect was not told yet", ["Job", "What", "Since", count("Failed tries"), "Why"], found.outbox.map((each) => [job(each.job_id), each.event ?? each.kind.replace("_", " "), time(each.created_at), number(each.tries), each.last_error])))),
    section("Webhooks in trouble", list(found.failing_endpoints, "Every endpoint takes its messages.", () => table("Endpoints that do not take their messages", ["Endpoint", "Customer", count("Failures"), "Next try"], found.failing_endpoints.map((each) => [el("span", { className: "address" }, each.callback_url), whose(each.customer_id), number(each.failures), time(each.resumes_at)])))),
    section("Reconcile", found.reconciled === null ? el("p", { className: "bad" }, "Prefect does not answer.") : list(found.reconciled, "It has not run yet.", () => table("What reconcile has done lately", ["When", "What", "In Prefect"], found.reconciled.map((each) => [time(each.ended_at), each.message ?? each.state, run(each.flow_run_id)])))),
    isHttp(found.prefect_ui_url) ? el("p", {}, link(found.prefect_ui_url, "Prefect's own pages")) : null,
  ].filter(Boolean);
}

function list(entries, nothing, show) {
  return entries.length ? show() : el("p", { className: "quiet" }, nothing);
}
