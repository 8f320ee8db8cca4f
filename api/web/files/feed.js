// The tasks that come next: claimed ahead, their pictures decoded, their leases renewed.
//
// A task belongs to the tab that holds its lock, so that two tabs of one annotator never show the same one. The service
// may still name a task as held whose answer is on its way.

import { holdLock } from "/web/locks.js";
import { loadPicture } from "/web/picture.js";
import { ask, sendLast } from "/web/session.js";

const AHEAD_MIN = 5; // so many tasks after the one that is shown have their pictures decoded
const CLAIM_MAX = 5;
const LEASE_S = 180; // short, so that what a page leaves behind goes to others soon
const RENEW_MS = 60_000;
const RENEW_MAX = 500;
const ANSWERED_MAX = 100; // so many tasks stay this tab's after their answers
const AGAIN_S = 5;

export class Feed extends EventTarget {
  #ahead = []; // {task, picture, standing} in the order in which they came
  #locks = new Map(); // by the ids of the tasks that are held: what lets go of each
  #answered = new Map(); // the same of the last tasks that were answered
  #taskIdsToSend;
  #claiming = null;
  #wantedJob; // the one that the address names
  #lastJob = null;
  #excluded = new Set(); // jobs that give this annotator no more tasks

  /** Tasks of all jobs, or of one; but none of `taskIdsToSend()`, whose answers the service does not have yet. */
  constructor(wantedJob, taskIdsToSend) {
    super();
    this.#wantedJob = wantedJob;
    this.#taskIdsToSend = taskIdsToSend;
    setInterval(() => this.renew(), RENEW_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.renew());
  }

  /** Find again what is held since before, as after a reload. */
  async begin() {
    let cursor = null;
    do {
      const query = cursor ? `?cursor=${encodeURIComponent(cursor)}` : "";
      const { next_cursor } = await this.#ask("GET", `/v1/annotation/leases${query}`);
      cursor = next_cursor;
    } while (cursor);
  }

  /**
   * Return the next task as `{task, picture, standing}`, of the last one's job if there is one.
   * Without any return `{retryS}`: in how many seconds to ask again, or null if the wanted job has nothing left.
   */
  async next() {
    let none = null;
    if (!this.#ahead.length) none = await this.#fill();
    const same = this.#ahead.findIndex(({ task, isFirst }) => isFirst || jobOf(task.task_id) === this.#lastJob);
    const [found] = this.#ahead.splice(Math.max(same, 0), 1);
    if (!found) return { retryS: none === null ? null : none ?? AGAIN_S };
    this.#lastJob = jobOf(found.task.task_id);
    if (this.#ahead.length < AHEAD_MIN) this.#fill().catch(() => {}); // `next` says so if it is still so then
    return found;
  }

  /** Show a task before the others. */
  putBack(item) {
    this.#ahead.unshift({ ...item, isFirst: true });
    void this.#hold(item.task.task_id);
  }

  /** Renew a task no more, as it was answered. */
  forget({ task_id }) {
    if (!this.#locks.has(task_id)) return;
    this.#answered.set(task_id, this.#locks.get(task_id));
    this.#locks.delete(task_id);
    if (this.#answered.size <= ANSWERED_MAX) return;
    const [oldest, release] = this.#answered.entries().next().value;
    release();
    this.#answered.delete(oldest);
  }

  /** Show no more tasks of a job, as it takes no more labels of this annotator. */
  exclude(jobId) {
    this.#excluded.add(jobId);
    this.#ahead = this.#ahead.filter(({ task }) => jobOf(task.task_id) !== jobId);
  }

  /** Hand back what was claimed and not shown, while the page goes away. */
  leave() {
    const unseen = this.#ahead.map(({ task }) => task.task_id).filter((id) => this.#locks.has(id));
    if (!unseen.length) return;
    sendLast("/v1/annotation/release", { task_ids: unseen }); // or others get them when their leases end
  }

  /** Hold what is held for longer; show no unseen task that others may have by now. */
  async renew() {
    const ids = [...this.#locks.keys()].slice(0, RENEW_MAX);
    if (!ids.length) return;
    try {
      const body = { task_ids: ids, lease_seconds: LEASE_S };
      const { results } = await ask("POST", "/v1/annotation/renew", body);
      results.forEach((result) => this.#note(result));
    } catch {
      // The next time; answers that come after a lease are taken all the same.
    }
  }

  #note({ task_id, outcome, signed_url }) {
    const held = this.#ahead.find(({ task }) => task.task_id === task_id);
    if (outcome === "not_held") {
      this.#locks.get(task_id)?.();
      this.#locks.delete(task_id);
      this.#ahead = this.#ahead.filter((item) => item !== held || item.standing);
    } else if (held && signed_url && !held.picture.isReady) {
      held.task.signed_url = signed_url;
      held.picture = loadPicture(held.task);
    }
  }

  /** Ask for tasks, and add those that are this tab's to show; return what the service has answered. */
  async #ask(method, path, body) {
    const before = this.#taskIdsToSend(); // an answer may arrive meanwhile
    const answer = await ask(method, path, body);
    for (const task of answer.tasks) {
      const { task_id } = task;
      const isWanted = !this.#wantedJob || jobOf(task_id) === this.#wantedJob;
      if (!isWanted || this.#locks.has(task_id) || this.#excluded.has(jobOf(task_id))) continue;
      if (before.has(task_id) || this.#taskIdsToSend().has(task_id)) continue;
      if (!await this.#hold(task_id)) continue; // another tab shows it
      this.#ahead.push({ task, picture: loadPicture(task), standing: null });
    }
    return answer;
  }

  /** Make a task this tab's, and renew it; return whether it could be had. */
  async #hold(taskId) {
    if (this.#locks.has(taskId)) return true;
    const release = this.#answered.get(taskId) ?? await holdLock(`refinery-task/${taskId}`);
    this.#answered.delete(taskId);
    if (release) this.#locks.set(taskId, release);
    return release !== null;
  }

  #fill() {
    this.#claiming ??= this.#claim().finally(() => { this.#claiming = null; });
    return this.#claiming;
  }

  /** Claim tasks, of the last job first; return in how many seconds to ask again if there were none. */
  async #claim() {
    const jobs = [...new Set([this.#wantedJob ?? this.#lastJob, this.#wantedJob])];
    let again;
    for (const job of jobs) {
      const body = { limit: CLAIM_MAX, lease_seconds: LEASE_S, ...(job && { job_id: job }) };
      const { tasks, retry_after_s } = await this.#ask("POST", "/v1/annotation/claim", body);
      if (tasks.length) return undefined;
      again = retry_after_s;
    }
    return again;
  }
}

/** Return the id of the job that a task is of: its own begins with it. */
export function jobOf(taskId) {
  return `job_${taskId.slice(4, 26)}`;
}
