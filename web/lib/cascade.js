// Where an order stands, derived from its events alone. Pure: the same events give the same state, in either interleaving.

import { count, money } from "./format.js";
import { nameOf } from "./sentences.js";

/** Which services act on an event of another one. The browser receives every event. */
export const REACTIONS = {
  OrderCreated: ["payment"],
  PaymentAccepted: ["order", "delivery"],
  PaymentDeclined: ["order"],
  WorkerSearchExhausted: ["order"],
  DeliveryStarted: ["order"],
  DeliveryAborted: ["order"],
  DeliveryCompleted: ["order"],
  DeliveryCancelled: ["order"],
  DeliveryCancellationRefused: ["order"],
  OrderCancellationRequested: ["delivery"],
  PaymentReversalRequested: ["payment"],
  PaymentRefunded: ["order"],
  PaymentNothingTaken: ["order"],
};

export const HEADLINES = {
  starting: "Starting",
  pending: "Paying",
  confirmed: "Finding a worker",
  in_delivery: "On the way",
  cancelling: "Cancelling",
  reversing: "Returning the money",
  completed: "Delivered",
  cancelled: "Cancelled",
  deleted: "Deleted",
};

const FINAL = new Set(["completed", "cancelled", "deleted"]);

/** The state before the first event. */
export function beginning() {
  return {
    status: "starting",
    payment: "idle",
    delivery: "idle",
    events: 0,
    searches: 0,
    offers: 0,
    attempts: 0,
    declines: 0,
    worker: null,
    lines: [],
    total: null,
    captured: null,
    refunded: null,
    reason: null,
    scenario: null,
    startedAt: null,
    endedAt: null,
    asked: false,
    // Whether events are missing.
    isPatchy: false,
  };
}

/** The state after one more event. */
export function apply(before, event) {
  const name = nameOf(event);
  const data = event.data ?? {};
  const time = Date.parse(event.time);
  const state = { ...before, events: before.events + 1, startedAt: before.startedAt ?? time, scenario: event.scenario ?? before.scenario };
  const moves = Object.hasOwn(MOVES, name) ? MOVES[name] : null;
  Object.assign(state, moves?.(data, state, time));
  return state;
}

/** The state after all of `events`. */
export function fold(events) {
  return events.reduce(apply, beginning());
}

/** The state of an order of which events are missing: where it stands is what the API says of it. An end that was seen is the end. */
export function catchUp(state, view) {
  if (isFinal(state)) return state;
  const total = state.total ?? view.total ?? null;
  const known = { ...state, status: view.status, isPatchy: true, reason: view.cancel_reason ?? state.reason, total };
  if (known.lines.length === 0) known.lines = view.lines ?? [];
  // Who brings it, and whether that is another one by now, only events tell.
  const paid = { payment: "captured", captured: state.captured ?? total };
  switch (view.status) {
    case "pending": return { ...known, payment: "authorizing" };
    case "confirmed": return { ...known, ...paid, delivery: "searching", worker: null };
    case "in_delivery": return { ...known, ...paid, delivery: "en_route", worker: SOMEBODY };
    case "completed": return { ...known, ...paid, delivery: "delivered", worker: SOMEBODY };
    case "cancelled": return { ...known, payment: state.captured ? "refunded" : "idle", delivery: "cancelled", worker: null };
    default: return known;
  }
}

const SOMEBODY = "Somebody";

// While the customer wants out, the flow's own events go on but the order stays where it was put.
const unlessLeaving = (state, status) => (["cancelling", "reversing"].includes(state.status) || isFinal(state) ? state.status : status);

const MOVES = {
  OrderCreated: (data, state) => ({ status: unlessLeaving(state, "pending"), payment: "authorizing", lines: data.lines ?? [], total: data.total ?? null }),
  PaymentAccepted: (data, state) => ({ status: unlessLeaving(state, "confirmed"), payment: "captured", captured: data.amount ?? null }),
  PaymentDeclined: () => ({ payment: "declined" }),
  WorkerSearchStarted: (data, state) => ({ delivery: "searching", worker: null, searches: Math.max(state.searches, data.search ?? 0) }),
  WorkerSearchCompleted: (data, state) => ({ delivery: "offered", worker: data.worker_id, offers: Math.max(state.offers, data.offer ?? 0) }),
  WorkerAcceptedJob: (data) => ({ delivery: "assigned", worker: data.worker_id }),
  WorkerDeclinedJob: (_, state) => ({ delivery: "turning", worker: null, declines: state.declines + 1 }),
  WorkerOfferExpired: (_, state) => ({ delivery: "turning", worker: null, declines: state.declines + 1 }),
  WorkerOfferWithdrawn: () => ({ delivery: "withdrawing", worker: null }),
  WorkerSearchExhausted: () => ({ delivery: "exhausted", worker: null }),
  DeliveryStarted: (data, state) => ({
    status: unlessLeaving(state, "in_delivery"),
    delivery: "en_route",
    worker: data.worker_id,
    attempts: Math.max(state.attempts, data.attempt ?? 0),
  }),
  DeliveryAborted: (_, state) => ({ status: unlessLeaving(state, "confirmed"), delivery: "turning", worker: null }),
  DeliveryCompleted: (data) => ({ delivery: "delivered", worker: data.worker_id }),
  DeliveryCancelled: () => ({ delivery: "cancelled", worker: null }),
  DeliveryCancellationRefused: () => ({}),
  OrderCancellationRequested: (_, state) => ({ status: isFinal(state) ? state.status : "cancelling", asked: true }),
  OrderCancellationRejected: (_, state) => ({ status: isFinal(state) ? state.status : goesOnAs(state), asked: false }),
  PaymentReversalRequested: (data) => ({ status: "reversing", reason: data.reason ?? null }),
  PaymentRefunded: (data) => ({ payment: "refunded", refunded: data.amount ?? null }),
  PaymentNothingTaken: (_, state) => ({ payment: state.payment === "declined" ? "declined" : "nothing_taken" }),
  OrderCancelled: (data, _, time) => ({ status: "cancelled", reason: data.reason ?? null, endedAt: time }),
  OrderCompleted: (data, state, time) => ({ status: "completed", total: data.total ?? state.total, endedAt: time }),
  OrderDeleted: (_, state, time) => ({ status: "deleted", endedAt: state.endedAt ?? time }),
};

function goesOnAs(state) {
  if (state.attempts > 0 && ["en_route", "delivered"].includes(state.delivery)) return "in_delivery";
  return state.captured ? "confirmed" : "pending";
}

/** Whether nothing more will happen by itself. */
export function isFinal(state) {
  return FINAL.has(state.status);
}

/** Whether the customer may still ask to get out. */
export function canCancel(state) {
  return ["pending", "confirmed", "in_delivery"].includes(state.status);
}

/** What the order waits for: which service, and in words. None when it is final. */
export function waitingFor(state) {
  if (isFinal(state)) return null;
  const { status, payment, delivery, worker } = state;
  if (status === "starting") return { service: "order", text: "Waiting for the first event" };
  if (status === "reversing") {
    if (payment === "refunded" || payment === "nothing_taken" || payment === "declined") return { service: "order", text: "The order is being closed" };
    return { service: "payment", text: "Payment is returning the money" };
  }
  if (status === "cancelling") {
    if (delivery === "cancelled") return { service: "order", text: "Delivery is clear; the money is next" };
    return { service: "delivery", text: "Delivery is being asked to stop" };
  }
  if (payment === "declined") return { service: "order", text: "The order is being closed" };
  if (payment === "authorizing") return { service: "payment", text: "Payment is trying the card" };
  switch (delivery) {
    case "searching": return { service: "delivery", text: "Delivery is looking for a worker" };
    case "offered": return { service: "delivery", text: `${worker} has the offer and is thinking about it` };
    case "assigned": return { service: "delivery", text: `${worker} is getting ready` };
    case "turning": return { service: "delivery", text: "Delivery is about to search again" };
    case "en_route": return { service: "delivery", text: `${worker} is on the way to the customer` };
    case "exhausted": return { service: "order", text: "The order is about to ask for the money back" };
    case "delivered": return { service: "order", text: "The order is being closed" };
    default: return { service: "delivery", text: "Delivery is taking over" };
  }
}

/** The sentence under the headline: how it ended, or what it waits for. */
export function explanation(state) {
  if (state.status === "completed") {
    if (state.isPatchy) return `${state.worker} brought it.`;
    const turns = [];
    if (state.searches > 1) turns.push(`${state.searches} searches`);
    if (state.attempts > 1) turns.push(`${state.attempts} attempts`);
    return `${state.worker} brought it, ${turns.length > 0 ? `after ${turns.join(" and ")}` : "at the first try"}.`;
  }
  if (state.status === "cancelled") return cancelledBecause(state);
  if (state.status === "deleted") return "Its personal data is erased everywhere.";
  return `${waitingFor(state).text}.`;
}

function cancelledBecause(state) {
  const back = state.refunded ? `The ${money(state.refunded)} went back in full.` : `No money was ${state.isPatchy ? "kept" : "taken"}.`;
  switch (state.reason) {
    case "payment_declined": return "The card was declined. No money was taken and nothing was sent.";
    case "no_worker": return `No worker could be found${state.offers > 0 ? ` after ${count(state.offers, "offer")}` : ""}. ${back}`;
    case "customer_request": return `Called off by the customer. ${back}`;
    default: return `Nothing was sent. ${back}`;
  }
}

/** The way of a happy order, and how far this one came: todo, now, done, or failed. */
export function steps(state) {
  const paid = state.captured !== null;
  const found = ["assigned", "en_route", "delivered"].includes(state.delivery);
  const under = ["en_route", "delivered"].includes(state.delivery);
  const reached = [state.events > 0, paid, found, under, state.delivery === "delivered"];
  const labels = ["Ordered", "Paid", "Worker found", "On the way", "Delivered"];
  const failures = ["Not ordered", "Not paid", "No worker", "Not sent", "Not delivered"];
  const turns = ["", "", state.searches > 1 ? `search ${state.searches}` : "", state.attempts > 1 ? `attempt ${state.attempts}` : "", ""];
  const ending = state.status === "cancelled" || state.status === "reversing";
  let current = reached.indexOf(false);
  if (current === -1) current = reached.length;
  return labels.map((label, index) => {
    let progress = reached[index] ? "done" : "todo";
    if (index === current) progress = ending ? "failed" : "now";
    const failure = state.reason === "customer_request" ? "Called off" : failures[index];
    return { label: progress === "failed" ? failure : label, turn: turns[index], progress };
  });
}

const PAYMENT = {
  idle: "waiting",
  authorizing: "trying the card",
  captured: "money secured",
  declined: "card declined",
  refunded: "money returned",
  nothing_taken: "nothing taken",
};

/** What became of the money, in a word or two; empty while nothing is known. */
export function moneyText({ payment, status }) {
  if (payment === "captured") return status === "completed" ? "paid" : "secured";
  return { refunded: "returned", declined: "not taken", nothing_taken: "not taken" }[payment] ?? "";
}

/** What each service's station says. */
export function stations(state) {
  return {
    order: state.status === "starting" ? "waiting" : state.status.replaceAll("_", " "),
    payment: state.payment === "captured" && state.status === "completed" ? "paid" : PAYMENT[state.payment],
    delivery: deliveryText(state),
  };
}

function deliveryText({ delivery, searches, attempts, worker }) {
  switch (delivery) {
    case "idle": return "waiting";
    case "searching": return searches > 1 ? `search ${searches}` : "searching";
    case "offered": return `asking ${worker}`;
    case "assigned": return `${worker} accepted`;
    case "turning": return "searching again";
    case "withdrawing": return "offer taken back";
    case "en_route": return attempts > 1 ? `attempt ${attempts}` : "on the way";
    case "delivered": return "delivered";
    case "cancelled": return "called off";
    default: return "nobody found";
  }
}
