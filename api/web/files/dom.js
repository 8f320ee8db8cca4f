// Elements. Whatever comes from a customer or an annotator goes in as text, or as an address that was checked.

// A form that is reset goes back to these.
const DEFAULTS = { checked: "defaultChecked", value: "defaultValue", selected: "defaultSelected" };

/**
 * Return an element. Properties are set as such, false ones too; those with a hyphen and `role` as attributes; `on…` are
 * listeners. Children may be texts; those that are false or null are left out.
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[DEFAULTS[name] in made ? DEFAULTS[name] : name] = value;
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
