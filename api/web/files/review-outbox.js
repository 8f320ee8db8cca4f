// Decisions of a reviewer on their way. They are final once they are sent, so each waits for some seconds in which it can
// be taken back.

import { Outbox } from "/web/outbox.js";

const TAKE_BACK_MS = 4000;
const TOGETHER_MS = 1000;

export class ReviewOutbox extends Outbox {
  constructor(ownerId) {
    super(ownerId, { path: "/v1/annotation/reviews", member: "reviews", prefix: "refinery-reviews", togetherMs: TOGETHER_MS });
  }

  get canUndo() {
    return this.fresh.length > 0;
  }

  /** Decide the task of an item: `{label}`, `{fail}` or `{send_back: true}`. */
  add(item, decision) {
    this.keep({ task_id: item.task.task_id, ...decision }, item, TAKE_BACK_MS);
    this.changed();
  }

  /** Take the last decision back that is not sent yet; return its item, or null. */
  undo() {
    const entry = this.fresh.at(-1);
    if (!entry) return null;
    this.drop(entry);
    this.changed();
    return entry.item;
  }
}
