// Lines without a result: how many by code, the first of them as they stand in the manifest, and a manifest to mend.

import { el, notice, number, raw, section, table, whenFree } from "/web/console-dom.js";
import { bars } from "/web/plots.js";
import { readText, request } from "/web/session.js";

const SHOWN_MAX = 50;
const RAW_CHARACTERS_MAX = 300;

export function showErrors(path) {
  const state = notice("Loading…");
  const place = el("div");

  async function load(job, timeline) {
    const bad = Object.entries(timeline.bad_lines).map(([name, count]) => ({ name, count }));
    const badCount = bad.reduce((sum, { count }) => sum + count, 0);
    bad.sort((a, b) => b.count - a.count);
    if (job.tasks_failed > badCount) bad.push({ name: "tasks that failed", count: job.tasks_failed - badCount });
    if (!bad.length) {
      place.replaceChildren();
      state.say("Every line so far has a result, or may have one.");
      return;
    }
    try {
      const lines = await first(`${path}/errors`);
      const rows = lines.map((line) => [number(line.line), line.code, line.message, raw(shorten(line.raw))]);
      whenFree(place, () => place.replaceChildren(
        bars("By reason", ["Reason", { text: "Lines", number: true }], bad),
        el("p", { className: "row" },
          badCount ? el("a", { className: "button", href: `${path}/errors?format=manifest`, download: `${job.job_id}-bad-lines.jsonl` }, "Bad lines as a manifest to mend") : null,
          el("a", { className: "button", href: `${path}/errors`, download: `${job.job_id}-errors.jsonl` }, "All of this as JSON lines")),
        table(lines.length < SHOWN_MAX ? "Lines without a result" : `The first ${SHOWN_MAX} lines without a result`, [{ text: "Line", number: true }, "Reason", "Why", "As it stands there"], rows, { isCaptionSeen: true }),
      ));
      state.say("");
    } catch (error) {
      state.fail(error);
    }
  }

  return { element: section("Lines without a result", state, place), load };
}

/** Return the first lines of a stream that may have millions. */
async function first(path) {
  let text = "";
  for await (const part of readText(await request("GET", path))) {
    text += part;
    if (text.split("\n").length > SHOWN_MAX) break;
  }
  return text.split("\n").slice(0, SHOWN_MAX).filter(Boolean).map((line) => JSON.parse(line));
}

function shorten(raw) {
  return raw.length > RAW_CHARACTERS_MAX ? `${raw.slice(0, RAW_CHARACTERS_MAX)}…` : raw;
}
