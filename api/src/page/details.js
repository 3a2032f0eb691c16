// One pair in full: its picture as large as there is room, its caption, every column, where it came from.

import { byId, make } from "./dom.js";
import { getJson, pairPath, picturePath, showPicture } from "./server.js";

const dialog = byId("details");

/** Opens at once with what the hit says, and adds the rest when the server has answered. */
export async function showDetails(pool, hit) {
  const name = hit.caption || `Row ${hit.id}`;
  byId("details-caption").textContent = name;
  const picture = fresh(byId("details-image"));
  picture.alt = name;
  picture.addEventListener("error", () => (picture.hidden = true));
  picture.hidden = !hit.has_image;
  if (hit.has_image) showPicture(picture, picturePath(pool, hit.id));
  draw({ row: hit.id, score: hit.score.toFixed(4), ...hit.fields });
  dialog.showModal();
  try {
    const pair = await getJson(pairPath(pool, hit.id));
    const { file, row, content } = pair.source;
    draw({ row: hit.id, key: pair.key, score: hit.score.toFixed(4), ...pair.fields, source: `${file}, row ${row}`, content });
  } catch {
    // What the hit said stays.
  }
}

/** A new element in its place: none of an earlier pair's picture, none of its listeners. */
function fresh(old) {
  const image = make("img", null, { id: old.id, alt: "" });
  old.replaceWith(image);
  return image;
}

function draw(values) {
  const rows = Object.entries(values).map(([name, value]) => {
    const row = make("div");
    row.append(make("dt", name), make("dd", String(value)));
    return row;
  });
  byId("details-fields").replaceChildren(...rows);
}

// A click beside the pair closes it, as Escape does.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
