// Small helpers over the document. Text goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** A new element with text and attributes. */
export function make(name, text = null, attributes = {}) {
  const element = document.createElement(name);
  if (text !== null) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** "1 pair", "4,213 pairs". */
export const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** A server's sentence, as a sentence. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

/** Shows a message in its place, or hides the place. */
export function tell(place, message) {
  place.textContent = message ? sentence(message) : "";
  place.hidden = !message;
}

/** As `tell`, for a field: marks it as well, for those who hear the page. */
export function tellAt(field, place, message) {
  tell(place, message);
  if (message) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}
