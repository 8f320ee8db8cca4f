// The front door: sign in by a key or a link, choose a page, sign out.

import { el } from "/web/dom.js";
import { current, signIn, signOut } from "/web/session.js";

const PAGES = [
  { path: "/annotate", name: "Label", about: "Pictures and texts, one at a time", roles: ["annotator", "reviewer"] },
  { path: "/review", name: "Review", about: "Decide what labels leave open", roles: ["reviewer"] },
  { path: "/console", name: "Console", about: "Jobs, live; results; webhooks; keys", roles: ["customer", "admin"] },
  { path: "/schema", name: "API reference", about: "Every request, with examples", roles: ["annotator", "reviewer", "customer", "admin"] },
];
const ROLES = { annotator: "annotator", reviewer: "reviewer", customer: "customer", admin: "operator" };
const UNREACHABLE = "The service cannot be reached. Is this device online?";

const $ = (id) => document.getElementById(id);
let linkToken = "";
const VIEWS = ["sign-in", "by-link", "signed-in", "again"];

function view(shown) {
  for (const id of VIEWS) $(id).hidden = id !== shown;
}

function say(text, isBad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", isBad);
}

function show(session) {
  if (session === null) {
    view("sign-in");
    $("key").focus();
    return;
  }
  const wanted = findWanted();
  const pages = PAGES.filter((page) => page.roles.includes(session.role));
  if (pages.some((page) => page.path === wanted?.pathname)) {
    location.replace(wanted.pathname + wanted.search);
    return;
  }
  $("who").textContent = `You are signed in as ${session.name} (${ROLES[session.role]})`;
  $("pages").replaceChildren(...pages.map(entry));
  view("signed-in");
}

function entry({ path, name, about }) {
  return el("li", {}, el("a", { href: path }, name, el("span", {}, about)));
}

/** Return the address on this service that the page was opened for, or null. */
function findWanted() {
  const wanted = new URLSearchParams(location.search).get("to") ?? "";
  return wanted.startsWith("/") && URL.canParse(wanted, location.origin) ? new URL(wanted, location.origin) : null;
}

async function enter(credential, before = null) {
  say("Signing in…");
  try {
    const session = await signIn(credential);
    say("");
    show(session);
    $("who").focus();
  } catch (error) {
    show(before);
    say(why(error), true);
  }
}

function why(error) {
  if (error.code === "invalid_api_key") return "This is no key of this service, or it was revoked.";
  return error instanceof TypeError ? UNREACHABLE : error.message;
}

/** Show who is signed in; with a link, ask them before somebody else is. */
async function begin() {
  say("Looking who is signed in…");
  try {
    const session = await current();
    if (linkToken && session === null) return await enter({ link: linkToken });
    say("");
    if (!linkToken) return show(session);
    $("link-question").textContent = `You are signed in as ${session.name} (${ROLES[session.role]}), and have opened a sign-in link`;
    view("by-link");
    $("stay").onclick = () => show(session);
    $("follow-link").onclick = () => enter({ link: linkToken }, session);
  } catch (error) {
    view("again");
    say(why(error), true);
  }
}

// What stands after # is sent to nobody. It is taken out of the address and the history at once.
function takeLinkToken() {
  linkToken = location.hash.slice(1);
  if (linkToken) history.replaceState(null, "", location.pathname + location.search);
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  $("key").value = "";
  await enter({ key });
});
$("again").addEventListener("click", begin);
$("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
    show(null);
    say("You are signed out.");
  } catch (error) {
    say(`You are still signed in. ${why(error)}`, true);
  }
});
// A link that is opened where this page is open already does not load it again.
addEventListener("hashchange", () => {
  takeLinkToken();
  if (linkToken) begin();
});
takeLinkToken();
await begin();
