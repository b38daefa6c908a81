// Loyalty points: a completed order earns its customer a point for each whole unit of money.
//
// It gets `OrderCompleted` from the shop, keeps what it has applied in a file of its own, and tells the shop `PointsAwarded`.

import { appendFileSync, closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { Webhook } from "standardwebhooks";

const { SHOP = "http://localhost:4000", PORT = "9191", DATA = "loyalty-data", TOKEN_FILE = "loyalty.token" } = process.env;
const SUBSCRIPTION = { sink: `http://127.0.0.1:${PORT}/events`, types: ["cascade.OrderCompleted.v1"], revision: 1 };
const BODY_BYTES_MAX = 2 * 1024 * 1024;
const token = readFileSync(TOKEN_FILE, "utf8").trim();
let webhook; // none until the shop has told us the secret

// ---- What is known: one line for each award. An award and "this event was applied" are one thing, so neither is ever without the other.

mkdirSync(DATA, { recursive: true });
const journal = `${DATA}/awards.jsonl`;
const awards = new Map(); // by what names an event: its source and its id
const nameOf = ({ source, id }) => JSON.stringify([source, id]);
const written = existsSync(journal) ? readFileSync(journal, "utf8") : "";
const whole = written.slice(0, written.lastIndexOf("\n") + 1); // a line that a crash cut off was never acknowledged
for (const line of whole.split("\n").filter(Boolean)) awards.set(nameOf(JSON.parse(line)), JSON.parse(line));
if (whole !== written) truncateSync(journal, Buffer.byteLength(whole));
const file = openSync(journal, "a");

function remember(fresh) {
  if (fresh.length === 0) return;
  try {
    appendFileSync(file, fresh.map((award) => `${JSON.stringify(award)}\n`).join(""));
    fsyncSync(file);
  } catch (error) {
    console.error(String(error));
    process.exit(1); // whatever is half written is cut off at the next start
  }
  for (const award of fresh) awards.set(nameOf(award), award);
}

function pointsByMember() {
  const points = {};
  for (const award of awards.values()) points[award.member] = (points[award.member] ?? 0) + award.points;
  return points;
}

// ---- What an event means, and what is said about it.

function awardFor({ source, id, subject, owner, data }) {
  const amount = data?.total?.amount_minor;
  if (!Number.isSafeInteger(amount) || amount < 0 || !subject || !owner) return null;
  return { source, id, order: subject, member: owner, points: Math.floor(amount / 100) };
}

/** Always the same for the same award, so the shop knows it again when it is published twice. */
function tell(award, event) {
  const { time, traceparent } = event;
  const context = { subject: award.order, owner: award.member, causationid: award.id, time, traceparent };
  const data = { member: award.member, points: award.points };
  return { specversion: "1.0", id: award.id, source: "/loyalty", type: "loyalty.PointsAwarded.v1", ...context, data };
}

async function take(events) {
  const results = []; // only of what is not taken
  const fresh = [];
  const said = [];
  for (const event of events) {
    const award = awards.get(nameOf(event)) ?? awardFor(event);
    if (award) said.push(tell(award, event));
    else results.push({ source: event.source, id: event.id, status: 422, reason: "it has no total, no order or no owner" });
    if (award && !awards.has(nameOf(award))) fresh.push(award);
  }
  remember(fresh);
  // Published before it is acknowledged: if this fails, or we die here, the shop sends the events again, and we say it again.
  if (said.length > 0) await ask("POST", "/api/events", said, "application/cloudevents-batch+json");
  for (const { order, member, points } of fresh) console.log(`${points} points for ${member} (order ${order})`);
  return results;
}

// ---- The way to the shop.

async function ask(method, path, body, type = "application/json") {
  const headers = { authorization: `Bearer ${token}`, "content-type": type };
  const answer = await fetch(SHOP + path, { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(5_000) });
  const json = await answer.json();
  if (answer.ok) return json;
  throw Object.assign(new Error(`${method} ${path}: ${answer.status} ${json.code}: ${json.detail}`), { status: answer.status });
}

function complain(error) {
  console.error(error.status ? error.message : `${SHOP} cannot be reached: ${error.cause?.code ?? error.message}`);
}

/** At every start: it is harmless, and it wakes a shop that was waiting for us. The secret is told once, so it is kept. */
async function register() {
  const path = "/api/subscriptions/loyalty";
  const kept = `${DATA}/secret`;
  let { secret } = await ask("PUT", path, SUBSCRIPTION);
  if (!secret && !existsSync(kept)) ({ secret } = await ask("POST", `${path}/secret/rotate`, { grace_s: 0 }));
  if (secret) writeFileSync(kept, secret, { mode: 0o600, flush: true });
  webhook = new Webhook(readFileSync(kept, "utf8"));
}

// ---- The way from the shop.

async function answer(request) {
  if (request.method === "GET" && request.url === "/points") return [200, pointsByMember()];
  if (request.method !== "POST" || request.url !== "/events") return [404];
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    chunks.push(chunk);
    if ((length += chunk.length) > BODY_BYTES_MAX) return [413];
  }
  if (!webhook) return [503]; // later: the shop tries again
  let events;
  try {
    events = webhook.verify(Buffer.concat(chunks), request.headers);
  } catch {
    return [401]; // not from the shop, or too old
  }
  try {
    return [200, { results: await take(events) }];
  } catch (error) {
    complain(error);
    return [503];
  }
}

const server = createServer(async (request, response) => {
  const [status, json] = await answer(request).catch(() => [400]);
  response.writeHead(status, { "content-type": "application/json" }).end(json && JSON.stringify(json));
});
server.listen(Number(PORT), "127.0.0.1");

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    server.close(() => {
      closeSync(file);
      process.exit(0);
    }); // after the answers that are under way
  });
}

while (!webhook) {
  try {
    await register();
    console.log(`joined ${SHOP}; points at http://127.0.0.1:${PORT}/points`);
  } catch (error) {
    complain(error);
    if (error.status >= 400 && error.status < 500 && error.status !== 429) process.exit(1); // asking again would not help
    await pause(1_000);
  }
}
