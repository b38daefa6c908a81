// The shop: what it sells, the basket, and the customer's orders with their notifications as they come.

import { ApiProblem, listOrders, listProducts, liveUrl, newKey, openSession, placeOrder, readEvents } from "../lib/api.js";
import { add, parseBasket, pieces, quantityOf, setQuantity, subtract, total } from "../lib/basket.js";
import { HEADLINES } from "../lib/cascade.js";
import { openFeed, pauseMax, SUBPROTOCOL } from "../lib/feed.js";
import { count, money } from "../lib/format.js";
import { addEvents, addView, forgetEvents, hasEnded, isWhole, lacksEvents, newEntry, newestFirst, statusOf } from "../lib/orders.js";
import { createPurchase } from "../lib/purchase.js";
import { nameOf, sentenceOf, serviceOf } from "../lib/sentences.js";
import { createAnnouncer } from "./announcer.js";
import { createBasketCard } from "./basket-card.js";
import { setText } from "./element.js";
import { recall, remember } from "./memory.js";
import { createOrdersCard } from "./orders-card.js";
import { createShopWindow } from "./shop-window.js";
import { createToasts } from "./toasts.js";

/** An event that is older than this when it arrives is history: nobody is told of it. */
const FRESH_MS = 4_000;
const BASKET = "cascade.basket";
const PRESS = "cascade.press";

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const title = document.title;
const announce = createAnnouncer(byId("announcer"));
const toasts = createToasts(byId("toasts"));

let products = new Map();
let names = new Map();
let basket = parseBasket(recall("localStorage", BASKET));

let entries = new Map();
/** The orders whose notifications are shown: those that were under way while this page was open, until the next one is bought. */
const open = new Set();
let next = null;
let isLoaded = false;
let isAway = false;
let isBuying = false;
let feed = null;

const shopWindow = createShopWindow(byId("products"), { onAdd: put });
const basketCard = createBasketCard(byId("basket"), {
  onQuantity: (productId, change) => changeBasket(setQuantity(basket, productId, quantityOf(basket, productId) + change)),
  onBuy: () => purchase.press(basket),
});
const ordersCard = createOrdersCard(byId("orders"));
const purchase = createPurchase({
  send: placeOrder,
  keep: (press) => remember("sessionStorage", PRESS, press),
  newKey,
  onState: onPurchase,
});

async function main() {
  showBasket();
  showOrders();
  watch();
  purchase.resume(recall("sessionStorage", PRESS));
  await loadProducts();
}

// What is for sale.

async function loadProducts() {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const items = await listProducts();
      products = new Map(items.map((product) => [product.product_id, product]));
      names = new Map(items.map((product) => [product.product_id, product.name]));
      setText(byId("window-problem"), items.length === 0 ? "Nothing is for sale just now." : "");
      shopWindow.fill(items);
      // What is no longer sold cannot be bought.
      basket = basket.filter((line) => products.has(line.product_id));
      showBasket();
      showOrders();
      return;
    } catch (problem) {
      if (!(problem instanceof ApiProblem)) throw problem;
      setText(byId("window-problem"), `The products cannot be shown yet: ${problem.message}. Trying again.`);
      await pause(Math.max(problem.retryAfterMs, pauseMax(attempt)));
    }
  }
}

// The basket.

function put(product) {
  changeBasket(add(basket, product.product_id));
  announce(`${product.name} is in the basket: ${count(pieces(basket), "piece")}, ${money(total(basket, products))} in all`);
}

function changeBasket(changed) {
  basket = changed;
  remember("localStorage", BASKET, basket);
  showBasket();
}

function showBasket() {
  // Until it is known what the lines are called, there is nothing to show.
  const shown = products.size > 0 ? basket : [];
  basketCard.show(shown, products);
  shopWindow.mark(shown);
  byId("to-basket").hidden = shown.length === 0;
  setText(byId("to-basket-text"), `${count(pieces(shown), "piece")} · ${money(total(shown, products))}`);
}

// The way to the basket is not needed where the basket is in sight.
new IntersectionObserver(([{ isIntersecting }]) => byId("to-basket").classList.toggle("near", isIntersecting)).observe(byId("basket"));

window.addEventListener("storage", ({ key, newValue }) => {
  if (key !== BASKET) return;
  basket = parseBasket(newValue);
  showBasket();
});

function onPurchase(state) {
  isBuying = state.name === "sending" || state.name === "retrying";
  basketCard.showPurchase(state);
  if (state.name !== "done") return;
  // Another tab may have bought or put in something since.
  changeBasket(subtract(parseBasket(recall("localStorage", BASKET)), state.lines));
  for (const entry of entries.values()) if (hasEnded(entry)) open.delete(entry.id);
  // A quick shop may have delivered it before it answers.
  open.add(state.order.order_id);
  learn(state.order.order_id, (entry) => addView(entry, state.order));
  showOrders();
  toasts.clear();
  ordersCard.reveal(state.order.order_id);
  announce("Ordered. What happens to it is told here");
}

// The orders.

function learn(orderId, change) {
  const entry = change(entries.get(orderId) ?? newEntry(orderId));
  entries.set(orderId, entry);
  if (!hasEnded(entry)) open.add(orderId);
}

function watch() {
  feed = openFeed({
    connect: (after) => new WebSocket(liveUrl(window.location.href, null, after, null), SUBPROTOCOL),
    onEvent: take,
    onState: onConnection,
    // What the feed cannot tell any more, the orders themselves can.
    onReset: () => {
      entries = new Map([...entries].map(([id, entry]) => [id, forgetEvents(entry)]));
      sync();
    },
  });
  window.addEventListener("online", () => feed.hurry());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && feed.hurry());
}

function take(event) {
  const orderId = event.subject;
  if (nameOf(event) === "OrderDeleted") {
    entries.delete(orderId);
    showOrders();
    return;
  }
  learn(orderId, (entry) => addEvents(entry, [event]));
  showOrders();
  if (!isWhole(entries.get(orderId))) readHistory(orderId).then(() => entries.has(orderId) && !isWhole(entries.get(orderId)) && sync());
  if (Math.abs(Date.now() - Date.parse(event.time)) < FRESH_MS) notify(event);
}

function notify(event) {
  const entry = entries.get(event.subject);
  const [name, text] = [ordersCard.titleOf(entry, names), sentenceOf(event)];
  announce(`${name}: ${text}`);
  // What is just being bought is shown anyhow, in a moment.
  const isSeen = ordersCard.isInView(entry.id) || (isBuying && nameOf(event) === "OrderCreated");
  if (!isSeen) toasts.show({ title: name, text, service: serviceOf(event), orderId: entry.id });
}

function onConnection({ name, attempt }) {
  byId("connection").dataset.state = name;
  setText(byId("connection-text"), name === "reconnecting" ? "no answer" : name);
  if (name === "live") {
    if (isAway) announce("Connected again. Nothing is lost");
    isAway = false;
    purchase.hurry();
    sync();
  } else if (name === "reconnecting") {
    if (attempt === 1 && !isAway) announce("The connection is lost. Trying again");
    isAway = attempt > 0;
    // A refused socket does not say why; the API does, when the shop is there but does not know this browser.
    if (attempt > 0 && attempt % 2 === 0) sync();
  }
  showOrders();
}

const SYNC_AGAIN_MS = 2_000;
let isSyncing = false;
let wantsSync = false;
/** Reads how the orders stand: at the start, and after each time without connection. What happens from then on comes by the feed. */
async function sync() {
  // An answer that is under way may be from before the connection.
  wantsSync = true;
  if (isSyncing) return;
  isSyncing = true;
  try {
    while (wantsSync) {
      wantsSync = false;
      await readOrders();
    }
  } finally {
    isSyncing = false;
  }
}

async function readOrders() {
  try {
    const known = new Set(entries.keys());
    const page = await listOrders();
    const listed = new Set(page.items.map((view) => view.order_id));
    const oldest = page.items.at(-1)?.order_id;
    const isOlder = (id) => Boolean(page.next) && id < oldest;
    // What the shop has no more goes. What was learned while it answered stays, and so do the older ones that were asked for.
    entries = new Map([...entries].filter(([id]) => listed.has(id) || !known.has(id) || isOlder(id)));
    for (const view of page.items) learn(view.order_id, (entry) => addView(entry, view));
    if (![...entries.keys()].some(isOlder)) next = page.next ?? null;
    isLoaded = true;
    showOrders();
    await Promise.all([...entries.values()].filter(lacksEvents).map((entry) => readHistory(entry.id)));
  } catch (problem) {
    if (!(problem instanceof ApiProblem)) throw problem;
    if (problem.status === 401) await openSession().then(() => feed.hurry(), () => {});
    // While the connection stands, no other one will ask again.
    else if (problem.isPassing && !isAway) setTimeout(sync, Math.max(problem.retryAfterMs, SYNC_AGAIN_MS));
  }
}

/** Reads an order's events. No answer is no matter: the next connection asks again. */
async function readHistory(orderId) {
  const events = await readEvents(orderId).catch(() => []);
  if (!entries.has(orderId)) return;
  learn(orderId, (entry) => addEvents(entry, events));
  showOrders();
}

ordersCard.older.addEventListener("click", async () => {
  ordersCard.older.disabled = true;
  try {
    const page = await listOrders(next);
    for (const view of page.items) learn(view.order_id, (entry) => addView(entry, view));
    next = page.next ?? null;
  } catch (problem) {
    announce(`The older orders cannot be shown: ${problem.message}`);
  }
  ordersCard.older.disabled = false;
  showOrders();
});

function showOrders() {
  const sorted = newestFirst(entries.values());
  ordersCard.show(sorted, { isOpen: (entry) => open.has(entry.id), isAway, isLoaded, names });
  ordersCard.older.hidden = next === null;
  const underWay = sorted.find((entry) => !hasEnded(entry));
  document.title = underWay ? `${HEADLINES[statusOf(underWay)]} · ${title}` : title;
}

main();
