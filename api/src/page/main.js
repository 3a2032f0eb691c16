// The page for people. It asks the server like any other client; nothing comes from anywhere else.
//
//   intake.js (file, paste, drop) ─┐
//   box, cards ────────────────────┴─► query.js ──┐
//   controls.js (pool, side, effort), filter.js ──┼──► search.js ──► server.js ──► POST /v1/search
//   address bar ◄─────────────────────────────────┘        │
//                                                          ▼
//        details.js (one pair) ◄── cards.js (grid, keys) ──► selection.js (tray, manifest)
//
// keybox.js asks for a key where the server wants one; dom.js has what all use.

import { redrawChosen, redrawColumns, startCards } from "./cards.js";
import * as controls from "./controls.js";
import { showDetails } from "./details.js";
import { byId, tell } from "./dom.js";
import { learnColumns, startFilter } from "./filter.js";
import { startIntake } from "./intake.js";
import { askKey, showKeybox, startKeybox } from "./keybox.js";
import * as query from "./query.js";
import { describedQuery, search, startSearch } from "./search.js";
import * as selection from "./selection.js";
import { getJson } from "./server.js";

/** Keeps what was asked in the address, so that reload, back and sharing work. A picture from the visitor's disk cannot be kept. */
function remember() {
  const address = new URLSearchParams();
  query.address(address);
  controls.address(address);
  const next = address.size ? `/?${address}` : "/";
  if (next !== location.pathname + location.search) history.pushState(null, "", next);
}

/** What is asked before the pools are known is asked when they are. */
async function ask() {
  if (!controls.pool()) return;
  remember();
  return search();
}

/** Shows what the address says. `first`: when the page starts. */
async function recall(first) {
  const address = new URLSearchParams(location.search);
  controls.fromAddress(address);
  query.fromAddress(address, controls.pool().name, first);
  selection.show(controls.pool().name);
  await Promise.all([search(), columns()]);
}

/** Without its columns a pool can still be searched; cards that are there already get theirs. */
async function columns() {
  try {
    await learnColumns(controls.pool().name);
    redrawColumns();
  } catch (error) {
    tell(byId("error"), error.message);
  }
}

async function start() {
  tell(byId("error"), "");
  try {
    controls.setPools((await getJson("/v1/pools")).pools);
  } catch (error) {
    if (error.status === 401) askKey(error);
    else tell(byId("error"), error.message);
    return;
  }
  showKeybox();
  await recall(true);
}

function toTop() {
  scrollTo({ top: 0 });
  byId("text").focus({ preventScroll: true });
}

/** "/" goes to the words; Escape leaves the cards for them. */
function shortcuts(event) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName) && document.activeElement.type !== "checkbox";
  const slash = event.key === "/" && !event.ctrlKey && !event.metaKey && !typing;
  const escape = event.key === "Escape" && !byId("details").open && document.activeElement?.closest("#results, #tray");
  if (!slash && !escape) return;
  event.preventDefault();
  byId("text").focus();
  byId("text").select();
}

query.onChange(ask);
startIntake();
startKeybox(start);
startSearch(askKey);
startFilter(redrawColumns);
selection.startSelection(redrawChosen);
controls.startControls({
  otherwise: ask,
  otherPool: async () => {
    query.dropPairs();
    selection.show(controls.pool().name);
    await Promise.all([ask(), columns()]);
  },
});
startCards({
  look: showDetails,
  choose: (pool, hit) => selection.choose(pool, hit, describedQuery()),
  like: (pool, hit) => {
    query.lookForPair(pool, hit, false);
    toTop();
  },
  unlike: (pool, hit) => {
    query.lookForPair(pool, hit, true);
    toTop();
  },
});
byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
// The cross in a search field.
byId("text").addEventListener("search", () => {
  if (!byId("text").value) ask();
});
addEventListener("popstate", () => recall(false));
addEventListener("keydown", shortcuts);
start();
