// Asks the server, with the visitor's key where there is one.
//
//   getJson, postJson ──► { answer } or Failure (status, code, message)
//   showPicture ──► <img>: by its URL, or fetched with the key, since an <img> can show none

const KEY = "anchorite.key";

/** Why a request was not answered. `code` is the server's stable name of the reason. */
export class Failure extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    Object.assign(this, { status, code });
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (secret) => sessionStorage.setItem(KEY, secret),
  forget: () => sessionStorage.removeItem(KEY),
};

function headers(more = {}) {
  const secret = key.get();
  return secret ? { ...more, Authorization: `Bearer ${secret}` } : more;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `The server answered with status ${response.status}.`;
  throw new Failure(message, response.status, body?.error?.code);
}

export async function getJson(path) {
  return (await ask(path, { headers: headers() })).json();
}

async function post(path, body, accept, signal) {
  const sent = headers({ "Content-Type": "application/json", Accept: accept });
  return ask(path, { method: "POST", headers: sent, body: JSON.stringify(body), signal });
}

export async function postJson(path, body, signal) {
  return (await post(path, body, "application/json", signal)).json();
}

/** A file that the server makes. */
export async function postFile(path, body, accept) {
  return (await post(path, body, accept)).blob();
}

export const pairPath = (pool, id) => `/v1/pools/${encodeURIComponent(pool)}/pairs/${id}`;
export const picturePath = (pool, id) => `${pairPath(pool, id)}/image`;

const waiting = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    waiting.unobserve(target);
    fetchPicture(target, target.dataset.path);
  }
}, { rootMargin: "400px" });

/** Shows a stored picture; the element gets an `error` event where there is none. */
export function showPicture(image, path) {
  if (!key.get()) {
    image.loading = "lazy";
    image.src = path;
    return;
  }
  image.dataset.path = path;
  waiting.observe(image);
}

async function fetchPicture(image, path) {
  try {
    const url = URL.createObjectURL(await (await ask(path, { headers: headers() })).blob());
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}
