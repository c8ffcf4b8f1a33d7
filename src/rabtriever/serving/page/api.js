// Calls to the server this page came from, and to no other.

const keyField = document.getElementById("key");
keyField.value = sessionStorage.getItem("key") ?? "";
keyField.addEventListener("change", () => sessionStorage.setItem("key", keyField.value));

export async function call(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (keyField.value) headers.Authorization = `Bearer ${keyField.value}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer.");
  }
  const answer = await response.json().catch(() => ({ error: { message: `status ${response.status}`, hint: "" } }));
  if (response.ok) return answer;
  if (response.status === 401) document.getElementById("access").open = true;
  const { message, hint } = answer.error;
  const error = new Error(hint ? `${message}; ${hint}.` : `${message}.`);
  error.status = response.status;
  error.after = Number(response.headers.get("Retry-After")) || 0;
  throw error;
}
