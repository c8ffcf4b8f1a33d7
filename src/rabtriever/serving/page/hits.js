// How hits look. Texts go in as text, never as markup.

import { call } from "./api.js";

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function list(title, hits, fail) {
  const section = element("section");
  if (title) section.append(element("h2", "", title));
  if (!hits.length) section.append(element("p", "none", "No document fits."));
  const ol = element("ol");
  hits.forEach((hit, place) => ol.append(item(hit, place + 1, fail)));
  section.append(ol);
  return section;
}

function item(hit, rank, fail) {
  const li = element("li", "hit");
  const open = element("button");
  open.type = "button";
  if (hit.title) open.append(element("strong", "", hit.title));
  open.append(element("span", "text", hit.text || "(no text)"));
  open.addEventListener("click", () => show(hit.id).catch(fail));
  const facts = element("div", "facts");
  const meter = element("meter");
  meter.value = hit.probability;
  meter.setAttribute("aria-label", "relevance");
  facts.append(element("span", "rank", `${rank}.`), meter);
  facts.append(element("span", "relevance", `${(100 * hit.probability).toFixed(1)} %`));
  facts.append(element("span", "", hit.id));
  if (hit.stage === "teacher") facts.append(moved(hit.student_rank, rank));
  li.append(open, facts);
  if (hit.explanation) li.append(explanation(hit.explanation));
  return li;
}

function moved(before, now) {
  const up = before - now;
  if (!up) return element("span", "same", "stays");
  return element("span", up > 0 ? "up" : "down", `${up > 0 ? "▲" : "▼"} ${Math.abs(up)} (was ${before}.)`);
}

function explanation(why) {
  const details = element("details");
  details.append(element("summary", "", `why: log-odds ${why.log_odds.toFixed(2)}`));
  const table = element("table");
  const rows = why.dimensions.map((share) => [`dimension ${share.dimension}`, share.contribution]);
  for (const [name, value] of [...rows, ["all others", why.rest], ["constant", why.bias]]) {
    const row = element("tr");
    row.append(element("th", "", name), element("td", "", value.toFixed(3)));
    table.append(row);
  }
  details.append(table);
  return details;
}

async function show(id) {
  const found = await call("GET", `/v1/documents/${encodeURIComponent(id)}`);
  document.getElementById("document-title").textContent = found.title || found.id;
  document.getElementById("document-text").textContent = found.text;
  const metadata = Object.keys(found.metadata).length ? JSON.stringify(found.metadata, null, 2) : "";
  document.getElementById("document-metadata").textContent = metadata;
  document.getElementById("document").showModal();
}

export function plot(figure, hits) {
  const counts = new Array(20).fill(0);
  for (const hit of hits) counts[Math.min(19, Math.floor(20 * hit.probability))] += 1;
  const most = Math.max(...counts, 1);
  const svg = figure.querySelector("svg");
  svg.replaceChildren();
  counts.forEach((count, place) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = (72 * count) / most;
    for (const [name, value] of Object.entries({ x: 20 * place + 2, y: 78 - height, width: 16, height })) {
      bar.setAttribute(name, value);
    }
    svg.append(bar);
  });
  svg.setAttribute("aria-label", `Relevance of ${hits.length} hits; the best has ${(100 * Math.max(0, ...hits.map((h) => h.probability))).toFixed(1)} %`);
  figure.hidden = !hits.length;
}
