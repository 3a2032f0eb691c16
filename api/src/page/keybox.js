// The key of a server that has keys: asked for when the server wants one, tried at once, kept for this tab.

import { byId, tellAt } from "./dom.js";
import { key } from "./server.js";

const form = byId("key-form");
const field = byId("key");

/** Asks for a key; says why where one was refused. */
export function askKey(error) {
  const had = key.get() !== null;
  key.forget();
  byId("form").inert = true;
  form.hidden = false;
  byId("status").textContent = "";
  tellAt(field, byId("key-error"), had ? error.message : "");
  field.value = "";
  field.focus();
}

/** `again` starts the page anew with the key. */
export function startKeybox(again) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(field.value.trim());
    form.hidden = true;
    byId("form").inert = false;
    again();
  });
  byId("key-forget").addEventListener("click", () => {
    key.forget();
    location.assign("/");
  });
}

/** A key can be forgotten once there is one. */
export const showKeybox = () => (byId("key-forget").hidden = key.get() === null);
