// A new job: its fields, a try that shows the first lines as annotators will see them, and the job itself.

import { el, isHttp, notice, number, picture, raw, table } from "/web/console-dom.js";
import { credentialFields, Faults, readCredentials } from "/web/console-fields.js";
import { hotkeysOf, keyCap } from "/web/hotkeys.js";
import { render } from "/web/markdown.js";
import { IdempotencyKeys, ask } from "/web/session.js";

const TYPES = [
  ["image_classification", "Pictures"],
  ["text_classification", "Texts"],
  ["sentiment", "Texts: how they sound"],
  ["moderation", "Texts or pictures: whether they may be shown"],
];
const FORMATS = [["jsonl", "JSON lines"], ["parquet", "Parquet"]];
const COMPRESSIONS = [["none", "not compressed"], ["gzip", "gzip"], ["zstd", "zstd"]];
const CHECKS = [
  ["stop_early", "End a task as soon as no other option can win"],
  ["include_labels", "Show single labels in the results, so that they can be computed again"],
  ["sign_urls", "Sign s3:// and gs:// addresses, so that annotators can see pictures in private buckets"],
  ["review_no_consensus", "Have a reviewer decide tasks without a consensus"],
  ["review_flagged", "Have a reviewer decide tasks that annotators have skipped"],
];

// What a job shows of its request under the same name.
const ASKED = [
  "gold_share", "min_accuracy", "min_gold_seen", "include_labels", "review_no_consensus", "review_confidence_below", "review_share", "review_flagged",
  "review_deadline", "task_type", "callback_url", "metadata", "priority", "stop_early", "skips_max", "failure_threshold_percent", "show_metadata", "sign_urls",
];
const SHOWN = new Map([["all", true], ["none", false]]);

export async function show({ view, query }) {
  const page = new FormPage();
  view.replaceChildren(el("h1", {}, "New job"), page.like, page.form, page.preview);
  const like = query.get("like");
  if (like) await page.fill(like);
  return {};
}

function labelled(id, text, input, hint) {
  return el("div", {}, el("label", { htmlFor: id }, text), Object.assign(input, { id }), hint ? el("p", { className: "hint" }, hint) : null);
}

function choice(entries) {
  return el("select", {}, entries.map(([value, text]) => el("option", { value }, text)));
}

class FormPage {
  #in = {};
  #faults;
  #state = notice();
  like = notice(); // which job it is filled from, and what that job does not show
  #credentials = credentialFields("job", "s3");
  #delivery;
  #more; // the fields that most jobs do without
  #buttons;
  #idempotencyKeys = new IdempotencyKeys();
  preview = el("section", { "aria-label": "Preview", className: "preview" });

  constructor() {
    this.form = this.#build();
    this.#faults = new Faults(this.form);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#send(event.submitter?.value === "try");
    });
    this.#in.manifest_url.addEventListener("input", () => this.#credentials.showStore(this.#store));
  }

  get #store() {
    return /^gs:|storage\.(googleapis|cloud\.google)\.com/i.test(this.#in.manifest_url.value.trim()) ? "gcs" : "s3";
  }

  #field(name, text, input, hint) {
    this.#in[name.split(".").at(-1)] = input;
    input.dataset.field = name;
    return labelled(`f-${name.replaceAll(".", "-")}`, text, input, hint);
  }

  #build() {
    const options = el("textarea", { rows: 4, required: true, placeholder: "cat\ndog", spellcheck: false });
    const more = el("textarea", { rows: 3, spellcheck: false, placeholder: '{"min_accuracy": 0.8}' });
    this.#buttons = [el("button", { className: "main", value: "submit" }, "Submit the job"), el("button", { value: "try" }, "Try it, and see the first lines")];
    return el(
      "form", { noValidate: true },
      el("fieldset", {}, el("legend", {}, "What"),
        this.#field("manifest_url", "Manifest", el("input", { type: "text", required: true, placeholder: "s3://bucket/manifest.jsonl", spellcheck: false, autocapitalize: "none" }), "JSON lines in S3 or GCS. Each line has a data_url, or a text."),
        this.#field("label_spec.question", "Question", el("input", { type: "text", required: true, placeholder: "Which animal is it?" })),
        this.#field("label_spec.options", "Options, one a line", options),
        el("div", { className: "grid" },
          this.#field("task_type", "Lines are", choice(TYPES)),
          this.#field("consensus_threshold", "Labels a task", el("input", { type: "number", min: 1, max: 10, value: 3 }), "A task settles once more than half of so many agree.")),
        this.#field("instructions", "Instructions for annotators", el("textarea", { rows: 4 }), "Markdown. They read it before they label.")),
      this.#credentials,
      this.#buildDelivery(),
      this.#more = el("details", {}, el("summary", {}, "More"),
        el("div", { className: "grid" },
          this.#field("priority", "Priority, 0 to 9", el("input", { type: "number", min: 0, max: 9, value: 5 })),
          this.#field("callback_url", "Tell of its progress at", el("input", { type: "url", placeholder: "https://my-service.example/hook" })),
          this.#field("failure_threshold_percent", "Fail if more percent of the lines are bad", el("input", { type: "number", min: 0, max: 100, step: "any", placeholder: "as the service has it" })),
          this.#field("show_metadata", "Metadata that annotators see", el("input", { type: "text", placeholder: "all; or: none; or: caption, page", spellcheck: false, autocapitalize: "none" }))),
        CHECKS.map(([name, text]) => this.#check(name, text)),
        this.#field("more", "Further fields of the API, as JSON", more)),
      this.#state,
      el("div", { className: "row" }, this.#buttons),
    );
  }

  #check(name, text) {
    const input = el("input", { type: "checkbox", id: `f-${name}`, "data-field": name });
    this.#in[name] = input;
    return el("p", { className: "check" }, input, el("label", { htmlFor: input.id }, text));
  }

  #buildDelivery() {
    const wanted = el("input", { type: "checkbox", id: "f-deliver", checked: true });
    const fields = el("div", { className: "grid" },
      this.#field("delivery.bucket", "Bucket", el("input", { type: "text", spellcheck: false, autocapitalize: "none" })),
      this.#field("delivery.prefix", "Prefix", el("input", { type: "text", spellcheck: false, autocapitalize: "none", placeholder: "labels" }), "The job's id follows it."),
      this.#field("delivery.format", "Format", choice(FORMATS)),
      this.#field("delivery.compression", "Compression", choice(COMPRESSIONS)));
    this.#delivery = wanted;
    wanted.addEventListener("change", () => { fields.hidden = !wanted.checked; });
    return el("fieldset", {}, el("legend", {}, "Results"), el("p", { className: "check" }, wanted, el("label", { htmlFor: wanted.id }, "Deliver the results to a bucket")), fields);
  }

  /** Fill in what another job has; its credentials are nobody's to see. */
  async fill(jobId) {
    try {
      const path = `/v1/jobs/${encodeURIComponent(jobId)}`;
      const [job, { text }] = await Promise.all([ask("GET", path), ask("GET", `${path}/instructions`)]);
      const asked = askedOf(job, text);
      this.#fillFields(asked);
      this.#fillFurther(difference(asked, this.#body()) ?? {});
      this.like.say(`This is as in ${jobId}, but for the credentials${asked.delivery?.type === "s3" ? ", and the delivery's kms_key_id and acl if it had them" : ""}: the service never shows them. Give them again${asked.delivery?.type === "s3" ? ", the latter two as a \"delivery\" among the further fields" : ""}.`);
    } catch (error) {
      this.like.fail(error);
    }
  }

  #fillFields(asked) {
    const { label_spec: { question, options }, delivery } = asked;
    const values = { ...asked, question, options: options.join("\n"), show_metadata: writeShown(asked.show_metadata), consensus_threshold: asked.consensus_threshold ?? "", ...delivery };
    for (const [name, value] of Object.entries(values)) if (this.#in[name] && value !== null && value !== undefined) this.#in[name].value = value;
    for (const [name] of CHECKS) this.#in[name].checked = asked[name];
    this.#delivery.checked = delivery !== undefined;
    this.#delivery.dispatchEvent(new Event("change"));
    this.#credentials.showStore(this.#store);
  }

  /** Show what has no field of its own where it can be changed, so that it is neither lost nor sent unseen. */
  #fillFurther(further) {
    if (!Object.keys(further).length) return;
    this.#in.more.value = JSON.stringify(further, null, 2);
    this.#in.more.rows = this.#in.more.value.split("\n").length + 1;
    this.#more.open = true;
  }

  /** Return the body of the request. Throws where the further fields are no JSON object. */
  #body() {
    const text = (name) => this.#in[name].value.trim() || undefined;
    const count = (name) => (text(name) === undefined ? undefined : Number(text(name)));
    const instructions = this.#in.instructions.value;
    return merge({
      manifest_url: text("manifest_url") ?? "",
      label_spec: { question: text("question") ?? "", options: (text("options") ?? "").split("\n").map((line) => line.trim()).filter(Boolean) },
      task_type: text("task_type"),
      consensus_threshold: count("consensus_threshold"),
      instructions: instructions.trim() ? instructions : undefined,
      credentials: readCredentials(this.#credentials) ?? undefined,
      delivery: this.#delivery.checked ? { type: this.#store, bucket: text("bucket") ?? "", prefix: text("prefix") ?? "", format: text("format"), compression: text("compression") } : undefined,
      priority: count("priority"),
      callback_url: text("callback_url"),
      failure_threshold_percent: count("failure_threshold_percent"),
      show_metadata: readShown(text("show_metadata")),
      ...Object.fromEntries(CHECKS.filter(([name]) => this.#in[name].checked).map(([name]) => [name, true])),
    }, parseObject(text("more")));
  }

  async #send(isTry) {
    this.#faults.clear();
    for (const button of this.#buttons) button.disabled = true;
    this.#state.say(isTry ? "Reading the first lines, and trying the bucket…" : "Trying the manifest and the bucket, then submitting…");
    try {
      const body = this.#body();
      if (isTry) {
        this.preview.replaceChildren(...showPreview(await ask("POST", "/v1/jobs/preview", body), body.instructions));
        this.#state.say("Everything that was tried works. Nothing is submitted yet.");
        this.preview.scrollIntoView({ block: "nearest" });
      } else {
        const { job_id } = await ask("POST", "/v1/jobs?preflight=true", body, { "Idempotency-Key": this.#idempotencyKeys.of(body) });
        location.assign(`/console?job=${encodeURIComponent(job_id)}`);
      }
    } catch (error) {
      this.#state.say("");
      this.#faults.show(error);
    }
    for (const button of this.#buttons) button.disabled = false;
  }
}

/** Return the request that makes a job like this one, without credentials. */
function askedOf(job, instructions) {
  const { type, bucket, prefix, format, compression } = job.delivery ?? {};
  const isWeighted = job.consensus.method === "weighted"; // it has no threshold
  return {
    manifest_url: job.manifest.url,
    label_spec: job.label_spec,
    ...(isWeighted ? { consensus: job.consensus } : { consensus_threshold: job.consensus_threshold }),
    ...Object.fromEntries(ASKED.map((name) => [name, job[name]])),
    instructions: instructions?.replaceAll("\r\n", "\n"), // as a field has them
    delivery: job.delivery ? { type, bucket, prefix, format, compression } : undefined,
  };
}

/** Return what `wanted` has otherwise than `found`, member by member; undefined if that is nothing. */
function difference(wanted, found) {
  if (!isObject(wanted) || !isObject(found)) {
    const isAlike = JSON.stringify(wanted ?? null) === JSON.stringify(found ?? null) || (wanted === false && found === undefined);
    return isAlike ? undefined : wanted;
  }
  const members = Object.entries(wanted).map(([name, value]) => [name, difference(value, found[name])]).filter(([, value]) => value !== undefined);
  return members.length ? Object.fromEntries(members) : undefined;
}

/** Return an object with the members of another, which come first; objects are merged. */
function merge(object, other) {
  const merged = { ...object };
  for (const [name, value] of Object.entries(other)) merged[name] = isObject(value) && isObject(object[name]) ? merge(object[name], value) : value;
  return merged;
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function writeShown(shown) {
  return Array.isArray(shown) ? shown.join(", ") : [...SHOWN].find(([, value]) => value === shown)[0];
}

function readShown(text) {
  if (text === undefined) return undefined;
  return SHOWN.get(text.toLowerCase()) ?? text.split(",").map((name) => name.trim()).filter(Boolean);
}

function parseObject(text) {
  if (text === undefined) return {};
  try {
    const found = JSON.parse(text);
    if (isObject(found)) return found;
  } catch {
    // said below
  }
  throw Object.assign(new Error(), { details: [{ field: "more", message: "This must be a JSON object, such as {\"min_accuracy\": 0.8}." }] });
}

/** Return the instructions and the first lines, one at a time, as annotators will see them; and the bad ones. */
function showPreview({ label_spec, tasks, bad_lines }, instructions) {
  const place = el("div", { className: "task" });
  const which = el("span", { role: "status" });
  const step = (by) => el("button", { type: "button", onclick: () => turn(by), disabled: tasks.length < 2 }, by < 0 ? "Previous" : "Next");
  let at = 0;
  function turn(by) {
    at = (at + by + tasks.length) % tasks.length;
    which.textContent = `Line ${number(tasks[at].line)}, ${at + 1} of ${tasks.length}`;
    place.replaceChildren(...showTask(tasks[at], label_spec));
  }
  if (tasks.length) turn(0);
  const bad = bad_lines.map((line) => [number(line.line), line.code, line.message, raw(line.raw)]);
  return [
    el("h2", {}, "As annotators will see it"),
    tasks.length ? el("div", { className: "row" }, step(-1), step(1), which) : el("p", { className: "quiet" }, "There are no lines to show: the manifest is empty, or begins with a very long line."),
    instructions ? el("section", { className: "instructions", "aria-labelledby": "p-instructions" }, el("h3", { id: "p-instructions" }, "Instructions"), render(instructions, 4)) : null,
    tasks.length ? place : null,
    bad.length ? table("Bad lines among the first ten", [{ text: "Line", number: true }, "Reason", "Why", "As it stands there"], bad, { isCaptionSeen: true }) : null,
  ].filter(Boolean);
}

function showTask(task, spec) {
  const address = task.signed_url ?? task.data_url;
  return [
    el("h3", {}, spec.question),
    task.text === undefined ? picture(address, `Line ${task.line}`) : el("p", { className: "text", dir: "auto" }, task.text),
    address && !isHttp(address) ? el("p", { className: "hint" }, "Annotators get this address as it is. With signed addresses they see the picture.") : null,
    el("ul", { className: "options" }, hotkeysOf(spec).map(({ option, hotkey }) => el("li", {}, hotkey && keyCap(hotkey), option))),
    task.metadata ? el("p", { className: "quiet address" }, `Metadata: ${JSON.stringify(task.metadata)}`) : null,
    task.gold ? el("p", { className: "hint" }, `Gold: the right answer is ${task.gold}. Annotators do not see that.`) : null,
  ].filter(Boolean);
}
