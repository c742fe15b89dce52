// Requests to the agent. What changes something goes as JSON with a header that no form can send.

async function answerOf(response) {
  if (response.status === 401 && location.pathname !== "/login") {
    location.replace("/login");
  }
  let document = null;
  try {
    document = await response.json();
  } catch {
    throw new Error(`the agent answered ${response.status} without JSON`);
  }
  if (!response.ok) {
    throw new Error(document.error || `the agent answered ${response.status}`);
  }
  return document;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the agent does not answer");
  }
  return answerOf(response);
}

export function get(path) {
  return ask(path, { headers: { accept: "application/json" } });
}

export function post(path, body) {
  const headers = { "content-type": "application/json", "x-fisher": "1" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}
