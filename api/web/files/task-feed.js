// The tasks that an annotator labels next: those of one job together, as long as it has some.

import { Feed, jobOf } from "/web/feed.js";

const ANSWERED_MAX = 100; // so many tasks stay this tab's after their answers
const AGAIN_S = 5;

export class TaskFeed extends Feed {
  #answered = new Map(); // by the ids of the last tasks that were answered: what lets go of each
  #wantedJob; // the one that the address names
  #lastJob = null;
  #excluded = new Set(); // jobs that give this annotator no more tasks

  /** Tasks of all jobs, or of one. */
  constructor(wantedJob, taskIdsToSend) {
    super(taskIdsToSend, { lockPrefix: "refinery-task" });
    this.#wantedJob = wantedJob;
  }

  pick() {
    const same = this.ahead.findIndex(({ task, isFirst }) => isFirst || jobOf(task.task_id) === this.#lastJob);
    const [found] = this.ahead.splice(Math.max(same, 0), 1);
    if (found) this.#lastJob = jobOf(found.task.task_id);
    return found;
  }

  isWanted({ task_id }) {
    const job = jobOf(task_id);
    return (!this.#wantedJob || job === this.#wantedJob) && !this.#excluded.has(job);
  }

  lock(taskId) {
    const own = this.#answered.get(taskId);
    this.#answered.delete(taskId);
    return own ?? super.lock(taskId);
  }

  /** Renew a task no more, as it was answered. */
  forget({ task_id }) {
    const release = this.takeLock(task_id);
    if (release) this.#answered.set(task_id, release);
    if (this.#answered.size <= ANSWERED_MAX) return;
    const [oldest, releaseOldest] = this.#answered.entries().next().value;
    releaseOldest();
    this.#answered.delete(oldest);
  }

  /** Show no more tasks of a job, as it takes no more labels of this annotator. */
  exclude(jobId) {
    this.#excluded.add(jobId);
    this.ahead = this.ahead.filter(({ task }) => jobOf(task.task_id) !== jobId);
  }

  /**
   * Claim tasks, of the last job first. Return `{retryS}`: in how many seconds to ask again where there are none, or null
   * if the wanted job has nothing left.
   */
  async claim() {
    let retryS = AGAIN_S;
    for (const job of new Set([this.#wantedJob ?? this.#lastJob, this.#wantedJob])) {
      const answer = await this.claimSome(job ? { job_id: job } : {});
      if (answer.tasks.length) return { retryS: AGAIN_S };
      retryS = answer.retry_after_s;
    }
    return { retryS };
  }
}
