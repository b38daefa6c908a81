// Publishes and receives events with the libraries `cloudevents` and `standardwebhooks` of npm. Says a JSON value on each line.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { CloudEvent, HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";

const BATCH = "application/cloudevents-batch+json";
const say = (value) => console.log(JSON.stringify(value));

const [task, ...rest] = process.argv.slice(2);
await { publish, receive, read }[task](...rest);

/** Events with all that an event may have. */
function makeEvents(mode) {
  // In headers this library sends attributes as they are, not percent-encoded: only plain ones get there.
  const odd = mode === "binary" ? "plain" : 'é% № "😀"';
  const name = (number) => ({ id: `${mode}-${number} ${odd}`, source: "/client", type: "client.Thing.v1", subject: `${mode} ${number} ${odd}` });
  const event = (number, more) => new CloudEvent({ ...name(number), ...more });
  return [
    event(1, { datacontenttype: "application/json", dataschema: "https://example.com/thing", data: { text: "ü€😀\n", list: [1, -2.5, null, true, {}] } }),
    event(2, { datacontenttype: "application/vnd.thing+json", data: { deep: { deeper: ["x"] } }, colour: odd, partitionkey: mode, causationid: "the cause" }),
    event(3, { time: "2026-01-31T12:00:00.123Z" }),
  ];
}

async function publish(base, token, mode) {
  const events = makeEvents(mode);
  const batch = { headers: { "content-type": BATCH }, body: JSON.stringify(events) };
  const messages = mode === "batch" ? [batch] : events.map((event) => HTTP[mode](event));
  for (const { headers, body } of messages) {
    const answer = await fetch(`${base}/api/events`, { method: "POST", headers: { ...headers, authorization: `Bearer ${token}` }, body });
    say({ status: answer.status, answer: await answer.json() });
  }
  for (const event of events) say({ event });
}

async function receive() {
  const secrets = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const { headers } = request;
    if (secrets.length > 0) {
      const events = [HTTP.toEvent({ headers, body })].flat();
      const isAccepted = (secret, text, more) => verify(secret, text, { ...headers, ...more });
      const tampered = [
        isAccepted(secrets.at(-1), body.replace(/"specversion":"1\.0"/, '"specversion":"1.1"')),
        isAccepted(secrets.at(-1), body, { "webhook-id": "another" }),
        isAccepted(secrets.at(-1), body, { "webhook-timestamp": String(Number(headers["webhook-timestamp"]) + 1) }),
      ];
      say({ media: headers["content-type"], events, verified: secrets.map((secret) => isAccepted(secret, body)), tampered });
    }
    response.writeHead(secrets.length > 0 ? 204 : 503).end();
  });
  server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
  for await (const secret of createInterface({ input: process.stdin })) {
    secrets.push(secret);
    say({ secrets: secrets.length });
  }
}

function verify(secret, body, headers) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch {
    return false;
  }
}

async function read(base, token, position) {
  const answer = await fetch(`${base}/api/events/${position}`, { headers: { authorization: `Bearer ${token}` } });
  say({ event: HTTP.toEvent({ headers: Object.fromEntries(answer.headers), body: await answer.text() }) });
}
