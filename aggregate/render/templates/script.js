"use strict";
// Tables sort by a click on a head: best first where the head knows what is better, else the largest or the first letter.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, i) => i ? parseFloat(row.cells[i].dataset.value ?? "") : row.cells[0].textContent;
  const sort = (i, direction) => {
    heads.forEach(head => head.removeAttribute("aria-sort"));
    heads[i].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => {
      const x = key(a, i), y = key(b, i);
      if (!i) return direction * x.localeCompare(y, "en", {numeric: true});
      return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : direction * (x - y);
    }));
  };
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const best = head.dataset.better === "more" ? -1 : 1, now = head.getAttribute("aria-sort");
    const direction = now ? (now === "ascending" ? -1 : 1) : best;
    sort(i, direction);
    if (table.id) remember("sort", `${table.id}.${i}.${direction}`);
  }));
  table.sortBy = sort;
}

// What is chosen stands in the address, so that a link to it shows the same.
const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
function remember(name, value) {
  value ? state.set(name, value) : state.delete(name);
  history.replaceState(null, "", `#${state}`);
}

// One filter for charts and tables: a run is shown if it has all the words, and one of the chips of every kind that has any.
const runs = [...document.querySelectorAll("[data-run]")];
const chips = [...document.querySelectorAll(".chip[data-kind]")], search = document.querySelector("#filter");
const count = document.querySelector("#shown");
function filter() {
  const wanted = {}, words = search ? search.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
  for (const chip of chips) if (chip.getAttribute("aria-pressed") === "true") (wanted[chip.dataset.kind] ??= []).push(chip.dataset.value);
  const shown = new Set();
  for (const [letter, facts] of Object.entries(FACTS)) {
    const text = Object.values(facts).join(" ").toLowerCase() + " " + letter.toLowerCase();
    if (words.every(word => text.includes(word)) && Object.entries(wanted).every(([kind, values]) => values.includes(facts[kind]))) shown.add(letter);
  }
  const all = shown.size === Object.keys(FACTS).length;
  for (const item of runs) item.toggleAttribute("hidden", !shown.has(item.dataset.run));
  for (const fold of document.querySelectorAll("details.more")) if (!all) fold.open = true;
  if (count) count.textContent = all ? "" : `${shown.size} of ${Object.keys(FACTS).length} shown`;
}
for (const chip of chips) chip.addEventListener("click", () => {
  chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true");
  const pressed = chips.filter(each => each.getAttribute("aria-pressed") === "true");
  remember("chips", pressed.map(each => `${each.dataset.kind}:${each.dataset.value}`).join("|"));
  filter();
});
search?.addEventListener("input", () => { remember("find", search.value); filter(); });
const relative = document.querySelector("#relative");
relative?.addEventListener("click", () => {
  const on = document.body.classList.toggle("relative");
  relative.setAttribute("aria-pressed", on);
  remember("relative", on ? "1" : "");
});

// Points and bars say their value when pointed at, touched or focused.
const tip = document.querySelector("#tip");
const show = event => {
  const text = event.target.closest?.("[data-tip]")?.dataset.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 8)}px`;
};
for (const kind of ["pointerover", "click"]) document.addEventListener(kind, show);

function restore() {
  const pressed = (state.get("chips") ?? "").split("|");
  for (const chip of chips) chip.setAttribute("aria-pressed", pressed.includes(`${chip.dataset.kind}:${chip.dataset.value}`));
  if (search) search.value = state.get("find") ?? "";
  if (relative && state.get("relative")) relative.click();
  const [id, column, direction] = (state.get("sort") ?? "").split(".");
  if (id && direction) document.getElementById(id)?.sortBy?.(Number(column), Number(direction));
  filter();
}
restore();
// A link into folded details opens them, and print shows all.
const reveal = () => { for (let at = location.hash.includes("=") ? null : document.getElementById(location.hash.slice(1)); at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true; };
addEventListener("hashchange", reveal);
reveal();
