// What the page says where there is no case to show, and of decisions that were not taken.

import { el } from "/web/dom.js";
import { describe } from "/web/review-case.js";

const REFUSED = {
  already_settled: "the task has ended meanwhile: somebody else has decided it, its time was over, or its job was cancelled.",
  job_ended: "its job has ended, or was cancelled: nothing of it is to be decided any more.",
  not_held: "it was held for too long, and has gone to another reviewer.",
  duplicate: "you had decided it before, perhaps in another window.",
  unknown_option: "the job has no such option.",
  unknown_task: "it is not for you any more.",
};
const $ = (id) => document.getElementById(id);

/** Write a count as the filter has it, `{count, isMore}`. */
export function number({ count, isMore }) {
  return `${count.toLocaleString("en")}${isMore ? " or more" : ""}`;
}

/** Say why a decision was not taken. */
export function whyRefused({ body, outcome, message }) {
  return `${body.task_id}, your decision: ${describe(body)}. It was not taken: ${REFUSED[outcome] ?? message}`;
}

/** Say that so many decisions of this device are lost. */
export function whyUnreadable(count) {
  return `${count === 1 ? "A decision" : `${count} decisions`} kept on this device could not be read, and will not be sent.`;
}

/** Say why there is no case now, where so many wait. */
export function whyNothing({ hasQueues, isSet }, waiting) {
  const all = isSet ? [link("/review", "Show all")] : [];
  if (hasQueues === false) {
    return [el("h2", {}, "No job has reviews"), el("p", {}, "None of the jobs under way that you may see asks for reviewers."), ...all];
  }
  if (waiting?.count) {
    const text = `${number(waiting)} wait, but ${isSet ? "none that the filter shows is" : "none is"} for you now: `
      + "others hold them, or you have labelled them yourself. This page looks again.";
    return [el("h2", {}, "Nothing for you now"), el("p", {}, text), ...all];
  }
  const text = `Everything${isSet ? " that the filter shows" : ""} is decided. This page shows the next case as soon as there is one.`;
  return [el("h2", {}, "Nothing to review now"), el("p", {}, text), ...all];
}

/** Say that the service gives no case just now. */
export function whyCut(error) {
  return [
    el("h2", {}, error.status ? "The service cannot give you a case now" : "The service does not answer"),
    el("p", {}, `${error.status ? `${error.message} ` : ""}This page tries again by itself. Your decisions are kept here until they are sent.`),
  ];
}

/** Say why nothing can be sent any more, while so many decisions are left. */
export function whyOver(error, left) {
  const kept = `${left === 1 ? "A decision is" : `${left} decisions are`} kept in this browser, and sent when you are back.`;
  const [title, way] = {
    invalid_api_key: ["You are signed out", link("/?to=/review", "Sign in again")],
    other_session: ["Somebody else is signed in", link("/review", "Load this page again")],
  }[error.code] ?? ["You may not review any more", link("/", "All pages")];
  return [el("h2", {}, title), ...(left ? [el("p", {}, kept)] : []), way];
}

/** Say why a picture is not there, with a button that loads it again. */
export function whyBroken(task, reload) {
  const again = el("button", { type: "button", onclick: reload }, "Try again");
  const why = task.unsigned_reason ? "The credentials of its job do not reach it." : "It could not be loaded, or is no picture.";
  return [
    el("h2", {}, "This picture cannot be shown"),
    el("p", {}, `${why} You can decide by the labels, put it off, or fail it.`),
    ...(task.unsigned_reason ? [] : [again]),
  ];
}

/** Say why somebody cannot review, with a way out: `session` is theirs, null, or the error in place of it. */
export function turnAway(session) {
  const [title, text, links] = reasonOf(session);
  const list = el("ul", { className: "choices" }, links.map((each) => el("li", {}, link(...each))));
  $("show-filter").hidden = true;
  $("nothing").hidden = false;
  $("nothing").replaceChildren(el("h2", {}, title), el("p", {}, text), list);
}

function reasonOf(session) {
  if (session === null) return ["You are not signed in", "Reviewing takes the key of a reviewer.", [["/?to=/review", "Sign in"]]];
  if (session instanceof Error) {
    const text = session.status ? session.message : "Look whether this device is online, and load the page again.";
    return ["The service does not answer", text, [["/review", "Try again"]]];
  }
  const text = `The key of ${session.name} has not the role of a reviewer. Whoever runs this service can give you one that has.`;
  const links = session.role === "annotator" ? [["/annotate", "Label tasks"], ["/", "All pages"]] : [["/", "All pages"]];
  return ["You are no reviewer", text, links];
}

function link(href, text) {
  return el("a", { href }, text);
}
