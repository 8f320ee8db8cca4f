// One job: how far it is, what it waits for, and what can be done about it. What takes longer to read has files of its own.

import { confirm, el, facts, link, notice, number, percent, section, span, time, whenFree } from "/web/console-dom.js";
import { showDelivery } from "/web/console-delivery.js";
import { showErrors } from "/web/console-errors.js";
import { progressBar } from "/web/console-jobs.js";
import { showDisagreements, showQuality } from "/web/console-quality.js";
import { columns } from "/web/plots.js";
import { ask } from "/web/session.js";

const LOOK_MS = 5_000; // while the job is under way; its bar follows the stream
const REPORT_MS = 20_000;
const HAPPENINGS = {
  submitted: "Submitted",
  started: "Begun",
  read: "All lines are read",
  annotator_excluded: "An annotator was excluded",
  labels_set_aside: "Their labels were set aside",
  settled: "All tasks have ended",
  ended: "Ended",
  delivered: "Delivered",
};

export async function show({ view, query, session }) {
  const jobId = query.get("job");
  const path = `/v1/jobs/${encodeURIComponent(jobId)}`;
  const state = notice();
  let job;
  try {
    job = await ask("GET", path);
  } catch (error) {
    view.replaceChildren(el("h1", {}, "Job"), state);
    state.say(error.status === 404 ? "You have no job of this id." : error.message, true);
    return {};
  }
  document.title = `${job.label_spec.question.slice(0, 60)} – Refinery Jobs`;
  const page = new JobPage(path, job, state, session.role === "admin");
  view.replaceChildren(...page.elements);
  await page.load();
  return {
    onBegin: () => page.load(),
    onJob: (progress) => progress.job_id === jobId && page.hear(progress),
  };
}

function isUnderWay(job) {
  return ["accepted", "processing"].includes(job.status) || ["pending", "delivering"].includes(job.delivery?.status);
}

class JobPage {
  #path;
  #job;
  #state;
  #isOperator;
  #timer = null;
  #reported = 0;
  #reportedAs = "";
  #places = Object.fromEntries(["head", "bar", "waits", "facts", "plots", "actions", "history"].map((name) => [name, el("div", { className: name })]));
  #plots = { lines: columns("Lines a second", 1), labels: columns("Labels an hour", 3600) };
  #sections;

  constructor(path, job, state, isOperator) {
    [this.#path, this.#job, this.#state, this.#isOperator] = [path, job, state, isOperator];
    this.#sections = [showQuality(path, job), showDisagreements(path, job), showErrors(path), showDelivery(path)];
    this.#places.plots.append(...Object.values(this.#plots));
    this.#show();
  }

  get elements() {
    const { head, bar, waits, facts: about, plots, actions, history } = this.#places;
    return [
      head, actions, this.#state, bar, waits,
      el("div", { className: "columns-2" }, section("Speed", plots), section("About", about)),
      ...this.#sections.map(({ element }) => element),
      section("History", history),
    ];
  }

  /** Read all of it, and again as long as it changes. */
  async load() {
    clearTimeout(this.#timer);
    try {
      const [job, timeline, { history }] = await Promise.all([ask("GET", this.#path), ask("GET", `${this.#path}/timeline`), ask("GET", `${this.#path}/history`)]);
      this.#job = job;
      this.#show();
      for (const [name, plot] of Object.entries(this.#plots)) plot.show(timeline[name]);
      this.#replace("history", el("ol", {}, history.map(happening)));
      const now = `${job.status} ${job.delivery?.status} ${job.tasks_failed > 0}`;
      if (now !== this.#reportedAs || Date.now() - this.#reported > REPORT_MS) this.#report(timeline, now);
      if (this.#state.classList.contains("bad")) this.#state.say("");
    } catch (error) {
      this.#state.fail(error);
    }
    if (isUnderWay(this.#job)) this.#timer = setTimeout(() => document.hidden || this.load(), LOOK_MS);
  }

  /** Show at once what the stream says. */
  hear(progress) {
    const before = this.#job;
    const delivery = before.delivery && { ...before.delivery, status: progress.delivery_status };
    this.#job = { ...before, ...progress, delivery, manifest: { ...before.manifest, lines_read: progress.lines_read } };
    this.#show();
    if (before.status !== progress.status || before.delivery?.status !== progress.delivery_status) this.load();
  }

  /** Read again what takes longer: at every turn of the job's life, and each 20 s. */
  #report(timeline, now) {
    [this.#reported, this.#reportedAs] = [Date.now(), now];
    for (const { load } of this.#sections) load(this.#job, timeline);
  }

  #show() {
    const job = this.#job;
    const open = job.total_tasks - job.tasks_done - job.tasks_failed;
    this.#replace("head",
      el("h1", {}, job.label_spec.question),
      el("p", { className: "quiet address" }, el("span", { className: `status ${job.status}` }, job.status), ` ${job.job_id}`),
    );
    this.#places.bar.replaceChildren(progressBar(job, open));
    this.#replace("waits", ...waiting(job));
    this.#replace("facts", about(job, this.#isOperator));
    const actions = this.#actions();
    const shown = [...this.#places.actions.children].map((child) => child.textContent).join();
    if (shown !== actions.map((each) => each.textContent).join()) this.#places.actions.replaceChildren(...actions); // the focus stays
  }

  #replace(name, ...children) {
    whenFree(this.#places[name], () => this.#places[name].replaceChildren(...children));
  }

  #actions() {
    const job = this.#job;
    const has = { cancel: ["accepted", "processing"].includes(job.status), results: ["completed", "cancelled"].includes(job.status) };
    return [
      has.results && el("a", { className: "button main", href: `${this.#path}/export`, download: `${job.job_id}.jsonl` }, "Export the results"),
      has.cancel && el("button", { type: "button", onclick: () => this.#cancel() }, "Cancel the job"),
      !this.#isOperator && el("a", { className: "button", href: `/console?page=new&like=${encodeURIComponent(job.job_id)}` }, "New job like this"),
    ].filter(Boolean);
  }

  async #cancel() {
    const text = "Nothing more is handed out, and open tasks fail. Results that are there can be exported. This cannot be undone.";
    if (!(await confirm("Cancel this job?", text, "Cancel the job"))) return;
    try {
      await ask("POST", `${this.#path}/cancel`);
      this.#state.say("The job is cancelled.");
    } catch (error) {
      this.#state.fail(error);
    }
    await this.load();
  }
}

function waiting(job) {
  const lines = [];
  if (job.error) lines.push(el("p", { className: "bad" }, `${job.error.message} (${job.error.code})`));
  const waits = job.waiting_for;
  if (waits) {
    const more = [
      ["since", time(waits.since)],
      waits.tries ? ["tries that failed", number(waits.tries)] : null,
      waits.next_try_at ? ["next try", time(waits.next_try_at)] : null,
      waits.gives_up_at ? ["gives up", time(waits.gives_up_at)] : null,
    ].filter(Boolean);
    lines.push(el("p", { className: "wait" }, el("strong", {}, `Waits for ${waits.what}. `), waits.reason), facts(more));
  }
  return lines;
}

function about(job, isOperator) {
  const { pace } = job;
  const rule = job.consensus.method === "weighted" ? `weighted, ${percent(job.consensus.target_confidence)}, ${job.consensus.labels_min}–${job.consensus.labels_max} labels` : `majority, ${job.consensus_threshold} ${job.consensus_threshold === 1 ? "label" : "labels"}${job.stop_early ? ", stops early" : ""}`;
  return facts([
    ["Done at", pace?.eta ? el("span", {}, time(pace.eta), ` (in ${span((Date.parse(pace.eta) - Date.now()) / 1000)})`) : pace ? "not known: nobody labels just now" : null],
    ["Labels an hour", pace?.labels_per_hour != null ? number(pace.labels_per_hour, 0) : null],
    ["Labels to come", pace ? `about ${number(pace.labels_left)}` : null],
    ["Customer", isOperator ? el("a", { href: `/console?customer=${encodeURIComponent(job.customer_id)}` }, job.customer_id) : null],
    ["Lines read", number(job.manifest.lines_read)],
    ["Progress", `${number(job.progress_percent, 1)} %`],
    ["Options", job.label_spec.options.join(", ")],
    ["Consensus", rule],
    ["Type", job.task_type],
    ["Manifest", el("span", { className: "address" }, job.manifest.url)],
    ["Priority", number(job.priority)],
    ["Submitted", time(job.created_at)],
    ["Ended", job.completed_at ? time(job.completed_at) : null],
    ["Told at", job.callback_url ? link(job.callback_url) : null],
    ["Metadata", job.metadata ? JSON.stringify(job.metadata) : null],
  ]);
}

function happening(line) {
  const more = [line.status, line.annotator_id, line.reason, line.labels_set_aside !== undefined ? `${number(line.labels_set_aside)} labels, ${number(line.tasks_reopened ?? 0)} tasks open again` : null].filter(Boolean);
  return el("li", {}, time(line.at), ` ${HAPPENINGS[line.event] ?? line.event}${more.length ? `: ${more.join(", ")}` : ""}`);
}
