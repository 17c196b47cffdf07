// What a server says: requests, and the stream of updates.

export class ApiError extends Error {
  constructor(status, { message, code, newer } = {}) {
    super(message ?? "Ingle can't be reached right now.");
    Object.assign(this, { status, code, newer });
  }
}

const ABSENT = 0; // the status of a request that reached nobody

export function signIn() {
  location.href = "/sign-in?next=" + encodeURIComponent(location.pathname);
  return new Promise(() => {}); // nothing more happens on this page
}

async function send(method, path, body) {
  const how = { method, headers: body === undefined ? {} : { "Content-Type": "application/json" } };
  if (body !== undefined) how.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, how);
  } catch {
    throw new ApiError(ABSENT);
  }
  if (response.status === 401) await signIn();
  return response;
}

async function failed(response) {
  const table = await response.json().catch(() => ({}));
  return new ApiError(response.status, table.error);
}

export async function ask(method, path, body) {
  const response = await send(method, path, body);
  if (!response.ok) throw await failed(response);
  return response.json();
}

export const get = (path) => ask("GET", path);

// Yields the tables of a streamed answer.
export async function* stream(path, body, signal) {
  const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  if (response.status === 401) await signIn();
  if (!response.ok) throw await failed(response);
  let rest = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + piece).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const table = JSON.parse(data);
      if (table.error) throw new ApiError(500, table.error);
      yield table;
    }
  }
}

// Calls `hear` with the name and the data of each update, and `connection` with whether the stream is open.
export function listen(hear, connection) {
  const take = ({ name, data, open }) => (name ? hear(name, data) : connection(open));
  const url = new URL("updates.js", import.meta.url);
  if (window.SharedWorker) {
    const worker = new SharedWorker(url, { type: "module" });
    worker.port.onmessage = ({ data }) => take(data);
    addEventListener("pagehide", () => worker.port.postMessage("gone"));
    addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
    return;
  }
  const { port1, port2 } = new MessageChannel(); // as in a worker, but within this tab
  port1.onmessage = ({ data }) => take(data);
  import(url).then(({ join }) => join(port2));
}
