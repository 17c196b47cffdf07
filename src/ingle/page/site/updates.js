// A shared worker: one stream of updates for all tabs of a browser, which opens only six connections to a server.

const EVENTS = [
  "hello", "reset", "answer.begun", "answer.stage", "answer.delta", "answer.ended", "answer.failed", "conversation.changed",
  "conversation.deleted", "learning.changed", "guards.changed", "pull.changed", "visitor.changed",
];
const ports = new Set();
let source = null;
let open = false;

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function listen() {
  source = new EventSource("/v1/updates?strokes=true");
  source.onopen = () => tell({ open: (open = true) });
  source.onerror = () => {
    tell({ open: (open = false) });
    if (source.readyState !== EventSource.CLOSED) return; // it comes again by itself
    source = null; // refused: the tabs find out why
    setTimeout(() => ports.size && !source && listen(), 2000);
  };
  for (const name of EVENTS) source.addEventListener(name, ({ data }) => tell({ name, data: JSON.parse(data) }));
}

// Tells a tab what happens, until it says "gone".
export function join(port) {
  ports.add(port);
  port.onmessage = ({ data }) => {
    if (data !== "gone") return;
    ports.delete(port);
    if (!ports.size) [source, open] = [source?.close(), false];
  };
  port.postMessage({ open });
  if (!source) listen();
}

globalThis.onconnect = ({ ports: [port] }) => join(port);
