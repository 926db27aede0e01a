/* The playground: a form built from a JSON Schema. A node is one field: its element, get() and set(value). */
(() => {
  "use strict";

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value === undefined || value === null) continue;
      if (name === "class") element.className = value;
      else if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  const DEPTH = 6;
  let number = 0;

  function resolve(schema, root) {
    for (let step = 0; step < 8 && schema && typeof schema === "object" && typeof schema.$ref === "string"; step += 1) {
      if (!schema.$ref.startsWith("#/")) return {};
      let target = root;
      for (const part of schema.$ref.slice(2).split("/")) target = target && target[part.replaceAll("~1", "/").replaceAll("~0", "~")];
      const { $ref, ...rest } = schema;
      schema = { ...(target || {}), ...rest };
    }
    return schema && typeof schema === "object" ? schema : {};
  }

  function typeOf(schema) {
    if (Array.isArray(schema.enum) || "const" in schema) return "enum";
    let type = schema.type;
    if (Array.isArray(type)) { const real = type.filter((one) => one !== "null"); type = real.length === 1 ? real[0] : undefined; }
    if (!type && schema.properties) return "object";
    return type;
  }

  /** A union with null is its other half; other unions are typed as JSON. */
  function simplify(schema, root) {
    schema = resolve(schema, root);
    for (const word of ["anyOf", "oneOf"]) {
      if (!Array.isArray(schema[word])) continue;
      const { [word]: options, ...rest } = schema;
      const real = options.map((option) => resolve(option, root)).filter((option) => option.type !== "null");
      if (real.length === 1) return { ...real[0], ...rest };
      if (real.length && real.every((option) => "const" in option)) return { ...rest, enum: real.map((option) => option.const) };
    }
    return schema;
  }

  function limits(schema) {
    const said = [];
    if (schema.minimum !== undefined) said.push(`at least ${schema.minimum}`);
    if (schema.maximum !== undefined) said.push(`at most ${schema.maximum}`);
    const signs = (number) => `${number} character${number === 1 ? "" : "s"}`;
    if (schema.minLength) said.push(`at least ${signs(schema.minLength)}`);
    if (schema.maxLength !== undefined) said.push(`at most ${signs(schema.maxLength)}`);
    if (schema.pattern) said.push(`pattern ${schema.pattern}`);
    if (schema.format) said.push(schema.format);
    return said.join(", ");
  }

  function field(name, schema, required, inner, id) {
    const help = [schema.description, limits(schema)].filter(Boolean).join(" · ");
    const label = make("label", { htmlFor: id }, schema.title && schema.title.toLowerCase() !== name.toLowerCase() ? `${name} (${schema.title})` : name);
    label.append(make("span", { class: "sy-quiet" }, required ? " (required)" : " (optional)"));
    return make("div", { class: "sy-field" }, label, inner, help ? make("span", { class: "sy-help" }, help) : null);
  }

  function scalar(name, schema, required, id) {
    const type = typeOf(schema);
    let input;
    let read;
    let empty = null;
    let write = (value) => { input.value = value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value); };
    if (type === "enum") {
      const values = "const" in schema ? [schema.const] : schema.enum;
      input = make("select", { id, class: "sy-input" });
      if (!required || values.length > 1) input.append(make("option", { value: "" }, required ? "Choose…" : "–"));
      values.forEach((value, index) => input.append(make("option", { value: String(index) }, typeof value === "string" ? value : JSON.stringify(value))));
      read = () => (input.value === "" ? undefined : values[Number(input.value)]);
      write = (value) => { const at = values.findIndex((one) => JSON.stringify(one) === JSON.stringify(value)); input.value = at < 0 ? (input.querySelector('option[value=""]') ? "" : "0") : String(at); };
    } else if (type === "boolean") {
      input = make("select", { id, class: "sy-input" }, ...(required ? [] : [make("option", { value: "" }, "–")]), make("option", { value: "true" }, "yes (true)"), make("option", { value: "false" }, "no (false)"));
      if (required) input.value = "false";
      read = () => (input.value === "" ? undefined : input.value === "true");
    } else if (type === "integer" || type === "number") {
      input = make("input", { id, class: "sy-input", type: "text", inputMode: type === "integer" ? "numeric" : "decimal", autocomplete: "off" });
      read = () => {
        const text = input.value.trim();
        if (text === "") return undefined;
        const value = Number(text);
        if (!Number.isFinite(value) || (type === "integer" && !Number.isInteger(value))) throw new Error(`${name}: ${text} is not ${type === "integer" ? "a whole number" : "a number"}.`);
        return value;
      };
    } else if (type === "string") {
      const long = (schema.maxLength || 0) > 200 || /text|content|body|query|code|message|expression/i.test(name);
      const kinds = { date: "date", "date-time": "text", email: "email", uri: "url", password: "password" };
      input = long && !schema.format ? make("textarea", { id, class: "sy-input", rows: 2, spellcheck: false }) : make("input", { id, class: "sy-input", type: kinds[schema.format] || "text", autocomplete: "off" });
      if (Array.isArray(schema.examples) && schema.examples.length) input.placeholder = String(schema.examples[0]);
      if (required && !schema.minLength) empty = make("input", { type: "checkbox" });
      read = () => (input.value === "" && !empty?.checked ? undefined : input.value);
    } else {
      input = make("textarea", { id, class: "sy-input sy-mono", rows: 3, spellcheck: false, placeholder: "JSON" });
      read = () => {
        const text = input.value.trim();
        if (text === "") return undefined;
        try { return JSON.parse(text); } catch { throw new Error(`${name}: not JSON.`); }
      };
      write = (value) => { input.value = value === undefined ? "" : JSON.stringify(value, null, 2); };
    }
    const element = field(name, schema, required, input, id);
    if (!required) return { element, get: read, set: write, check: () => true };
    input.setAttribute("aria-required", "true");
    const said = make("span", { class: "sy-error", role: "alert", id: `${id}-said` });
    const allow = empty ? make("label", { class: "sy-check sy-help", hidden: true }, empty, make("span", {}, "Send it as empty text")) : null;
    input.setAttribute("aria-describedby", said.id);
    element.append(said, ...(allow ? [allow] : []));
    const say = (text) => { said.textContent = text; if (text) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid"); };
    element.addEventListener("input", () => say(""));
    return {
      element,
      get: read,
      set: (value) => { write(value); say(""); if (empty) { empty.checked = value === ""; allow.hidden = value !== ""; } },
      check: () => {
        if (read() !== undefined) { say(""); return true; }
        say(allow ? "Fill this in, or say that it is to be empty." : "Fill this in.");
        if (allow) allow.hidden = false;
        return false;
      },
    };
  }

  function list(name, schema, required, root, depth, id) {
    const rows = make("div", { class: "sy-stack-tight", id });
    const nodes = [];
    const add = (value) => {
      const node = build(`${name} ${nodes.length + 1}`, schema.items || {}, true, root, depth + 1);
      const row = make("div", { class: "sy-row" });
      node.element.style.flex = "1 1 200px";
      const drop = make("button", { type: "button", class: "sy-button sy-button-ghost sy-button-small", ariaLabel: `Remove item of ${name}` }, "Remove");
      drop.addEventListener("click", () => { nodes.splice(nodes.indexOf(node), 1); row.remove(); rows.dispatchEvent(new Event("input", { bubbles: true })); });
      row.append(node.element, drop);
      rows.append(row);
      nodes.push(node);
      if (value !== undefined) node.set(value);
    };
    const more = make("button", { type: "button", class: "sy-button sy-button-small" }, "Add item");
    more.addEventListener("click", () => { add(); nodes.at(-1).element.querySelector("input,select,textarea")?.focus(); });
    return {
      element: field(name, schema, required, make("div", { class: "sy-nested" }, rows, make("div", {}, more)), id),
      get: () => (nodes.length || required ? nodes.map((node) => node.get() ?? null) : undefined),
      set: (value) => { nodes.splice(0); rows.replaceChildren(); for (const one of Array.isArray(value) ? value : []) add(one); },
      check: () => nodes.filter((node) => !node.check()).length === 0,
    };
  }

  function object(name, schema, required, root, depth, id) {
    const needed = Array.isArray(schema.required) ? schema.required : [];
    const names = Object.keys(schema.properties || {}).sort((left, right) => needed.includes(right) - needed.includes(left));
    const nodes = names.map((one) => [one, build(one, schema.properties[one], needed.includes(one), root, depth + 1)]);
    const known = new Set(names);
    let extra = {};
    const body = make("div", { class: depth ? "sy-nested" : "sy-stack", id }, ...nodes.map(([, node]) => node.element));
    return {
      element: depth ? field(name, schema, required, body, id) : body,
      get: () => {
        const value = { ...extra };
        for (const [one, node] of nodes) { const given = node.get(); if (given !== undefined) value[one] = given; }
        return required || Object.keys(value).length ? value : undefined;
      },
      set: (value) => {
        const given = value && typeof value === "object" && !Array.isArray(value) ? value : {};
        for (const [one, node] of nodes) node.set(given[one]);
        extra = Object.fromEntries(Object.entries(given).filter(([one]) => !known.has(one)));
      },
      check: () => (!required && !nodes.some(([, node]) => node.get() !== undefined)) || nodes.filter(([, node]) => !node.check()).length === 0,
    };
  }

  function build(name, given, required, root, depth) {
    const schema = simplify(given, root);
    const id = `play-${(number += 1)}`;
    const type = typeOf(schema);
    let node;
    if (type === "object" && schema.properties && depth < DEPTH) node = object(name, schema, required, root, depth, id);
    else if (type === "array" && schema.items && !Array.isArray(schema.items) && depth < DEPTH) node = list(name, schema, required, root, depth, id);
    else node = scalar(name, schema, required, id);
    if (schema.default !== undefined && depth) node.set(schema.default);
    return node;
  }

  function start(form) {
    const source = document.getElementById("playground-schema");
    const schema = source ? JSON.parse(source.textContent) : {};
    const place = form.querySelector("[data-play-form]");
    const raw = form.querySelector("[data-play-raw]");
    const said = form.querySelector("[data-play-error]");
    const output = document.getElementById("played");
    const key = `switchyard.playground.${form.dataset.playground}`;
    const node = object("arguments", { type: "object", ...schema }, true, schema, 0, "play-arguments");
    place.append(node.element);
    if (!Object.keys(schema.properties || {}).length) place.append(make("p", { class: "sy-quiet" }, "It describes no arguments; use JSON for others."));

    const onRaw = () => !document.getElementById("play-raw").hidden;
    const read = () => {
      if (!onRaw()) return node.get();
      const value = JSON.parse(raw.value || "{}");
      if (!value || typeof value !== "object" || Array.isArray(value)) throw new Error("The arguments must be a JSON object.");
      return value;
    };
    const keep = () => { try { localStorage.setItem(key, JSON.stringify(read())); } catch { /* half-typed input is not kept */ } };
    const kept = localStorage.getItem(key);
    if (kept) { try { const value = JSON.parse(kept); node.set(value); raw.value = JSON.stringify(value, null, 2); } catch { localStorage.removeItem(key); } }

    form.addEventListener("input", keep);
    form.addEventListener("sy:tab", (event) => {
      said.textContent = "";
      try {
        if (event.target.dataset.name === "raw") raw.value = JSON.stringify(node.get(), null, 2);
        else node.set(JSON.parse(raw.value || "{}"));
      } catch (error) { said.textContent = error.message; }
    });
    form.querySelector("[data-play-clear]").addEventListener("click", () => { node.set({}); raw.value = "{}"; said.textContent = ""; localStorage.removeItem(key); });

    const send = async (only) => {
      said.textContent = "";
      let value;
      try { value = read(); } catch (error) { said.textContent = error instanceof SyntaxError ? "The arguments are not JSON." : error.message; return; }
      if (!onRaw() && !only && !node.check()) {
        said.textContent = "Not called: something that the tool requires is not filled in.";
        form.querySelector("[aria-invalid=true]")?.focus();
        return;
      }
      const careful = form.querySelector("[data-play-careful]");
      if (careful && !careful.checked && !only) { said.textContent = "Confirm that it may overwrite or delete something."; careful.focus(); return; }
      keep();
      form.elements.arguments.value = JSON.stringify(value);
      const data = new FormData(form);
      if (only) data.set("only-code", "1");
      const button = form.querySelector("button[type=submit]");
      const label = form.querySelector("[data-play-label]");
      const words = label.textContent;
      button.disabled = true;
      const begun = performance.now();
      const clock = setInterval(() => { label.textContent = `Calling… ${((performance.now() - begun) / 1000).toFixed(1)} s`; }, 300);
      try {
        const answer = await fetch(form.action, { method: "POST", body: data, credentials: "same-origin", headers: { "X-Requested-With": "fetch" } });
        const text = await answer.text();
        if (!answer.ok) throw new Error(answer.status === 403 ? "You may not call this tool." : `The console answered ${answer.status} (request ${answer.headers.get("X-Request-Id") || "unknown"}).`);
        output.innerHTML = text;
        document.dispatchEvent(new CustomEvent("sy:tabs"));
      } catch (error) { said.textContent = error.message; }
      finally { clearInterval(clock); label.textContent = words; button.disabled = false; }
    };
    form.addEventListener("submit", (event) => { event.preventDefault(); send(false); });
    form.querySelector("[data-play-code]").addEventListener("click", () => send(true));
  }

  const ready = () => document.querySelectorAll("form[data-playground]").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();
