// Which cases are shown, by the query of the page's address, and how many of them wait.

import { REASONS } from "/web/review-case.js";
import { ask } from "/web/session.js";

const COUNTED_MAX = 1000; // the service counts no further
const JOBS_MAX = 100;
const EVERY_MS = 20_000;
const SOON_MS = 3000;
const QUESTION_SHOWN = 60;

const $ = (id) => document.getElementById(id);

export class ReviewFilter extends EventTarget {
  #query = new URLSearchParams(location.search);
  #jobs = null; // as the service has counted them; null until it has
  #timer = null;
  #isSoon = false;

  constructor() {
    super();
    $("filter-reason").append(...Object.entries(REASONS).map(([value, name]) => new Option(name, value)));
    if (this.#get("reason") && !(this.#get("reason") in REASONS)) this.#query.delete("reason");
    this.#showJobs();
    $("filter-reason").value = this.#get("reason");
    $("filter-annotator").value = this.#get("annotator");
    $("filter").addEventListener("submit", (event) => this.#apply(event));
    $("show-filter").addEventListener("click", () => this.#toggle());
    const count = ["job", "reason", "annotator"].filter((name) => this.#get(name)).length;
    $("show-filter").textContent = count ? `Filter (${count})` : "Filter";
    document.addEventListener("visibilitychange", () => document.hidden || this.countSoon());
  }

  /** What a claim asks for. */
  get wanted() {
    const members = { job_id: this.#get("job"), reason: this.#get("reason"), annotator_id: this.#get("annotator") };
    return Object.fromEntries(Object.entries(members).filter(([, value]) => value));
  }

  get isSet() {
    return Object.keys(this.wanted).length > 0;
  }

  /** Whether any job under way has reviews; null while that is not known. */
  get hasQueues() {
    return this.#jobs && this.#jobs.length > 0;
  }

  /** How many cases wait that the filter may show, `isMore` if there are more; null while that is not known. */
  get waiting() {
    if (!this.#jobs) return null;
    const job = this.#get("job");
    const reasons = this.#get("reason") ? [this.#get("reason")] : Object.keys(REASONS);
    const counts = this.#jobs.filter((each) => !job || each.job_id === job)
      .flatMap((each) => reasons.map((reason) => each.waiting[reason]));
    const count = counts.reduce((sum, each) => sum + each, 0);
    return { count, isMore: counts.some((each) => each >= COUNTED_MAX) || this.#jobs.length >= JOBS_MAX };
  }

  /** Return the address of the same page with another annotator. */
  linkTo(annotatorId) {
    const query = new URLSearchParams(this.#query);
    query.set("annotator", annotatorId);
    return `/review?${query}`;
  }

  /** Offer the annotators of a case in the form. */
  offer({ review }) {
    const known = new Set([...$("annotators").options].map((each) => each.value));
    const ids = [...review.labels, ...review.skips].map((said) => said.annotator_id);
    $("annotators").append(...[...new Set(ids)].filter((id) => !known.has(id)).map((id) => new Option("", id)));
  }

  /** Count now, and every 20 seconds as long as somebody looks. */
  async count() {
    clearTimeout(this.#timer);
    this.#isSoon = false;
    try {
      const { jobs } = await ask("GET", `/v1/annotation/reviews?limit=${JOBS_MAX}`);
      const job = this.#get("job");
      if (job && !jobs.some((each) => each.job_id === job)) {
        jobs.push(...(await ask("GET", `/v1/annotation/reviews?job_id=${encodeURIComponent(job)}`)).jobs);
      }
      this.#jobs = jobs;
      this.#showJobs();
      this.dispatchEvent(new Event("change"));
    } catch {
      // The count that is shown stays; claims say whether the service answers.
    }
    this.#schedule(EVERY_MS);
  }

  /** Return those of some jobs that are under way no more; asks the service of those that it has not counted. */
  async findEnded(jobIds) {
    const uncounted = jobIds.filter((id) => !this.#jobs?.some((job) => job.job_id === id));
    const asked = uncounted.map((id) => ask("GET", `/v1/annotation/reviews?job_id=${encodeURIComponent(id)}`));
    const found = await Promise.all(asked);
    return new Set(uncounted.filter((_, n) => !found[n].jobs.length));
  }

  /** Count in a moment, as something has changed. */
  countSoon() {
    if (this.#isSoon) return;
    this.#isSoon = true;
    this.#schedule(SOON_MS);
  }

  #schedule(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => document.hidden || this.count(), ms);
  }

  #get(name) {
    return this.#query.get(name) ?? "";
  }

  #toggle() {
    $("filter").hidden = !$("filter").hidden;
    $("show-filter").ariaExpanded = String(!$("filter").hidden);
    if (!$("filter").hidden) $("filter-job").focus();
  }

  #apply(event) {
    event.preventDefault();
    const given = [...new FormData($("filter"))].map(([name, value]) => [name, value.trim()]);
    location.assign(`/review?${new URLSearchParams(given.filter(([, value]) => value))}`);
  }

  #showJobs() {
    if (document.activeElement === $("filter-job")) return; // it would close under the pointer
    const chosen = this.#get("job");
    const jobs = this.#jobs ?? [];
    const options = jobs.map((job) => new Option(jobName(job), job.job_id));
    if (chosen && !jobs.some((job) => job.job_id === chosen)) options.push(new Option(chosen, chosen));
    $("filter-job").replaceChildren(new Option("All jobs", ""), ...options);
    $("filter-job").value = chosen;
  }
}

function jobName({ job_id: id, question, waiting }) {
  const counts = Object.values(waiting);
  const more = counts.some((each) => each >= COUNTED_MAX) ? "+" : "";
  const short = question.length > QUESTION_SHOWN ? `${question.slice(0, QUESTION_SHOWN)}…` : question;
  return `${short} (${counts.reduce((sum, each) => sum + each, 0).toLocaleString("en")}${more} waiting, ${id})`;
}
