"use strict";
// Sorting: a click on a column's name sorts by it, another one the other way round.
const inOrder = new Intl.Collator("en", { numeric: true }).compare;
function sortBy(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const key = (row) => row.cells[column].dataset.key;
  const numeric = rows.some((row) => key(row) !== undefined);
  rows.sort((a, b) => {
    if (!numeric) return (ascending ? 1 : -1) * inOrder(a.cells[column].textContent, b.cells[column].textContent);
    // What has no number stands last, whichever way.
    if (key(a) === undefined || key(b) === undefined) return (key(a) === undefined) - (key(b) === undefined);
    return (ascending ? 1 : -1) * (Number(key(a)) - Number(key(b)));
  });
  body.append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortBy(table, column, ascending);
    });
  });
}
// Clips: the moving picture is a <source> that a media query turns on and off; the still one is the <img>.
const toggles = [...document.querySelectorAll("button.toggle")];
const all = document.createElement("button");
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
function play(toggle, on) {
  toggle.closest("figure").querySelector("source").media = on ? "screen" : "not all";
  toggle.dataset.playing = on ? "yes" : "no";
  toggle.textContent = on ? "Pause" : "Play";
  toggle.setAttribute("aria-label", `${toggle.textContent} ${toggle.dataset.of}`);
  all.textContent = toggles.some((each) => each.dataset.playing === "yes") ? "Pause all clips" : "Play all clips";
}
function playAll(on) { toggles.forEach((toggle) => play(toggle, on)); }
if (toggles.length > 0) {
  all.type = "button";
  all.className = "all";
  all.addEventListener("click", () => playAll(all.textContent.startsWith("Play")));
  document.querySelector(".clips").closest("section").querySelector("h2").after(all);
  for (const toggle of toggles) {
    toggle.hidden = false;
    toggle.addEventListener("click", () => play(toggle, toggle.dataset.playing !== "yes"));
  }
  playAll(!calm.matches);
  calm.addEventListener("change", () => playAll(!calm.matches));
}
