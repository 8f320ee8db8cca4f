// Decisions on their way: kept on this device until the service has them. They are final once they are sent, so each
// waits for some seconds in which it can be taken back.
//
// Each has a key of its own in local storage, so that tabs of one reviewer never write over each other's. What a closed
// tab has left is sent by the next page.

import { heldLocks, holdLock } from "/web/locks.js";
import { ask, sendLast } from "/web/session.js";

const PATH = "/v1/annotation/reviews";
const BATCH_MAX = 100;
const TAKE_BACK_MS = 4000;
const TOGETHER_MS = 1000; // what is due so soon goes with the others
const ANSWER_MS_MAX = 30_000;
const AGAIN_MS = [1000, 2000, 5000, 10_000, 30_000];
const TAKEN = new Set(["settled", "failed", "sent_back"]);
const MALFORMED = new Set([400, 413, 415]);

export class ReviewOutbox extends EventTarget {
  #prefix;
  #tab = crypto.getRandomValues(new Uint32Array(2)).join("");
  #waiting = []; // {key, body, item, dueAt, wasTried}, the oldest first; item is null of what another page has left
  #sending = [];
  #timer = null;
  #failures = 0;
  #isOver = false;

  /** Decisions of one reviewer. */
  constructor(ownerId) {
    super();
    this.#prefix = `refinery-reviews/${ownerId}/`;
    void holdLock(`refinery-tab/${this.#tab}`);
    addEventListener("online", () => this.#schedule(0));
  }

  /** How many decisions the service does not have yet, as far as is known. */
  get left() {
    return this.#waiting.length + this.#sending.length;
  }

  /** Whether the service could not be reached the last time. */
  get isCut() {
    return this.#failures > 0;
  }

  get canUndo() {
    return this.#waiting.some((entry) => entry.item && !entry.wasTried);
  }

  /** Return whether there is a decision on a task that is still to be sent. */
  has(taskId) {
    return [...this.#waiting, ...this.#sending].some((entry) => entry.body.task_id === taskId);
  }

  /** Take over and send what closed tabs have left. This comes before cases are looked for. */
  async begin() {
    const alive = await heldLocks();
    const left = Object.keys(localStorage).filter((key) => key.startsWith(this.#prefix)
      && !alive.has(`refinery-tab/${key.split("/").at(-1)}`));
    this.#waiting.unshift(...left.map((key) => {
      // Perhaps it was sent, and only its answer was lost.
      return { key, body: JSON.parse(localStorage.getItem(key)), item: null, dueAt: 0, wasTried: true };
    }));
    this.#changed();
    this.#schedule(0);
  }

  /** Decide the task of an item: `{label}`, `{fail}` or `{send_back: true}`. */
  add(item, decision) {
    const { task_id } = item.task;
    const body = { task_id, ...decision };
    const key = `${this.#prefix}${task_id}/${this.#tab}`;
    this.#waiting.push({ key, body, item, dueAt: Date.now() + TAKE_BACK_MS, wasTried: false });
    store(() => localStorage.setItem(key, JSON.stringify(body)));
    this.#changed();
    this.#schedule(0);
  }

  /** Take the last decision back that is not sent yet; return its item, or null. */
  undo() {
    const at = this.#waiting.findLastIndex((entry) => entry.item && !entry.wasTried);
    if (at < 0) return null;
    const [entry] = this.#waiting.splice(at, 1);
    this.#forget(entry);
    this.#changed();
    return entry.item;
  }

  /** Send what is left while the page goes away. It stays kept, as nobody sees whether it arrives. */
  leave() {
    for (let n = 0; n < this.#waiting.length; n += BATCH_MAX) {
      const some = this.#waiting.slice(n, n + BATCH_MAX);
      for (const entry of some) entry.wasTried = true;
      sendLast(PATH, { reviews: some.map((entry) => entry.body) });
    }
  }

  #forget(entry) {
    store(() => localStorage.removeItem(entry.key));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #schedule(atLeastMs) {
    clearTimeout(this.#timer);
    if (!this.#waiting.length || this.#sending.length || this.#isOver) return;
    const dueInMs = Math.min(...this.#waiting.map((entry) => entry.dueAt)) - Date.now();
    this.#timer = setTimeout(() => this.#send(), Math.max(dueInMs, atLeastMs));
  }

  async #send() {
    const until = Date.now() + TOGETHER_MS;
    const due = this.#waiting.filter((entry) => entry.dueAt <= until).slice(0, BATCH_MAX);
    this.#waiting = this.#waiting.filter((entry) => !due.includes(entry));
    this.#sending = due;
    this.#changed();
    const answer = await post(due.map((entry) => entry.body)).catch((error) => error);
    this.#sending = [];
    const againMs = answer instanceof Error ? this.#fail(due, answer) : this.#settle(due, answer);
    this.#changed();
    this.#schedule(againMs);
  }

  /** Tell what became of decisions; return after how many milliseconds to send the next ones. */
  #settle(sent, results) {
    this.#failures = 0;
    const refused = [];
    results.forEach(({ outcome, message }, n) => {
      // What was sent before is a duplicate of itself.
      const isTaken = TAKEN.has(outcome) || (outcome === "duplicate" && sent[n].wasTried);
      if (!isTaken) refused.push({ decision: sent[n].body, jobId: sent[n].item?.task.review.job_id, outcome, message });
      this.#forget(sent[n]);
    });
    const taskIds = sent.map((entry) => entry.body.task_id);
    this.dispatchEvent(new CustomEvent("sent", { detail: { taskIds, refused } }));
    return 0;
  }

  /** Keep what could not be sent; return after how many milliseconds to try again. */
  #fail(due, error) {
    for (const entry of due) entry.wasTried = true;
    this.#waiting = [...due, ...this.#waiting];
    if (error.status === 401 || error.status === 403) {
      this.#isOver = true;
      this.dispatchEvent(new CustomEvent("turned-away", { detail: error }));
      return 0;
    }
    this.#failures += 1;
    const waitMs = AGAIN_MS[Math.min(this.#failures, AGAIN_MS.length) - 1];
    return Math.max(waitMs, 1000 * (error.retryAfterS || 0));
  }
}

/** Send decisions; return what became of each. One that makes its batch malformed is refused alone. */
async function post(reviews) {
  try {
    return (await inTime(ask("POST", PATH, { reviews }))).results;
  } catch (error) {
    if (!MALFORMED.has(error.status)) throw error;
    if (reviews.length === 1) return [{ outcome: "malformed", message: error.message }];
    const half = Math.ceil(reviews.length / 2);
    return [...await post(reviews.slice(0, half)), ...await post(reviews.slice(half))];
  }
}

function inTime(answer) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("The service does not answer.")), ANSWER_MS_MAX);
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

/** Change local storage where it can be changed; without it, decisions live as long as their page. */
function store(change) {
  try {
    change();
  } catch (error) {
    console.warn("Decisions cannot be kept on this device.", error);
  }
}
