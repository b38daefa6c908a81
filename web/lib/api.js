// The shop's public HTTP API, as far as this page needs it.

/** An answer that is a problem document. `status` 0: there was no answer at all. */
export class ApiProblem extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? (status === 0 ? "the shop does not answer" : `the shop answered ${status}`));
    this.status = status;
    this.code = problem?.code ?? "";
    this.retryAfterMs = Number(problem?.retry_after_s ?? 0) * 1000;
  }

  /** Whether the same request may do better later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { accept: "application/json", ...options.headers }, signal: AbortSignal.timeout(15_000) });
  } catch {
    throw new ApiProblem(0);
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new ApiProblem(answer.status, body);
  return body;
}

const post = (path, headers = {}, body = "{}") => call(path, { method: "POST", headers: { "content-type": "application/json", ...headers }, body });
const query = (share) => (share ? `?share=${encodeURIComponent(share)}` : "");

/** Starts a run; the same key starts no second one. */
export const startRun = (scenario, key) => post(`/api/scenarios/${encodeURIComponent(scenario)}/runs`, { "idempotency-key": key });
export const readOrder = (orderId, share) => call(`/api/orders/${encodeURIComponent(orderId)}${query(share)}`);
/** Orders what `body` says, a text of JSON; the same key with the same text orders nothing more. */
export const placeOrder = (body, key) => post("/api/orders", { "idempotency-key": key }, body);
/** The customer's own orders, newest first, from `after` on: `{ items, next }`. */
export const listOrders = (after) => call(`/api/orders?limit=10${after ? `&after=${encodeURIComponent(after)}` : ""}`);
/** All events of an order so far, in sequence. No order has a thousand. */
export const readEvents = async (orderId) => (await call(`/api/orders/${encodeURIComponent(orderId)}/events?limit=1000`)).items;
export const listProducts = async () => (await call("/api/products")).items;
export const cancelOrder = (orderId) => post(`/api/orders/${encodeURIComponent(orderId)}/cancel`);

/** The products' names by id; empty when they cannot be had, because a page without names is better than none. */
export async function productNames() {
  const products = await listProducts().catch(() => []);
  return new Map(products.map((product) => [product.product_id, product.name]));
}

/** Becomes a customer again where the shop does not know this browser's session, e.g. because it has started in another folder. */
export const openSession = () => fetch("/", { headers: { accept: "text/html" }, cache: "reload", signal: AbortSignal.timeout(15_000) });

/** Where the live feed is: of one order, or without it of all the customer's own, then from now on unless `after` is a position. */
export function liveUrl(location, orderId, after, share) {
  const url = new URL("/api/live", location);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (orderId) url.searchParams.set("subject", orderId);
  if (orderId || after > 0) url.searchParams.set("after", String(after));
  if (share) url.searchParams.set("share", share);
  return url.href;
}

/** What a page's address asks for: a scenario to start, a run of one, or an order. */
export function readAddress(location) {
  const url = new URL(location);
  const [kind, value] = url.pathname.split("/").filter(Boolean);
  const share = url.searchParams.get("share");
  if (kind === "scenario") return { scenario: value, orderId: url.searchParams.get("run"), share };
  return { scenario: null, orderId: value ?? null, share };
}

/** A key that nobody else uses. Also on plain-HTTP addresses, where browsers have no `randomUUID`. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
