"use strict";
// The findings, the matrix with its verdicts and what claims say stand on the page without this
// script. It opens the packs that hold rows, evidence and downloads, filters, and keeps what is
// filtered and open in the address:
// #cell=H1.1.test_x.tiny-gpt2.facts&m=tiny-gpt2&v=supported
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("filter");
  const shown = byId("shown");
  const sections = [...document.querySelectorAll("section.claim")];
  const links = new Map(); // by cell
  for (const link of document.querySelectorAll(".matrix td a")) {
    links.set(link.getAttribute("href").slice(1), link);
  }
  document.querySelector(".matrix")?.addEventListener("mouseover", (event) => { // a tooltip, when asked
    const link = event.target.closest("td a");
    if (link) link.title = link.getAttribute("aria-label");
  });

  // --- packs: text in Base64 of raw DEFLATE ------------------------------------------------------

  const unpacked = new Map();
  const unpack = (name) => {
    if (!unpacked.has(name)) {
      const packed = atob(byId(`pack-${name}`).textContent);
      const bytes = new Uint8Array(packed.length); // from() walks a string ten times slower
      for (let at = 0; at < packed.length; at += 1) bytes[at] = packed.charCodeAt(at);
      const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      unpacked.set(name, new Response(text).text());
    }
    return unpacked.get(name);
  };
  let cells = [];
  const ready = unpack("cells").then(async (text) => { // the rows: of 6,400 cells too much for one go
    let began = performance.now();
    for (const [section, rows] of Object.entries(JSON.parse(text))) {
      byId(section).querySelector(".rows").innerHTML = rows; // escaped where it was made
      if (performance.now() - began > 50) { // a click comes in between
        await new Promise((resolve) => setTimeout(resolve));
        began = performance.now();
      }
    }
    cells = [...document.querySelectorAll("details[data-k]")];
  });
  ready.catch((error) => {
    shown.textContent = `the test cases cannot be unpacked by this browser (${error.message}); take one of 2024 or later`;
  });
  const evidence = new Map(); // cell -> markup, escaped where it was made
  const forests = new Map(); // section -> markup
  const loading = new Map();
  const sectionOf = (cell) => cell.closest("section.claim").id;
  const load = (section) => {
    if (!loading.has(section)) {
      loading.set(section, unpack(section).then((text) => {
        const found = JSON.parse(text);
        for (const [id, markup] of Object.entries(found.cells)) evidence.set(id, markup);
        forests.set(section, found.forest);
      }));
    }
    return loading.get(section);
  };
  const loadAll = () => Promise.all(sections.map((section) => load(section.id)));

  // --- an open cell ------------------------------------------------------------------------------

  const runs = JSON.parse(document.body.dataset.runs);
  const filled = new Set();
  const fill = (cell) => { // its evidence is there
    if (filled.has(cell) || !evidence.has(cell.id)) return;
    filled.add(cell);
    const body = cell.appendChild(document.createElement("div"));
    body.className = "body";
    body.innerHTML = evidence.get(cell.id);
    for (const link of body.querySelectorAll("a[data-run]")) { // its folder is a number: see page.py
      link.href = link.dataset.run.replace(/^\d+/, (number) => runs[number]);
    }
    const slot = body.querySelector("figure.all");
    if (slot && !printing) {
      const section = sectionOf(cell);
      slot.innerHTML = forests.get(section).replaceAll(`${section}-forest`, `${cell.id}-forest`);
      slot.querySelector(`[data-cell="${CSS.escape(cell.id)}"]`)?.classList.add("here");
      slot.hidden = false;
    }
    for (const figure of body.querySelectorAll("figure:not([hidden]), table.heat")) offer(figure);
  };
  const expand = async (cell) => {
    await load(sectionOf(cell));
    fill(cell);
    cell.open = true;
  };

  // --- filters -----------------------------------------------------------------------------------

  const fields = [...new Set([...form.elements].map((field) => field.name).filter(Boolean))];
  const texts = new Map();
  const escaped = (text) => text.replace(/[&<>"']/g, (c) => (
    { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" }[c]));
  const textOf = (cell) => {
    if (!texts.has(cell)) {
      const said = (evidence.get(cell.id) ?? "").replace(/<[^>]*>/g, " ");
      const row = cell.querySelector("summary").textContent;
      texts.set(cell, `${escaped(row)} ${cell.dataset.k} ${said}`.toLowerCase());
    }
    return texts.get(cell);
  };
  const matrix = document.querySelector(".matrix");
  const folds = [...(matrix?.querySelectorAll("td details") ?? [])];
  const heads = [...(matrix?.querySelectorAll("thead .model") ?? [])];
  let narrowed = "";
  const narrow = (want) => { // columns of other models, or of other kinds, go
    const kept = heads.map((head) => (
      (!want.m || head.dataset.m === want.m) && (!want.t || head.dataset.t === want.t)));
    if (narrowed === kept.join()) return;
    narrowed = kept.join();
    kept.forEach((keep, at) => {
      heads[at].hidden = !keep;
      for (const row of matrix.querySelectorAll("tr[data-section]")) row.cells[at + 1].hidden = !keep;
    });
    matrix.querySelectorAll("thead .family").forEach((group, at) => {
      const count = heads.filter((head) => !head.hidden && Number(head.dataset.g) === at).length;
      group.hidden = !count;
      group.colSpan = count || 1;
    });
  };
  byId("unfold").addEventListener("click", () => {
    const open = byId("unfold").getAttribute("aria-pressed") === "false";
    for (const fold of folds) fold.open = open;
    byId("unfold").setAttribute("aria-pressed", open);
    byId("unfold").textContent = open ? "Fold conditions" : "Unfold conditions";
  });
  let asked = 0;
  const apply = async () => {
    const want = Object.fromEntries(new FormData(form));
    const words = want.q.toLowerCase().replace(/\b(\d+):(\d+)\b/g, "l$1h$2") // heads are L0H7 here
      .split(/\s+/).filter(Boolean).map(escaped);
    const turn = ++asked;
    await ready;
    if (words.length) await loadAll();
    if (turn !== asked) return; // a later one overtook it
    let count = 0;
    for (const cell of cells) {
      const data = cell.dataset;
      const match = (!want.m || data.m === want.m) && (!want.c || data.c === want.c) &&
        (!want.k || data.k === want.k || data.f === want.k) &&
        (!want.t || data.t === want.t) && (!want.v || data.v === want.v) &&
        (!want.s || data.s === want.s) &&
        (!want.x || data.x.split(" ").includes(want.x)) &&
        (!want.d || data.x.split(" ").includes(want.d)) &&
        words.every((word) => textOf(cell).includes(word));
      cell.hidden = !match;
      links.get(cell.id)?.classList.toggle("off", !match);
      if (match) count += 1;
    }
    for (const section of sections) {
      section.hidden = !section.querySelector("details[data-k]:not([hidden])");
    }
    for (const row of document.querySelectorAll(".matrix tr[data-section]")) {
      row.hidden = byId(row.dataset.section).hidden;
    }
    for (const body of matrix?.tBodies ?? []) {
      body.hidden = !body.querySelector("tr[data-section]:not([hidden])");
    }
    for (const fold of folds) fold.classList.toggle("off", !fold.querySelector("a:not(.off)"));
    narrow(want);
    for (const sum of document.querySelectorAll(".sums [data-w]")) { // of a section: what is shown
      const rows = sum.closest("section").querySelectorAll(`details[data-v="${sum.dataset.w}"]`);
      const left = [...rows].filter((row) => !row.hidden).length;
      sum.textContent = left === rows.length ? left : `${left} of ${rows.length}`;
    }
    const all = cells.length.toLocaleString("en");
    shown.textContent = count === cells.length ? `all ${all} test cases shown`
      : `${count.toLocaleString("en")} of ${all} test cases shown`;
    if (!count) shown.textContent += "; Clear shows all";
  };

  // --- the address -------------------------------------------------------------------------------

  let current = ""; // the cell that the address names
  let opener = null; // what had the focus when it was opened
  const write = (how) => {
    const state = new URLSearchParams();
    if (current) state.set("cell", current.slice("cell=".length));
    for (const name of fields) {
      if (form.elements[name].value) state.set(name, form.elements[name].value);
    }
    history[how](null, "", `#${state}`);
  };
  const show = async (cell) => {
    if (cell.hidden) { form.reset(); await apply(); }
    current = cell.id;
    document.querySelector("details.target")?.classList.remove("target");
    cell.classList.add("target");
    await expand(cell);
    if (current !== cell.id) return;
    cell.querySelector("summary").focus({ preventScroll: true });
    cell.scrollIntoView();
  };
  const back = (cell) => { // to where it was opened from
    const link = opener?.isConnected ? opener : links.get(cell.id);
    const fold = link?.closest("td details");
    if (fold) fold.open = true;
    link?.focus();
  };
  let followed = false; // whether the address is that of a link just clicked
  const restore = async () => {
    let hash = location.hash.slice(1);
    if (!hash.includes("=")) { // a section, or a link whose "=" a mail program encoded
      try { hash = decodeURIComponent(hash); } catch { return; }
    }
    if (hash && !hash.includes("=")) {
      const target = byId(hash);
      const moved = target?.closest("[hidden]") || !cells.length; // the rows push it down
      if (target?.closest("[hidden]")) form.reset();
      await apply();
      if (moved) target?.scrollIntoView();
      return;
    }
    const wanted = new URLSearchParams(hash);
    for (const name of fields) {
      form.elements[name].value = wanted.get(name) ?? "";
      if (form.elements[name].selectedIndex === -1) form.elements[name].value = "";
    }
    await apply();
    if (followed) { // a count of a finding, or of the strip: what it counts
      followed = false;
      if (!wanted.has("cell")) byId("matrix").scrollIntoView();
    }
    const cell = wanted.has("cell") ? byId(`cell=${wanted.get("cell")}`) : null;
    const last = current && current !== cell?.id ? byId(current) : null;
    current = "";
    if (last) last.open = false;
    if (cell) await show(cell);
    else if (last) back(last);
    if (wanted.has("cell") && !cell) shown.textContent += "; the test case that was linked is not here";
  };

  let printing = false;
  byId("claims").addEventListener("toggle", (event) => {
    const cell = event.target;
    if (printing || !cell.matches("details[data-k]")) return;
    if (cell.open) {
      load(sectionOf(cell)).then(() => fill(cell));
      if (current === cell.id) return;
      current = cell.id;
      opener = cell.querySelector("summary");
      write("pushState");
    } else if (current === cell.id) {
      current = "";
      write("pushState");
    }
  }, true); // it does not bubble
  document.addEventListener("click", async (event) => {
    const link = event.target.closest?.("a[href^='#']");
    followed = Boolean(link?.hash.includes("="));
    if (!link?.hash.startsWith("#cell=") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    opener = link;
    await ready;
    const cell = byId(decodeURIComponent(link.hash.slice(1)));
    if (current !== cell.id) { current = cell.id; write("pushState"); }
    show(cell);
  });
  form.addEventListener("input", (event) => { // a letter is no step to go back by
    if (event.target.name === "q") { apply(); write("replaceState"); }
  });
  form.addEventListener("change", (event) => {
    if (event.target.name !== "q") { apply(); write("pushState"); }
  });
  form.addEventListener("reset", () => setTimeout(() => { apply(); write("replaceState"); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("keydown", (event) => {
    const search = form.elements.q;
    const typing = event.target.matches?.("input, select, textarea") && event.target !== search;
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/" && event.target !== search && !form.hidden) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "Escape") { // closes the cell that is open, then clears what is filtered
      const cell = current && byId(current);
      if (cell && event.target !== search) {
        cell.open = false;
        back(cell);
      } else if (fields.some((name) => form.elements[name].value)) form.reset();
    }
  });
  document.addEventListener("click", async (event) => {
    const link = event.target.closest?.("a.perma");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    try {
      await navigator.clipboard.writeText(link.href);
      link.dataset.said = "link copied";
    } catch { link.dataset.said = "link in the address bar"; } // this browser gives a file no clipboard
    setTimeout(() => { delete link.dataset.said; }, 2500);
  });
  addEventListener("hashchange", restore);

  // --- the matrix by keyboard: one stop of the tab key, arrows within ------------------------------

  const stops = [...(matrix?.querySelectorAll("td summary, td a") ?? [])];
  stops.forEach((stop, index) => { stop.tabIndex = index ? -1 : 0; });
  const reachable = (row) => [...row.querySelectorAll("td summary, td a")].filter((stop) => (
    !stop.closest("[hidden]") && (stop.matches("summary") || !stop.closest("details:not([open])"))));
  matrix?.addEventListener("keydown", (event) => {
    const place = event.target.closest("td");
    if (!place || !event.target.matches("summary, a")) return;
    const rows = [...matrix.querySelectorAll("tr[data-section]")].filter((row) => !row.hidden);
    const row = place.parentElement;
    const within = reachable(row);
    const down = (step) => {
      const next = rows[rows.indexOf(row) + step];
      return next && reachable(next).sort((one, other) => ( // sort is stable: the first of a place
        Math.abs(one.closest("td").cellIndex - place.cellIndex) -
        Math.abs(other.closest("td").cellIndex - place.cellIndex)))[0];
    };
    const next = {
      ArrowRight: () => within[within.indexOf(event.target) + 1],
      ArrowLeft: () => within[within.indexOf(event.target) - 1],
      ArrowDown: () => down(1),
      ArrowUp: () => down(-1),
      Home: () => within[0],
      End: () => within.at(-1),
    }[event.key]?.();
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  });
  matrix?.addEventListener("focusin", (event) => {
    if (!event.target.matches("td summary, td a")) return;
    for (const stop of stops) stop.tabIndex = -1;
    event.target.tabIndex = 0;
  });

  // --- to take away ------------------------------------------------------------------------------

  const save = (name, content, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    byId("taken").textContent = `${name} was made.`;
  };
  const types = { csv: "text/csv", md: "text/markdown", tex: "application/x-tex", json: "application/json" };
  byId("takes").addEventListener("click", async (event) => {
    const name = event.target.dataset?.take;
    if (!name) return;
    await ready;
    const kind = name.split(".").at(-1);
    if (name === kind) { // rows of the test cases shown
      const table = JSON.parse(await unpack("rows"))[kind];
      const rows = cells.filter((cell) => !cell.hidden).map((cell) => table.rows[cell.id]);
      save(`test-cases.${kind}`, [table.head, ...rows, table.tail].join(""), types[kind]);
    } else save(name, await unpack(name), types[kind]);
  });
  byId("print").addEventListener("click", async () => {
    await Promise.all([ready, loadAll()]);
    document.body.classList.add("everything");
    print();
  });

  const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap",
    "stroke-linejoin", "font-family", "font-size", "font-weight", "text-anchor", "opacity"];
  const SVG = "http://www.w3.org/2000/svg";
  const made = (parent, name, attributes, text = "") => {
    const node = parent.appendChild(document.createElementNS(SVG, name));
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };
  const colour = (element, name) => getComputedStyle(element)[name];
  // A drawing that stands by itself: what classes say becomes attributes.
  const copied = (drawing) => {
    const copy = drawing.cloneNode(true);
    const [, , width, height] = drawing.getAttribute("viewBox").split(" ");
    copy.removeAttribute("class");
    copy.setAttribute("xmlns", SVG);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    const all = [...copy.querySelectorAll("*")];
    [...drawing.querySelectorAll("*")].forEach((element, index) => {
      const style = getComputedStyle(element);
      for (const name of KEPT) all[index].setAttribute(name, style.getPropertyValue(name));
      all[index].removeAttribute("class");
    });
    const back = made(copy, "rect", { width, height, fill: colour(document.body, "backgroundColor") });
    copy.prepend(back);
    return copy;
  };
  // A heatmap is a table; its drawing has the same places and words.
  const drawn = (table) => {
    const copy = document.createElementNS(SVG, "svg");
    const box = table.getBoundingClientRect();
    const [width, height] = [Math.ceil(box.width) + 8, Math.ceil(box.height) + 8];
    for (const [key, value] of [["xmlns", SVG], ["width", width], ["height", height],
      ["viewBox", `0 0 ${width} ${height}`]]) copy.setAttribute(key, value);
    made(copy, "rect", { width, height, fill: colour(document.body, "backgroundColor") });
    for (const place of table.querySelectorAll("caption, th, td")) {
      const at = place.getBoundingClientRect();
      const [x, y] = [at.left - box.left + 4, at.top - box.top + 4];
      const style = getComputedStyle(place);
      if (place.tagName === "TD") {
        const subject = place.classList.contains("subject");
        made(copy, "rect", { x: x + 1, y: y + 1, width: at.width - 2, height: at.height - 2,
          fill: style.backgroundColor, stroke: subject ? style.color : "none", "stroke-width": 2 });
      }
      const left = place.tagName === "CAPTION";
      made(copy, "text", { x: left ? x : x + at.width / 2, y: y + at.height / 2 + 4, fill: style.color,
        "font-family": style.fontFamily, "font-size": style.fontSize,
        "text-anchor": left ? "start" : "middle" }, place.textContent);
    }
    return copy;
  };
  const picture = (text) => new Promise((resolve, reject) => { // the drawing at twice its size
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [2 * image.width, 2 * image.height];
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(resolve, "image/png");
    };
    image.onerror = reject;
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  });
  function offer(figure) {
    const title = figure.querySelector("caption, figcaption, title")?.textContent ?? "figure";
    const cell = figure.closest("details[data-k]")?.id.slice("cell=".length) ?? "";
    const name = `${cell} ${title}`.replace(/[^\w.-]+/g, "-").slice(0, 90).replace(/-+$/, "");
    const box = document.createElement("p");
    box.className = "offer";
    for (const kind of ["SVG", "PNG"]) {
      const button = box.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = kind;
      button.setAttribute("aria-label", `${title} as ${kind}`);
      button.addEventListener("click", async () => {
        const copy = figure.matches("table") ? drawn(figure) : copied(figure.querySelector("svg"));
        const text = new XMLSerializer().serializeToString(copy);
        if (kind === "SVG") save(`${name}.svg`, text, "image/svg+xml");
        else save(`${name}.png`, await picture(text));
      });
    }
    figure.matches("table") ? figure.after(box) : figure.append(box);
  }
  for (const figure of document.querySelectorAll("figure:not([hidden])")) offer(figure);

  // --- print, theme, start -----------------------------------------------------------------------

  let closed = [];
  addEventListener("beforeprint", () => {
    printing = true;
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const details of closed) {
      if (details.hidden || details.closest("[hidden]")) continue;
      if (!document.body.classList.contains("everything") && !details.closest(".first")) continue;
      fill(details);
      details.open = true;
    }
  });
  addEventListener("afterprint", () => {
    for (const details of closed) {
      details.open = false;
      if (filled.delete(details)) details.querySelector(".body").remove();
    }
    document.body.classList.remove("everything");
    setTimeout(() => { printing = false; }); // after the toggles that this caused
  });

  const THEMES = { "light dark": "as the system", light: "light", dark: "dark" };
  const theme = byId("theme");
  const remembered = (chosen) => { // a page from a disk may have no storage
    try {
      if (chosen) localStorage.setItem("tinyablation theme", chosen);
      return localStorage.getItem("tinyablation theme");
    } catch { return null; }
  };
  const paint = (chosen) => {
    document.documentElement.style.colorScheme = chosen;
    theme.textContent = `Theme: ${THEMES[chosen]}`;
  };
  theme.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const now = document.documentElement.style.colorScheme || names[0];
    const next = names[(names.indexOf(now) + 1) % names.length];
    paint(next);
    remembered(next);
  });
  const last = remembered();
  if (last in THEMES) paint(last);

  theme.hidden = false;
  byId("takes").hidden = false;
  form.hidden = !sections.length;
  restore().then(() => (window.requestIdleCallback ?? setTimeout)(async () => { // printing finds it there
    await loadAll();
    document.body.dataset.unpacked = "yes";
  }));
})();
