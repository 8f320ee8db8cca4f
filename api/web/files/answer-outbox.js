// Answers of an annotator on their way, taken back with undo.

import { Outbox } from "/web/outbox.js";

// How long an answer waits, so that undo mostly finds it unsent: where one label settles a task, none is changed later.
const QUIET_MS = 5000;
const TOGETHER_MS = 2000; // those that are due so soon go along with it
const UNDO_MAX = 20;

export class AnswerOutbox extends Outbox {
  #choices = []; // the last ones, for undo: {item, answer, entries}

  constructor(ownerId) {
    super(ownerId, { path: "/v1/annotation/labels", member: "labels", prefix: "refinery-answers", togetherMs: TOGETHER_MS });
    document.addEventListener("visibilitychange", () => document.hidden && this.flush());
    this.addEventListener("sent", ({ detail: { sent } }) => this.#forgetSettled(sent));
  }

  get canUndo() {
    return this.#choices.length > 0;
  }

  /** Return an item with the answer as its `standing` that its task has once everything is sent. */
  withLatest(item) {
    const last = this.unsent.findLast((body) => body.task_id === item.task.task_id);
    return last ? { ...item, standing: answerOf(last) } : item;
  }

  /** Undo no choice that has settled its task: it takes no more labels. */
  #forgetSettled(sent) {
    const settled = new Set(sent.filter(({ outcome }) => outcome === "settled").map(({ task_id }) => task_id));
    this.#choices = this.#choices.filter(({ item }) => !settled.has(item.task.task_id));
  }

  /**
   * Give the task of an item an answer, `{label}` or `{skip, note?}`. The item's `standing` is the answer that the
   * service has of it, or may have; null if there is none.
   */
  add(given, answer) {
    const item = this.withLatest(given);
    const entries = bodiesOf(item, answer).map((body) => this.keep(body, item, QUIET_MS));
    this.#choices.push({ item, answer, entries });
    if (this.#choices.length > UNDO_MAX) this.#choices.shift();
    this.changed();
  }

  /** Take the last choice back; return its item, with the answer that stands now. */
  undo() {
    const choice = this.#choices.pop();
    if (!choice) return null;
    const { item, answer, entries } = choice;
    const isUnsent = entries.every((entry) => this.fresh.includes(entry));
    if (isUnsent) entries.forEach((entry) => this.drop(entry));
    this.changed();
    return { ...item, standing: isUnsent ? item.standing : answer, isAgain: true };
  }
}

/**
 * Return the entries that give an item's task an answer. Of one that was taken back another tab may have sent the
 * answer; a label that replaces nothing is one like others.
 */
function bodiesOf({ task: { task_id }, standing, isAgain }, answer) {
  const replaces = answer.label !== undefined && (standing || isAgain);
  if (JSON.stringify(standing) === JSON.stringify(answer)) return [];
  if (replaces) return [{ task_id, label: answer.label, replace: true }];
  if (!standing) return [{ task_id, ...answer }];
  return standing.label === undefined ? [] : [{ task_id, withdraw: true }, { task_id, ...answer }];
}

/** Return the answer that an entry gives; null for one that takes it back. */
function answerOf({ label, skip, note }) {
  if (label !== undefined) return { label };
  return skip === undefined ? null : { skip, ...(note && { note }) };
}
