// Each event as a sentence. An event that this page does not know yet is named, never hidden.

import { count, money } from "./format.js";

const DECLINES = { card_declined: "the bank said no", insufficient_funds: "there is not enough money behind it" };
const CANCELS = {
  customer_request: "the customer asked for it",
  payment_declined: "no money could be had",
  no_worker: "no worker could be found",
};
const NOTHING_TAKEN = { declined: "the payment had been declined", never_charged: "the card was never charged" };
const REFUSALS = { already_delivered: "the goods are already with the customer" };
const EXHAUSTED = { deadline: "the time is up", too_many_offers: "the limit is reached" };
const ABORTS = { gave_up: "gives the job back" };

const SENTENCES = {
  OrderCreated: (data) => `The order is in: ${count(pieces(data.lines), "piece")} for ${money(data.total)}`,
  PaymentAccepted: (data) => `The card is good: ${money(data.amount)} secured`,
  PaymentDeclined: (data) => `The card is declined: ${because(DECLINES, data.reason)}`,
  WorkerSearchStarted: (data) => (data.search > 1 ? `The search goes round again: number ${data.search}` : "The search for a worker begins"),
  WorkerSearchCompleted: (data) => `${data.worker_id} is found and offered the job`,
  WorkerAcceptedJob: (data) => `${data.worker_id} takes the job`,
  WorkerDeclinedJob: (data) => `${data.worker_id} declines the job; searching again`,
  WorkerOfferExpired: (data) => `${data.worker_id} did not answer in time; searching again`,
  WorkerOfferWithdrawn: (data) => `The offer to ${data.worker_id} is taken back`,
  WorkerSearchExhausted: (data) => `No worker could be found${data.offers > 0 ? ` after ${count(data.offers, "offer")}` : ""}: ${because(EXHAUSTED, data.reason)}`,
  DeliveryStarted: (data) => `${data.worker_id} is on the way${data.attempt > 1 ? `: attempt ${data.attempt}` : ""}`,
  DeliveryAborted: (data) => `${data.worker_id} ${because(ABORTS, data.reason)}; searching again`,
  DeliveryCompleted: (data) => `${data.worker_id} handed over the goods`,
  DeliveryCancelled: () => "Delivery is clear: nothing will be sent",
  DeliveryCancellationRefused: (data) => `Too late to call the delivery off: ${because(REFUSALS, data.reason)}`,
  OrderCancellationRequested: () => "The customer wants out; delivery is asked first",
  OrderCancellationRejected: (data) => `The order cannot be cancelled: ${because(REFUSALS, data.reason)}`,
  PaymentReversalRequested: (data) => `The money is to go back: ${because(CANCELS, data.reason)}`,
  PaymentRefunded: (data) => `${money(data.amount)} went back in full`,
  PaymentNothingTaken: (data) => `There is no money to return: ${because(NOTHING_TAKEN, data.reason)}`,
  OrderCancelled: (data) => `The order is cancelled: ${because(CANCELS, data.reason)}`,
  OrderCompleted: (data) => `The order is complete: delivered, ${money(data.total)} paid`,
  OrderDeleted: () => "The order is deleted, its personal data erased",
};

/** The event's bare name: "OrderCreated" of `cascade.OrderCreated.v1`. */
export function nameOf(event) {
  return event.type.replace(/^cascade\./, "").replace(/\.v\d+$/, "");
}

/** The service that emitted it: "order" of `/order`. */
export function serviceOf(event) {
  return event.source.replace(/^\//, "");
}

/** What happened, in one sentence without a full stop. */
export function sentenceOf(event) {
  const name = nameOf(event);
  const write = Object.hasOwn(SENTENCES, name) ? SENTENCES[name] : null;
  try {
    if (write) return write(event.data ?? {});
  } catch {
    // Data of a newer shape: the name still says what happened.
  }
  // Of an event that others publish, the last part of its type says it best.
  return name.split(".").at(-1).replace(/([a-z])([A-Z])/g, "$1 $2");
}

/** Which turn of a loop the event belongs to, e.g. "search 2", "attempt 3"; empty outside the loops. */
export function turnOf(event) {
  const { search, offer, attempt } = event.data ?? {};
  if (attempt !== undefined) return `attempt ${attempt}`;
  if (search !== undefined) return `search ${search}`;
  if (offer !== undefined) return `offer ${offer}`;
  return "";
}

/** A reason in words; one that is not known is shown as it came. */
function because(words, reason) {
  return Object.hasOwn(words, reason ?? "") ? words[reason] : String(reason ?? "no reason given").replaceAll("_", " ");
}

function pieces(lines) {
  return lines.reduce((sum, line) => sum + line.quantity, 0);
}
