// Answers on their way: sent in batches, kept on this device until the service has them, taken back with undo.
//
// An entry is what the API takes of a task, with a key of its own in local storage: tabs of one annotator never
// write over each other's. Each tab holds a lock that tells it is alive, so that what a closed tab has left is sent
// by another one. Where a browser knows no locks (http on another machine), it may be sent twice, which the service
// takes as once.

import { heldLocks, holdLock } from "/web/locks.js";
import { isSignedOut } from "/web/lost-session.js";
import { ask, sendLast } from "/web/session.js";

const PATH = "/v1/annotation/labels";
const BATCH_MAX = 100;
const QUIET_MS = 1500; // how long an answer waits for others, so that undo mostly finds it unsent
const ANSWER_MS_MAX = 30_000;
const AGAIN_MS = [1000, 2000, 5000, 10_000, 30_000];
const UNDO_MAX = 20;
const TAKEN = new Set(["accepted", "settled", "skipped", "replaced", "withdrawn"]);
const MALFORMED = new Set([400, 413]); // the batch is refused as a whole, though perhaps for one entry

export class Outbox extends EventTarget {
  #prefix;
  #tab = crypto.getRandomValues(new Uint32Array(2)).join("");
  #count = 0;
  #queue = []; // {key, body, tries, isSending, isKept}, the oldest first
  #choices = []; // the last ones, for undo: {item, answer, entries}
  #timer = null;
  #failures = 0;
  #isSending = false;
  #isPaused = false;

  /** Answers of one annotator. What their closed tabs could not send is sent now. */
  constructor(ownerId) {
    super();
    this.#prefix = `refinery-answers/${ownerId}/`;
    holdLock(`refinery-tab/${this.#tab}`);
    addEventListener("online", () => this.flush());
    document.addEventListener("visibilitychange", () => (document.hidden ? this.flush() : this.#adopt()));
    void this.#adopt();
  }

  /** How many entries the service does not have yet, as far as is known. */
  get left() {
    return this.#queue.length;
  }

  /** Whether an answer would be lost with this page, as local storage is full or refused. */
  get isAtRisk() {
    return this.#queue.some((entry) => !entry.isKept);
  }

  get isCut() {
    return this.#failures > 0;
  }

  get canUndo() {
    return this.#choices.length > 0;
  }

  /** The ids of the tasks whose answers the service does not have yet, of all tabs of this annotator. */
  get taskIds() {
    return new Set(this.#unsent().map((body) => body.task_id));
  }

  /** Return an item with the answer as its `standing` that its task has once everything is sent. */
  withLatest(item) {
    const last = this.#unsent().findLast((body) => body.task_id === item.task.task_id);
    return last ? { ...item, standing: answerOf(last) } : item;
  }

  /**
   * Give the task of an item an answer, `{label}` or `{skip, note?}`. The item's `standing` is the answer that the
   * service has of it, or may have; null if there is none.
   */
  add(given, answer) {
    const item = this.withLatest(given);
    const bodies = bodiesOf(item, answer);
    this.#choices.push({ item, answer, entries: bodies.map((body) => this.#keep(body)) });
    if (this.#choices.length > UNDO_MAX) this.#choices.shift();
    this.#changed();
    this.#soon(QUIET_MS);
  }

  /** Take the last choice back; return its item, with the answer that stands now. */
  undo() {
    const choice = this.#choices.pop();
    if (!choice) return null;
    const { item, answer, entries } = choice;
    const isUnsent = entries.every((entry) => this.#queue.includes(entry) && entry.tries === 0);
    if (isUnsent) entries.forEach((entry) => this.#drop(entry));
    this.#changed();
    return { ...item, standing: isUnsent ? item.standing : answer, isAgain: true };
  }

  /** Send at once what is left. */
  flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    void this.#send();
  }

  /** Go on after the session has ended and another one has begun. */
  resume() {
    this.#isPaused = false;
    this.flush();
  }

  /** Send what is left while the page goes away. It stays kept, as nobody sees whether it arrives. */
  leave() {
    const rounds = nextOfEach(this.#queue);
    for (let n = 0; n < rounds.length; n += BATCH_MAX) {
      const labels = rounds.slice(n, n + BATCH_MAX).map((entries) => entries.at(-1).body);
      sendLast(PATH, { labels });
      rounds.slice(n, n + BATCH_MAX).flat().forEach((entry) => { entry.tries += 1; });
    }
  }

  #keep(body) {
    this.#count += 1;
    const place = String(Date.now()).padStart(15, "0") + String(this.#count).padStart(6, "0");
    const entry = { key: `${this.#prefix}${place}/${this.#tab}`, body, tries: 0, isSending: false, isKept: false };
    this.#queue.push(entry);
    store(() => {
      localStorage.setItem(entry.key, JSON.stringify(body));
      entry.isKept = true;
    });
    return entry;
  }

  #drop(entry) {
    this.#queue = this.#queue.filter((each) => each !== entry);
    store(() => localStorage.removeItem(entry.key));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Return what is to be sent, of this tab and of others, the oldest first. */
  #unsent() {
    const bodies = new Map(keptEntries(this.#prefix).filter(({ body }) => body).map(({ key, body }) => [key, body]));
    for (const { key, body } of this.#queue) bodies.set(key, body);
    return [...bodies].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, body]) => body);
  }

  /** Take over what tabs have left that are there no more. */
  async #adopt() {
    const alive = await heldLocks();
    const mine = new Set(this.#queue.map((entry) => entry.key));
    const left = keptEntries(this.#prefix)
      .filter(({ key }) => !mine.has(key) && !alive.has(`refinery-tab/${key.split("/").at(-1)}`));
    const unreadable = left.filter(({ body }) => !body);
    unreadable.forEach(({ key }) => store(() => localStorage.removeItem(key)));
    if (unreadable.length) this.dispatchEvent(new CustomEvent("unreadable", { detail: unreadable.length }));
    // Tried before, so that a duplicate is no news.
    const readable = left.filter(({ body }) => body);
    this.#queue.unshift(...readable.map((entry) => ({ ...entry, tries: 1, isSending: false, isKept: true })));
    this.#changed();
    this.flush();
  }

  #soon(ms) {
    this.#timer ??= setTimeout(() => this.flush(), ms);
  }

  async #send() {
    if (this.#isSending || this.#isPaused || !this.#queue.length) return;
    this.#isSending = true;
    const rounds = nextOfEach(this.#queue).slice(0, BATCH_MAX);
    const batch = rounds.map((entries) => entries.at(-1));
    const isNew = batch.map((entry) => entry.tries === 0);
    rounds.flat().forEach((entry) => { entry.tries += 1; });
    try {
      const results = await post(batch.map((entry) => entry.body));
      this.#failures = 0;
      rounds.flat().forEach((entry) => this.#drop(entry));
      this.#tell(batch, results, isNew);
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#isSending = false;
      this.#changed();
    }
    if (this.#queue.length && !this.#failures && !this.#isPaused) this.#soon(0);
  }

  /** Say what was taken and what was refused; that the service has an entry which is sent again is no news. */
  #tell(batch, results, isNew) {
    const outcomes = results.map((result, n) => ({ ...result, body: batch[n].body, isNew: isNew[n] }));
    const refused = outcomes.filter(({ outcome, body, isNew }) =>
      !TAKEN.has(outcome) && !(outcome === "duplicate" && (!isNew || body.replace)) && !body.withdraw);
    const labels = outcomes.filter(({ outcome }) => outcome === "accepted" || outcome === "settled").length;
    this.dispatchEvent(new CustomEvent("sent", { detail: { labels, refused } }));
  }

  #fail(error) {
    if (isSignedOut(error)) {
      this.#isPaused = true;
      this.dispatchEvent(new Event("signed-out"));
      return;
    }
    this.#failures += 1;
    const wait = AGAIN_MS[Math.min(this.#failures, AGAIN_MS.length) - 1];
    this.#soon(Math.max(wait, 1000 * (error.retryAfterS || 0)));
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

/**
 * Return of each task the entries that are through once the last of them is sent: of several in one batch the service
 * takes only the first. A label makes up for what came before it; what is no label waits for its turn.
 */
function nextOfEach(queue) {
  const tasks = new Map();
  for (const entry of queue) {
    const before = tasks.get(entry.body.task_id) ?? [];
    tasks.set(entry.body.task_id, [...before, entry]);
  }
  return [...tasks.values()].map((entries) => (entries.at(-1).body.label === undefined ? entries.slice(0, 1) : entries));
}

/** Send entries; return what became of each. One that makes its batch malformed is refused alone. */
async function post(labels) {
  try {
    return (await inTime(ask("POST", PATH, { labels }))).results;
  } catch (error) {
    if (!MALFORMED.has(error.status)) throw error;
    if (labels.length === 1) return [{ task_id: labels[0].task_id, outcome: "refused", message: error.message }];
    const half = Math.ceil(labels.length / 2);
    return [...await post(labels.slice(0, half)), ...await post(labels.slice(half))];
  }
}

function inTime(answer) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("The service does not answer.")), ANSWER_MS_MAX);
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

/** Use local storage where it can be used, and return what `use` does; without it, answers live as long as their page. */
function store(use) {
  try {
    return use();
  } catch (error) {
    console.warn("Answers cannot be kept on this device.", error);
    return undefined;
  }
}

/** Return the entries that local storage has below a prefix as `{key, body}`, the oldest first; see `bodyOf`. */
function keptEntries(prefix) {
  const keys = store(() => Object.keys(localStorage)) ?? [];
  return keys
    .filter((key) => key.startsWith(prefix))
    .sort()
    .map((key) => ({ key, body: bodyOf(localStorage.getItem(key)) }));
}

/** Return the body that a text holds; null if it holds none, as it was cut off, or changed by hand. */
function bodyOf(text) {
  try {
    const body = JSON.parse(text);
    return typeof body?.task_id === "string" ? body : null;
  } catch {
    return null;
  }
}
