// The delivery: what stands in the bucket, files compared with it, and another try where it failed.

import { bytes, el, facts, notice, number, section, table, time } from "/web/console-dom.js";
import { credentialFields, Faults, readCredentials } from "/web/console-fields.js";
import { ask } from "/web/session.js";

const OBJECTS_MAX = 5000;

export function showDelivery(path) {
  const state = notice();
  const about = el("div");
  const objects = el("div");
  const again = el("div");
  let shown = null;

  async function load(job) {
    const { delivery } = job;
    const key = JSON.stringify([job.status, delivery]);
    if (key === shown) return; // what somebody types stays
    shown = key;
    about.replaceChildren(delivery ? place(job) : el("p", { className: "quiet" }, "The job asked for no delivery; its results can be exported."));
    const canDeliver = job.status === "completed" && (!delivery || delivery.status === "failed");
    again.replaceChildren(...(canDeliver ? [form(path, job, state)] : []));
    if (["delivered", "failed"].includes(delivery?.status)) state.say("");
    if (delivery?.status !== "delivered") return;
    try {
      const listed = await all(path);
      objects.replaceChildren(list(listed), comparison(listed));
    } catch (error) {
      shown = null;
      state.fail(error);
    }
  }

  return { element: section("Delivery", about, state, objects, again), load };
}

function place({ job_id, delivery }) {
  return el(
    "div", {},
    delivery.message ? el("p", { className: "bad" }, `${delivery.message} (${delivery.code})`) : null,
    facts([
      ["Status", delivery.status ?? "when all tasks have ended"],
      ["Place", el("span", { className: "address" }, `${delivery.type === "gcs" ? "gs" : "s3"}://${[delivery.bucket, delivery.prefix, job_id].filter(Boolean).join("/")}/`)],
      ["Format", [delivery.format, delivery.compression === "none" ? null : delivery.compression].filter(Boolean).join(", ")],
      ["Objects", delivery.objects === null ? null : `${number(delivery.objects)}, manifest.json among them`],
      ["Delivered", delivery.delivered_at ? time(delivery.delivered_at) : null],
    ]),
  );
}

async function all(path) {
  const found = [];
  let cursor = null;
  do {
    const query = new URLSearchParams({ limit: 1000, ...(cursor ? { cursor } : {}) });
    const page = await ask("GET", `${path}/delivery/objects?${query}`);
    found.push(...page.objects);
    cursor = page.next_cursor;
  } while (cursor && found.length < OBJECTS_MAX);
  return found;
}

function list(objects) {
  const rows = objects.map((each) => [el("span", { className: "address" }, each.key), number(each.rows), bytes(each.bytes), el("code", { className: "sum" }, each.sha256)]);
  return table("Objects", ["Object", { text: "Rows", number: true }, { text: "Size", number: true }, "SHA-256"], rows, { isCaptionSeen: true });
}

/** Compare files that somebody has downloaded from the bucket with what was written there. */
function comparison(objects) {
  const found = el("ul", { role: "status" });
  const compare = async ({ target }) => {
    found.replaceChildren();
    for (const file of target.files) found.append(el("li", {}, await compareOne(file, objects)));
  };
  return el(
    "details", {}, el("summary", {}, "Compare files that you have downloaded"),
    el("label", { htmlFor: "downloaded" }, "Files from the bucket"),
    el("input", { id: "downloaded", type: "file", multiple: true, onchange: compare }),
    el("p", { className: "hint" }, "They are compared here, and sent nowhere."),
    found,
  );
}

async function compareOne(file, objects) {
  if (file.name === "manifest.json") return `manifest.json: ${compareManifest(await file.text(), objects)}`;
  const named = objects.find(({ key }) => key.split("/").at(-1) === file.name);
  if (!named) return `${file.name}: no object of this delivery has this name.`;
  if (file.size !== named.bytes) return `${file.name}: differs. It has ${number(file.size)} bytes, and ${number(named.bytes)} were written.`;
  if (!crypto.subtle) return `${file.name}: has the size that was written. To compare its SHA-256, open this page over https.`;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  const sum = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return sum === named.sha256 ? `${file.name}: is what was written.` : `${file.name}: differs. Its SHA-256 is ${sum}.`;
}

/** Compare the objects that a manifest.json lists with those that were written; its own sum is written nowhere. */
function compareManifest(text, objects) {
  let listed;
  try {
    listed = JSON.parse(text).objects.map(summary);
  } catch {
    return "differs. It is no list of objects.";
  }
  const written = objects.map(summary);
  const isWhole = listed.length === written.length || written.length >= OBJECTS_MAX;
  if (isWhole && written.every((each, n) => each === listed[n])) return `lists ${number(written.length)} ${written.length === 1 ? "object" : "objects"} as they were written. Compare them too.`;
  return `differs. It lists ${number(listed.length)} objects, and ${number(listed.filter((each) => written.includes(each)).length)} of them were written so.`;
}

function summary({ key, rows, bytes: size, sha256 }) {
  return JSON.stringify([key, rows, size, sha256]);
}

/** Return the form for another try, or for a first one, which needs a place and credentials. */
function form(path, job, state) {
  const { delivery } = job;
  const store = delivery?.type ?? (job.manifest.url.startsWith("gs:") ? "gcs" : "s3");
  const fields = {
    bucket: el("input", { id: "deliver-bucket", "data-field": "delivery.bucket", value: delivery?.bucket ?? "", required: true }),
    prefix: el("input", { id: "deliver-prefix", "data-field": "delivery.prefix", value: delivery?.prefix ?? "" }),
    ...(store === "s3" ? {
      kms_key_id: el("input", { id: "deliver-kms", "data-field": "delivery.kms_key_id", autocomplete: "off", spellcheck: false }),
      acl: el("input", { id: "deliver-acl", "data-field": "delivery.acl", autocomplete: "off", spellcheck: false, placeholder: "bucket-owner-full-control" }),
    } : {}),
  };
  const credentials = credentialFields("deliver", store);
  const made = el(
    "form", {},
    el("h3", {}, delivery ? "Deliver again" : "Deliver"),
    el("p", { className: "hint" }, delivery ? "Without credentials, those that the job still has are used, for the same place. What is changed here goes for all of it: the service shows neither the KMS key nor the ACL of before." : "A first delivery brings credentials of its own."),
    el("div", { className: "grid" },
      el("div", {}, el("label", { htmlFor: "deliver-bucket" }, "Bucket"), fields.bucket),
      el("div", {}, el("label", { htmlFor: "deliver-prefix" }, "Prefix"), fields.prefix),
      fields.acl && [
        el("div", {}, el("label", { htmlFor: "deliver-kms" }, "KMS key (optional)"), fields.kms_key_id),
        el("div", {}, el("label", { htmlFor: "deliver-acl" }, "ACL (optional)"), fields.acl),
      ]),
    credentials,
    el("button", { className: "main" }, delivery ? "Deliver again" : "Deliver"),
  );
  const faults = new Faults(made);
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    faults.clear();
    event.submitter.disabled = true;
    const given = readCredentials(credentials);
    const typed = Object.fromEntries(Object.entries(fields).map(([name, input]) => [name, input.value.trim()]));
    const target = { type: store, format: delivery?.format, compression: delivery?.compression, ...typed, kms_key_id: typed.kms_key_id || undefined, acl: typed.acl || undefined };
    const isSame = delivery && typed.bucket === delivery.bucket && typed.prefix === delivery.prefix && !target.kms_key_id && !target.acl;
    try {
      await ask("POST", `${path}/deliver`, { ...(given ? { credentials: given } : {}), ...(isSame ? {} : { delivery: target }) });
      made.reset();
      state.say("The delivery begins.");
    } catch (error) {
      faults.show(error);
    }
    event.submitter.disabled = false;
  });
  return made;
}
