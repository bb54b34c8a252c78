"use strict";
// The page is complete without this script; it adds the filter and opens the cell a link names.
(() => {
  const form = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const cells = [...document.querySelectorAll("details[data-k]")];
  const links = new Map();
  for (const link of document.querySelectorAll(".matrix td a")) {
    links.set(link.getAttribute("href").slice(1), link);
    link.title = link.getAttribute("aria-label"); // a tooltip; written once, not twice, in the page
  }
  const texts = new Map();
  const textOf = (cell) => {
    if (!texts.has(cell)) texts.set(cell, cell.textContent.toLowerCase());
    return texts.get(cell);
  };

  const apply = () => {
    const want = Object.fromEntries(new FormData(form));
    const [kind, verdict] = want.v ? want.v.split(":") : ["", ""];
    const words = want.q.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const cell of cells) {
      const data = cell.dataset;
      const match = (!want.m || data.m === want.m) && (!want.c || data.c === want.c) &&
        (!want.k || data.k === want.k) && (!kind || data[kind] === verdict) &&
        words.every((word) => textOf(cell).includes(word));
      cell.hidden = !match;
      links.get(cell.id)?.classList.toggle("off", !match);
      if (match) count += 1;
    }
    for (const section of document.querySelectorAll("section.claim")) {
      section.hidden = !section.querySelector("details[data-k]:not([hidden])");
    }
    for (const row of document.querySelectorAll(".matrix tr[data-section]")) {
      row.hidden = document.getElementById(row.dataset.section).hidden;
    }
    shown.textContent = count === cells.length ? `${count} cells` : `${count} of ${cells.length} cells`;
  };

  const reveal = () => {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { return; }
    const target = id && document.getElementById(id);
    if (!target) return;
    if (target.hidden || target.closest("[hidden]")) { form.reset(); apply(); }
    if (target.tagName === "DETAILS") {
      target.open = true;
      target.querySelector("summary").focus({ preventScroll: true });
    }
    target.scrollIntoView();
  };

  form.hidden = cells.length === 0;
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (link && link.hash === location.hash) reveal(); // the same link again fires no hashchange
  });

  for (const cell of cells) {
    cell.addEventListener("toggle", () => { // the address bar then holds a link to what is open
      if (cell.open && closed === null) history.replaceState(null, "", `#${cell.id}`);
    });
  }

  let closed = null;
  addEventListener("beforeprint", () => {
    closed = cells.filter((cell) => !cell.open);
    for (const cell of closed) cell.open = true;
  });
  addEventListener("afterprint", () => { for (const cell of closed) cell.open = false; closed = null; });

  apply();
  reveal();
})();
