/* The console's own behaviour. No inline handlers anywhere: elements name what they do in data attributes. */
(() => {
  "use strict";

  if (window.htmx) {
    window.htmx.config.allowEval = false;
    window.htmx.config.includeIndicatorStyles = false;
  }

  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // --- times: relative, with the exact one in the reader's zone on hover ------------------------------------------
  const words = (seconds) => {
    const distance = Math.abs(seconds);
    if (distance < 5) return "just now";
    let text;
    if (distance < 60) text = `${Math.round(distance)} s`;
    else if (distance < 3600) text = `${Math.round(distance / 60)} min`;
    else if (distance < 172800) text = `${Math.round(distance / 3600)} h`;
    else text = `${Math.floor(distance / 86400)} days`;
    return seconds >= 0 ? `${text} ago` : `in ${text}`;
  };
  const pad = (number) => String(number).padStart(2, "0");
  const local = (date) =>
    `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
  const short = (date) => new Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(date).find((part) => part.type === "timeZoneName")?.value || "";
  const times = (root = document) => {
    for (const element of all("time[datetime]", root)) {
      const date = new Date(element.dateTime);
      if (Number.isNaN(date.getTime())) continue;
      if ("ago" in element.dataset) element.textContent = words((Date.now() - date.getTime()) / 1000);
      if ("exact" in element.dataset) element.textContent = `${local(date)} ${short(date)}`;
      element.title = `${local(date)} (${zone})`;
    }
  };

  // --- copy -------------------------------------------------------------------------------------------------------
  const copy = async (button) => {
    const source = button.dataset.copyFrom ? document.getElementById(button.dataset.copyFrom) : null;
    const text = source ? (source.value ?? source.textContent) : button.dataset.copy;
    const label = button.querySelector("[data-label]") || button;
    const before = label.dataset.before || label.textContent;
    label.dataset.before = before;
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      label.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
      area.remove();
    }
    setTimeout(() => { label.textContent = before; }, 1600);
  };

  // --- tabs: buttons with aria-controls inside [data-tabs] ----------------------------------------------------------
  const choose = (tab) => {
    const list = tab.closest("[data-tabs]");
    for (const other of all("[role=tab]", list)) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      const panel = document.getElementById(other.getAttribute("aria-controls"));
      if (panel) panel.hidden = !chosen;
    }
    const remembered = list.dataset.tabs;
    if (remembered) localStorage.setItem(`switchyard.tab.${remembered}`, tab.dataset.name || "");
    tab.dispatchEvent(new CustomEvent("sy:tab", { bubbles: true }));
  };
  const tabs = (root = document) => {
    for (const list of all("[data-tabs]", root)) {
      const remembered = list.dataset.tabs && localStorage.getItem(`switchyard.tab.${list.dataset.tabs}`);
      const wanted = remembered && list.querySelector(`[role=tab][data-name="${CSS.escape(remembered)}"]`);
      if (wanted) choose(wanted);
    }
  };

  // --- rows of names and secrets ------------------------------------------------------------------------------------
  const addRow = (button) => {
    const holder = button.closest("[data-rows]");
    const row = holder.querySelector("template").content.cloneNode(true);
    holder.querySelector("[data-rows-list]").append(row);
    holder.querySelector("[data-rows-list]").lastElementChild.querySelector("input").focus();
  };

  // --- search in a list that is already here ---------------------------------------------------------------------------
  const narrow = (input) => {
    const wanted = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const list = document.getElementById(input.dataset.filters);
    let shown = 0;
    for (const item of all("[data-text]", list)) {
      const fits = wanted.every((word) => item.dataset.text.includes(word));
      item.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    const said = document.getElementById(`${input.dataset.filters}-shown`);
    if (said) said.textContent = `${shown} shown`;
  };

  // --- reveal parts of a form by the value of a field -------------------------------------------------------------------
  const reveal = (root = document) => {
    for (const part of all("[data-when]", root)) {
      const [name, ...values] = part.dataset.when.split("=").flatMap((piece, index) => (index ? piece.split("|") : [piece]));
      const form = part.closest("form") || document;
      const fields = all(`[name="${CSS.escape(name)}"]`, form);
      const chosen = fields.find((field) => field.type === "radio" && field.checked) || fields.find((field) => field.type !== "radio");
      const value = chosen ? (chosen.type === "checkbox" ? String(chosen.checked) : chosen.value) : "";
      part.hidden = !values.includes(value);
    }
  };

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-copy],[data-copy-from],[role=tab],[data-row-add],[data-row-remove],[data-close-dialog],[data-check-all]");
    if (!target) {
      for (const menu of all("details.sy-menu[open]")) if (!menu.contains(event.target)) menu.open = false;
      return;
    }
    if ("copy" in target.dataset || "copyFrom" in target.dataset) { event.preventDefault(); copy(target); }
    else if (target.getAttribute("role") === "tab") { event.preventDefault(); choose(target); }
    else if ("rowAdd" in target.dataset) { event.preventDefault(); addRow(target); }
    else if ("rowRemove" in target.dataset) { event.preventDefault(); target.closest("[data-row]").remove(); }
    else if ("checkAll" in target.dataset) {
      event.preventDefault();
      for (const item of all("[data-text]:not([hidden]) input[type=checkbox]", document.getElementById(target.dataset.checkAll))) item.checked = target.dataset.checkTo !== "off";
      document.getElementById(target.dataset.checkAll).dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const menu of all("details.sy-menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
    const tab = event.target.closest && event.target.closest("[role=tab]");
    if (tab && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const list = all("[role=tab]", tab.closest("[data-tabs]"));
      const next = list[(list.indexOf(tab) + (event.key === "ArrowRight" ? 1 : list.length - 1)) % list.length];
      next.focus();
      choose(next);
    }
  });
  document.addEventListener("input", (event) => { if (event.target.dataset && event.target.dataset.filters) narrow(event.target); });
  document.addEventListener("change", (event) => {
    reveal();
    if (event.target.dataset && "submits" in event.target.dataset) event.target.form.requestSubmit();
  });

  // --- parts that keep themselves up to date ----------------------------------------------------------------------------
  // Where a part keeps what is in it, elements that are there already stay as they are: opened, loaded, with the focus.
  const renew = (part, fresh) => {
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    for (const made of all("[data-keep]", fresh)) {
      const there = document.getElementById(made.id);
      if (there && part.contains(there)) made.replaceWith(there);
    }
    part.replaceChildren(...fresh.childNodes);
    if (fresh.dataset.refresh) part.dataset.refresh = fresh.dataset.refresh;
    else delete part.dataset.refresh;
    if (focused && focused.isConnected) focused.focus({ preventScroll: true });
    if (window.htmx) window.htmx.process(part);
  };
  const refresh = async (part) => {
    if (!part.dataset.refresh) return;
    if (document.hidden) { part.classList.add("sy-stale"); return; }
    const keeps = "keeps" in part.dataset;
    if ((!keeps && part.contains(document.activeElement)) || window.getSelection().toString()) return;
    try {
      const answer = await fetch(part.dataset.refresh, { headers: { "X-Requested-With": "fetch" }, credentials: "same-origin" });
      if (!answer.ok || answer.redirected) { part.classList.add("sy-stale"); return; }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
      if (fresh) {
        if (keeps) renew(part, fresh);
        else part.innerHTML = fresh.innerHTML;
        part.classList.remove("sy-stale");
        times(part);
      }
    } catch { part.classList.add("sy-stale"); }
  };

  const ready = () => {
    times();
    tabs();
    reveal();
    for (const part of all("[data-refresh]")) setInterval(() => refresh(part), 1000 * Number(part.dataset.every || 15));
    setInterval(() => times(), 30000);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) for (const part of all("[data-refresh].sy-stale")) refresh(part); });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
  // A dialog that is refused says so in its place.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.status >= 400 && event.detail.serverResponse.includes('id="dialog"')) { event.detail.shouldSwap = true; event.detail.isError = false; }
  });
  document.addEventListener("htmx:afterSettle", (event) => { times(event.target); tabs(event.target); reveal(event.target); });
})();

/* The editor of a toolset's entries. */
(() => {
  "use strict";
  const update = (editor) => {
    const none = editor.querySelector("[data-entries-none]");
    none.hidden = Boolean(editor.querySelector("[data-entries-list] [data-entry]"));
  };
  document.addEventListener("click", (event) => {
    const add = event.target.closest("[data-entry-add]");
    const remove = event.target.closest("[data-entry-remove]");
    const editor = event.target.closest("[data-entries]");
    if (!editor || !(add || remove)) return;
    event.preventDefault();
    if (remove) remove.closest("[data-entry]").remove();
    if (add) {
      const made = add.closest("[data-offered]").querySelector("template").content.firstElementChild.cloneNode(true);
      const there = Array.from(editor.querySelectorAll("[data-entry]")).find((row) => row.dataset.key === made.dataset.key);
      if (there) there.scrollIntoView({ block: "nearest" });
      else editor.querySelector("[data-entries-list]").append(made);
      add.textContent = "Added";
      add.disabled = true;
    }
    update(editor);
  });
})();
