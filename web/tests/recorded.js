// Recorded cascades: the events of one order as the live feed sends them.

const SOURCES = { Order: "/order", Payment: "/payment", Worker: "/delivery", Delivery: "/delivery" };
const EURO = { amount_minor: 2490, currency: "EUR" };
const LINES = [{ product_id: "espresso-cups", quantity: 1, unit_price: EURO }];

/** Events from `[name, data]` pairs, a second apart, each caused by the one before. Payment's reversal request is order's. */
export function record(pairs, scenario = "1") {
  return pairs.map(([name, data = {}], index) => ({
    specversion: "1.0",
    id: `e${index + 1}`,
    source: name === "PaymentReversalRequested" ? "/order" : SOURCES[/^[A-Z][a-z]+/.exec(name)[0]],
    type: `cascade.${name}.v1`,
    subject: "01890a5d-ac96-774b-bcce-b302099a8057",
    time: new Date(Date.UTC(2026, 0, 31, 12, 0, index)).toISOString(),
    ...(index > 0 && { causationid: `e${index}` }),
    sequence: String(index + 1),
    position: String((index + 1) * 3),
    scenario,
    data,
  }));
}

const created = ["OrderCreated", { lines: LINES, total: EURO }];
const accepted = ["PaymentAccepted", { amount: EURO }];
const search = (n) => ["WorkerSearchStarted", { search: n }];
const offer = (n, worker) => ["WorkerSearchCompleted", { worker_id: worker, offer: n, expires_at_ms: 0 }];

/** Both loops: one worker declines, one lets the offer expire, one gives up on the way, the fourth delivers. */
export const LONG_WAY = record([
  created, accepted,
  search(1), offer(1, "worker-07"), ["WorkerDeclinedJob", { worker_id: "worker-07", offer: 1 }],
  search(2), offer(2, "worker-03"), ["WorkerOfferExpired", { worker_id: "worker-03", offer: 2 }],
  search(3), offer(3, "worker-11"), ["WorkerAcceptedJob", { worker_id: "worker-11", offer: 3 }],
  ["DeliveryStarted", { worker_id: "worker-11", attempt: 1 }], ["DeliveryAborted", { worker_id: "worker-11", attempt: 1, reason: "gave_up" }],
  search(4), offer(4, "worker-02"), ["WorkerAcceptedJob", { worker_id: "worker-02", offer: 4 }],
  ["DeliveryStarted", { worker_id: "worker-02", attempt: 2 }], ["DeliveryCompleted", { worker_id: "worker-02", attempt: 2 }],
  ["OrderCompleted", { lines: LINES, total: EURO }],
]);

export const DECLINED = record([created, ["PaymentDeclined", { reason: "card_declined" }], ["OrderCancelled", { reason: "payment_declined" }]], "2");

export const NO_WORKER = record([
  created, accepted, search(1), offer(1, "worker-07"), ["WorkerDeclinedJob", { worker_id: "worker-07", offer: 1 }],
  ["WorkerSearchExhausted", { offers: 1, reason: "too_many_offers" }], ["PaymentReversalRequested", { reason: "no_worker" }],
  ["PaymentRefunded", { amount: EURO }], ["OrderCancelled", { reason: "no_worker" }],
], "11");

export const CALLED_OFF = record([
  created, accepted, search(1), ["OrderCancellationRequested"], offer(1, "worker-07"),
  ["WorkerOfferWithdrawn", { worker_id: "worker-07", offer: 1 }], ["DeliveryCancelled"],
  ["PaymentReversalRequested", { reason: "customer_request" }], ["PaymentRefunded", { amount: EURO }],
  ["OrderCancelled", { reason: "customer_request" }],
]);

export const TOO_LATE = record([
  created, accepted, search(1), offer(1, "worker-07"), ["WorkerAcceptedJob", { worker_id: "worker-07", offer: 1 }],
  ["DeliveryStarted", { worker_id: "worker-07", attempt: 1 }], ["OrderCancellationRequested"],
  ["DeliveryCompleted", { worker_id: "worker-07", attempt: 1 }], ["OrderCancellationRejected", { reason: "already_delivered" }],
  ["OrderCompleted", { lines: LINES, total: EURO }],
]);
