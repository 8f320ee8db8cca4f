// The keys of options: those that the job says, then digits and letters that are free. The pages' own commands keep
// theirs, whatever a job says, and none has Ctrl, Alt or the system's key, which are the browser's.

import { el } from "/web/dom.js";

const COMMANDS = "?,+=-.;";
const KEYS = [..."1234567890qwertyuiopasdfghjklzxcvbnm"];

/** Return `{option, description, hotkey}` for each option of a label_spec, in its order. */
export function hotkeysOf(spec) {
  const details = new Map((spec.option_details ?? []).map((each) => [each.option, each]));
  const said = new Set([...details.values()].map((each) => each.hotkey?.toLowerCase()).filter(Boolean));
  const free = KEYS.filter((key) => !said.has(key));
  return spec.options.map((option) => {
    const known = details.get(option) ?? {};
    const own = COMMANDS.includes(known.hotkey) ? undefined : known.hotkey;
    return { option, description: known.description, hotkey: own ?? free.shift() };
  });
}

/** Return the sign of a key. A button's aria-keyshortcuts says it to a screen reader. */
export function keyCap(key) {
  const large = key.toUpperCase(); // of ß they are two
  return el("kbd", { "aria-hidden": "true" }, large.length === 1 ? large : key);
}

/**
 * Return what a key press types, small, and after it what its place on a keyboard of digits and Latin letters would
 * type, if it typed another character: French keyboards have digits with Shift only, Russian ones no Latin letters.
 * Keys with names, such as ArrowLeft on a keypad without NumLock, have no second one; combinations have none at all.
 */
export function keysOf(event) {
  const isCombination = (event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph");
  if (isCombination || event.isComposing) return [];
  const typed = event.key.toLowerCase();
  const isOther = [...event.key].length === 1 && !/[a-z0-9]/.test(typed);
  const place = /^(?:Digit|Numpad|Key)(\w)$/.exec(event.code)?.[1].toLowerCase();
  return place && isOther && !event.shiftKey ? [typed, place] : [typed];
}

/** Return whether a key that is held down would press a button once more. */
export function isHeldOnButton(event) {
  return event.repeat && ["Enter", " "].includes(event.key) && event.target.closest("button") !== null;
}
