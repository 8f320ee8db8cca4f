// What people have said of tasks, on its way: sent in batches, and kept on this device until the service has it.
//
// An entry is what the API takes of a task, with a key of its own in local storage: tabs of one person never write over
// each other's. Each tab holds a lock that tells it is alive, so that what a closed tab has left is sent by another one.
// Where a browser knows no locks (http on another machine), it may be sent twice, which the service takes as once.

import { heldLocks, holdLock } from "/web/locks.js";
import { ask, isSignedOut, sendLast } from "/web/session.js";

const BATCH_MAX = 100;
const ANSWER_MS_MAX = 30_000;
const AGAIN_MS = [1000, 2000, 5000, 10_000, 30_000];
const TAKEN = new Set(["accepted", "settled", "skipped", "replaced", "withdrawn", "failed", "sent_back"]);
const MALFORMED = new Set([400, 413, 415]); // the batch is refused as a whole, though perhaps for one entry

export class Outbox extends EventTarget {
  #path;
  #member; // of the request's body: what the entries are called there
  #prefix;
  #togetherMs;
  #tab = crypto.getRandomValues(new Uint32Array(2)).join("");
  #count = 0;
  #queue = []; // {key, body, item, dueAt, tries, isKept}, the oldest first; item is null of what another page has left
  #timer = null;
  #failures = 0;
  #notBefore = 0; // after a failure
  #isSending = false;
  #isPaused = false;

  /**
   * Entries of one person. What their closed tabs could not send is sent now. With an entry that is due go those that are
   * so in `togetherMs`.
   */
  constructor(ownerId, { path, member, prefix, togetherMs }) {
    super();
    this.#path = path;
    this.#member = member;
    this.#prefix = `${prefix}/${ownerId}/`;
    this.#togetherMs = togetherMs;
    void holdLock(`refinery-tab/${this.#tab}`);
    addEventListener("online", () => this.#tryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#adopt());
    void this.#adopt();
  }

  /** How many entries the service does not have yet, as far as is known. */
  get left() {
    return this.#queue.length;
  }

  /** Whether an entry would be lost with this page, as local storage is full or refused. */
  get isAtRisk() {
    return this.#queue.some((entry) => !entry.isKept);
  }

  get isCut() {
    return this.#failures > 0;
  }

  /** The ids of the tasks whose entries the service does not have yet, of all tabs of this person. */
  get taskIds() {
    return new Set(this.unsent.map((body) => body.task_id));
  }

  /** What is to be sent, of this tab and of others, the oldest first. */
  get unsent() {
    const bodies = new Map(keptEntries(this.#prefix).filter(({ body }) => body).map(({ key, body }) => [key, body]));
    for (const { key, body } of this.#queue) bodies.set(key, body);
    return [...bodies].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, body]) => body);
  }

  /** The entries of this tab that were not sent yet, not even in vain, the oldest first. */
  get fresh() {
    return this.#queue.filter((entry) => entry.item && entry.tries === 0);
  }

  /** Keep what is said of the task of an item, and send it in `waitMs`; return its entry. */
  keep(body, item, waitMs) {
    this.#count += 1;
    const place = String(Date.now()).padStart(15, "0") + String(this.#count).padStart(6, "0");
    const key = `${this.#prefix}${place}/${this.#tab}`;
    const entry = { key, body, item, dueAt: performance.now() + waitMs, tries: 0, isKept: false };
    this.#queue.push(entry);
    store(() => {
      localStorage.setItem(key, JSON.stringify(body));
      entry.isKept = true;
    });
    this.#schedule();
    return entry;
  }

  /** Forget an entry: the service has it, or it was taken back. */
  drop(entry) {
    this.#queue = this.#queue.filter((each) => each !== entry);
    store(() => localStorage.removeItem(entry.key));
    this.#schedule();
  }

  /** Tell that something was kept or dropped. */
  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Send at once what is left. */
  flush() {
    for (const entry of this.#queue) entry.dueAt = 0;
    this.#tryNow();
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
      const batch = rounds.slice(n, n + BATCH_MAX);
      sendLast(this.#path, { [this.#member]: batch.map((entries) => entries.at(-1).body) });
      batch.flat().forEach((entry) => { entry.tries += 1; });
    }
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
    this.#queue.unshift(...readable.map((entry) => ({ ...entry, item: null, dueAt: 0, tries: 1, isKept: true })));
    this.changed();
    this.#schedule();
  }

  #tryNow() {
    this.#notBefore = 0;
    this.#schedule();
  }

  #schedule() {
    clearTimeout(this.#timer);
    if (!this.#queue.length || this.#isSending || this.#isPaused) return;
    const dueAt = Math.max(Math.min(...this.#queue.map((entry) => entry.dueAt)), this.#notBefore);
    this.#timer = setTimeout(() => this.#send(), dueAt - performance.now());
  }

  async #send() {
    const until = performance.now() + this.#togetherMs;
    const rounds = nextOfEach(this.#queue.filter((entry) => entry.dueAt <= until)).slice(0, BATCH_MAX);
    const batch = rounds.map((entries) => entries.at(-1));
    const isNew = batch.map((entry) => entry.tries === 0);
    rounds.flat().forEach((entry) => { entry.tries += 1; });
    this.#isSending = true;
    this.changed();
    try {
      const results = await this.#post(batch.map((entry) => entry.body));
      this.#failures = 0;
      rounds.flat().forEach((entry) => this.drop(entry));
      this.#tell(results.map((result, n) => ({ ...result, ...batch[n], isNew: isNew[n] })));
    } catch (error) {
      this.#fail(error);
    }
    this.#isSending = false;
    this.changed();
    this.#schedule();
  }

  /** Say what became of entries; that the service has one which is sent again is no news. */
  #tell(sent) {
    const refused = sent.filter(({ outcome, body, isNew }) =>
      !TAKEN.has(outcome) && !(outcome === "duplicate" && (!isNew || body.replace)) && !body.withdraw);
    this.dispatchEvent(new CustomEvent("sent", { detail: { sent, refused } }));
  }

  #fail(error) {
    if (isSignedOut(error)) {
      this.#isPaused = true;
      this.dispatchEvent(new CustomEvent("signed-out", { detail: error }));
      return;
    }
    this.#failures += 1;
    const waitMs = AGAIN_MS[Math.min(this.#failures, AGAIN_MS.length) - 1];
    this.#notBefore = performance.now() + Math.max(waitMs, 1000 * (error.retryAfterS || 0));
  }

  /** Send bodies; return what became of each. One that makes its batch malformed is refused alone. */
  async #post(bodies) {
    try {
      return (await inTime(ask("POST", this.#path, { [this.#member]: bodies }))).results;
    } catch (error) {
      if (!MALFORMED.has(error.status)) throw error;
      if (bodies.length === 1) return [{ task_id: bodies[0].task_id, outcome: "malformed", message: error.message }];
      const half = Math.ceil(bodies.length / 2);
      return [...await this.#post(bodies.slice(0, half)), ...await this.#post(bodies.slice(half))];
    }
  }
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

function inTime(answer) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("The service does not answer.")), ANSWER_MS_MAX);
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

/** Use local storage where it can be used, and return what `use` does; without it, entries live as long as their page. */
function store(use) {
  try {
    return use();
  } catch (error) {
    console.warn("Nothing can be kept on this device.", error);
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
