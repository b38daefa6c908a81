// Follows the shop's live events with a library of npm's: `ws` for a WebSocket, `eventsource` for server-sent events. Says a JSON value for
// each message, and comes back by itself with its cursor.

import { EventSource } from "eventsource";
import { WebSocket } from "ws";

const PAUSE_MS = 50;
const [kind, port, token] = process.argv.slice(2);
const headers = { authorization: `Bearer ${token}` };
const say = (value) => console.log(JSON.stringify(value));

({ socket, sent })[kind]();

function socket(after) {
  const query = after === undefined ? "" : `?after=${after}`;
  const stream = new WebSocket(`ws://127.0.0.1:${port}/api/live${query}`, "cloudevents.json", { headers });
  stream.on("open", () => say({ open: stream.protocol }));
  stream.on("message", (text) => {
    const event = JSON.parse(text);
    const isWelcome = event.type === "cascade.live.welcome.v1";
    // What a welcome says is a cursor for whoever has none.
    after = isWelcome ? (after ?? event.data.after) : (event.position ?? event.data.after);
    say({ event });
  });
  stream.on("error", () => {}); // a close follows
  stream.on("close", (code) => {
    say({ closed: code });
    setTimeout(socket, PAUSE_MS, after);
  });
}

/** The library keeps the cursor, and comes back with it. */
function sent() {
  const withToken = (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } });
  const stream = new EventSource(`http://127.0.0.1:${port}/api/live`, { fetch: withToken });
  stream.addEventListener("open", () => say({ open: "text/event-stream" }));
  stream.addEventListener("error", ({ code, message }) => say({ closed: code ?? null, message }));
  for (const name of ["message", "welcome", "heartbeat", "reset", "end"]) {
    stream.addEventListener(name, ({ data, lastEventId }) => {
      const event = JSON.parse(data);
      // Before a reset a welcome has no id: the reader's own cursor is the better one until then.
      const isCursor = lastEventId === (event.position ?? event.data.after) || (name === "welcome" && lastEventId === "");
      if (!isCursor) throw new Error(`the id ${lastEventId} is not the cursor of ${data}`);
      if ((name === "message") === event.type.startsWith("cascade.live.")) throw new Error(`${event.type} is named ${name}`);
      say({ event });
    });
  }
}
