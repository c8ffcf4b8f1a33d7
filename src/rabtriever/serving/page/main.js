// The page: a search, its hits, and documents to add.

import { addFiles } from "./add.js";
import { call } from "./api.js";
import { list, plot } from "./hits.js";

const at = (id) => document.getElementById(id);
let asked = 0;

function fail(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
}

async function look() {
  try {
    const { status, documents } = await call("GET", "/ready");
    at("status").textContent = `${documents} documents, ${status}`;
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
    const requests = [call("POST", "/v1/search", request)];
    if (at("compare").checked) requests.push(call("POST", "/v1/search", { ...request, hybrid: true }));
    const answers = await Promise.all(requests);
    if (own !== asked) return; // a newer search is under way
    draw(answers);
  } catch (error) {
    if (own !== asked) return;
    at("results").replaceChildren();
    at("plot").hidden = true;
    at("cost").textContent = "";
    fail(error);
  }
}

function draw(answers) {
  const [{ hits, milliseconds }, hybrid] = answers;
  const titles = hybrid ? ["Student", "Student and BM25"] : [""];
  at("results").classList.toggle("two", Boolean(hybrid));
  at("results").replaceChildren(...answers.map((answer, place) => list(titles[place], answer.hits, fail)));
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
