// The OpenAPI document as a page. Text goes in as text, never as markup.

const child = (name, parent, text) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
};

const resolve = (api, schema) => {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? { name, ...api.components.schemas[name] } : schema || {};
};

const type_of = (api, schema) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array" || (schema.items && !schema.type)) return `${type_of(api, schema.items || {})}[]`;
  const options = schema.oneOf || schema.anyOf;
  if (options) return options.map((s) => type_of(api, s)).join(" | ");
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  return [].concat(schema.type || "any").join(" | ");
};

const table = (parent, heads, rows) => {
  if (!rows.length) return;
  const element = child("table", parent);
  const head = child("tr", child("thead", element));
  heads.forEach((text) => child("th", head, text));
  const body = child("tbody", element);
  for (const row of rows) {
    const line = child("tr", body);
    row.forEach((text, i) => child(i === 0 ? "th" : "td", line, text));
  }
};

const fields = (api, parent, schema) => {
  const resolved = resolve(api, schema);
  const parts = [resolved, ...(resolved.allOf || []).map((s) => resolve(api, s))];
  const rows = parts.flatMap((part) => Object.entries(part.properties || {}).map(([name, field]) =>
    [name + ((part.required || []).includes(name) ? " *" : ""), type_of(api, field), field.description || ""]));
  table(parent, ["field", "type", ""], rows);
};

const operation = (api, parent, path, method, is) => {
  const details = child("details", parent);
  const summary = child("summary", details);
  child("code", summary, `${method.toUpperCase()} ${path}`);
  child("span", summary, ` ${is.summary || is.description || ""}`);
  if (is["x-scope"]) child("small", summary, ` ${is["x-scope"]}`);
  table(details, ["parameter", "in", ""], (is.parameters || []).map((p) => [p.name, p.in, p.description || ""]));
  for (const [type, body] of Object.entries((is.requestBody || {}).content || {})) {
    child("h3", details, `Body, ${type}`);
    fields(api, details, body.schema);
  }
  child("h3", details, "Answers");
  table(details, ["status", "", ""], Object.entries(is.responses).map(([status, answer]) =>
    [status, Object.keys(answer.content || {}).join(", "), answer.description || ""]));
  const ok = Object.entries((is.responses[200] || {}).content || {}).find(([type]) => type === "application/json");
  if (ok) fields(api, details, ok[1].schema);
};

(async () => {
  const status = document.getElementById("status");
  try {
    const api = await (await fetch("/openapi.json")).json();
    const routes = document.getElementById("routes");
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, is] of Object.entries(methods)) operation(api, routes, path, method, is);
    }
    status.textContent = `${routes.children.length} routes`;
  } catch (error) {
    status.textContent = `The document could not be loaded: ${error.message}`;
  }
})();
