"use strict";
const LINEAR = 0.01; // of axes of differences, as in charts/axes.py
const APART = 0.08;
const TICKS = [10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.003];
const PAGE = 20; // rows of a long table
const tip = element("div", "", document.body);
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-live", "polite");
tip.setAttribute("role", "status");

function element(tag, text, parent) {
  const made = document.createElement(tag);
  made.textContent = text;
  parent.append(made);
  return made;
}

function say(text, x, y) {
  tip.textContent = text;
  tip.hidden = !text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - width - 4)) + "px";
  tip.style.top = (y - height - 12 < 0 ? y + 16 : y - height - 12) + "px";
}

function hush() {
  tip.hidden = true;
  document.querySelectorAll(".panel .now, .panel .lit").forEach((part) => part.classList.remove("now", "lit"));
}

// Panels: the value nearest to the pointer, or that which the arrow keys have come to, is said and marked.
function place(dot) {
  return dot.getAttribute("d").match(/^M([-\d.]+) ([-\d.]+)/).slice(1).map(Number);
}

function shownDots(panel) {
  return [...panel.querySelectorAll(".s:not(.off) .dot:not(.none)")];
}

function mark(panel, dot) {
  hush();
  if (!dot) return;
  dot.classList.add("now");
  dot.parentNode.classList.add("lit");
  const box = panel.getBoundingClientRect(), scale = box.width / panel.viewBox.baseVal.width;
  const [x, y] = place(dot);
  say(dot.dataset.said, box.left + x * scale, box.top + y * scale);
}

function nearest(panel, event) {
  const box = panel.getBoundingClientRect(), scale = box.width / panel.viewBox.baseVal.width;
  const far = (dot) => {
    const [x, y] = place(dot);
    return Math.hypot(box.left + x * scale - event.clientX, box.top + y * scale - event.clientY);
  };
  return shownDots(panel).reduce((best, dot) => (best === null || far(dot) < far(best) ? dot : best), null);
}

function step(panel, event) {
  const ahead = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") hush();
  if (!ahead) return;
  event.preventDefault();
  const dots = shownDots(panel), at = dots.findIndex((dot) => dot.classList.contains("now"));
  mark(panel, dots[at < 0 ? 0 : (at + ahead + dots.length) % dots.length]);
}

function speaking(panel) {
  panel.querySelectorAll(".dot title").forEach((title) => {
    title.parentNode.dataset.said = title.textContent;
    title.remove();
  });
  panel.addEventListener("pointermove", (event) => mark(panel, nearest(panel, event)));
  panel.addEventListener("pointerleave", hush);
  panel.addEventListener("keydown", (event) => step(panel, event));
  panel.addEventListener("blur", hush);
}

// Legends: a button per name, which shows and hides all series of that name, in all figures.
function toggle(name) {
  const buttons = [...document.querySelectorAll("button.key")].filter((button) => button.dataset.m === name);
  const pressed = buttons[0].getAttribute("aria-pressed") !== "true";
  buttons.forEach((button) => button.setAttribute("aria-pressed", pressed));
  document.querySelectorAll(".s").forEach((series) => {
    if (series.dataset.m === name) series.classList.toggle("off", !pressed);
  });
  document.querySelectorAll(".chart").forEach((figure) => figure.redraw && figure.redraw());
}

function pressable(key) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "key";
  button.dataset.m = key.dataset.m;
  button.setAttribute("aria-pressed", "true");
  button.append(...key.childNodes);
  button.addEventListener("click", () => toggle(button.dataset.m));
  key.replaceWith(button);
}

// Differences: drawn anew for the baseline that is chosen and for the methods that are shown.
function comparable(figure, told) {
  const label = element("label", "baseline: ", figure.querySelector(".legend"));
  const select = element("select", "", label);
  for (const name of new Set(told.methods.map((method) => method[1]))) {
    const option = element("option", name, select);
    option.selected = name === told.baseline;
  }
  const panels = [...figure.querySelectorAll(".panel")];
  figure.redraw = () => panels.forEach((panel, at) => compare(panel, told.panels[at], told.methods, select.value));
  select.addEventListener("change", figure.redraw);
}

function against({ pairs }, methods, name, baseline) {
  const own = methods.findIndex((method) => method[0] === name);
  const other = methods.findIndex((method) => method[1] === baseline && method[2] === methods[own][2]);
  if (own === other) return null;
  const pair = pairs.find(([a, b]) => (a === own && b === other) || (a === other && b === own));
  if (!pair) return undefined;
  return pair[0] === own ? pair[2] : pair[2].map(([middle, low, high]) => [-middle, -high, -low]);
}

function compare(panel, told, methods, baseline) {
  const all = [...panel.querySelectorAll(".s")];
  const values = all.map((series) => against(told, methods, series.dataset.m, baseline));
  const ends = values.flatMap((own, at) => (own && !all[at].classList.contains("off") ? own.flat() : []));
  const low = Math.min(-TICKS.at(-1), ...ends) * 1.1, high = Math.max(TICKS.at(-1), ...ends) * 1.1;
  const { y0, y1 } = panel.dataset, bend = (value) => Math.asinh(value / LINEAR);
  const y = (value) => +y1 - (+y1 - y0) * (bend(value) - bend(low)) / (bend(high) - bend(low));
  const kept = [0], far = (a, b) => Math.abs(y(a) - y(b)) >= APART * (y1 - y0);
  for (const tick of TICKS.flatMap((tick) => [tick, -tick])) {
    if (low <= tick && tick <= high && kept.every((other) => far(tick, other))) kept.push(tick);
  }
  axis(panel, kept.sort((a, b) => a - b), y);
  all.forEach((series, at) => trace(series, values[at] === null ? told.ratios.map(() => [0, 0, 0]) : values[at], told, y));
}

function axis(panel, ticks, y) {
  const { x0, x1 } = panel.dataset, named = panel.querySelector(".ticks"), first = named.firstElementChild;
  panel.querySelector(".across").setAttribute("d", ticks.map((tick) => `M${x0} ${y(tick)}H${x1}`).join(""));
  panel.querySelector(".guide").setAttribute("d", `M${x0} ${y(0)}H${x1}`);
  named.replaceChildren(...ticks.map((tick) => {
    const text = first.cloneNode();
    text.setAttribute("y", y(tick) + 3.5);
    text.textContent = (tick > 0 ? "+" : "") + tick;
    return text;
  }));
}

function trace(series, values, told, y) {
  const dots = [...series.querySelectorAll(".dot")], x = dots.map((dot) => place(dot)[0]);
  dots.forEach((dot) => dot.classList.toggle("none", !values));
  const line = series.querySelector(".line"), band = series.querySelector(".band");
  for (const path of [line, band]) if (path) path.style.display = values ? "" : "none";
  if (!values) return;
  const at = (i, end) => `${x[i]} ${y(values[i][end])}`;
  dots.forEach((dot, i) => {
    dot.setAttribute("d", dot.getAttribute("d").replace(/^M[-\d.]+ [-\d.]+/, `M${at(i, 0)}`));
    const [middle, low, high] = values[i].map((value) => (value < 0 ? "" : "+") + value.toFixed(4));
    dot.dataset.said = `${series.dataset.m}, ${told.ratios[i]}x, n = ${told.n}: ${middle} [${low}, ${high}]`;
  });
  if (line) line.setAttribute("d", "M" + dots.map((_, i) => at(i, 0)).join("L"));
  const round = [...dots.map((_, i) => at(i, 2)), ...dots.map((_, i) => at(i, 1)).reverse()];
  if (band) band.setAttribute("d", `M${round.join("L")}Z`);
}

// Long tables: sorted, filtered, a page at a time.
const order = new Intl.Collator("en", { numeric: true });

function compareValues(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));
}

function paged(section) {
  const { count, columns } = JSON.parse(section.querySelector("script").textContent);
  const read = columns.map(({ values, words, places }) => (i) => values ? values[i] : words[places ? places[i] : 0]);
  const heads = [...section.querySelectorAll("thead th")], names = heads.map((head) => head.textContent);
  const body = section.querySelector("tbody"), output = section.querySelector("output");
  const input = section.querySelector("input"), box = section.querySelector(".scroll");
  const [back, next] = section.querySelectorAll(".pager button");
  let sorted = Array.from({ length: count }, (_, i) => i), shown = sorted, from = 0;

  function line(i) {
    const made = document.createElement("tr");
    for (const value of read.map((column) => column(i))) {
      const cell = element("td", value === null ? "" : String(value), made);
      if (typeof value === "number") cell.className = "number";
    }
    return made;
  }

  function matches(i, words) {
    return words.every((word) => {
      const [name, value] = word.split("="), column = names.indexOf(name);
      if (value === undefined || column < 0) return read.some((one) => String(one(i)).toLowerCase().includes(word));
      return value === "" || String(read[column](i)).toLowerCase() === value;
    });
  }

  function show(start) {
    from = Math.max(0, start < shown.length ? start : from);
    body.replaceChildren(...shown.slice(from, from + PAGE).map(line));
    back.disabled = from === 0;
    next.disabled = from + PAGE >= shown.length;
    const last = Math.min(from + PAGE, shown.length), number = (value) => value.toLocaleString("en");
    output.textContent = `${shown.length ? number(from + 1) : 0} to ${number(last)} of ${number(shown.length)} rows`;
  }

  function filter() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = sorted.filter((i) => matches(i, words));
    from = 0;
    show(0);
  }

  function sortBy(column) {
    const head = heads[column], sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    sorted = sorted.map((_, i) => i).sort((i, j) => {
      const a = read[column](i), b = read[column](j);
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return sign * compareValues(a, b) || i - j;
    });
    filter();
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.dataset.tip = head.title;
    head.removeAttribute("title");
    head.replaceChildren(button);
    button.addEventListener("click", () => sortBy(column));
  });
  input.addEventListener("input", filter);
  back.addEventListener("click", () => { show(from - PAGE); box.scrollTop = 0; });
  next.addEventListener("click", () => { show(from + PAGE); box.scrollTop = 0; });
  section.querySelector(".tools").hidden = false;
  show(0);
}

// What a column means is said when its name is pointed at, or focused.
function explain(event) {
  const told = event.target.closest && event.target.closest("[data-tip]");
  if (!told || !told.dataset.tip) return;
  const box = told.getBoundingClientRect();
  say(told.dataset.tip, box.left, box.top);
}

// What a box hides below its edge is told by a fade, until it is scrolled to.
function fading(box) {
  const mark = () => box.classList.toggle("fades", box.scrollTop + box.clientHeight < box.scrollHeight - 2);
  box.addEventListener("scroll", mark);
  addEventListener("resize", mark);
  mark();
}

function once(section, act) {
  const opened = () => { if (section.open) { section.removeEventListener("toggle", opened); act(section); } };
  section.addEventListener("toggle", opened);
}

document.querySelectorAll(".panel").forEach(speaking);
document.querySelectorAll(".key").forEach(pressable);
document.querySelectorAll(".tall").forEach(fading);
document.querySelectorAll(".chart > script").forEach((script) => comparable(script.parentNode, JSON.parse(script.textContent)));
document.querySelectorAll(".long").forEach((section) => once(section, paged));
document.addEventListener("pointerover", explain);
document.addEventListener("focusin", explain);
document.addEventListener("pointerout", (event) => { if (event.target.closest && event.target.closest("[data-tip]")) hush(); });
document.addEventListener("focusout", hush);
const contents = document.querySelector("nav details"), wide = matchMedia("(min-width: 900px)");
contents.open = wide.matches;
wide.addEventListener("change", () => { contents.open = wide.matches; });
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.long)").forEach((part) => { part.open = true; }));
