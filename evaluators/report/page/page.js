// What a reader chooses (how an answer counts, the theme, what the case browser shows) and where it is kept: all but the
// theme in the address behind #, as SECTION?name=value&..., so that a link shows what its sender saw.
"use strict";

const root = document.documentElement;
const constants = JSON.parse(document.getElementById("constants").textContent);
const listeners = [];  // called with the state whenever it changes

/** The section and the choices that the address names. */
function readState() {
  const [section, query = ""] = location.hash.slice(1).split("?");
  return {section, choices: Object.fromEntries(new URLSearchParams(query))};
}

/** Puts choices into the address: `undefined` takes one out. A new entry of the history where `keep`. */
function choose(changes, section = readState().section, keep = false) {
  const query = new URLSearchParams(readState().choices);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined || value === "") query.delete(name); else query.set(name, value);
  }
  history[keep ? "pushState" : "replaceState"](null, "", "#" + section + (query.size ? "?" + query : ""));
  tell();
}

function tell() {
  const state = readState();
  const way = constants.ways.includes(state.choices.way) ? state.choices.way : constants.ways[0];
  root.dataset.way = way;
  for (const input of document.querySelectorAll("input[name=way]")) input.checked = input.value === way;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === "#" + state.section;
    if (here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  }
  for (const listener of listeners) listener(state);
}

/** An element with attributes and children; texts are shown as what they are, in their own direction. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== undefined && child !== null));
  return element;
}

function text(value) {
  return make("bdi", {}, String(value));
}

/** A table in a frame that scrolls, and can be scrolled with keys. Cells are nodes or texts. */
function makeTable(caption, heads, rows, names = 1) {
  const head = make("tr", {}, ...heads.map(each => make("th", {scope: "col"}, text(each))));
  const body = rows.map(row => make("tr", {}, ...row.map((each, place) =>
    place < names ? make("th", {scope: "row"}, each instanceof Node ? each : text(each))
      : make("td", {}, each instanceof Node ? each : text(each)))));
  return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
    make("table", {}, make("caption", {}, text(caption)), make("thead", {}, head), make("tbody", {}, ...body)));
}

/** A labelled list of choices, [value, label] each. */
function makeSelect(label, name, options, onchange) {
  const select = make("select", {name, onchange},
    ...options.map(([value, shown]) => make("option", {value}, shown)));
  return make("label", {}, label, select);
}

/** What the page carries: scores, answers and comparisons; unpacked once. */
let unpacked;
function contents() {
  unpacked ??= (async () => {
    const bytes = Uint8Array.from(atob(document.getElementById("packed").textContent.trim()), char => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  })();
  return unpacked;
}

/** A share in percent, another number with three digits. */
function shown(value, unit) {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "number") return String(value);
  if (["share", "probability", "cosine"].includes(unit)) return (100 * value).toFixed(1);
  return Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(3));
}

// --- theme and way

function showTheme(theme) {
  root.dataset.theme = theme;
  document.getElementById("theme").textContent = "Theme: " + theme;
}

document.getElementById("theme").addEventListener("click", () => {
  const themes = ["auto", "light", "dark"];
  const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
  showTheme(next);
  try { localStorage.setItem("editfleet-theme", next); } catch { /* where nothing may be kept, it holds for this page */ }
});
try { showTheme(localStorage.getItem("editfleet-theme") || "auto"); } catch { showTheme("auto"); }

for (const input of document.querySelectorAll("input[name=way]")) {
  input.addEventListener("change", () => choose({way: input.value === constants.ways[0] ? undefined : input.value}));
}

for (const link of document.querySelectorAll("nav a, .skip")) {
  link.addEventListener("click", event => {  // a section's link keeps how answers count
    event.preventDefault();
    const {choices} = readState();
    history.pushState(null, "", link.hash + (choices.way ? "?" + new URLSearchParams({way: choices.way}) : ""));
    tell();
    show(link.hash.slice(1));
  });
}

function show(section) {
  const title = section && document.getElementById(section + "-title");
  if (!title) return;
  title.scrollIntoView();
  title.focus({preventScroll: true});
}

addEventListener("hashchange", () => {
  tell();
  if (!readState().choices.case) show(readState().section);  // a case that is opened shows itself
});
