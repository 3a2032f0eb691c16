// Hits as a grid of cards, and the grid by keyboard: one card is in the tab order, the arrows move between cards.

import { byId, make } from "./dom.js";
import { shownColumns } from "./filter.js";
import { isChosen } from "./selection.js";
import { picturePath, showPicture } from "./server.js";

const grid = byId("results");
const template = byId("card");
/** Of each card, what it shows. */
const shown = new WeakMap();
/** What a card can do: { look, like, unlike, choose }. */
let acts = {};

export const cards = () => [...grid.children];
export const hits = () => cards().map((card) => shown.get(card).hit);

export function clearCards() {
  grid.replaceChildren();
}

/** Adds hits behind those that are there; pairs that are there already are left out. The number added. */
export function addCards(pool, found) {
  const there = new Set(hits().map((hit) => hit.id));
  const fresh = found.filter((hit) => !there.has(hit.id));
  const first = grid.children.length === 0;
  grid.append(...fresh.map((hit) => card(pool, hit)));
  if (first && grid.firstElementChild) shotOf(grid.firstElementChild).tabIndex = 0;
  return fresh.length;
}

/** Puts the focus on the card of this place. */
export function focusCard(place) {
  const target = cards()[Math.max(0, Math.min(place, grid.children.length - 1))];
  if (!target) return;
  for (const other of cards()) shotOf(other).tabIndex = -1;
  shotOf(target).tabIndex = 0;
  shotOf(target).focus();
}

/** Draws the columns of every card anew. */
export function redrawColumns() {
  for (const item of cards()) drawColumns(item, shown.get(item).hit);
}

/** Marks the cards that are selected. */
export function redrawChosen() {
  for (const item of cards()) {
    const { pool, hit } = shown.get(item);
    mark(item, isChosen(pool, hit.id));
  }
}

const shotOf = (item) => item.querySelector(".shot");

function mark(item, is) {
  item.classList.toggle("chosen", is);
  item.querySelector(".choose input").checked = is;
}

function card(pool, hit) {
  const item = template.content.firstElementChild.cloneNode(true);
  shown.set(item, { pool, hit });
  const name = hit.caption || `Row ${hit.id}`;
  const [shot, picture] = [shotOf(item), item.querySelector("img")];
  shot.tabIndex = -1;
  shot.setAttribute("aria-label", `${name}. Open`);
  shot.addEventListener("click", () => acts.look(pool, hit));
  const withoutPicture = () => {
    picture.remove();
    shot.classList.add("none");
    item.querySelector(".no-shot").hidden = false;
  };
  picture.addEventListener("error", withoutPicture);
  if (hit.has_image) showPicture(picture, picturePath(pool, hit.id));
  else withoutPicture();
  const caption = item.querySelector(".caption");
  caption.textContent = name;
  caption.title = name;
  item.querySelector(".score").textContent = `score ${hit.score.toFixed(3)}`;
  const box = item.querySelector(".choose input");
  box.setAttribute("aria-label", `Select ${name}`);
  box.addEventListener("change", () => acts.choose(pool, hit));
  for (const act of ["like", "unlike"]) {
    const button = item.querySelector(`.${act}`);
    button.setAttribute("aria-label", `${button.textContent}: ${name}`);
    button.addEventListener("click", () => acts[act](pool, hit));
  }
  drawColumns(item, hit);
  mark(item, isChosen(pool, hit.id));
  return item;
}

function drawColumns(item, hit) {
  const rows = shownColumns().filter((name) => hit.fields?.[name] !== undefined).map((name) => {
    const row = make("div", null, { title: `${name}: ${hit.fields[name]}` });
    row.append(make("dt", name), make("dd", String(hit.fields[name])));
    return row;
  });
  const list = item.querySelector(".fields");
  list.replaceChildren(...rows);
  list.hidden = rows.length === 0;
}

/** Cards in a row of the grid as it is laid out now. */
function perRow() {
  const top = cards()[0]?.offsetTop;
  const next = cards().findIndex((item) => item.offsetTop !== top);
  return next === -1 ? cards().length : next;
}

function placeAfter(key, place) {
  const last = cards().length - 1;
  const row = perRow();
  return {
    ArrowRight: Math.min(place + 1, last),
    ArrowLeft: Math.max(place - 1, 0),
    ArrowDown: place + row <= last ? place + row : last,
    ArrowUp: place - row,
    Home: 0,
    End: last,
  }[key];
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const item = event.target.closest(".card");
  const place = cards().indexOf(item);
  if (place < 0) return;
  const { pool, hit } = shown.get(item);
  const next = placeAfter(event.key, place);
  const act = event.target === shotOf(item) ? { " ": "choose", m: "like", n: "unlike" }[event.key] : undefined;
  if (next === undefined && !act) return;
  event.preventDefault();
  if (act) acts[act](pool, hit);
  // Above the first row are the words.
  else if (next < 0) byId("text").focus();
  else focusCard(next);
}

/** `on` says what a card does when it is looked at, liked, disliked, selected. */
export function startCards(on) {
  acts = on;
  grid.addEventListener("keydown", onKey);
}
