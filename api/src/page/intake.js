// How pictures come in: chosen, pasted, dropped anywhere on the page.

import { byId, tell } from "./dom.js";
import { lookForPicture } from "./query.js";

const drop = byId("drop");
/** `dragenter` and `dragleave` come for every element that is passed. */
let depth = 0;

async function take(file) {
  try {
    await lookForPicture(file);
  } catch (error) {
    tell(byId("error"), error.message);
  }
}

const pictureIn = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));

export function startIntake() {
  const file = byId("file");
  file.addEventListener("change", () => {
    if (file.files[0]) take(file.files[0]);
    file.value = "";
  });
  addEventListener("paste", (event) => {
    const picture = pictureIn(event.clipboardData);
    if (!picture) return;
    event.preventDefault();
    take(picture);
  });
  addEventListener("dragenter", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    depth += 1;
    drop.hidden = false;
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    drop.hidden = depth === 0;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    drop.hidden = true;
    const picture = pictureIn(event.dataTransfer);
    if (picture) take(picture);
    else if (event.dataTransfer?.files.length) tell(byId("error"), "This file is no picture. Drop a JPEG, PNG or WebP.");
  });
}
