// How well annotators agree on a job, who they are, and what they disagree on.

import { changeNow, confirm, el, link, notice, number, percent, picture, section, table, time, whenFree } from "/web/console-dom.js";
import { bars } from "/web/plots.js";
import { ask } from "/web/session.js";

const MATRIX_MAX = 12; // options; of more, the pairs that are confused most are listed
const PAIRS_MAX = 30;
const PAGE = 6;

/** Return the section about quality, and what fills it. */
export function showQuality(path) {
  const state = notice("Loading…");
  const place = el("div");

  /** Read it again, and show it at once where the reader has changed something. */
  async function load(job, { isOwnChange = false } = {}) {
    try {
      const found = await ask("GET", `${path}/quality`);
      const change = () => place.replaceChildren(...report(path, job, found, () => load(job, { isOwnChange: true }), state));
      (isOwnChange ? changeNow : whenFree)(place, change);
      state.say(found.labels + found.open.labels ? "" : "There are no labels yet.");
    } catch (error) {
      state.fail(error);
    }
  }

  return { element: section("Quality", state, place), load };
}

function report(path, job, found, reload, state) {
  const ended = found.tasks_settled + found.tasks_failed;
  if (!ended && !found.open.labels) return [];
  const options = job.label_spec.options;
  return [
    el("ul", { className: "figures" }, [
      [percent(found.agreed_share), "of ended tasks have settled"],
      [percent(found.unanimous_share), "without a vote against"],
      [percent(found.mean_confidence), "mean confidence"],
      [found.accuracy ? percent(found.accuracy.accuracy) : null, "right, by gold"],
      [found.seconds_per_label === null ? null : `${number(found.seconds_per_label, 1)} s`, "a label, the median"],
    ].filter(([value]) => value !== null).map(([value, name]) => el("li", {}, el("strong", {}, value), ` ${name}`))),
    el(
      "div", { className: "columns-2" },
      bars("Confidence of settled tasks", ["Confidence", { text: "Tasks", number: true }], found.confidence.map((bin) => ({ name: `${percent(bin.above)} to ${percent(bin.upto)}`, count: bin.tasks }))),
      bars("Answers", ["Option", { text: "Tasks", number: true }, { text: "Labels", number: true }], found.options.map((each) => ({ name: each.option, count: each.tasks, more: [number(each.labels + each.open)] }))),
    ),
    confusion(options, found),
    annotators(path, job, found, reload, state),
  ];
}

function confusion(options, found) {
  const names = found.options.map(({ option }) => option);
  if (names.length <= MATRIX_MAX) {
    const rows = found.confusion.map((row, n) => [names[n], ...row.map((count) => number(count))]);
    return table("Confusion: labels on settled tasks, a row for each result", ["Result", ...names.map((text) => ({ text, number: true }))], rows, { isCaptionSeen: true });
  }
  const pairs = found.confusion.flatMap((row, r) => row.map((count, c) => ({ count, result: names[r], label: names[c] })).filter((pair, c) => c !== r && pair.count));
  pairs.sort((a, b) => b.count - a.count);
  return table("Confusion: labels that differ from the result, the most frequent", ["Result", "Label", { text: "Labels", number: true }], pairs.slice(0, PAIRS_MAX).map((pair) => [pair.result, pair.label, number(pair.count)]), { isCaptionSeen: true });
}

function annotators(path, job, found, reload, state) {
  const canExclude = job.status === "processing";
  const heads = ["Annotator", { text: "Labels", number: true }, { text: "Agree", number: true }, { text: "Right on gold", number: true }, { text: "Seconds a label", number: true }, { text: "Skips", number: true }, canExclude ? "Exclude" : null].filter(Boolean);
  const rows = found.annotators.map((each) => [
    each.name ?? each.annotator_id,
    number(each.labels + each.failed + each.open),
    percent(each.agreement),
    percent(each.gold_accuracy),
    number(each.seconds_per_label, 1),
    number(Object.values(each.skips).reduce((sum, count) => sum + count, 0)),
    ...(canExclude ? [each.excluded_at ? el("span", {}, "excluded ", time(each.excluded_at)) : excluding(path, each, reload, state)] : []),
  ]);
  return table("Annotators", heads, rows, { isCaptionSeen: true });
}

function excluding(path, annotator, reload, state) {
  const name = annotator.name ?? annotator.annotator_id;
  const exclude = async () => {
    const text = "They get nothing more of this job, and all of their labels are set aside: votes are counted anew, and tasks may be open again. This cannot be undone.";
    if (!(await confirm(`Exclude ${name}?`, text, "Exclude them"))) return;
    try {
      await ask("POST", `${path}/annotators/${encodeURIComponent(annotator.annotator_id)}/exclude`);
      await reload();
      document.querySelector('[aria-label="Annotators"]')?.focus(); // the button is gone
      state.say(`${name} is excluded from this job.`);
    } catch (error) {
      state.fail(error);
    }
  };
  return el("button", { type: "button", onclick: exclude, "aria-label": `Exclude ${name}` }, "Exclude…");
}

/** Return the section of tasks whose labels are not all alike. */
export function showDisagreements(path) {
  const state = notice("Loading…");
  const list = el("ul", { className: "cards" });
  const more = el("button", { type: "button", hidden: true, onclick: () => next() }, "Show more");
  let cursor = null;

  async function load() {
    if (list.children.length > PAGE) return; // somebody reads on
    await next(true);
  }

  async function next(isFirst = false) {
    try {
      const query = new URLSearchParams({ limit: PAGE, ...(cursor && !isFirst ? { cursor } : {}) });
      const page = await ask("GET", `${path}/disagreements?${query}`);
      if (isFirst) whenFree(list, () => list.children.length > PAGE || begin(page));
      else show(page);
    } catch (error) {
      state.fail(error);
    }
  }

  function begin(page) {
    list.replaceChildren();
    show(page);
  }

  function show(page) {
    list.append(...page.disagreements.map(disagreement));
    cursor = page.next_cursor;
    more.hidden = cursor === null;
    state.say(list.children.length || cursor ? "" : "There are none.");
  }

  return { element: section("Disagreements", state, list, more), load };
}

function disagreement(task) {
  const votes = Object.entries(task.votes).filter(([, count]) => count);
  votes.sort(([, a], [, b]) => b - a);
  const result = task.consensus_label === null ? task.status.replace("_", " ") : `${task.consensus_label}, ${percent(task.confidence)}`;
  return el(
    "li", {},
    task.text === undefined ? picture(task.data_url, `Line ${task.line ?? "?"}`) : el("p", { className: "text", dir: "auto" }, task.text),
    el("p", {}, el("strong", {}, result), ` · ${votes.map(([option, count]) => `${option} ${count}`).join(", ")}`),
    el(
      "details", {}, el("summary", {}, `Line ${number(task.line)}: who said what`),
      el("ul", {}, task.labels.map((label) => el("li", {}, `${label.name ?? label.annotator_id}: ${label.label}, `, time(label.created_at)))),
      task.data_url ? el("p", { className: "address" }, link(task.data_url)) : null,
      task.metadata ? el("p", { className: "quiet address" }, JSON.stringify(task.metadata)) : null,
    ),
  );
}
