// The reviewers' page: one case at a time, with everything that annotators have said of it.

import { el } from "/web/dom.js";
import { isHeldOnButton, keyCap, keysOf } from "/web/hotkeys.js";
import { Instructions } from "/web/instructions.js";
import { Frame, loadPicture } from "/web/picture.js";
import { announce, describe, proposalOf, showCase } from "/web/review-case.js";
import { ReviewFeed } from "/web/review-feed.js";
import { ReviewFilter } from "/web/review-filter.js";
import { actionKeys } from "/web/review-keys.js";
import { number, turnAway, whyBroken, whyCut, whyNothing, whyOver, whyRefused, whyUnreadable } from "/web/review-messages.js";
import { ReviewOutbox } from "/web/review-outbox.js";
import { ask, current, isSignedOut } from "/web/session.js";

const NO_KEYS = "refinery-review-without-keys";
const LOOK_AGAIN_MS = 5000;
const SIGNED_IN_MS = 10_000;
const SLOW_MS = 500;
const SEEN_MS = 200; // a key that is pressed sooner was meant for the case before
const AGAIN_MS = [1000, 2000, 5000, 10_000, 30_000];
const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };
const $ = (id) => document.getElementById(id);

class ReviewPage {
  #session;
  #filter = new ReviewFilter();
  #outbox;
  #feed;
  #frame = new Frame($("picture"));
  #instructions = new Instructions($("instructions"), $("instructions-text"), $("show-instructions"));
  #shown = null; // {task, picture}
  #keys = new Map(); // what each key does
  #turn = 0; // of the case that is looked for: an older search gives way
  #isLocked = true; // there is no case, or it was not seen yet
  #isOver = false;
  #lookNow = () => {};

  constructor(session) {
    this.#session = session;
    this.#outbox = new ReviewOutbox(session.owner_id);
    this.#feed = new ReviewFeed(this.#filter.wanted, () => this.#outbox.taskIds);
    this.#outbox.addEventListener("change", () => this.#showSaved());
    this.#outbox.addEventListener("sent", ({ detail }) => this.#noteSent(detail));
    this.#outbox.addEventListener("signed-out", ({ detail }) => this.#end(detail));
    this.#outbox.addEventListener("unreadable", ({ detail }) => this.#tell([whyUnreadable(detail)]));
    this.#feed.addEventListener("lost", ({ detail }) => this.#noteLost(detail));
    this.#filter.addEventListener("change", () => {
      this.#showWaiting();
      void this.#dropEnded();
    });
    this.#listen();
    this.#showSaved();
    void this.#filter.count();
    void this.#showNext();
  }

  async #showNext() {
    const turn = ++this.#turn;
    this.#shown = null;
    this.#lock(true);
    const isSlow = setTimeout(() => turn === this.#turn && this.#showNothing([el("p", {}, "Looking for the next case …")]), SLOW_MS);
    let failures = 0;
    while (turn === this.#turn && !this.#isOver) {
      try {
        const next = await this.#feed.next();
        clearTimeout(isSlow);
        if (turn !== this.#turn) {
          if (next.task) this.#feed.putBack(next);
          return;
        }
        failures = 0;
        if (next.task) return this.#show(next);
        await this.#filter.count();
        this.#showNothing(whyNothing(this.#filter, this.#waiting));
        await this.#rest(LOOK_AGAIN_MS);
      } catch (error) {
        clearTimeout(isSlow);
        if (isSignedOut(error)) return this.#end(error);
        this.#showNothing(whyCut(error));
        failures += 1;
        await this.#rest(AGAIN_MS[Math.min(failures, AGAIN_MS.length) - 1]);
      }
    }
  }

  /** Wait for some milliseconds, or until there is news. */
  #rest(ms) {
    return new Promise((resolve) => {
      this.#lookNow = resolve;
      setTimeout(resolve, ms);
    });
  }

  /** How many cases wait, but for those that were decided here; null while that is not known. */
  get #waiting() {
    const found = this.#filter.waiting;
    return found && { ...found, count: Math.max(found.count - this.#outbox.left, 0) };
  }

  #show(item) {
    const { task } = item;
    this.#shown = item;
    $("question").textContent = task.label_spec.question;
    const options = showCase(task, (option) => this.#decide({ label: option }), (id) => this.#filter.linkTo(id));
    this.#showData(item);
    this.#showKeys(options);
    $("accept").replaceChildren(`Accept: ${describe(proposalOf(task.review))}`, keyCap("⏎"));
    $("case").hidden = document.querySelector("footer").hidden = false;
    $("case").scrollTop = 0;
    scrollTo(0, 0); // on phones
    this.#filter.offer(task);
    void this.#instructions.show(task.instructions);
    setTimeout(() => this.#lock(this.#shown !== item), SEEN_MS);
    $("live").textContent = announce(task);
    if (!isTyping(document.activeElement)) $("stage").focus({ preventScroll: true });
  }

  #showData({ task, picture }) {
    const isText = task.text !== undefined;
    $("cut").hidden = true;
    $("text").hidden = !isText;
    $("picture").hidden = $("zoom").hidden = isText || !picture.isReady;
    $("nothing").hidden = isText || picture.isReady;
    if (isText) {
      $("text").textContent = task.text;
      $("text").scrollTop = 0;
    } else if (picture.isReady) {
      this.#frame.show(picture.image);
      void picture.isCut.then((isCut) => { if (this.#shown?.picture === picture) $("cut").hidden = !isCut; });
    } else if (picture.isBroken) {
      $("nothing").replaceChildren(...whyBroken(task, () => this.#reload()));
    } else {
      $("nothing").replaceChildren(el("p", {}, "The picture is loading …"));
      void picture.ended.then(() => this.#shown?.picture === picture && this.#showData(this.#shown));
    }
  }

  #reload() {
    this.#shown.picture = loadPicture(this.#shown.task);
    this.#showData(this.#shown);
  }

  #showKeys(options) {
    const hotkeys = options.filter(({ hotkey }) => hotkey).map(({ option, hotkey }) => [hotkey.toLowerCase(), option]);
    this.#keys = new Map(hotkeys.map(([hotkey, option]) => [hotkey, () => this.#decide({ label: option })]));
    const actions = actionKeys(this.#keys.keys());
    for (const button of document.querySelectorAll("[data-action]")) {
      const { action } = button.dataset;
      button.querySelector("kbd")?.remove();
      if (!actions[action]) continue;
      button.append(keyCap(actions[action]));
      button.setAttribute("aria-keyshortcuts", actions[action]);
      this.#keys.set(actions[action], () => this.#act(action));
    }
  }

  #act(action) {
    if (action === "later") this.#putOff();
    else if (action === "back") this.#decide({ send_back: true });
    else this.#decide({ fail: action });
  }

  #decide(decision) {
    if (!this.#shown || this.#isLocked) return;
    this.#outbox.add(this.#shown, decision);
    $("fail").open = false;
    void this.#showNext();
  }

  #putOff() {
    if (!this.#shown || this.#isLocked) return;
    this.#feed.putOff(this.#shown);
    void this.#showNext();
  }

  #undo() {
    const item = this.#outbox.undo();
    if (!item) return;
    if (this.#shown) this.#feed.putBack(this.#shown);
    this.#feed.putBack(item);
    void this.#showNext();
  }

  #lock(isLocked) {
    this.#isLocked = isLocked;
    for (const button of document.querySelectorAll("#options button, #accept, [data-action]")) button.disabled = isLocked;
  }

  #showNothing(children) {
    $("case").hidden = document.querySelector("footer").hidden = true;
    $("picture").hidden = $("zoom").hidden = $("text").hidden = $("cut").hidden = true;
    void this.#instructions.show(undefined);
    $("nothing").hidden = false;
    $("question").textContent = "Review";
    if ($("nothing").textContent === children.map((child) => child.textContent).join("")) return;
    $("nothing").replaceChildren(...children);
    $("live").textContent = children.map((child) => child.textContent).join(". ");
  }

  #showSaved() {
    const { left, isCut, canUndo } = this.#outbox;
    $("undo").disabled = !canUndo;
    $("saved").textContent = left ? `${left} to send${isCut ? ", no connection" : ""}` : "All sent";
    if (isCut !== $("saved").classList.contains("bad")) {
      // A screen reader is told of this alone: how many are sent it can look up.
      $("saved").classList.toggle("bad", isCut);
      $("live").textContent = isCut ? "No connection. Decisions are kept here until they can be sent." : "The connection is back.";
    }
    this.#showWaiting();
  }

  #showWaiting() {
    const waiting = this.#waiting;
    $("waiting").textContent = waiting ? `${number(waiting)} waiting` : "";
  }

  async #noteSent({ sent, refused }) {
    this.#feed.forget(sent.map((each) => each.body.task_id));
    this.#lookNow();
    this.#filter.countSoon();
    if (!refused.length) return;
    await this.#filter.count();
    const jobIdOf = ({ item }) => item?.task.review.job_id;
    const ended = await this.#findEnded(refused.map(jobIdOf).filter(Boolean));
    this.#tell(refused.map((each) => whyRefused(ended.has(jobIdOf(each)) ? { ...each, outcome: "job_ended" } : each)));
  }

  /** Say what the reviewer has to know, and keep it shown until they have seen it. */
  #tell(sentences) {
    $("refused").querySelector("ul").append(...sentences.map((each) => el("li", {}, each)));
    $("refused").hidden = false;
  }

  /** Let go of cases whose jobs are under way no more. */
  async #dropEnded() {
    const inHand = this.#shown ? [this.#shown] : [];
    const ended = await this.#findEnded([...this.#feed.jobIds, ...inHand.map(({ task }) => task.review.job_id)]);
    if (ended.size) this.#feed.dropJobs(ended, this.#shown ? [this.#shown] : []);
  }

  /** Return those of some jobs that are under way no more; none where the service does not answer. */
  #findEnded(jobIds) {
    return this.#filter.findEnded([...new Set(jobIds)]).catch(() => new Set());
  }

  #noteLost({ taskIds, hasEnded }) {
    if (!this.#shown || !taskIds.has(this.#shown.task.task_id)) return;
    if (hasEnded) this.#tell([`${this.#shown.task.task_id} is not to be decided any more: its job has ended, or was cancelled.`]);
    else $("live").textContent = "The case was held for too long, and goes to others.";
    void this.#showNext();
  }

  /** Say that the session or the role has ended; nothing can be sent until somebody signs in. */
  #end(error) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#turn += 1;
    this.#shown = null;
    this.#showNothing(whyOver(error, this.#outbox.left));
    setInterval(() => this.#comeBack(), SIGNED_IN_MS);
    addEventListener("focus", () => this.#comeBack());
  }

  /** Begin anew if the reviewer has signed in meanwhile, perhaps in another tab. */
  async #comeBack() {
    const session = await ask("GET", "/v1/session").catch(() => null);
    if (session?.owner_id === this.#session.owner_id && session.role === "reviewer") location.reload();
  }

  #listen() {
    $("accept").addEventListener("click", () => this.#shown && this.#decide(proposalOf(this.#shown.task.review)));
    $("undo").addEventListener("click", () => this.#undo());
    $("refused").querySelector("button").addEventListener("click", () => {
      $("refused").hidden = true;
      $("refused").querySelector("ul").replaceChildren();
    });
    $("use-keys").checked = localStorage.getItem(NO_KEYS) === null;
    $("use-keys").addEventListener("change", ({ target }) => {
      if (target.checked) localStorage.removeItem(NO_KEYS);
      else localStorage.setItem(NO_KEYS, "");
    });
    for (const button of document.querySelectorAll("[data-action]")) {
      button.addEventListener("click", () => this.#act(button.dataset.action));
    }
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.#frame.do(button.dataset.zoom));
    }
    // After a click, Enter is for the case again; whoever goes by Tab stays where they are.
    document.querySelector("footer").addEventListener("click", (event) => event.detail && $("stage").focus({ preventScroll: true }));
    document.addEventListener("keydown", (event) => this.#press(event));
    addEventListener("online", () => this.#lookNow());
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", (event) => event.persisted && location.reload());
  }

  #press(event) {
    if (isHeldOnButton(event)) event.preventDefault();
    const pressed = keysOf(event);
    if (!pressed.length || event.repeat || isTyping(event.target)) return;
    const [typed, place] = pressed.map((key) => ($("use-keys").checked ? this.#keys.get(key) : undefined));
    const does = typed ?? this.#command(event) ?? place;
    if (!does) return;
    event.preventDefault();
    does();
  }

  /** Return what one of the page's own keys does. */
  #command({ key: name, target }) {
    const isOnButton = target.closest("button, a, summary") !== null;
    const arrow = target.closest("#stage") && !$("picture").hidden && ARROWS[name];
    if (arrow) return () => this.#frame.do(arrow);
    return {
      Enter: isOnButton ? null : () => $("accept").click(),
      Backspace: () => this.#undo(),
      "?": () => $("show-instructions").hidden || $("show-instructions").click(),
      "+": () => this.#frame.do("in"),
      "=": () => this.#frame.do("in"),
      "-": () => this.#frame.do("out"),
      ".": () => this.#frame.do("other"),
      ";": () => this.#frame.do("turn"),
      Escape: () => { $("fail").open = false; },
    }[name];
  }

  #leave() {
    if (this.#isOver) return;
    this.#outbox.leave();
    this.#feed.leave();
  }
}

function isTyping(element) {
  return element instanceof Element && element.matches("input:not([type=checkbox]), select, textarea");
}

async function begin() {
  const session = await current().catch((error) => error);
  if (session?.role === "reviewer") new ReviewPage(session);
  else turnAway(session);
}

await begin();
