// The page: a search, its hits, and documents to add.

import { addFiles } from "./add.js";
import { call } from "./api.js";
import { list, plot } from "./hits.js";

const at = (id) => document.getElementById(id);
let asked = 0;
let rationales = false;

function fail(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
}

async function look() {
  try {
    const state = await call("GET", "/ready");
    rationales = state.rationales;
    at("status").textContent = `${state.documents} documents, ${state.status}`;
  } catch (error) {
    at("status").textContent = error.message;
  }
}

async function search() {
  const own = (asked += 1);
  at("error").hidden = true;
  at("cost").textContent = "searching";
  const request = { query: at("query").value, k: at("k").valueAsNumber || 10, explain: at("explain").checked };
  if (at("rerank").checked) request.rerank = at("depth").valueAsNumber || 10;
  if (at("filter").value.trim()) request.filter = at("filter").value.trim();
  try {
    const orders = at("compare").checked ? [{}, { hybrid: true }, { bm25: true, rerank: 0 }] : [{}];
    const answers = await Promise.all(orders.map((order) => call("POST", "/v1/search", { ...request, ...order })));
    if (own !== asked) return; // a newer search is under way
    draw(answers, request.query);
  } catch (error) {
    if (own !== asked) return;
    at("results").replaceChildren();
    at("plot").hidden = true;
    at("cost").textContent = "";
    fail(error);
  }
}

function draw(answers, query) {
  const say = rationales && ((id) => call("POST", "/v1/rationale", { query, id }));
  const [{ hits, milliseconds }] = answers;
  const titles = answers.length > 1 ? ["Student", "Student and BM25", "BM25 alone"] : [""];
  at("results").classList.toggle("side-by-side", answers.length > 1);
  at("results").replaceChildren(...answers.map((answer, place) => list(titles[place], answer.hits, fail, say)));
  plot(at("plot"), hits);
  const reranked = hits.some((hit) => hit.stage === "teacher");
  at("cost").textContent = `${hits.length} hits in ${milliseconds.search.toFixed(0)} ms`
    + (reranked ? `, reranked by the teacher in ${milliseconds.rerank.toFixed(0)} ms` : "");
}

async function add(files) {
  at("error").hidden = true;
  at("added").textContent = "";
  at("progress").hidden = false;
  at("progress").value = 0;
  try {
    await addFiles(files, (share, counts) => {
      at("progress").value = share;
      at("added").textContent = `${counts.added} added, ${counts.updated} updated, ${counts.unchanged} unchanged`;
    });
  } catch (error) {
    fail(error);
  }
  at("files").value = "";
  await look();
}

at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
for (const id of ["rerank", "compare", "explain"]) {
  at(id).addEventListener("change", () => at("query").value && search());
}
at("files").addEventListener("change", () => add([...at("files").files]));
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  at("drop").addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", over);
    if (name === "drop") add([...event.dataTransfer.files]);
  });
}
at("key").addEventListener("change", look);
look();
