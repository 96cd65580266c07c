"use strict";
// Script of the page that cg.page writes. Reads the JSON in #data and the SVG pictures; text from the graph goes into the
// page through textContent alone. Sections: facts, picture, choice, search, table, details, tools, start.
(() => {
const $ = id => document.getElementById(id);
const make = (tag, text = "", cls = "") => {
  const e = document.createElement(tag);
  if (text !== "") e.textContent = text;
  if (cls) e.className = cls;
  return e;
};

// -- facts: one record for every node ---------------------------------------------------------------------------
const G = JSON.parse($("data").textContent);
const total = {macs: 0, params: 0, bytes: 0};
const nodes = G.nodes.map((s, i) => {
  const p = G.specs[s];
  for (const k in total) total[k] += p[k];
  return {i, p, from: [], to: []};
});
G.src.forEach((s, e) => { nodes[G.dst[e]].from.push(nodes[s]); nodes[s].to.push(nodes[G.dst[e]]); });
const DULL = /^(strides=1( 1)*|dilations=1( 1)*|pads=0( 0)*|group=1|ceil_mode=False)$/; // left out of the table, not of the details
const isOutput = new Set(G.outputs);
for (const p of G.specs) {
  p.ins = p.in.join(", ");
  p.attrText = p.attrs.map(a => a.join("=")).join("  ");
  p.attrShort = p.attrs.filter(a => !DULL.test(a.join("="))).map(a => a.join("=")).join("  ");
  p.text = [p.op, p.label, p.ins, p.out, p.w, p.attrText, p.bias ? "bias" : "", G.categories[p.cat][0]].join(" ").toLowerCase();
}
const num = v => v.toLocaleString("en-US");
const si = v => {
  for (const [limit, unit] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]])
    if (v >= limit) return (v / limit).toPrecision(3) + unit;
  return String(v);
};
const share = (v, of) => !of || !v ? "" : v / of < .0005 ? "< 0.1 %" : (100 * v / of).toFixed(v / of < .1 ? 1 : 0) + " %";

// -- picture: which one, where, how large -----------------------------------------------------------------------
const stage = $("stage"), calm = matchMedia("(prefers-reduced-motion: reduce)");
const pictures = {};
for (const [name, v] of Object.entries(G.views)) {
  const svg = $(name), marks = new Map(), box = new Map(), into = [], out = [];
  for (const g of svg.querySelectorAll(".n")) marks.set(+g.dataset.i, g);
  v.chains.forEach((c, b) => { c.forEach(i => box.set(i, b)); into.push([]); out.push([]); });
  const paths = svg.querySelectorAll(".e");
  v.edges.forEach(([s, t], k) => { out[s].push(paths[k]); into[t].push(paths[k]); });
  pictures[name] = {...v, name, svg, world: svg.querySelector(".world"), marks, box, into, out, w: +svg.dataset.w, h: +svg.dataset.h};
}
let pic = Object.values(pictures).find(p => !p.svg.hasAttribute("hidden")), at = {x: 0, y: 0, k: 1}, fitted = true, motion = 0;
const LIMIT = [0.01, 8];
const apply = () => {
  pic.world.setAttribute("transform", `translate(${at.x.toFixed(2)} ${at.y.toFixed(2)}) scale(${at.k.toFixed(5)})`);
  pic.svg.classList.toggle("far", at.k < .38);
  const s = at.k >= .7 ? 1 : 2 ** Math.round(Math.log2(.8 / at.k)); // lines stay visible from afar
  if (pic.svg.style.getPropertyValue("--s") !== String(s)) pic.svg.style.setProperty("--s", s);
};
const moveTo = (to, smooth = true) => {
  cancelAnimationFrame(motion);
  to.k = Math.min(LIMIT[1], Math.max(LIMIT[0], to.k));
  if (!smooth || calm.matches) { at = to; return apply(); }
  const from = {...at}, start = performance.now();
  const step = now => {
    const t = Math.max(0, Math.min(1, (now - start) / 220)), f = t * (2 - t);
    at = {x: from.x + (to.x - from.x) * f, y: from.y + (to.y - from.y) * f, k: from.k + (to.k - from.k) * f};
    apply();
    if (t < 1) motion = requestAnimationFrame(step);
  };
  motion = requestAnimationFrame(step);
};
const fit = smooth => {
  const w = stage.clientWidth, h = stage.clientHeight - $("legend").offsetHeight, k = Math.min((w - 16) / pic.w, (h - 16) / pic.h, 1.6);
  moveTo({k, x: (w - pic.w * k) / 2, y: Math.max(8, (h - pic.h * k) / 2)}, smooth);
  fitted = true;
};
const zoom = (f, x = stage.clientWidth / 2, y = stage.clientHeight / 2, smooth = false) => {
  const k = Math.min(LIMIT[1], Math.max(LIMIT[0], at.k * f)), r = k / at.k;
  moveTo({k, x: x - (x - at.x) * r, y: y - (y - at.y) * r}, smooth);
  fitted = false;
};
const pan = (dx, dy) => { moveTo({...at, x: at.x + dx, y: at.y + dy}, false); fitted = false; };
const drawn = i => pic.shown[i];
const centre = i => {
  const r = pic.marks.get(drawn(i)).querySelector(".b"), n = a => +r.getAttribute(a);
  const k = Math.max(at.k, 1), w = stage.clientWidth, h = stage.clientHeight;
  moveTo({k, x: w / 2 - k * (n("x") + n("width") / 2), y: h / 2 - k * (n("y") + n("height") / 2)});
  fitted = false;
};
const inPicture = e => { const r = stage.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
const nodeAt = target => { const g = target.closest && target.closest(".n"); return g ? nodes[+g.dataset.i] : null; };

stage.addEventListener("wheel", e => {
  e.preventDefault();
  const unit = e.deltaMode === 1 ? 18 : e.deltaMode === 2 ? 300 : 1;
  if (e.shiftKey) pan(-(e.deltaX || e.deltaY) * unit, 0);
  else zoom(Math.exp(-Math.max(-240, Math.min(240, e.deltaY * unit)) * (e.ctrlKey ? .01 : .002)), ...inPicture(e));
}, {passive: false});
const touches = new Map();
let moved = 0;
stage.addEventListener("pointerdown", e => {
  if (e.button || e.target.closest("#legend")) return;
  if (!touches.size) moved = 0;
  touches.set(e.pointerId, inPicture(e));
});
stage.addEventListener("pointermove", e => {
  const before = touches.get(e.pointerId);
  if (!before) return hover(e);
  const now = inPicture(e), rest = [...touches].filter(([id]) => id !== e.pointerId).map(([, p]) => p);
  if (rest.length === 1) {
    const [o] = rest, far = p => Math.hypot(p[0] - o[0], p[1] - o[1]);
    pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    zoom(far(now) / Math.max(1, far(before)), (now[0] + o[0]) / 2, (now[1] + o[1]) / 2);
    moved = 99;
  } else if (!rest.length) {
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (moved > 4) {
      stage.setPointerCapture(e.pointerId);
      stage.classList.add("moving");
      $("tip").hidden = true;
      pan(now[0] - before[0], now[1] - before[1]);
    }
  }
  touches.set(e.pointerId, now);
});
for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, e => {
  if (!touches.delete(e.pointerId)) return;
  stage.classList.remove("moving");
  if (kind === "pointerup" && moved <= 4) { const n = nodeAt(e.target); if (n) choose(n.i, {row: true}); }
});
stage.addEventListener("dblclick", e => { if (!nodeAt(e.target)) zoom(2, ...inPicture(e), true); else centre(nodeAt(e.target).i); });
stage.addEventListener("pointerleave", () => { $("tip").hidden = true; });
const hover = e => {
  const n = e.pointerType === "touch" ? null : nodeAt(e.target), tip = $("tip");
  tip.hidden = !n;
  if (!n) return;
  tip.textContent = `#${n.i} ${n.p.label}\n${n.p.ins || "–"} → ${n.p.out}\n${num(n.p.macs)} MACs, ${num(n.p.params)} parameters`;
  const [x, y] = inPicture(e);
  tip.style.left = Math.max(4, Math.min(x + 14, stage.clientWidth - tip.offsetWidth - 6)) + "px";
  tip.style.top = (y + 18 + tip.offsetHeight < stage.clientHeight ? y + 16 : y - tip.offsetHeight - 10) + "px";
};
new ResizeObserver(() => { if (fitted) fit(false); }).observe(stage);

// -- choice: one node, marked in picture, table and details ---------------------------------------------------------
let chosen = -1;
const mark = () => {
  for (const e of pic.svg.querySelectorAll(".pick,.into,.from")) e.classList.remove("pick", "into", "from");
  if (chosen < 0) return;
  const i = drawn(chosen), b = pic.box.get(i);
  pic.marks.get(i).classList.add("pick");
  for (const e of pic.into[b]) e.classList.add("into");
  for (const e of pic.out[b]) e.classList.add("from");
};
const choose = (i, {go = false, row = false} = {}) => {
  chosen = i;
  mark();
  details();
  if (row) showRow(i); else rows();
  if (go && i >= 0) centre(i);
  history.replaceState(null, "", i < 0 ? "#" : `#n=${i}`);
};

// -- search: words that must all hold --------------------------------------------------------------------------------
const escaped = t => t.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const SUFFIX = {k: 1e3, m: 1e6, g: 1e9, t: 1e12};
const term = word => {
  let m;
  if ((m = /^#(\d+)$/.exec(word))) return n => n.i === +m[1];
  if ((m = /^(macs|params|bytes)(>=|<=|>|<|=)([\d.]+)([kmgt]?)b?$/.exec(word))) {
    const v = +m[3] * (SUFFIX[m[4]] || 1), key = m[1];
    return {">": n => n.p[key] > v, "<": n => n.p[key] < v, ">=": n => n.p[key] >= v, "<=": n => n.p[key] <= v, "=": n => n.p[key] === v}[m[2]];
  }
  let field = "text";
  if ((m = /^(in|out|w):(.+)$/.exec(word))) { field = m[1] === "in" ? "ins" : m[1]; word = m[2]; }
  if (/^[\d×x,*]+$/.test(word)) { // a shape, or one number of it: whole numbers only
    const re = new RegExp(`(^|[^\\d])${escaped(word.replace(/[x,*]/g, "×").replace(/^×+|×+$/g, ""))}([^\\d]|$)`);
    return n => re.test(n.p[field]) || (field === "text" && String(n.i) === word);
  }
  return n => n.p[field].includes(word);
};
let found = nodes, cursor = -1, category = -1;
const search = () => {
  const words = $("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean).map(term);
  const all = !words.length && category < 0;
  found = all ? nodes : nodes.filter(n => (category < 0 || n.p.cat === category) && words.every(w => w(n)));
  cursor = -1;
  for (const p of Object.values(pictures)) {
    p.world.classList.toggle("dim", !all);
    for (const g of p.world.querySelectorAll(".hit")) g.classList.remove("hit");
    if (!all) for (const n of found) p.marks.get(p.shown[n.i]).classList.add("hit");
  }
  for (const b of $("legend").children) b.setAttribute("aria-pressed", +b.dataset.c === category);
  sort();
  tell();
};
const tell = () => {
  const all = found === nodes;
  $("found").value = all ? "" : found.length ? `${cursor < 0 ? "" : cursor + 1 + " of "}${num(found.length)}${cursor < 0 ? " found" : ""}` : "none found";
  $("prev").disabled = $("next").disabled = all || !found.length;
};
const step = d => {
  if (found === nodes || !found.length) return;
  cursor = cursor < 0 ? (d > 0 ? 0 : found.length - 1) : (cursor + d + found.length) % found.length;
  tell();
  choose(found[cursor].i, {go: true, row: true});
};

// -- table: only the rows in sight exist ---------------------------------------------------------------------------
const COLUMNS = [
  ["#", n => n.i, 4, 1], ["operator", n => n.p.op, 11], ["inputs", n => n.p.ins, 13], ["output", n => n.p.out, 9],
  ["weight", n => n.p.w && n.p.w + (n.p.bias ? " + bias" : ""), 10], ["attributes", n => n.p.attrShort, 0, 0, , n => n.p.attrText],
  ["MACs", n => n.p.macs, 8, 1], ["MACs %", n => share(n.p.macs, total.macs), 5, 1, n => n.p.macs],
  ["parameters", n => n.p.params, 7, 1], ["bytes out", n => n.p.bytes, 7, 1]];
const shapeSize = s => s.split("×").reduce((a, d) => a * (+d || 1), s ? 1 : 0);
const KEY = {inputs: n => n.p.in.reduce((a, s) => a + shapeSize(s), 0), output: n => shapeSize(n.p.out), weight: n => shapeSize(n.p.w)};
const ROW = 27, table = $("table"), body = table.querySelector("tbody"), head = make("tr");
let by = 0, rising = true, view = nodes;
COLUMNS.forEach(([name, , width, right], c) => {
  const th = make("th", "", right ? "r" : ""), b = make("button", name);
  if (width) th.style.width = width + "rem";
  th.scope = "col";
  b.addEventListener("click", () => { rising = by === c ? !rising : !(right && c) && !KEY[name]; by = c; sort(); });
  th.append(b);
  head.append(th);
});
table.querySelector("thead").append(head);
const sort = () => {
  const [name, text, , right, number] = COLUMNS[by], key = KEY[name] || number || text;
  const order = right || KEY[name] ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b));
  view = [...found].sort((a, b) => (rising ? order(a, b) : order(b, a)) || a.i - b.i);
  if (found !== nodes) found = view; // next and previous follow the table
  [...head.children].forEach((th, c) => {
    th.ariaSort = c === by ? (rising ? "ascending" : "descending") : "none";
    th.firstChild.textContent = COLUMNS[c][0] + (c === by ? (rising ? " ↑" : " ↓") : "");
  });
  table.scrollTop = 0;
  rows();
};
const pad = height => {
  const tr = make("tr", "", "pad"), td = make("td");
  td.colSpan = COLUMNS.length;
  td.style.height = height + "px";
  tr.append(td);
  return tr;
};
const rows = () => {
  const first = Math.max(0, Math.floor(table.scrollTop / ROW) - 8), last = Math.min(view.length, first + Math.ceil(table.clientHeight / ROW) + 20);
  const out = [pad(first * ROW)];
  for (const n of view.slice(first, last)) {
    const tr = make("tr", "", "row" + (n.i === chosen ? " pick" : "") + (n.p.op.startsWith("Unknown") ? " bad" : ""));
    tr.dataset.i = n.i;
    for (const [name, text, , right, , whole] of COLUMNS) {
      const v = text(n), td = make("td", typeof v === "number" && name !== "#" ? v ? num(v) : "" : String(v), right ? "r" : "");
      if (String(v).length > 14) td.title = whole ? whole(n) : v;
      tr.append(td);
    }
    out.push(tr);
  }
  if (!view.length) { const td = make("td", "No node fits the search.", "none"), tr = make("tr"); td.colSpan = COLUMNS.length; tr.append(td); out.push(tr); }
  out.push(pad((view.length - last) * ROW));
  body.replaceChildren(...out);
};
const showRow = i => {
  const k = view.findIndex(n => n.i === i), top = k * ROW, room = table.clientHeight - ROW - head.offsetHeight;
  if (k >= 0 && (top < table.scrollTop || top > table.scrollTop + room)) table.scrollTop = Math.max(0, top - room / 2);
  rows();
};
table.addEventListener("scroll", rows);
new ResizeObserver(rows).observe(table);
body.addEventListener("click", e => { const tr = e.target.closest(".row"); if (tr) choose(+tr.dataset.i, {go: true}); });
table.addEventListener("keydown", e => {
  const page = Math.max(1, Math.floor(table.clientHeight / ROW) - 2);
  const d = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9}[e.key];
  if (e.target !== table || !view.length || (d === undefined && e.key !== "Enter")) return;
  e.preventDefault();
  const k = view.findIndex(n => n.i === chosen);
  choose(view[Math.max(0, Math.min(view.length - 1, k < 0 ? 0 : k + (d || 0)))].i, {go: true, row: true});
});

// -- details: the chosen node, or what the network is made of --------------------------------------------------------
const line = (t, name, value, right) => {
  if (value === "" || value === undefined) return;
  const tr = make("tr");
  tr.append(make("th", name), make("td", value, right ? "r" : ""));
  t.append(tr);
};
const swatch = c => { const s = make("span", "", "sw"); s.style.background = G.categories[c][1]; return s; };
const links = (title, list, edge) => {
  const part = [make("h3", title)], box = make("div", "", "links");
  for (const n of list.slice(0, 40)) {
    const b = make("button", `#${n.i} ${n.p.label}`);
    b.addEventListener("click", () => { choose(n.i, {go: true, row: true}); });
    box.append(b);
  }
  if (list.length > 40) box.append(make("p", `and ${list.length - 40} more`));
  if (!list.length) box.append(make("p", edge));
  part.push(box);
  return part;
};
const details = () => {
  const d = $("details"), t = make("table");
  d.classList.toggle("chosen", chosen >= 0);
  d.scrollTop = 0;
  if (chosen < 0) return overview(d);
  const n = nodes[chosen], p = n.p, h = make("h2", `#${n.i} ${p.label}`), parts = [h];
  h.prepend(swatch(p.cat));
  const b = pic.box.get(drawn(n.i)), k = pic.group[b];
  if (k >= 0) parts.push(make("p", drawn(n.i) === n.i ? `Drawn once for ${pic.times[k]} equal blocks in a row.`
    : `In one of ${pic.times[k]} equal blocks; the picture shows its twin #${drawn(n.i)}.`));
  line(t, "operator", p.op);
  p.in.forEach((s, a) => line(t, p.in.length > 1 ? `input ${a}` : "input", s));
  line(t, "output", p.out);
  line(t, "weight", p.w && p.w + (p.bias ? " + bias" : ""));
  for (const [key, value] of p.attrs) line(t, key, value);
  line(t, "MACs", num(p.macs) + (p.macs ? ` (${share(p.macs, total.macs)})` : ""));
  line(t, "parameters", num(p.params) + (p.params ? ` (${share(p.params, total.params)})` : ""));
  line(t, "activation", num(p.bytes) + " bytes");
  parts.push(t, ...links("Inputs", n.from, "none: this is a source"),
    ...links(isOutput.has(n.i) ? "Consumers (and leaves the network)" : "Consumers", n.to, "none: leaves the network"));
  d.replaceChildren(...parts);
};
const overview = d => {
  const sums = new Map();
  for (const n of nodes) {
    const r = sums.get(n.p.op) || {op: n.p.op, cat: n.p.cat, count: 0, macs: 0, params: 0};
    r.count++; r.macs += n.p.macs; r.params += n.p.params;
    sums.set(n.p.op, r);
  }
  const t = make("table"), top = make("tr");
  ["operator", "nodes", "MACs", "params"].forEach((text, c) => top.append(make("th", text, c ? "r" : "")));
  t.append(top);
  for (const r of [...sums.values()].sort((a, b) => b.macs - a.macs || b.params - a.params || b.count - a.count)) {
    const tr = make("tr", "", "bar"), op = make("td", r.op);
    op.prepend(swatch(r.cat));
    tr.append(op, make("td", num(r.count), "r"), make("td", r.macs ? si(r.macs) : "", "r"), make("td", r.params ? si(r.params) : "", "r"));
    tr.addEventListener("click", () => { $("search").value = r.op.toLowerCase(); search(); });
    t.append(tr);
  }
  const parts = [make("h2", "Operators"), t], meta = Object.entries(G.meta);
  if (meta.length) { const m = make("table"); for (const [k, v] of meta) line(m, k, v); parts.push(make("h3", "Notes"), m); }
  d.replaceChildren(...parts);
};

// -- tools -----------------------------------------------------------------------------------------------------------
const setPicture = name => {
  pic.svg.setAttribute("hidden", "");
  pic = pictures[name];
  pic.svg.removeAttribute("hidden");
  $("fold").textContent = name === "folded" ? "Unfold repeats" : "Fold repeats";
  fit(false);
  mark();
  details();
  if (chosen >= 0) centre(chosen);
};
const setTheme = name => { document.documentElement.dataset.theme = name; };
const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const go = n => { if (n) choose(n.i, {go: true, row: true}); };
const act = {
  in: () => zoom(1.5, undefined, undefined, true), out: () => zoom(1 / 1.5, undefined, undefined, true), fit: () => fit(true),
  next: () => step(1), prev: () => step(-1), theme: () => setTheme(dark() ? "light" : "dark"), help: () => $("keys").showModal(),
  fold: () => { if (pictures.folded) setPicture(pic.name === "folded" ? "full" : "folded"); }};
for (const [id, f] of Object.entries(act)) $(id).addEventListener("click", f);
if ($("unknown")) $("unknown").addEventListener("click", () => { $("search").value = "unknown:"; category = -1; search(); step(1); });
$("search").addEventListener("input", search);
$("search").addEventListener("keydown", e => {
  if (e.key === "Enter") step(e.shiftKey ? -1 : 1);
  else if (e.key === "Escape") { $("search").value = ""; category = -1; search(); stage.focus(); }
  else return;
  e.preventDefault();
  e.stopPropagation();
});
document.addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA)$/.test(e.target.tagName) || $("keys").open) return;
  const arrows = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60]}[e.key];
  const n = nodes[chosen];
  if (arrows && e.target === stage) pan(...arrows);
  else if (e.key === "/") { $("search").focus(); $("search").select(); }
  else if (e.key === "+" || e.key === "=") act.in();
  else if (e.key === "-") act.out();
  else if (e.key === "[" && n) go(n.from[0]);
  else if (e.key === "]" && n) go(n.to[0]);
  else if (e.key === "?") act.help();
  else if (e.key === "n") act.next();
  else if (e.key === "N") act.prev();
  else if (e.key === "Escape") { if (chosen >= 0) choose(-1); else { $("search").value = ""; category = -1; search(); } }
  else if ("frt".includes(e.key)) ({f: act.fit, r: act.fold, t: act.theme})[e.key]();
  else return;
  e.preventDefault();
});
const split = $("split"), setHeight = h => document.documentElement.style.setProperty("--th", Math.max(34, Math.min(innerHeight - 220, h)) + "px");
split.addEventListener("pointerdown", e => { split.setPointerCapture(e.pointerId); e.preventDefault(); });
split.addEventListener("pointermove", e => { if (split.hasPointerCapture(e.pointerId)) setHeight(innerHeight - e.clientY); });
split.addEventListener("keydown", e => {
  const d = {ArrowUp: 30, ArrowDown: -30}[e.key];
  if (d) { setHeight(table.clientHeight + d); e.preventDefault(); e.stopPropagation(); }
});

// -- start -----------------------------------------------------------------------------------------------------------
for (const c of [...new Set(nodes.map(n => n.p.cat))].sort((a, b) => a - b)) {
  const b = make("button", G.categories[c][0]);
  b.prepend(swatch(c));
  b.dataset.c = c;
  b.title = "Show only these";
  b.addEventListener("click", () => { category = category === c ? -1 : c; search(); });
  $("legend").append(b);
}
if (pictures.folded) { $("fold").hidden = false; $("fold").textContent = pic.name === "folded" ? "Unfold repeats" : "Fold repeats"; }
// #n=12&q=conv&theme=dark&view=full: what a link to the page may ask for
const ask = new URLSearchParams(location.hash.slice(1));
if (["light", "dark"].includes(ask.get("theme"))) setTheme(ask.get("theme"));
if (pictures[ask.get("view")]) setPicture(ask.get("view")); else fit(false);
if (ask.get("q")) $("search").value = ask.get("q");
search();
details();
if (nodes[ask.get("n")]) choose(+ask.get("n"), {go: true, row: true});
})();
