// The live page: starts a run where the address asks for one, then shows its order's events as they happen.

import { ApiProblem, cancelOrder, liveUrl, newKey, productNames, readAddress, readOrder, startRun } from "../lib/api.js";
import { apply, beginning, catchUp, HEADLINES, isFinal, waitingFor } from "../lib/cascade.js";
import { openFeed, pauseMax, SUBPROTOCOL } from "../lib/feed.js";
import { nameOf, sentenceOf } from "../lib/sentences.js";
import { createAnnouncer } from "./announcer.js";
import { copyText, addCopyButtons } from "./copy.js";
import { createOrderCard } from "./order-card.js";
import { createStage } from "./stage.js";
import { createTimeline } from "./timeline.js";

/** An event that is older than this when it arrives is history: it is shown at once, without a show. */
const FRESH_MS = 4_000;

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const card = createOrderCard(byId("order"));
const stage = createStage(byId("stage"));
const timeline = createTimeline(byId("timeline"));
const address = readAddress(window.location.href);
const title = document.title;
const announce = createAnnouncer(byId("announcer"));

let orderId = null;
let share = null;
let isOwner = false;
let view = null;
let state = beginning();
let feed = null;
let lostAt = null;
let isConnected = false;
/** Whether the order had ended before this page was opened: then all of it is history. */
let isHistory = false;
let hasFailed = false;
/** Whether events are missing, and the order was not read since. */
let isPatchy = false;

async function main() {
  addCopyButtons(document);
  if (address.scenario) card.again.href = `/scenario/${encodeURIComponent(address.scenario)}`;
  update();
  orderId = address.orderId ?? (await start(address.scenario));
  if (!orderId) return;
  card.setId(orderId);
  productNames().then((names) => {
    card.setNames(names);
    update();
  });
  if (await findOrder()) watch();
}

/** Starts a run, once, and makes the address name it, so that a reload shows the same run. */
async function start(scenario) {
  // A page that the browser prepares ahead of a click must not order anything.
  if (document.prerendering) await new Promise((resolve) => document.addEventListener("prerenderingchange", resolve, { once: true }));
  const key = newKey();
  for (let attempt = 1; ; attempt += 1) {
    try {
      const run = await startRun(scenario, key);
      const url = new URL(window.location.href);
      url.searchParams.set("run", run.run);
      history.replaceState(null, "", url);
      return run.order_id;
    } catch (problem) {
      if (!(problem instanceof ApiProblem) || !problem.isPassing) return fail("Not started", `This run could not be started: ${problem.message}.`);
      connection("reconnecting", "the shop does not answer");
      timeline.wait({ service: "order", text: "The shop does not answer yet; trying again" });
      await pause(Math.max(problem.retryAfterMs, pauseMax(attempt)));
    }
  }
}

/** Reads the order as its owner, or else by the address's read-only token. Answers whether there is one to be seen. */
async function findOrder() {
  for (let attempt = 1; ; attempt += 1) {
    try {
      view = await readOrder(orderId).catch((problem) => {
        if (!address.share || problem.isPassing) throw problem;
        share = address.share;
        return readOrder(orderId, share);
      });
      isOwner = share === null;
      isHistory = isFinal(view);
      update();
      return true;
    } catch (problem) {
      if (!(problem instanceof ApiProblem) || !problem.isPassing) {
        fail("Not found", "There is no such order, or it is not yours to see.");
        return false;
      }
      connection("reconnecting", "the shop does not answer");
      await pause(pauseMax(attempt));
    }
  }
}

function watch() {
  feed = openFeed({
    connect: (after) => new WebSocket(liveUrl(window.location.href, orderId, after, share), SUBPROTOCOL),
    onEvent: take,
    onState: onConnection,
    onReset: ({ reason }) => {
      timeline.lost(reason === "trimmed" ? "The shop no longer keeps the oldest events" : "The shop's log begins anew");
      isPatchy = true;
      refresh();
    },
  });
  window.addEventListener("online", () => feed.hurry());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && feed.hurry());
  update();
}

function take(event) {
  state = apply(state, event);
  const isFresh = !isHistory && Math.abs(Date.now() - Date.parse(event.time)) < FRESH_MS;
  timeline.add(event, isFresh);
  if (isFresh) {
    stage.show(event);
    announce(sentenceOf(event));
  }
  update();
  if (!isHistory && nameOf(event) === "OrderCompleted") card.celebrate();
  if (["cancelling", "reversing"].includes(state.status) || isFinal(state)) refresh();
}

function onConnection({ name, attempt }) {
  isConnected = name === "live";
  if (name === "live") {
    connection("live", "live");
    if (lostAt !== null) {
      if (!isFinal(state)) timeline.gap(performance.now() - lostAt, feed.position);
      announce("Connected again. Nothing is lost");
      lostAt = null;
      refresh();
    }
  } else if (name === "reconnecting") {
    if (lostAt === null && state.events > 0) lostAt = performance.now();
    if (attempt === 1) announce("The connection is lost. Trying again");
    // A refused socket does not say why; the order does, when the shop is there but the order is not.
    if (attempt > 0 && attempt % 3 === 0) refresh();
    connection("reconnecting", attempt > 1 ? `reconnecting, try ${attempt}` : "reconnecting");
  } else {
    connection(name, name);
  }
  update();
}

const REFRESH_AGAIN_MS = 2_000;
let isRefreshing = false;
/** Reads the order again. No answer is no matter, the feed knows when the shop is back; an order that is gone ends the page. */
async function refresh() {
  if (isRefreshing) return;
  isRefreshing = true;
  const isCatchingUp = isPatchy;
  isPatchy = false;
  try {
    view = await readOrder(orderId, share);
    if (isCatchingUp) state = catchUp(state, view);
    update();
  } catch (problem) {
    if (problem.status === 404) {
      feed?.close();
      fail("Gone", "The shop is there, but it does not know this order, or not for this browser.");
    } else if (isCatchingUp) isPatchy = true;
  }
  isRefreshing = false;
  // Without an answer, or if more was lost meanwhile: no event will tell.
  if (isPatchy && !hasFailed) setTimeout(refresh, REFRESH_AGAIN_MS);
}

function update() {
  if (hasFailed) return;
  const waiting = waitingFor(state);
  // The first connection is not missed while it is being made, and an order that has ended needs none.
  const isAway = lostAt !== null && !isFinal(state);
  card.show(state, view, isAway);
  stage.update(state, { waiting, position: feed?.position ?? 0, isAway });
  if (isAway) timeline.wait({ service: waiting.service, text: "No answer from the shop. This page goes on when it is back" }, true);
  else timeline.wait(waiting);
  card.cancel.disabled = !isOwner || !isConnected || !card.canCancel();
  card.share.disabled = view === null;
  if (!address.scenario && state.scenario) {
    card.again.href = `/scenario/${encodeURIComponent(state.scenario)}`;
    card.again.textContent = "Run again";
  }
  if (orderId && state.events > 0) document.title = `${HEADLINES[state.status]} · ${title}`;
}

card.cancel.addEventListener("click", async () => {
  card.cancel.disabled = true;
  try {
    const changed = await cancelOrder(orderId);
    card.notice("");
    if (changed?.status) view = changed;
  } catch (problem) {
    card.notice(`The order could not be cancelled: ${problem.message}.`);
  }
  update();
});

card.share.addEventListener("click", async () => {
  const copied = await copyText(new URL(view.links.page, window.location.href).href);
  card.notice(copied ? "A read-only link to this one order is on the clipboard." : "The browser does not allow copying here.");
  setTimeout(() => card.notice(""), 4_000);
});

function connection(name, text) {
  byId("connection").dataset.state = name;
  byId("connection-text").textContent = text;
}

/** Says why this page can show nothing, for good. */
function fail(headline, explanation) {
  hasFailed = true;
  connection("closed", "not connected");
  byId("order").dataset.status = "failed";
  byId("headline").textContent = headline;
  byId("explanation").textContent = explanation;
  card.cancel.disabled = true;
  timeline.wait(null);
  announce(`${headline}. ${explanation.replace(/\.$/, "")}`);
  return null;
}

main();
