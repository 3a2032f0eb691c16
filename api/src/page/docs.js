// The OpenAPI document as a page: routes by tag, then the types they name. Text goes in as text, never as markup.
//
//   /openapi.json ──► operation(): parameters, body, answers ──► fields(): one row a member
//                                                                  └─ words(): a type in words, named types as links to their own place

import { byId, make } from "./dom.js";

let schemas = {};

const nameOf = (schema) => schema.$ref.split("/").pop();
const target = (schema) => (schema.$ref ? schemas[nameOf(schema)] : schema);

function add(parent, name, text = null, attributes = {}) {
  const element = make(name, text, attributes);
  parent.append(element);
  return element;
}

/** Descriptions have `code` in them. */
function describe(parent, text) {
  (text ?? "").split("`").forEach((part, place) => parent.append(place % 2 ? make("code", part) : part));
}

/** The type of a value: strings, and links to named types. Closed sets of strings are told in place. */
function words(schema) {
  const kinds = [].concat(schema.type ?? []);
  if (schema.$ref) {
    const named = schemas[nameOf(schema)];
    return named.enum ? words(named) : [make("a", nameOf(schema), { href: `#${nameOf(schema)}` })];
  }
  const options = schema.oneOf ?? schema.anyOf;
  if (options) return options.flatMap((option, place) => [...(place ? [" or "] : []), ...words(option)]);
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  if (schema.items) return ["list of ", ...words(schema.items), ...(kinds.includes("null") ? [" or null"] : [])];
  return [kinds.join(" or ") || "anything"];
}

/** What is said of a member is beside its type, or within the named one of its options. */
const said = (schema) => schema.description ?? (schema.oneOf ?? []).find((option) => option.description)?.description;

function table(parent, rows) {
  if (rows.length === 0) return;
  const body = add(add(parent, "table"), "tbody");
  for (const [name, type, text] of rows) {
    const row = add(body, "tr");
    add(row, "th", name, { scope: "row" });
    add(row, "td").append(...type);
    describe(add(row, "td"), text);
  }
}

function fields(parent, schema) {
  const resolved = target(schema);
  if (resolved.enum) return add(parent, "p").append(...words(resolved));
  const parts = [resolved, ...(resolved.allOf ?? []), ...(resolved.oneOf ?? [])].map(target);
  const row = (part) => ([name, field]) => [name + (part.required?.includes(name) && !resolved.oneOf ? " *" : ""), words(field), said(field)];
  table(parent, parts.flatMap((part) => Object.entries(part.properties ?? {}).map(row(part))));
}

function body(parent, title, content) {
  for (const [type, { schema }] of Object.entries(content ?? {})) {
    const head = add(parent, "h4", `${title}, ${type}: `);
    if (schema) head.append(...words(schema));
    if (schema && type === "application/json") fields(parent, schema);
  }
}

function operation(parent, path, method, is) {
  const details = add(parent, "details");
  const summary = add(details, "summary");
  add(summary, "code", `${method.toUpperCase()} ${path}`);
  summary.append(` ${is.summary ?? is.description ?? ""} `);
  if (is["x-scope"]) add(summary, "small", is["x-scope"], { title: "The scope that a key needs, where the server has keys" });
  table(details, (is.parameters ?? []).map((p) => [p.name, [`in the ${p.in}`], p.description]));
  body(details, "Body", is.requestBody?.content);
  const answers = Object.entries(is.responses);
  add(details, "h4", "Answers");
  table(details, answers.map(([status, answer]) => [status, [Object.keys(answer.content ?? {}).join(", ")], answer.description]));
  body(details, "Answer 200", is.responses[200]?.content);
}

function routes(paths) {
  const all = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, is]) => [path, method, is]));
  const byTag = Map.groupBy(all, ([, , is]) => is.tags?.[0] ?? "other");
  for (const [tag, operations] of byTag) {
    add(byId("routes"), "h2", tag);
    operations.forEach((one) => operation(byId("routes"), ...one));
  }
  return all.length;
}

function types() {
  add(byId("routes"), "h2", "types");
  for (const [name, schema] of Object.entries(schemas)) {
    if (schema.enum) continue;
    const section = add(byId("routes"), "section", null, { id: name });
    add(section, "h3", name);
    describe(add(section, "p"), schema.description);
    fields(section, schema);
  }
}

try {
  const api = await (await fetch("/openapi.json")).json();
  schemas = api.components.schemas;
  const count = routes(api.paths);
  types();
  byId("status").textContent = `${count} routes. A star marks a member that must be there.`;
} catch (error) {
  byId("status").textContent = `The document could not be loaded: ${error.message}`;
}
