// The filter: its text as the server takes it, a line that builds conditions, and errors where they belong.
//
//   GET /v1/pools/POOL/fields ──► columns to choose from (conditions, and which are shown on cards)
//   condition line ──add──► text ──filter()──► body of the search ──refused──► refuse(): marked at the text

import { byId, make, tellAt } from "./dom.js";
import { getJson } from "./server.js";

const text = byId("filter");
const field = byId("filter-field");
const operator = byId("filter-operator");
const value = byId("filter-value");
const panel = byId("filter-panel");
const toggle = byId("filter-toggle");

/** What every pair has besides its columns. */
const ALWAYS = [["caption", ["text"]], ["key", ["text"]], ["source", ["text"]], ["source.row", ["number"]]];
/** Columns on a card, unless the visitor chooses: as many lines as a caption has. */
const SHOWN = 2;

let kinds = new Map(ALWAYS);
let shown = [];

/** By name: the kinds that can be asked so, and the filter. */
const OPERATORS = {
  is: [["text", "number", "bool"], (field, value) => ({ eq: { field, value } })],
  "is not": [["text", "number", "bool"], (field, value) => ({ not: { eq: { field, value } } })],
  "begins with": [["text"], (field, value) => ({ prefix: { field, value } })],
  "is at least": [["number", "text"], (field, gte) => ({ range: { field, gte } })],
  "is at most": [["number", "text"], (field, lte) => ({ range: { field, lte } })],
  "is missing": [["text", "number", "bool"], (field) => ({ is_null: { field } })],
  "is there": [["text", "number", "bool"], (field) => ({ not: { is_null: { field } } })],
};
const WITHOUT_VALUE = ["is missing", "is there"];

export const shownColumns = () => shown;
export const filterText = () => text.value.trim();

/** The filter of a search: undefined where there is none. Text that is no JSON is refused here, at the field. */
export function filter() {
  refuse("");
  if (!filterText()) return undefined;
  try {
    return JSON.parse(filterText());
  } catch (error) {
    refuse(`the filter is not JSON: ${error.message}`);
    throw error;
  }
}

/** Marks the filter as wrong, or right again. */
export function refuse(message) {
  if (message) open(true);
  tellAt(text, byId("filter-error"), message);
}

export function setFilter(from) {
  text.value = from;
  fit();
  if (from) open(true);
}

/** Keeps the whole filter in sight; where its panel is closed, that there is one. */
function fit() {
  toggle.textContent = filterText() ? "Filter and columns (filtered)" : "Filter and columns";
  text.rows = Math.min(8, Math.max(2, text.value.split("\n").length));
}

/** Learns the columns of a pool. */
export async function learnColumns(pool) {
  const { fields } = await getJson(`/v1/pools/${encodeURIComponent(pool)}/fields`);
  kinds = new Map([...fields.map((f) => [f.filter, f.kinds]), ...ALWAYS]);
  field.replaceChildren(...[...kinds.keys()].map((name) => new Option(name, name)));
  offerOperators();
  drawColumns(fields.map((f) => f.name));
}

function drawColumns(names) {
  const kept = shown.filter((name) => names.includes(name));
  shown = kept.length ? kept : names.slice(0, SHOWN);
  const boxes = names.map((name) => {
    const label = make("label", null, { class: "column" });
    const box = make("input", null, { type: "checkbox", value: name });
    box.checked = shown.includes(name);
    label.append(box, name);
    return label;
  });
  const columns = byId("columns");
  columns.replaceChildren(columns.firstElementChild, ...boxes);
  columns.hidden = names.length === 0;
}

function offerOperators() {
  const of = kinds.get(field.value) ?? [];
  const names = Object.entries(OPERATORS).filter(([, [fits]]) => fits.some((kind) => of.includes(kind))).map(([name]) => name);
  operator.replaceChildren(...names.map((name) => new Option(name, name)));
  offerValue();
}

function offerValue() {
  byId("filter-value-label").hidden = WITHOUT_VALUE.includes(operator.value);
  const of = kinds.get(field.value) ?? [];
  value.placeholder = of.includes("bool") ? "true or false" : "";
  value.inputMode = of.includes("number") && !of.includes("text") ? "decimal" : "text";
}

/** What was typed, as the column's kind of value. */
function typed() {
  const of = kinds.get(field.value) ?? [];
  const word = value.value.trim();
  if (of.includes("number") && word !== "" && Number.isFinite(Number(word))) return Number(word);
  if (of.includes("bool") && (word === "true" || word === "false")) return word === "true";
  return value.value;
}

/** Joins a condition with what is there by `and`. */
function add() {
  let present;
  try {
    present = filter();
  } catch {
    return text.focus();
  }
  const condition = OPERATORS[operator.value][1](field.value, typed());
  const joined = present === undefined ? condition : { and: [...(Array.isArray(present.and) ? present.and : [present]), condition] };
  text.value = present === undefined ? JSON.stringify(joined) : JSON.stringify(joined, null, 1);
  fit();
  value.value = "";
  byId("form").requestSubmit();
}

function open(is) {
  panel.hidden = !is;
  toggle.setAttribute("aria-expanded", String(is));
}

/** `redraw` hears of other columns for the cards. */
export function startFilter(redraw) {
  toggle.addEventListener("click", () => open(panel.hidden));
  field.addEventListener("change", offerOperators);
  operator.addEventListener("change", offerValue);
  byId("filter-add").addEventListener("click", add);
  value.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    add();
  });
  text.addEventListener("input", fit);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
  });
  byId("filter-clear").addEventListener("click", () => {
    setFilter("");
    byId("form").requestSubmit();
  });
  byId("columns").addEventListener("change", () => {
    shown = [...byId("columns").querySelectorAll("input:checked")].map((box) => box.value);
    redraw();
  });
}
