// Pool, side, effort, least score, near duplicates: how is searched. A side that a pool lacks gives way to the other, and comes back with a pool that has it.

import { byId, count } from "./dom.js";
import { filterText, setFilter } from "./filter.js";

const ui = Object.fromEntries(["pool", "side", "from", "effort", "threshold", "distinct"].map((id) => [id, byId(id)]));
/** What stands where nothing was chosen; only other choices are in the address. */
const USUAL = { side: "image", from: "", effort: "normal", threshold: "" };
/** Pairs this near (a cosine) to a better one are hidden where the visitor asks for it: the policies' own default. */
const NEAR = 0.95;

let pools = [];
let sideWanted = null;

export const pool = () => pools.find((p) => p.name === ui.pool.value) ?? pools[0];

export function setPools(served) {
  pools = served;
  ui.pool.replaceChildren(...pools.map((p) => new Option(p.name, p.name)));
  byId("pool-label").hidden = pools.length < 2;
  showPool();
}

/** The controls as members of a search. */
export function settings() {
  const { side, from, effort, distinct } = ui;
  const threshold = leastScore();
  const asked = {
    ...(from.value && { from: from.value }),
    ...(distinct.checked && { near_duplicate: NEAR }),
    ...(threshold !== null && { threshold }),
  };
  return { pool: pool().name, side: side.value, effort: effort.value, ...asked };
}

/** The score below which pairs are left out; null for none, and for what is no cosine. */
export function leastScore() {
  const { value, valueAsNumber, validity } = ui.threshold;
  return value !== "" && validity.valid ? valueAsNumber : null;
}

function showPool() {
  const p = pool();
  byId("pool-facts").textContent = p ? `${count(p.rows, "pair", "pairs")}, model ${p.model}` : "";
  for (const option of ui.side.options) option.disabled = p?.[`${option.value}_rows`] === 0;
  if (ui.side.selectedOptions[0]?.disabled) {
    sideWanted = ui.side.value;
    ui.side.value = ui.side.value === "image" ? "text" : "image";
  } else if (sideWanted && p?.[`${sideWanted}_rows`] !== 0) {
    ui.side.value = sideWanted;
    sideWanted = null;
  }
}

/** Which of a pair's vectors asks matters only where a pair asks. */
export function offerFrom(pairsAsk) {
  byId("from-label").hidden = !pairsAsk;
}

export function address(into) {
  if (ui.pool.value !== pools[0]?.name) into.set("pool", ui.pool.value);
  for (const [name, usual] of Object.entries(USUAL)) if (ui[name].value !== usual) into.set(name, ui[name].value);
  if (ui.distinct.checked) into.set("distinct", "1");
  if (filterText()) into.set("filter", filterText());
}

export function fromAddress(from) {
  const choose = (select, value) => {
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  };
  choose(ui.pool, from.get("pool") ?? pools[0]?.name);
  const { threshold, ...selects } = USUAL;
  for (const [name, usual] of Object.entries(selects)) choose(ui[name], from.get(name) ?? usual);
  ui.threshold.value = from.get("threshold") ?? threshold;
  ui.distinct.checked = from.has("distinct");
  setFilter(from.get("filter") ?? "");
  showPool();
}

export function startControls({ otherPool, otherwise }) {
  ui.pool.addEventListener("change", () => {
    showPool();
    otherPool();
  });
  ui.side.addEventListener("change", () => (sideWanted = null));
  for (const control of [ui.side, ui.from, ui.effort, ui.threshold, ui.distinct]) control.addEventListener("change", otherwise);
}
