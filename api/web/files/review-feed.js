// The cases that come next: claimed ahead, their pictures decoded, their leases renewed.
//
// A case belongs to the tab that holds its lock, so that two tabs of one reviewer never show the same one.

import { holdLock } from "/web/locks.js";
import { loadPicture } from "/web/picture.js";
import { ask } from "/web/session.js";

const AHEAD_MIN = 5; // so many after the one that is shown have their pictures decoded, if there are as many
const CLAIM_MAX = 5;
const LEASE_S = 180; // short, so that what a page leaves behind goes to others soon
const RENEW_MS = 60_000;
const HELD_MAX = 500;

export class ReviewFeed extends EventTarget {
  #wanted; // what a claim asks for: job_id, reason, annotator_id
  #decidedIds;
  #ahead = []; // {task, picture} in the order in which they are shown
  #later = []; // what the reviewer has put off: it comes when nothing else is left
  #locks = new Map(); // by the ids of the tasks that are held: what lets go of each
  #filling = null;
  #isUnsure = true; // whether something may be held that this page does not know of

  /** Cases for these members of a claim, but for those of `decidedIds()`. */
  constructor(wanted, decidedIds) {
    super();
    this.#wanted = wanted;
    this.#decidedIds = decidedIds;
    setInterval(() => this.renew(), RENEW_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.renew());
  }

  /** Return the next case as `{task, picture}`; null where there is none now. */
  async next() {
    if (!this.#ahead.length) await this.#fill();
    const first = this.#ahead.shift() ?? this.#later.shift();
    if (this.#ahead.length < AHEAD_MIN) this.#fill().catch(() => {}); // told when the next case is asked for
    return first ?? null;
  }

  /** Show a case again before the others. */
  putBack(item) {
    this.#ahead.unshift(item);
  }

  /** Show a case again when nothing else is left. */
  putOff(item) {
    this.#later.push(item);
  }

  /** Renew cases no more. */
  forget(taskIds) {
    for (const id of taskIds) {
      this.#locks.get(id)?.();
      this.#locks.delete(id);
    }
  }

  /** Let go of the cases of some jobs, which are under way no more, and of others that somebody has in hand. */
  dropJobs(jobIds, inHand) {
    const cases = [...this.#ahead, ...this.#later, ...inHand].map(({ task }) => task);
    this.#drop(cases.filter(({ review }) => jobIds.has(review.job_id)).map((task) => task.task_id), true);
  }

  /** The ids of jobs that have cases here which are neither shown nor decided. */
  get jobIds() {
    return [...this.#ahead, ...this.#later].map(({ task }) => task.review.job_id);
  }

  /** The ids of cases that were claimed, and are neither shown nor decided. */
  get unseen() {
    return [...this.#ahead, ...this.#later].map(({ task }) => task.task_id);
  }

  /** Hold what is held for longer; drop what others may have by now. */
  async renew() {
    const ids = [...this.#locks.keys()].slice(0, HELD_MAX);
    if (!ids.length) return;
    try {
      const { results } = await ask("POST", "/v1/annotation/renew", { task_ids: ids, lease_seconds: LEASE_S });
      this.#drop(results.filter((each) => each.outcome === "not_held").map((each) => each.task_id));
    } catch {
      // The next time; a decision counts as long as nobody else was handed the case.
    }
  }

  #fill() {
    this.#filling ??= this.#claim().finally(() => { this.#filling = null; });
    return this.#filling;
  }

  async #claim() {
    if (this.#isUnsure) await this.#findHeld();
    if (this.#ahead.length >= AHEAD_MIN) return;
    this.#isUnsure = true; // until the answer is here
    const body = { limit: CLAIM_MAX, lease_seconds: LEASE_S, ...this.#wanted };
    const { tasks } = await ask("POST", "/v1/annotation/claim?queue=review", body);
    this.#isUnsure = false;
    await this.#add(tasks);
  }

  /** Find what an earlier page held, or a claim whose answer was lost; hand back what is not wanted now. */
  async #findHeld() {
    const { tasks } = await ask("GET", `/v1/annotation/leases?queue=review&limit=${HELD_MAX}`);
    await this.#add(tasks);
    this.#isUnsure = false;
    const unwanted = this.#ahead.filter(({ task }) => !this.#isWanted(task)).map(({ task }) => task.task_id);
    if (!unwanted.length) return;
    this.#drop(unwanted);
    await ask("POST", "/v1/annotation/release", { task_ids: unwanted });
  }

  #isWanted({ review }) {
    const { job_id: jobId, reason, annotator_id: annotatorId } = this.#wanted;
    return (!jobId || review.job_id === jobId)
      && (!reason || review.reason === reason)
      && (!annotatorId || [...review.labels, ...review.skips].some((said) => said.annotator_id === annotatorId));
  }

  async #add(tasks) {
    for (const task of tasks) {
      const { task_id: id } = task;
      if (this.#locks.has(id) || this.#decidedIds().has(id)) continue;
      const release = await holdLock(`refinery-review/${id}`);
      if (!release) continue; // another tab shows it
      this.#locks.set(id, release);
      this.#ahead.push({ task, picture: loadPicture(task) });
    }
  }

  #drop(taskIds, hasEnded = false) {
    const lost = new Set(taskIds);
    if (!lost.size) return;
    this.forget(lost);
    this.#ahead = this.#ahead.filter(({ task }) => !lost.has(task.task_id));
    this.#later = this.#later.filter(({ task }) => !lost.has(task.task_id));
    this.dispatchEvent(new CustomEvent("lost", { detail: { taskIds: lost, hasEnded } }));
  }
}
