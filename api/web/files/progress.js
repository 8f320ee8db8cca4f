// How far one is: labels today as the service counts them, and what this tab has seen of the job and of the hour.

import { ask } from "/web/session.js";
import { jobOf } from "/web/feed.js";

const COUNTS = "refinery-counts"; // of this tab, by job
const PAUSE_MS = 60_000; // a longer gap between two answers is no work
const REFRESH_MS = 60_000;
const PACE_MIN = 5; // answers before a pace is told

export class Progress extends EventTarget {
  #today = null;
  #counts = keptCounts();
  #gaps = []; // between answers of the last while, in milliseconds
  #last = null;
  #job = null;

  constructor() {
    super();
    setInterval(() => this.refresh(), REFRESH_MS);
  }

  /** Ask the service how much was done today. */
  async refresh() {
    try {
      this.#today = (await ask("GET", "/v1/annotation/me")).labels_today;
      this.dispatchEvent(new Event("change"));
    } catch {
      // The next time.
    }
  }

  /** Show the counts of the job of this task. */
  of(task) {
    this.#job = jobOf(task.task_id);
    this.dispatchEvent(new Event("change"));
  }

  /** Count an answer, or one that was taken back. */
  count(task, number) {
    const job = jobOf(task.task_id);
    this.#counts[job] = Math.max((this.#counts[job] ?? 0) + number, 0);
    keep(this.#counts);
    const now = performance.now();
    if (number > 0 && this.#last !== null) this.#gaps = [...this.#gaps, Math.min(now - this.#last, PAUSE_MS)].slice(-100);
    this.#last = now;
    this.dispatchEvent(new Event("change"));
  }

  /** Count labels that the service has taken. */
  taken(labels) {
    if (this.#today !== null) this.#today += labels;
    this.dispatchEvent(new Event("change"));
  }

  /** Say it in words. */
  toString() {
    const pace = this.#gaps.length >= PACE_MIN
      ? Math.round(3_600_000 * this.#gaps.length / this.#gaps.reduce((sum, gap) => sum + gap, 0))
      : null;
    return [
      this.#today === null ? null : `${this.#today} today`,
      this.#job === null ? null : `${this.#counts[this.#job] ?? 0} of this job in this tab`,
      pace === null ? null : `${pace} an hour`,
    ].filter(Boolean).join(" · ");
  }
}

/** Return the counts of this tab from before a reload; none where they cannot be read. */
function keptCounts() {
  try {
    return JSON.parse(sessionStorage.getItem(COUNTS)) ?? {};
  } catch {
    return {};
  }
}

function keep(counts) {
  try {
    sessionStorage.setItem(COUNTS, JSON.stringify(counts));
  } catch {
    // Then they begin anew with the next load.
  }
}
