import assert from "node:assert/strict";
import test from "node:test";

import { apply, beginning, canCancel, catchUp, explanation, fold, isFinal, moneyText, stations, steps, waitingFor } from "../lib/cascade.js";
import { CALLED_OFF, DECLINED, LONG_WAY, NO_WORKER, record, TOO_LATE } from "./recorded.js";

const statuses = (events) => events.reduce((all, event) => [...all, apply(all.at(-1), event)], [beginning()]).map((state) => state.status);
const progress = (state) => steps(state).map((step) => step.progress);

test("an order that goes both loops is completed and says how long the way was", () => {
  const state = fold(LONG_WAY);
  assert.equal(state.status, "completed");
  assert.deepEqual([state.searches, state.attempts, state.worker, state.events], [4, 2, "worker-02", 19]);
  assert.equal(explanation(state), "worker-02 brought it, after 4 searches and 2 attempts.");
  assert.deepEqual(progress(state), ["done", "done", "done", "done", "done"]);
  assert.equal(state.endedAt - state.startedAt, 18_000);
});

test("the status goes the way of the order", () => {
  const seen = statuses(LONG_WAY).filter((status, index, all) => status !== all[index - 1]);
  assert.deepEqual(seen, ["starting", "pending", "confirmed", "in_delivery", "confirmed", "in_delivery", "completed"]);
});

test("a declined card ends the order with nothing taken", () => {
  const state = fold(DECLINED);
  assert.equal(explanation(state), "The card was declined. No money was taken and nothing was sent.");
  assert.deepEqual(progress(state), ["done", "failed", "todo", "todo", "todo"]);
  assert.deepEqual([stations(state).payment, stations(fold(LONG_WAY)).payment], ["card declined", "paid"]);
});

test("an order without a worker returns the money before it ends", () => {
  assert.equal(explanation(fold(NO_WORKER)), "No worker could be found after 1 offer. The 24.90 EUR went back in full.");
  assert.equal(fold(NO_WORKER.slice(0, -2)).status, "reversing");
  assert.deepEqual([NO_WORKER, LONG_WAY, DECLINED, NO_WORKER.slice(0, 2)].map((events) => moneyText(fold(events))), ["returned", "paid", "not taken", "secured"]);
  assert.equal(waitingFor(fold(NO_WORKER.slice(0, -2))).service, "payment");
});

test("a step that was not reached is named for what did not happen", () => {
  const failed = (events) => steps(fold(events)).find((step) => step.progress === "failed").label;
  assert.deepEqual([DECLINED, NO_WORKER, CALLED_OFF].map(failed), ["Not paid", "No worker", "Called off"]);
  assert.equal(steps(fold(LONG_WAY)).some((step) => step.label.startsWith("No")), false);
});

test("a search without any offer does not count offers", () => {
  const events = NO_WORKER.filter((event) => !/SearchCompleted|DeclinedJob/.test(event.type));
  assert.equal(explanation(fold(events)), "No worker could be found. The 24.90 EUR went back in full.");
});

test("an order that is called off stays in cancelling whatever delivery still says", () => {
  assert.equal(fold(CALLED_OFF.slice(0, 6)).status, "cancelling");
  assert.equal(canCancel(fold(CALLED_OFF.slice(0, 6))), false);
  assert.equal(explanation(fold(CALLED_OFF)), "Called off by the customer. The 24.90 EUR went back in full.");
});

test("a cancellation before any money was taken says so", () => {
  const state = fold(record([
    ["OrderCreated", { lines: [], total: { amount_minor: 1, currency: "EUR" } }], ["OrderCancellationRequested"], ["DeliveryCancelled"],
    ["PaymentReversalRequested", { reason: "customer_request" }], ["PaymentNothingTaken", { reason: "never_charged" }],
    ["OrderCancelled", { reason: "customer_request" }],
  ]));
  assert.match(explanation(state), /No money was taken\.$/);
});

test("a cancellation that comes too late ends in a delivered order", () => {
  assert.equal(fold(TOO_LATE.slice(0, 7)).status, "cancelling");
  assert.equal(fold(TOO_LATE.slice(0, 9)).status, "in_delivery");
  assert.equal(fold(TOO_LATE).status, "completed");
});

test("every order that is not final waits for something, and a final one for nothing", () => {
  for (const events of [LONG_WAY, DECLINED, NO_WORKER, CALLED_OFF, TOO_LATE]) {
    for (let length = 0; length <= events.length; length += 1) {
      const state = fold(events.slice(0, length));
      assert.equal(waitingFor(state) === null, isFinal(state));
      assert.equal(isFinal(state), length === events.length);
      assert.ok(explanation(state).length > 0 && Object.values(stations(state)).every(Boolean));
    }
  }
});

test("both interleavings of concurrent events end in the same state", () => {
  // The customer wants out while the payment is under way: the two events have no promised order.
  const [created, accepted, , requested, ...rest] = CALLED_OFF;
  const one = fold([created, requested, accepted, ...rest]);
  const other = fold([created, accepted, requested, ...rest]);
  assert.deepEqual(one, other);
});

test("an event that is not known changes nothing but the count", () => {
  const before = fold(LONG_WAY.slice(0, 2));
  const after = apply(before, { ...LONG_WAY[2], type: "cascade.constructor.v1", data: null });
  assert.deepEqual({ ...after, events: before.events }, before);
});

test("an order of which events are missing stands where the API says, and goes on from there", () => {
  const view = (status, more) => ({ status, total: { amount_minor: 1490, currency: "EUR" }, lines: [], ...more });
  const paying = fold(LONG_WAY.slice(0, 1));
  const caughtUp = (status, more) => catchUp(paying, view(status, more));
  assert.deepEqual([caughtUp("completed").status, explanation(caughtUp("completed"))], ["completed", "Somebody brought it."]);
  assert.deepEqual(progress(caughtUp("completed")), ["done", "done", "done", "done", "done"]);
  assert.equal(moneyText(caughtUp("completed")), "paid");
  assert.equal(explanation(caughtUp("in_delivery")), "Somebody is on the way to the customer.");
  const off = caughtUp("cancelled", { cancel_reason: "customer_request" });
  assert.equal(explanation(off), "Called off by the customer. No money was kept.");
  assert.equal(waitingFor(caughtUp("cancelling")).service, "delivery");
  const rest = LONG_WAY.slice(-2).reduce(apply, caughtUp("in_delivery"));
  assert.deepEqual([rest.status, explanation(rest)], ["completed", "worker-02 brought it."]);
  assert.deepEqual(catchUp(fold(LONG_WAY), view("in_delivery")), fold(LONG_WAY), "an answer from before the end");
});
