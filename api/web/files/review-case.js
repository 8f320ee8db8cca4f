// What is shown of a case beside its picture: why it is here, what is proposed, and what annotators have said.

import { el } from "/web/dom.js";
import { hotkeysOf, keyCap } from "/web/hotkeys.js";

export const REASONS = {
  no_consensus: "No consensus",
  low_confidence: "Low confidence",
  sample: "Sample",
  flagged: "Skipped by too many",
};
const WHY = {
  no_consensus: "No option has won.",
  low_confidence: "The labels are less sure than the job wants.",
  sample: "The job has this share of its tasks checked, whatever their labels say.",
  flagged: "So many annotators have skipped it that it would fail.",
};
export const FAILURES = {
  no_consensus: "no consensus",
  unclear: "unclear",
  broken: "cannot be seen",
  none_of_these: "none of these",
};
const SKIPS = { unclear: "Unclear", broken: "Cannot be seen", none_of_these: "None of these" };
const UNITS = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];
const SHORT_ID = 10;
const LIVE_OPTIONS_MAX = 5;

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const $ = (id) => document.getElementById(id);

/** Return the decision that accepts what is proposed. */
export function proposalOf({ proposed_label: label, proposed_failure: failure }) {
  if (label !== null) return { label };
  return failure !== null ? { fail: failure } : { send_back: true };
}

/** Return what a decision does, in a few words. */
export function describe(decision) {
  if (decision.label !== undefined) return `“${decision.label}”`;
  if (decision.fail !== undefined) return `fail, ${FAILURES[decision.fail]}`;
  return "send back for one more label";
}

/** Show a case; `choose` is called with an option, and `linkTo` gives the address of an annotator's cases. */
export function showCase(task, choose, linkTo) {
  const { review, label_spec: spec } = task;
  $("why").replaceChildren(el("strong", {}, REASONS[review.reason]), ` ${WHY[review.reason]}`);
  $("proposed").textContent = proposalText(review);
  const options = hotkeysOf(spec);
  const most = Math.max(1, ...Object.values(review.votes));
  $("options").replaceChildren(...options.map((each) => optionRow(each, review, most, choose)));
  showSaid($("labels"), review.labels, (label) => [el("strong", {}, label.label)], linkTo);
  showSaid($("skips"), review.skips, (skip) => [el("strong", {}, SKIPS[skip.reason]), skip.note && el("q", {}, skip.note)], linkTo);
  showMetadata(task.metadata);
  $("deadline").textContent = `Came here ${ago(review.created_at)}; ends as proposed ${ago(review.due_at)}.`;
  return options;
}

/** Return what a screen reader says of a case. */
export function announce({ review }) {
  const given = Object.entries(review.votes).filter(([, votes]) => votes > 0);
  const votes = given.slice(0, LIVE_OPTIONS_MAX).map(([option, n]) => `${option} ${n}`).join(", ") || "none";
  return `${REASONS[review.reason]}. Votes: ${votes}. ${proposalText(review)}`;
}

function proposalText(review) {
  const share = review.confidence === null ? "" : `, confidence ${percent(review.confidence)}`;
  return `Proposed: ${describe(proposalOf(review))}${share}`;
}

function percent(share) {
  return `${(100 * share).toFixed(share > 0.995 && share < 1 ? 1 : 0)}\u00a0%`;
}

function optionRow({ option, description, hotkey }, review, most, choose) {
  const votes = review.votes[option];
  const isProposed = option === review.proposed_label;
  const bar = el("span", { className: "bar" });
  bar.style.width = `${(100 * votes) / most}%`;
  return el("li", {}, el(
    "button",
    { type: "button", className: isProposed ? "proposed" : "", "aria-keyshortcuts": hotkey, onclick: () => choose(option) },
    el(
      "span", { className: "name" }, option, hotkey && keyCap(hotkey),
      isProposed && [" ", el("span", { className: "tag" }, "proposed")], description && el("small", {}, description),
    ),
    el("span", { className: "count", role: "img", "aria-label": votes === 1 ? "1 vote" : `${votes} votes` }, votes),
    el("span", { className: "track" }, bar),
  ));
}

function showSaid(section, said, describeOne, linkTo) {
  section.hidden = !said.length;
  section.querySelector("ul").replaceChildren(...said.map((each) => {
    const { annotator_id: id, created_at: at } = each;
    const title = `Only what ${id} has labelled or skipped`;
    return el(
      "li", {}, el("span", {}, describeOne(each)), el("a", { href: linkTo(id), title }, `${id.slice(0, SHORT_ID)}…`),
      el("time", { className: "quiet", dateTime: at }, ago(at)),
    );
  }));
}

function showMetadata(metadata) {
  const members = metadata && typeof metadata === "object" ? Object.entries(metadata) : [];
  $("metadata").hidden = !members.length;
  $("metadata").querySelector("dl").replaceChildren(...members.flatMap(([name, value]) => [
    el("dt", {}, name), el("dd", {}, typeof value === "string" ? value : JSON.stringify(value)),
  ]));
}

function ago(at) {
  const seconds = (new Date(at) - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? UNITS.at(-1);
  return relative.format(Math.round(seconds / size), unit);
}
