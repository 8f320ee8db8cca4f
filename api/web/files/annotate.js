// The annotators' page: one task at a time, from the keyboard or by touch. What is shown is decided here; the parts
// are in modules of their own.

import { AnswerOutbox } from "/web/answer-outbox.js";
import { Choices } from "/web/choices.js";
import { jobOf } from "/web/feed.js";
import { isHeldOnButton, keysOf } from "/web/hotkeys.js";
import { Instructions } from "/web/instructions.js";
import { watchSession } from "/web/lost-session.js";
import { OwnLabels } from "/web/own-labels.js";
import { loadPicture } from "/web/picture.js";
import { Progress } from "/web/progress.js";
import { SkipDialog } from "/web/skip-dialog.js";
import { Stage } from "/web/stage.js";
import { isSignedOut } from "/web/session.js";
import { TaskFeed } from "/web/task-feed.js";
import { tell } from "/web/notices.js";

const SEEN_MS = 200; // nobody sees a task and decides in less: it is the key of the one before, pressed twice
const AGAIN_S = [2, 5, 10, 30];
const AT_RISK = "This browser keeps no answers, as its storage is full or refused. Close this page only when it says “Saved”.";
// The service's own words for this one are for programs.
const REFUSED = { duplicate: "You had answered that task before, and that answer counts. Change it in “My labels”." };
const $ = (id) => document.getElementById(id);

const session = await watchSession({
  banner: $("session"),
  left: () => outbox?.left ?? 0,
  onReturn: () => {
    outbox.resume();
    if (!shown) void showNext();
  },
});

const outbox = new AnswerOutbox(session.owner_id);
const feed = new TaskFeed(new URLSearchParams(location.search).get("job"), () => outbox.taskIds);
const progress = new Progress();
const stage = new Stage($("stage"), { onOpen: open, onSkip: openSkipDialog });
const choices = new Choices($("options"), (label, event) => answer({ label }, event));
const instructions = new Instructions($("instructions"), $("instructions-text"), $("show-instructions"));
const skipDialog = new SkipDialog($("skip-dialog"), skip);
const ownLabels = new OwnLabels($("labels-dialog"), showAgain, () => session.lost());

let shown = null; // {task, picture, standing}
let seenFrom = Infinity; // when it counts as seen, on the clock of events
let turn = 0; // which call of showNext is the last one
let failures = 0;
let question = null; // the last one that was shown
let isWaiting = true; // whether no question is shown
let isRiskTold = false;
let again = null; // the timer that looks for tasks again

async function showNext() {
  const mine = ++turn;
  clearTimeout(again);
  shown = null;
  lock(true);
  let next;
  try {
    next = await feed.next();
    failures = 0;
  } catch (error) {
    if (mine === turn) lookAgain(error);
    return;
  }
  if (mine !== turn) {
    if (next.task) feed.putBack(next); // it was overtaken by an undo
  } else if (next.task) show(next);
  else showNothing(next.retryS);
}

function show(item) {
  shown = item;
  const asked = JSON.stringify([item.task.label_spec, item.task.instructions?.version]);
  if (asked !== question || isWaiting) showQuestion(item.task, question !== null && asked !== question);
  question = asked;
  isWaiting = false;
  progress.of(item.task);
  choices.mark(item.standing?.label ?? null);
  $("keep").hidden = !item.standing;
  $("skip").disabled = Boolean(item.standing) && item.standing.label === undefined;
  stage.show(item);
}

/** Take choices for the task that is shown: it was painted, or its picture will not come soon. */
function open(item) {
  if (item !== shown) return;
  seenFrom = performance.now() + SEEN_MS;
  lock(false);
  document.dispatchEvent(new CustomEvent("task-shown", { detail: { taskId: item.task.task_id } }));
}

function lock(isLocked) {
  if (isLocked) seenFrom = Infinity;
  if (isLocked && !shown) $("skip").disabled = true;
  choices.lock(isLocked);
}

function showQuestion(task, isOther) {
  const { label_spec: spec } = task;
  $("question").textContent = spec.question;
  choices.show(spec);
  say(isOther ? `Another question: ${spec.question}` : spec.question);
  if (isOther) tell(`The question has changed: ${spec.question}`, { kind: "question" });
  void instructions.show(task.instructions);
}

function answer(given, event) {
  if (!shown || (event && event.timeStamp < seenFrom)) return;
  const item = shown;
  outbox.add(item, given);
  if (!item.isChange) progress.count(item.task, 1);
  feed.forget(item.task);
  say(`${given.label ?? "Skipped"}. ${outbox.left} to send.`);
  void showNext();
}

function openSkipDialog() {
  if (shown) skipDialog.open(shown);
}

/** Skip a task, unless it was taken away while its dialog was open. */
function skip(given, { task }) {
  if (task.task_id === shown?.task.task_id) answer(given);
  else tell("You have the task that you wanted to skip no more, so nothing was skipped.", { kind: "refused" });
}

function undo() {
  const taken = outbox.undo();
  if (!taken) return;
  if (!taken.isChange) progress.count(taken.task, -1);
  const { label } = taken.standing ?? {};
  say(taken.standing ? `Back to the task before. Your answer was ${label ?? "to skip it"}.` : "Taken back.");
  showAgain(taken);
}

/** Show a task that was answered, before the one that is shown now. */
function showAgain(item) {
  if (shown) feed.putBack(shown);
  feed.putBack({ ...outbox.withLatest(item), picture: item.picture ?? loadPicture(item.task) });
  void showNext();
}

function showNothing(retryS) {
  stage.say(retryS === null
    ? "Done: nothing is left of this job for you. Thank you."
    : "Nothing for you now. When there is something, it appears here by itself.");
  isWaiting = true;
  $("question").textContent = retryS === null ? "Done" : "Waiting for tasks";
  $("options").replaceChildren();
  void instructions.show(undefined);
  outbox.flush();
  if (retryS !== null) again = setTimeout(showNext, 1000 * retryS);
}

function lookAgain(error) {
  const waitS = Math.max(AGAIN_S[Math.min(failures, AGAIN_S.length - 1)], error.retryAfterS || 0);
  failures += 1;
  if (isSignedOut(error)) {
    session.lost();
    stage.say("Sign in again to go on.");
    return;
  }
  stage.say(error.status ? error.message : "The service cannot be reached. This page tries again by itself.");
  again = setTimeout(showNext, 1000 * waitS);
}

function showSaved() {
  const { left, isCut, isAtRisk } = outbox;
  $("undo").disabled = !outbox.canUndo;
  $("saved").textContent = left ? `${left} to send${isCut ? ", no connection" : ""}` : "Saved";
  $("saved").classList.toggle("bad", isCut);
  session.countLeft();
  if (isAtRisk && !isRiskTold) tell(AT_RISK, { kind: "storage" });
  isRiskTold ||= isAtRisk;
}

function tellRefused({ sent, refused }) {
  progress.taken(sent.filter(({ outcome }) => outcome === "accepted" || outcome === "settled").length);
  if (refused.length) void feed.renew(); // it drops unseen tasks of a job that is over
  for (const { task_id, outcome, message } of refused) {
    tell(REFUSED[outcome] ?? message ?? outcome, { kind: "refused" });
    if (outcome === "excluded") feed.exclude(jobOf(task_id));
  }
  const isExcluded = (id) => refused.some((each) => each.outcome === "excluded" && jobOf(each.task_id) === jobOf(id));
  if (shown && isExcluded(shown.task.task_id)) void showNext();
}

function say(text) {
  $("live").textContent = text;
}

const COMMANDS = {
  backspace: undo,
  "?": () => $("show-instructions").click(),
  ",": () => $("skip").click(),
  "+": () => stage.frame.do("in"),
  "=": () => stage.frame.do("in"),
  "-": () => stage.frame.do("out"),
  ".": () => stage.frame.do("other"),
  ";": () => stage.frame.do("turn"),
  arrowleft: () => stage.frame.do("left"),
  arrowright: () => stage.frame.do("right"),
  arrowup: () => stage.frame.do("up"),
  arrowdown: () => stage.frame.do("down"),
};
const MOVES = /^arrow|^[-+=]$/; // these go on as long as the key is down

function press(event) {
  if (isHeldOnButton(event)) event.preventDefault(); // in dialogs too: the one that it opened has buttons
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const [key] = keysOf(event);
  const scrolls = key?.startsWith("arrow") && document.activeElement.closest("#text, #instructions");
  const option = COMMANDS[key] ? undefined : choices.optionOf(event);
  if (option !== undefined) {
    if (!event.repeat) answer({ label: option }, event);
  } else if (COMMANDS[key] && !scrolls) {
    if (!event.repeat || MOVES.test(key)) COMMANDS[key]();
  } else return;
  event.preventDefault();
}

document.addEventListener("keydown", press);
outbox.addEventListener("change", showSaved);
outbox.addEventListener("sent", (event) => tellRefused(event.detail));
outbox.addEventListener("signed-out", () => session.lost());
outbox.addEventListener("unreadable", ({ detail: count }) => {
  const what = count === 1 ? "An answer" : `${count} answers`;
  tell(`${what} kept on this device could not be read, and will not be sent.`, { kind: "unreadable" });
});
addEventListener("beforeunload", (event) => { if (outbox.isAtRisk) event.preventDefault(); });
progress.addEventListener("change", () => { $("progress").textContent = String(progress); });
$("undo").addEventListener("click", undo);
$("skip").addEventListener("click", openSkipDialog);
$("keep").addEventListener("click", (event) => answer(shown?.standing, event));
$("show-labels").addEventListener("click", () => ownLabels.open());
$("hide-instructions").addEventListener("click", () => {
  instructions.toggle(false);
  $("show-instructions").focus();
});

addEventListener("pagehide", () => {
  outbox.leave();
  feed.leave();
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

showSaved();
void progress.refresh();
await showNext();
