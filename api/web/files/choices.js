// The options as a group of radio buttons: the arrow keys go from one to the next, a hotkey or Enter chooses.

import { el } from "/web/dom.js";
import { hotkeysOf, keyCap, keysOf } from "/web/hotkeys.js";

export class Choices {
  #group;
  #choose;
  #byKey = new Map();

  /** Fill `group` with options; `choose(option, event)` is called with the one that is chosen. */
  constructor(group, choose) {
    this.#group = group;
    this.#choose = choose;
    group.addEventListener("keydown", (event) => this.#walk(event));
  }

  show(spec) {
    this.#byKey = new Map();
    this.#group.replaceChildren(...hotkeysOf(spec).map((each) => this.#button(each)));
    this.#group.classList.toggle("many", spec.options.length > 12);
    this.mark(null);
  }

  /** Show which option the task has already; null for none. */
  mark(option) {
    for (const button of this.#group.children) {
      button.setAttribute("aria-checked", String(button.value === option));
    }
    const focused = [...this.#group.children].includes(document.activeElement);
    if (!focused) this.#rove(this.#group.children[0]);
  }

  /** Refuse choices while there is nothing to choose for. The buttons keep the focus. */
  lock(isLocked) {
    this.#group.setAttribute("aria-disabled", String(isLocked));
  }

  /** Return the option of a key press; undefined if there is none. */
  optionOf(event) {
    const key = keysOf(event).find((each) => this.#byKey.has(each));
    return this.#byKey.get(key);
  }

  #button({ option, description, hotkey }) {
    if (hotkey) this.#byKey.set(hotkey.toLowerCase(), option);
    return el(
      "button",
      { type: "button", value: option, role: "radio", "aria-keyshortcuts": hotkey, onclick: (event) => this.#click(option, event) },
      hotkey && keyCap(hotkey), el("span", {}, option), description && el("small", {}, description),
    );
  }

  #click(option, event) {
    if (event.detail) event.currentTarget.blur(); // by mouse or finger: it would look chosen for the next task
    this.#choose(option, event);
  }

  #walk(event) {
    const buttons = [...this.#group.children];
    const at = buttons.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = { Home: 0, End: buttons.length - 1 }[event.key] ?? (step && (at + step + buttons.length) % buttons.length);
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#rove(buttons[next]);
    buttons[next].focus();
  }

  #rove(button) {
    for (const each of this.#group.children) each.tabIndex = each === button ? 0 : -1;
  }
}
