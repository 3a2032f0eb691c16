"use strict";
// The page for people. It asks POST /v1/search like any other client; pictures come from each pair's own URL.

const byId = (id) => document.getElementById(id);
const ui = Object.fromEntries(
  ["form", "text", "file", "pool", "side", "k", "status", "error", "results", "drop", "card", "example", "pool-label", "pool-facts"]
    .map((id) => [id, byId(id)])
);
const state = { pools: [], picture: null, like: null, sideWanted: null, asked: 0 };
// What the server takes as one body, less a third for base64.
const MAX_PICTURE_BYTES = 20 * 1024 * 1024;
const count = (n, one, many) => `${n.toLocaleString()} ${n === 1 ? one : many}`;

async function getJson(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server cannot be reached. Is it still running?");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.error?.message ?? `The server answered with status ${response.status}.`);
  return body;
}

function pool() {
  return state.pools.find((p) => p.name === ui.pool.value) ?? state.pools[0];
}

function showPool() {
  const p = pool();
  ui["pool-facts"].textContent = p ? `${count(p.rows, "pair", "pairs")}, model ${p.model}` : "";
  for (const [option, rows] of [[ui.side.options[0], p?.image_rows], [ui.side.options[1], p?.text_rows]]) option.disabled = rows === 0;
  // A side that the pool lacks gives way to the other, and comes back with a pool that has it.
  if (ui.side.selectedOptions[0]?.disabled) {
    state.sideWanted = ui.side.value;
    ui.side.value = ui.side.value === "image" ? "text" : "image";
  } else if (state.sideWanted && p?.[`${state.sideWanted}_rows`] !== 0) {
    ui.side.value = state.sideWanted;
    state.sideWanted = null;
  }
}

function showError(message) {
  ui.error.textContent = message.charAt(0).toUpperCase() + message.slice(1);
  ui.error.hidden = !message;
}

/** Shows the picture that is looked for instead of words, or none. */
function showExample(url, name) {
  const old = byId("example-image").src;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  ui.example.hidden = !url;
  ui.text.placeholder = url ? "Or describe one" : "Describe a picture";
  byId("example-name").textContent = name ?? "";
  byId("example-image").hidden = false;
  if (url) byId("example-image").src = url;
  else byId("example-image").removeAttribute("src");
}

function clearExample() {
  state.picture = null;
  state.like = null;
  showExample(null);
}

const imageUrl = (id) => `/v1/pools/${encodeURIComponent(pool().name)}/pairs/${id}/image`;

function lookFor(id) {
  clearExample();
  state.like = id;
  ui.text.value = "";
  showExample(imageUrl(id), `Like row ${id}`);
  search();
  window.scrollTo({ top: 0 });
  ui.text.focus({ preventScroll: true });
}

function readBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("This file cannot be read."));
    reader.readAsDataURL(file);
  });
}

async function lookForPicture(file) {
  if (!file) return;
  if (file.size > MAX_PICTURE_BYTES) {
    showError("This picture is larger than 20 MB. Choose a smaller one.");
    return;
  }
  clearExample();
  try {
    state.picture = await readBase64(file);
  } catch (error) {
    showError(error.message);
    return;
  }
  ui.text.value = "";
  showExample(URL.createObjectURL(file), file.name || "Pasted picture");
  search();
}

function query() {
  if (state.picture !== null) return { image: state.picture };
  if (state.like !== null) return { id: state.like };
  const text = ui.text.value.trim();
  return text ? { text } : null;
}

/** Keeps what was asked in the address, so that reload, back and sharing work. A picture from the visitor's disk cannot be. */
function remember() {
  const address = new URLSearchParams();
  if (state.like !== null) address.set("like", state.like);
  else if (state.picture === null && ui.text.value.trim()) address.set("q", ui.text.value.trim());
  if (ui.pool.value !== state.pools[0]?.name) address.set("pool", ui.pool.value);
  if (ui.side.value !== "image") address.set("side", ui.side.value);
  if (ui.k.value !== "24") address.set("k", ui.k.value);
  const next = address.size ? `/?${address}` : "/";
  if (next !== location.pathname + location.search) history.pushState(null, "", next);
}

function recall() {
  const address = new URLSearchParams(location.search);
  const choose = (select, value) => {
    if (value !== null && [...select.options].some((o) => o.value === value)) select.value = value;
  };
  clearExample();
  choose(ui.pool, address.get("pool") ?? state.pools[0]?.name ?? null);
  choose(ui.side, address.get("side") ?? "image");
  choose(ui.k, address.get("k") ?? "24");
  showPool();
  ui.text.value = address.get("q") ?? "";
  const like = address.get("like");
  if (like !== null && /^\d+$/.test(like)) {
    state.like = Number(like);
    showExample(imageUrl(state.like), `Like row ${like}`);
  }
  search("as the address says");
}

async function search(why = "new") {
  showError("");
  const input = query();
  const asked = ++state.asked;
  if (!input) {
    ui.results.replaceChildren();
    ui.status.textContent = "Type words, or choose, paste or drop a picture.";
    return;
  }
  if (why === "new") remember();
  ui.results.setAttribute("aria-busy", "true");
  ui.status.textContent = "Searching…";
  const k = Number(ui.k.value);
  const body = { ...input, pool: ui.pool.value, side: ui.side.value, k, limit: k, include: ["caption"] };
  try {
    const answer = await getJson("/v1/search", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (asked === state.asked) showResults(answer.results[0]);
  } catch (error) {
    if (asked !== state.asked) return;
    ui.results.replaceChildren();
    ui.status.textContent = "";
    showError(error.message);
  } finally {
    if (asked === state.asked) ui.results.removeAttribute("aria-busy");
  }
}

function showResults(result) {
  ui.results.replaceChildren(...result.hits.map(card));
  const cut = result.degraded ? " The search was cut short; some may be missing." : "";
  const found = result.hits.length ? count(result.hits.length, "result", "results") : "Nothing found";
  ui.status.textContent = `${found} in ${result.took_ms < 10 ? result.took_ms.toFixed(1) : Math.round(result.took_ms)} ms.${cut}`;
}

function card(hit) {
  const item = ui.card.content.cloneNode(true);
  const caption = hit.caption ?? "";
  const shot = item.querySelector(".shot");
  const picture = item.querySelector("img");
  shot.href = imageUrl(hit.id);
  picture.alt = caption || `Row ${hit.id}`;
  picture.addEventListener("error", () => {
    shot.removeAttribute("href");
    shot.classList.add("none");
    shot.textContent = "No picture stored";
  });
  picture.src = imageUrl(hit.id);
  item.querySelector(".caption").textContent = caption || `Row ${hit.id}`;
  item.querySelector(".score").textContent = hit.score.toFixed(3);
  const like = item.querySelector(".like");
  like.setAttribute("aria-label", `More like ${caption || `row ${hit.id}`}`);
  like.addEventListener("click", () => lookFor(hit.id));
  return item;
}

function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((f) => f.type.startsWith("image/"));
}

ui.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (ui.text.value.trim()) clearExample();
  search();
});
ui.text.addEventListener("search", () => {
  if (!ui.text.value && state.picture === null && state.like === null) search();
});
ui.file.addEventListener("change", () => {
  lookForPicture(ui.file.files[0]);
  ui.file.value = "";
});
byId("example-clear").addEventListener("click", () => {
  clearExample();
  search();
  ui.text.focus();
});
byId("example-image").addEventListener("error", () => (byId("example-image").hidden = true));
ui.side.addEventListener("change", () => (state.sideWanted = null));
ui.pool.addEventListener("change", () => {
  // A row of one pool is another pair in the next.
  if (state.like !== null) clearExample();
  showPool();
  search();
});
for (const select of [ui.side, ui.k]) select.addEventListener("change", () => search());
addEventListener("popstate", () => recall());
addEventListener("paste", (event) => {
  const file = pictureIn(event.clipboardData);
  if (file) {
    event.preventDefault();
    lookForPicture(file);
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName)) {
    event.preventDefault();
    ui.text.focus();
    ui.text.select();
  }
});
let dragDepth = 0;
addEventListener("dragenter", (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  dragDepth += 1;
  ui.drop.hidden = false;
});
addEventListener("dragleave", () => {
  dragDepth = Math.max(0, dragDepth - 1);
  ui.drop.hidden = dragDepth === 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragDepth = 0;
  ui.drop.hidden = true;
  const file = pictureIn(event.dataTransfer);
  if (file) lookForPicture(file);
  else if (event.dataTransfer?.files.length) showError("This file is no picture. Drop a JPEG, PNG or WebP.");
});

(async () => {
  try {
    state.pools = (await getJson("/v1/pools")).pools;
  } catch (error) {
    showError(error.message);
    return;
  }
  ui.pool.replaceChildren(...state.pools.map((p) => new Option(p.name, p.name)));
  ui["pool-label"].hidden = state.pools.length < 2;
  recall();
})();
