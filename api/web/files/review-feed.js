// The cases that a reviewer decides next, of those that the filter shows.

import { Feed } from "/web/feed.js";
import { ask } from "/web/session.js";

export class ReviewFeed extends Feed {
  #wanted; // what a claim asks for: job_id, reason, annotator_id
  #later = []; // what the reviewer has put off: it comes when nothing else is left

  /** Cases for these members of a claim. */
  constructor(wanted, taskIdsToSend) {
    super(taskIdsToSend, { queue: "review", lockPrefix: "refinery-review" });
    this.#wanted = wanted;
  }

  pick() {
    return this.ahead.shift() ?? this.#later.shift();
  }

  /** Show a case again when nothing else is left. */
  putOff(item) {
    this.#later.push(item);
  }

  /** Let go of cases that are decided. */
  forget(taskIds) {
    for (const id of taskIds) this.takeLock(id)?.();
  }

  /** Let go of the cases of some jobs, which are under way no more, and of others that somebody has in hand. */
  dropJobs(jobIds, inHand) {
    const cases = [...this.ahead, ...this.#later, ...inHand].map(({ task }) => task);
    this.drop(cases.filter(({ review }) => jobIds.has(review.job_id)).map((task) => task.task_id), true);
  }

  drop(taskIds, hasEnded) {
    this.#later = this.#later.filter(({ task }) => !taskIds.includes(task.task_id));
    super.drop(taskIds, hasEnded);
  }

  /** The ids of jobs that have cases here which are neither shown nor decided. */
  get jobIds() {
    return [...this.ahead, ...this.#later].map(({ task }) => task.review.job_id);
  }

  get unseen() {
    return [...super.unseen, ...this.#later.map(({ task }) => task.task_id)];
  }

  async claim() {
    await this.claimSome(this.#wanted);
    return {};
  }

  /** Hand back what is held and not wanted now. */
  async findHeld() {
    await super.findHeld();
    const unwanted = this.ahead.filter(({ task }) => !this.#isShown(task)).map(({ task }) => task.task_id);
    if (!unwanted.length) return;
    this.drop(unwanted);
    await ask("POST", "/v1/annotation/release", { task_ids: unwanted });
  }

  #isShown({ review }) {
    const { job_id: jobId, reason, annotator_id: annotatorId } = this.#wanted;
    return (!jobId || review.job_id === jobId)
      && (!reason || review.reason === reason)
      && (!annotatorId || [...review.labels, ...review.skips].some((said) => said.annotator_id === annotatorId));
  }
}
