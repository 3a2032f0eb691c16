// A search from question to cards: a first page, and more of it on demand. A newer question ends an older one.
//
//   query.input() + controls.settings() + filter() ──► POST /v1/search ──► hits, a cursor ──► cards
//                                                          └─ refused ──► at the filter, at the key, or above the grid

import { addCards, cards, clearCards, focusCard } from "./cards.js";
import * as controls from "./controls.js";
import { byId, count, tell } from "./dom.js";
import * as filter from "./filter.js";
import * as query from "./query.js";
import { postJson } from "./server.js";

/** Cards of a page: full rows of two to six, and two screens of a large display. */
const PAGE = 24;
/** Cards in all: further down nobody looks, and each page costs a search for all of them. */
const MOST = 20 * PAGE;

const ui = Object.fromEntries(["status", "error", "results", "more"].map((id) => [id, byId(id)]));
/** The question whose answer is on the page: { body, cursor, described }, or none. */
let present = null;
let running = null;
let askKey = () => {};

export const describedQuery = () => present?.described ?? "";

/** Asks for the first page. False where nothing was asked, or the filter cannot be sent. */
export async function search() {
  running?.abort();
  tell(ui.error, "");
  controls.offerFrom(query.hasPairs());
  const input = query.input();
  if (!input) return nothingAsked();
  let sent;
  try {
    sent = filter.filter();
  } catch {
    return show("", []);
  }
  const k = Math.min(MOST, controls.pool().max_k);
  const body = { ...input, ...controls.settings(), k, page: PAGE, include: ["caption", "fields"], ...(sent === undefined ? {} : { filter: sent }) };
  present = { body, cursor: null, described: query.described() };
  await page(true);
}

async function more() {
  const place = cards().length;
  await page(false);
  focusCard(place);
}

async function page(first) {
  const asked = (running = new AbortController());
  const question = present;
  ui.results.setAttribute("aria-busy", "true");
  ui.status.textContent = "Searching…";
  ui.more.disabled = true;
  try {
    const body = question.cursor ? { ...question.body, cursor: question.cursor } : question.body;
    const answer = await postJson("/v1/search", body, asked.signal);
    if (asked !== running) return;
    question.cursor = answer.next ?? null;
    showPage(question, answer, first);
  } catch (error) {
    if (asked === running && error.name !== "AbortError") refused(error, first);
  } finally {
    if (asked === running) {
      ui.results.removeAttribute("aria-busy");
      ui.more.disabled = false;
    }
  }
}

function showPage(question, answer, first) {
  const [result] = answer.results;
  if (first) clearCards();
  const wanted = result.hits.filter((hit) => !query.isUnwanted(hit.id));
  addCards(answer.pool, wanted);
  ui.more.hidden = question.cursor === null || result.hits.length === 0;
  const shown = cards().length;
  const took = `${result.took_ms < 10 ? result.took_ms.toFixed(1) : Math.round(result.took_ms)} ms`;
  const cut = result.degraded ? " The search was cut short; some may be missing." : "";
  ui.status.textContent = shown ? `${count(shown, "pair", "pairs")}, nearest first, in ${took}.${cut}` : nothingFound();
}

function nothingFound() {
  if (controls.pool().rows === 0) return "This pool is empty: ingest something, and it shows here.";
  if (controls.leastScore() !== null) return `Nothing found: no pair scores ${controls.leastScore()} or more.`;
  return filter.filterText() ? "Nothing found: no pair passes the filter." : "Nothing found.";
}

function refused(error, first) {
  if (first) clearCards();
  ui.status.textContent = "";
  ui.more.hidden = first || error.code === "generation_gone";
  if (error.status === 401) askKey(error);
  else if (error.code?.startsWith("filter_")) filter.refuse(error.message);
  else tell(ui.error, error.message);
}

function show(status) {
  present = null;
  running = null;
  clearCards();
  ui.results.removeAttribute("aria-busy");
  ui.more.hidden = true;
  ui.status.textContent = status;
}

function nothingAsked() {
  show("Type words, or choose, paste or drop a picture.");
}

/** `onKey` is called where the server wants a key, or another. */
export function startSearch(onKey) {
  askKey = onKey;
  ui.more.addEventListener("click", more);
}
