// Customers by their names, for operators: lists of the API have ids.

import { el } from "/web/console-dom.js";
import { ask } from "/web/session.js";

/** Return the names of all customers by their ids. */
export async function loadNames() {
  const { customers } = await ask("GET", "/v1/customers");
  return new Map(customers.map(({ customer_id, name }) => [customer_id, name]));
}

/** Return a customer as a link to their jobs: by name, or by the id where that is not known. */
export function customerLink(customerId, names) {
  return el("a", { href: `/console?customer=${encodeURIComponent(customerId)}` }, names.get(customerId) ?? customerId);
}
