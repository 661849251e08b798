"use strict";
// The question browser. The data stands in the page (item_browser.py names its keys); texts go in as text, never as HTML.
(() => {
  const PAGE = 50;
  const PREFIX = "#items&";
  const STATUSES = {
    "": "any",
    fixed: "fixed (wrong → right)",
    broken: "broken (right → wrong)",
    right: "both right",
    wrong: "both wrong",
    differ: "choices differ",
    nobody: "nobody right",
  };

  const root = document.getElementById("browser");
  const { base, variants, tasks, passages, items } = JSON.parse(document.getElementById("data").textContent);
  const baseAt = variants.indexOf(base);
  const form = root.querySelector("form");
  const list = root.querySelector(".list");
  const detail = root.querySelector(".detail");
  const count = root.querySelector(".count");
  const place = root.querySelector(".place");
  const [previous, next] = root.querySelectorAll(".pager button");
  let found = [];
  let chosen = -1; // place in `found`

  // Building elements

  function element(name, properties, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties || {})) {
      if (key === "class") made.className = value;
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function fill(select, options) {
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  }

  // What an item is

  const name = (item) => `${tasks[item.t].name}-${item.d}`;
  const isRight = (item, at) => item.a[at].k === 1;

  function verdict(item, at) {
    const [was, is] = [isRight(item, baseAt), isRight(item, at)];
    if (at === baseAt) return is ? "right" : "wrong";
    return is ? (was ? "right" : "fixed") : was ? "broken" : "wrong";
  }

  function hasStatus(item, status, others) {
    if (status === "differ") return new Set(item.a.map((answer) => answer.c ?? `right: ${answer.k}`)).size > 1;
    if (status === "nobody") return item.a.every((answer) => answer.k === 0);
    if (status === "fixed" || status === "broken") return others.some((at) => verdict(item, at) === status);
    return others.every((at) => verdict(item, at) === status) && isRight(item, baseAt) === (status === "right");
  }

  const texts = new Map();
  function searched(item) {
    if (!texts.has(item)) {
      const seen = item.a.flatMap((answer) => (answer.r || []).map(([at]) => passages[at]));
      const parts = [item.id, item.s, item.q, item.c, ...(item.o || [])];
      for (const passage of seen) parts.push(passage.id, passage.title, passage.text);
      texts.set(item, parts.filter(Boolean).join("\n").toLowerCase());
    }
    return texts.get(item);
  }

  // Filters, and the address that keeps them

  const value = (key) => form.elements[key].value;

  function filter() {
    const others = variants.map((_, at) => at).filter((at) => at !== baseAt && (!value("variant") || variants[at] === value("variant")));
    const words = value("q").toLowerCase().split(/\s+/).filter(Boolean);
    const inTask = items.filter((item) => !value("task") || tasks[item.t].name === value("task"));
    found = inTask.filter(
      (item) =>
        (!value("subject") || item.s === value("subject")) &&
        (!value("status") || hasStatus(item, value("status"), others)) &&
        words.every((word) => searched(item).includes(word)),
    );
  }

  function offerSubjects() {
    const kept = value("subject");
    const there = items.filter((item) => !value("task") || tasks[item.t].name === value("task")).map((item) => item.s);
    const subjects = [...new Set(there)].filter(Boolean).sort();
    fill(form.elements.subject, [["", subjects.length ? "all" : "none named"], ...subjects.map((s) => [s, s])]);
    form.elements.subject.value = subjects.includes(kept) ? kept : "";
    form.elements.subject.disabled = subjects.length === 0;
  }

  function remember() {
    const state = new URLSearchParams();
    for (const key of ["task", "subject", "variant", "status", "q"]) if (value(key)) state.set(key, value(key));
    if (chosen > 0) state.set("item", name(found[chosen]));
    const hash = state.toString() ? PREFIX + state : "#items";
    if (location.hash !== hash) history.replaceState(null, "", hash);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.startsWith(PREFIX) ? location.hash.slice(PREFIX.length) : "");
    for (const key of ["task", "variant", "status", "q"]) set(form.elements[key], state.get(key));
    offerSubjects();
    set(form.elements.subject, state.get("subject"));
    filter();
    const at = found.findIndex((item) => name(item) === state.get("item"));
    show(Math.max(0, at));
    if (location.hash.startsWith(PREFIX)) document.getElementById("items").scrollIntoView();
  }

  function set(field, given) {
    field.value = given || "";
    if (field.selectedIndex === -1) field.value = ""; // an address with a value that is not offered
  }

  // Showing

  function show(at) {
    chosen = found.length ? Math.min(Math.max(at, 0), found.length - 1) : -1;
    const page = Math.max(0, Math.floor(chosen / PAGE));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    list.start = page * PAGE + 1;
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((item, i) => row(item, page * PAGE + i)));
    place.textContent = `${page + 1} of ${pages}`;
    previous.disabled = page === 0;
    next.disabled = page + 1 >= pages;
    count.textContent = `${found.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} questions`;
    detail.replaceChildren(...(chosen < 0 ? [element("p", { class: "note" }, "No question passes these filters.")] : described(found[chosen])));
  }

  function row(item, at) {
    const lead = item.q || item.id;
    const marks = variants.map((variant, i) => `${variant} ${isRight(item, i) ? "✓" : "✗"}`).join("  ");
    const button = element("button", { type: "button" }, element("span", { class: "lead" }, lead), element("span", { class: "marks" }, marks));
    if (at === chosen) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => choose(at));
    return element("li", null, button);
  }

  function described(item) {
    const task = tasks[item.t].name;
    const where = [task, item.s, item.id].filter(Boolean).join(" · ");
    const parts = [element("h3", null, `Question ${chosen + 1} of ${found.length.toLocaleString("en")}`), element("p", { class: "where" }, where)];
    if (item.c) parts.push(element("details", null, element("summary", null, "Abstract given with the question"), element("p", { class: "passage" }, item.c)));
    parts.push(item.q ? element("p", { class: "asked" }, item.q) : element("p", { class: "note" }, "The text of this question is not part of this page."));
    parts.push(answers(item), ...seen(item));
    return parts;
  }

  function answers(item) {
    const n = Math.max(0, (item.o || []).length, (item.g ?? -1) + 1, ...item.a.map((a) => Math.max(a.p.length, (a.c ?? -1) + 1)));
    const head = element("tr", null, element("th", { scope: "col" }, "option"), ...variants.map((variant, at) => element("th", { scope: "col" }, variant, element("br"), tag(verdict(item, at)))));
    const rows = Array.from({ length: n }, (_, option) => {
      const gold = option === item.g;
      const letter = String.fromCharCode(65 + option);
      const words = item.o?.[option] ?? "";
      const text = words && words !== letter ? `${letter}. ${words}` : letter;
      const label = element("th", { scope: "row" }, text, gold ? element("span", { class: "tag right" }, "✓ right answer") : null);
      return element("tr", gold ? { class: "gold" } : null, label, ...item.a.map((answer) => cell(answer, option)));
    });
    const table = element("table", { class: "data answers" }, element("caption", null, "Probability of each option, and the choice"), element("thead", null, head), element("tbody", null, ...rows));
    return element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Answers, a table" }, table);
  }

  function tag(word) {
    const good = word === "right" || word === "fixed";
    return element("span", { class: `tag ${good ? "right" : "wrong"}` }, `${good ? "✓" : "✗"} ${word}`);
  }

  function cell(answer, option) {
    const is = answer.c === option;
    const share = answer.p[option];
    const text = share === undefined ? (is ? "chosen" : "") : `${(100 * share).toFixed(0)}%${is ? " chosen" : ""}`;
    if (share === undefined) return element("td", { class: is ? "chosen" : "" }, text);
    const fillBar = element("i");
    fillBar.style.width = `${(100 * share).toFixed(1)}%`;
    return element("td", { class: is ? "chosen" : "" }, text, element("span", { class: "bar", "aria-hidden": "true" }, fillBar));
  }

  function seen(item) {
    const groups = new Map(); // the same passages seen by several variants are shown once
    item.a.forEach((answer, at) => {
      if (!answer.r) return;
      const key = JSON.stringify([answer.r, answer.cut]);
      groups.set(key, [...(groups.get(key) || []), at]);
    });
    return [...groups.values()].flatMap((ats) => {
      const { r, cut } = item.a[ats[0]];
      const title = element("h4", null, `Passages seen by ${ats.map((at) => variants[at]).join(", ")}`);
      const shortened = cut ? element("p", { class: "note" }, `${cut} passage${cut > 1 ? "s were" : " was"} left out or shortened to fit into the model.`) : null;
      return [title, ...(shortened ? [shortened] : []), ...r.map(([at, score]) => passage(passages[at], score))];
    });
  }

  function passage({ id, title, text }, score) {
    const about = `${title || id} (${title ? `${id}, ` : ""}score ${score.toFixed(3)})`;
    if (!text) return element("p", { class: "note" }, about);
    return element("details", null, element("summary", null, about), element("p", { class: "passage" }, text));
  }

  // Acting

  function choose(at, focus = true) {
    show(at);
    remember();
    if (!focus) return;
    const current = list.querySelector("[aria-current]");
    if (current) current.focus({ preventScroll: true });
    if (current) current.scrollIntoView({ block: "nearest" });
  }

  function change() {
    offerSubjects();
    filter();
    choose(0, false);
  }

  function typed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    const step = { j: 1, k: -1 }[event.key] || (list.contains(event.target) && { ArrowDown: 1, ArrowUp: -1 }[event.key]);
    if (!step || chosen < 0) return;
    event.preventDefault();
    choose(chosen + step);
  }

  fill(form.elements.task, [["", "all"], ...tasks.map((task) => [task.name, task.name])]);
  fill(form.elements.variant, [["", "any"], ...variants.filter((v) => v !== base).map((v) => [v, v])]);
  fill(form.elements.status, Object.entries(STATUSES));
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(change));
  previous.addEventListener("click", () => choose((Math.floor(chosen / PAGE) - 1) * PAGE, false));
  next.addEventListener("click", () => choose((Math.floor(chosen / PAGE) + 1) * PAGE, false));
  document.addEventListener("keydown", typed);
  window.addEventListener("hashchange", () => location.hash.startsWith(PREFIX) && recall());
  root.hidden = false;
  recall();
})();
