// Pairs that the visitor selects, kept over searches and reloads of this tab, and their export as a manifest.
//
//   card ──choose──► chosen (by pool) ──► tray ──POST /v1/manifest──► anchors.parquet, or anchors.json

import { byId, count, tell } from "./dom.js";
import { postFile } from "./server.js";

const KEY = "anchorite.selection";
/** Pool to a map of row number to what the server is told of a pair. */
const chosen = new Map(load());
let pool = "";
let redraw = () => {};

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]").map(([name, pairs]) => [name, new Map(pairs)]);
  } catch {
    return [];
  }
}

function keep() {
  sessionStorage.setItem(KEY, JSON.stringify([...chosen].map(([name, pairs]) => [name, [...pairs]])));
}

const pairsOf = (name) => chosen.get(name) ?? new Map();

export const isChosen = (name, id) => pairsOf(name).has(id);

/** Selects a hit, or takes it back. */
export function choose(name, hit, query) {
  const pairs = pairsOf(name);
  if (!pairs.delete(hit.id)) {
    const { id, key, score } = hit;
    pairs.set(id, { key, score, query });
  }
  chosen.set(name, pairs);
  keep();
  show(name);
}

/** Shows what is selected of this pool. */
export function show(name) {
  pool = name;
  const pairs = pairsOf(pool);
  byId("tray").hidden = pairs.size === 0;
  byId("tray-count").textContent = pairs.size ? `${count(pairs.size, "pair", "pairs")} selected` : "";
  tell(byId("tray-error"), "");
  document.body.classList.toggle("has-tray", pairs.size > 0);
  redraw();
}

const listed = () => [...pairsOf(pool).values()];

/** By key: a pair keeps its key when the pool goes on, its row may be another. */
async function exportAs(type, name) {
  const pairs = listed().map(({ key, query, score }) => ({ key, score, ...(query && { query }) }));
  save(await postFile("/v1/manifest", { pool, pairs }, type), name);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The browser has taken the file by the next turn of its loop; a minute is for slow ones.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function told(button, act) {
  tell(byId("tray-error"), "");
  button.disabled = true;
  try {
    await act();
  } catch (error) {
    tell(byId("tray-error"), error.message);
  } finally {
    button.disabled = false;
  }
}

/** `onChange` hears whenever another set of pairs is selected. */
export function startSelection(onChange) {
  redraw = onChange;
  const [parquet, json] = [byId("export-parquet"), byId("export-json")];
  parquet.addEventListener("click", () => told(parquet, () => exportAs("*/*", "anchors.parquet")));
  json.addEventListener("click", () => told(json, () => exportAs("application/json", "anchors.json")));
  byId("tray-clear").addEventListener("click", () => {
    chosen.delete(pool);
    keep();
    show(pool);
    byId("text").focus();
  });
}
