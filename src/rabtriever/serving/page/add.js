// Files become documents here in the browser, and are sent a few at a time; the server reads no file.

import { call } from "./api.js";

const BATCH = 16;
const TRIES = 5;

export async function addFiles(files, report) {
  const documents = [];
  for (const file of files) documents.push(...parse(file.name, await file.text()));
  if (!documents.length) throw new Error("The files hold no documents.");
  const counts = { added: 0, updated: 0, unchanged: 0 };
  for (let start = 0; start < documents.length; start += BATCH) {
    const answer = await patiently(documents.slice(start, start + BATCH));
    for (const name of Object.keys(counts)) counts[name] += answer[name];
    report(Math.min(1, (start + BATCH) / documents.length), counts);
  }
  return counts;
}

async function patiently(documents) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await call("POST", "/v1/documents", { documents });
    } catch (error) {
      if (error.status !== 429 || tried === TRIES) throw error;
      await new Promise((done) => setTimeout(done, 1000 * Math.max(1, error.after)));
    }
  }
}

function parse(name, text) {
  const lines = text.split(/\r?\n/).map((line, place) => [line.trim(), place + 1]).filter(([line]) => line);
  if (name.endsWith(".txt")) return lines.map(([line, number]) => ({ id: `${name}:${number}`, text: line }));
  if (!name.endsWith(".jsonl")) throw new Error(`${name}: only .jsonl and .txt files can be added here.`);
  return lines.map(([line, number]) => {
    let record;
    try {
      record = JSON.parse(line);
    } catch {
      throw new Error(`${name}:${number}: this line is not JSON.`);
    }
    const { _id, id = _id, text, title = "", metadata = {}, ...others } = record ?? {};
    if (typeof id !== "string" || typeof text !== "string") {
      throw new Error(`${name}:${number}: a document needs "id" and "text".`);
    }
    return { id, text, title: title ?? "", metadata: { ...others, ...metadata } };
  });
}
