// What is looked for: the words in the box, and parts beside them (a picture, pairs that were shown), each like it or unlike it.
//
//   box, file, card ──► parts ──► chips under the box
//                         └─► input() of a search: one input, or a weighted blend; address(), fromAddress() for the parts that an address can hold

import { byId, make } from "./dom.js";
import { getJson, pairPath, picturePath, showPicture } from "./server.js";

/** What the server takes as one body, less a third for base64. */
const MAX_PICTURE_BYTES = 20 * 1024 * 1024;
/** The share of "not like this": what Rocchio's rule usually takes. With half, a slice of pizza unlike one slice was no pizza at all. */
const UNLIKE = -0.25;

/** Letters of a described query; none is more than four bytes. */
const DESCRIBED = 256;

const text = byId("text");
const list = byId("parts");
/** { pool, id, hasImage | image, url; unlike, label }; `hasImage` is undefined where it is not known yet. */
let parts = [];
let changed = () => {};

export const onChange = (listener) => (changed = listener);
export const words = () => text.value.trim();
export const hasPairs = () => parts.some((part) => part.id !== undefined);
/** Whether the visitor said "not like this" of a pair: it is not shown again, however near it stays. */
export const isUnwanted = (id) => parts.some((part) => part.id === id && part.unlike);

/** The query of `POST /v1/search`; null where nothing is looked for. */
export function input() {
  const inputs = parts.map(({ id, image, unlike }) => ({ ...(id === undefined ? { image } : { id }), weight: unlike ? UNLIKE : 1 }));
  if (words()) inputs.unshift({ text: words(), weight: 1 });
  if (inputs.length === 0) return null;
  if (inputs.length > 1 || inputs[0].weight < 0) return { blend: inputs };
  const [{ weight, ...one }] = inputs;
  return one;
}

/** In words, for manifests, whose queries have at most 1,024 bytes. */
export function described() {
  const named = parts.map((part) => `${part.unlike ? "not like" : "like"} ${part.label}`);
  return [words(), ...named].filter(Boolean).join(", ").slice(0, DESCRIBED);
}

export function address(into) {
  if (words()) into.set("q", words());
  for (const { id, unlike } of parts) if (id !== undefined) into.append(unlike ? "unlike" : "like", id);
}

/** `keep` keeps words that were typed while the page was loading, where the address has none. */
export function fromAddress(from, pool, keep) {
  if (!keep || from.has("q")) text.value = from.get("q") ?? "";
  release(parts);
  const numbers = (name) => from.getAll(name).filter((id) => /^\d{1,15}$/.test(id)).map(Number);
  parts = [];
  for (const id of numbers("like")) parts.push(pairPart(pool, id, false));
  for (const id of numbers("unlike")) parts.push(pairPart(pool, id, true));
  draw();
}

const pairPart = (pool, id, unlike, hit = {}) => ({ pool, id, unlike, label: hit.caption || `Row ${id}`, hasImage: hit.has_image });

/** "More like this" starts anew from the pair; "not like this" is said of the present search. */
export function lookForPair(pool, hit, unlike) {
  const { id } = hit;
  const others = unlike ? parts.filter((part) => part.id !== id) : [];
  release(parts.filter((part) => !others.includes(part)));
  if (!unlike) text.value = "";
  parts = [...others, pairPart(pool, id, unlike, hit)];
  draw();
  changed();
}

/** Rows of one pool are other pairs in the next. */
export function dropPairs() {
  parts = parts.filter((part) => part.id === undefined);
  draw();
}

/** Takes the picture of a file as what is looked for; the words stay only where the visitor types them after. */
export async function lookForPicture(file) {
  if (file.size > MAX_PICTURE_BYTES) throw new Error("This picture is larger than 20 MB. Choose a smaller one.");
  const image = await base64(file);
  release(parts);
  text.value = "";
  parts = [{ image, unlike: false, label: file.name || "Pasted picture", url: URL.createObjectURL(file) }];
  draw();
  changed();
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("This file cannot be read."));
    reader.readAsDataURL(file);
  });
}

function release(gone) {
  for (const { url } of gone) if (url) URL.revokeObjectURL(url);
}

function remove(part) {
  release([part]);
  const place = parts.indexOf(part);
  parts = parts.filter((other) => other !== part);
  draw();
  const next = list.children[Math.min(place, parts.length - 1)];
  (next?.querySelector(".remove") ?? text).focus();
  changed();
}

function turn(part) {
  part.unlike = !part.unlike;
  const place = parts.indexOf(part);
  draw();
  list.children[place].querySelector(".sign").focus();
  changed();
}

function draw() {
  list.replaceChildren(...parts.map(chip));
  list.hidden = parts.length === 0;
  text.placeholder = parts.length ? "Add words" : "Describe a picture";
}

/** A pair that came by the address is looked up first: not every pair has a picture. */
async function showPair(picture, part) {
  const known = part.hasImage !== undefined;
  part.hasImage ??= await getJson(pairPath(part.pool, part.id)).then((pair) => pair.image_url !== null, () => false);
  if (!part.hasImage) picture.remove();
  else if (known || picture.isConnected) showPicture(picture, picturePath(part.pool, part.id));
}

function chip(part) {
  const item = make("li", null, { class: part.unlike ? "part unlike" : "part" });
  const picture = make("img", null, { alt: "" });
  picture.addEventListener("error", () => picture.remove());
  if (part.url) picture.src = part.url;
  else showPair(picture, part);
  const word = part.unlike ? "Not like" : "Like";
  const sign = make("button", word, { type: "button", class: "sign", "aria-label": `${word} ${part.label}: turn round`, title: "Turn round" });
  sign.addEventListener("click", () => turn(part));
  const name = make("span", part.label, { class: "part-name" });
  const away = make("button", "✕", { type: "button", class: "remove", "aria-label": `Remove ${part.label} from the search`, title: "Remove" });
  away.addEventListener("click", () => remove(part));
  item.append(picture, sign, name, away);
  return item;
}
