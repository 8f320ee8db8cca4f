// The tasks that come next, to be labelled or reviewed: claimed ahead, their pictures decoded, their leases renewed.
//
// A task belongs to the tab that holds its lock, so that two tabs of one person never show the same one. The service
// may still name a task as held whose answer is on its way.

import { holdLock } from "/web/locks.js";
import { loadPicture } from "/web/picture.js";
import { ask, sendLast } from "/web/session.js";

const AHEAD_MIN = 5; // so many tasks after the one that is shown have their pictures decoded
const CLAIM_MAX = 5;
const LEASE_S = 180; // short, so that what a page leaves behind goes to others soon
const RENEW_MS = 60_000;
const HELD_MAX = 500;

export class Feed extends EventTarget {
  ahead = []; // {task, picture, standing} in the order in which they are shown
  #locks = new Map(); // by the ids of the tasks that are held: what lets go of each
  #taskIdsToSend;
  #queue; // of the service: undefined, or "review"
  #lockPrefix;
  #filling = null;
  #isUnsure = true; // whether something may be held that this page does not know of

  /** Tasks of a queue of the service, but none of `taskIdsToSend()`, whose answers the service does not have yet. */
  constructor(taskIdsToSend, { queue, lockPrefix }) {
    super();
    this.#taskIdsToSend = taskIdsToSend;
    this.#queue = queue;
    this.#lockPrefix = lockPrefix;
    setInterval(() => this.renew(), RENEW_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.renew());
  }

  /** Return the next task as `{task, picture, standing}`; without any, what `claim` has returned. */
  async next() {
    const nothing = this.ahead.length ? {} : await this.#fill();
    const item = this.pick();
    if (item && this.ahead.length < AHEAD_MIN) this.#fill().catch(() => {}); // told when the next one is asked for
    return item ?? nothing;
  }

  /** Take the next task of those that are ahead; undefined if there is none. */
  pick() {
    return this.ahead.shift();
  }

  /** Show a task before the others. */
  putBack(item) {
    this.ahead.unshift({ ...item, isFirst: true });
    void this.hold(item.task.task_id);
  }

  /** Return whether this page shows a task that is held. */
  isWanted() {
    return true;
  }

  /** Return a task's lock, which is renewed no more; null if it has none. */
  takeLock(taskId) {
    const release = this.#locks.get(taskId) ?? null;
    this.#locks.delete(taskId);
    return release;
  }

  /** Make a task this tab's, and renew it; return whether it could be had. */
  async hold(taskId) {
    if (this.#locks.has(taskId)) return true;
    const release = await this.lock(taskId);
    if (release) this.#locks.set(taskId, release);
    return release !== null;
  }

  /** Return a function that lets go of a task's lock; null if another tab has it. */
  lock(taskId) {
    return holdLock(`${this.#lockPrefix}/${taskId}`);
  }

  /** The ids of tasks that were claimed and are neither shown nor answered. */
  get unseen() {
    return this.ahead.map(({ task }) => task.task_id).filter((id) => this.#locks.has(id));
  }

  /** Hand back what was claimed and not shown, while the page goes away. */
  leave() {
    const ids = this.unseen;
    if (ids.length) sendLast("/v1/annotation/release", { task_ids: ids }); // or others get them when their leases end
  }

  /** Hold what is held for longer; drop what others may have by now. */
  async renew() {
    const ids = [...this.#locks.keys()].slice(0, HELD_MAX);
    if (!ids.length) return;
    try {
      const { results } = await ask("POST", "/v1/annotation/renew", { task_ids: ids, lease_seconds: LEASE_S });
      this.drop(results.filter(({ outcome }) => outcome === "not_held").map(({ task_id }) => task_id));
      results.forEach((result) => this.#reload(result));
    } catch {
      // The next time; an answer counts as long as nobody else was handed the task.
    }
  }

  /** Let go of tasks; those that are ahead are not shown, unless they were answered and are to be answered again. */
  drop(taskIds, hasEnded = false) {
    const lost = new Set(taskIds);
    if (!lost.size) return;
    for (const id of lost) this.takeLock(id)?.();
    this.ahead = this.ahead.filter(({ task, standing }) => standing || !lost.has(task.task_id));
    this.dispatchEvent(new CustomEvent("lost", { detail: { taskIds: lost, hasEnded } }));
  }

  /** Load a picture again that did not come, as its address is a new one. */
  #reload({ task_id, signed_url }) {
    const held = this.ahead.find(({ task }) => task.task_id === task_id);
    if (!held || !signed_url || held.picture.isReady) return;
    held.task.signed_url = signed_url;
    held.picture = loadPicture(held.task);
  }

  #fill() {
    this.#filling ??= this.#fillNow().finally(() => { this.#filling = null; });
    return this.#filling;
  }

  async #fillNow() {
    if (this.#isUnsure) {
      await this.findHeld();
      if (this.ahead.length) return {};
    }
    return this.claim();
  }

  /** Find what is held since before, as after a reload, or a claim whose answer was lost. */
  async findHeld() {
    let cursor = null;
    do {
      const { next_cursor } = await this.#ask("GET", "leases", { limit: HELD_MAX, ...(cursor && { cursor }) });
      cursor = next_cursor;
    } while (cursor);
    this.#isUnsure = false;
  }

  /** Claim tasks with these members of the request; return the service's answer. */
  async claimSome(members) {
    this.#isUnsure = true; // until the answer is here
    const answer = await this.#ask("POST", "claim", {}, { limit: CLAIM_MAX, lease_seconds: LEASE_S, ...members });
    this.#isUnsure = false;
    return answer;
  }

  /** Ask for tasks, and add those that are this tab's to show; return what the service has answered. */
  async #ask(method, name, query, body) {
    const before = this.#taskIdsToSend(); // an answer may arrive meanwhile
    const asked = new URLSearchParams({ ...query, ...(this.#queue && { queue: this.#queue }) });
    const answer = await ask(method, `/v1/annotation/${name}${asked.size ? `?${asked}` : ""}`, body);
    for (const task of answer.tasks) {
      const { task_id: id } = task;
      if (!this.isWanted(task) || this.#locks.has(id) || before.has(id) || this.#taskIdsToSend().has(id)) continue;
      if (!await this.hold(id)) continue; // another tab shows it
      this.ahead.push({ task, picture: loadPicture(task), standing: null });
    }
    return answer;
  }
}

/** Return the id of the job that a task is of: its own begins with it. */
export function jobOf(taskId) {
  return `job_${taskId.slice(4, 26)}`;
}
