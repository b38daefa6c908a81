import assert from "node:assert/strict";
import test from "node:test";

import { capital, clock, duration, moment, money, shortId, sinceStart } from "../lib/format.js";
import { nameOf, sentenceOf, serviceOf, turnOf } from "../lib/sentences.js";
import { CALLED_OFF, DECLINED, LONG_WAY, NO_WORKER, TOO_LATE } from "./recorded.js";

test("every event of the recorded cascades has a sentence of its own", () => {
  for (const event of [LONG_WAY, DECLINED, NO_WORKER, CALLED_OFF, TOO_LATE].flat()) {
    const sentence = sentenceOf(event);
    assert.doesNotMatch(sentence, /undefined|null|NaN|_|\.$/, sentence);
    assert.notEqual(sentence, nameOf(event).replace(/([a-z])([A-Z])/g, "$1 $2"));
  }
});

test("a refusal by a worker says that the search goes on", () => {
  assert.equal(sentenceOf(LONG_WAY[4]), "worker-07 declines the job; searching again");
  assert.equal(turnOf(LONG_WAY[5]), "search 2");
  assert.equal(turnOf(LONG_WAY[16]), "attempt 2");
  assert.equal(turnOf(LONG_WAY[0]), "");
});

test("an event of another version or of data that is not known is named, never hidden", () => {
  assert.equal(sentenceOf({ type: "cascade.GiftWrapped.v1", source: "/gift" }), "Gift Wrapped");
  assert.equal(sentenceOf({ type: "cascade.toString.v1", source: "/x" }), "to String");
  assert.equal(sentenceOf({ type: "cascade.OrderCreated.v9", source: "/order", data: {} }), "Order Created");
  assert.equal(serviceOf({ source: "/delivery" }), "delivery");
});

test("a search that is given up counts the offers that were made, if any", () => {
  const given = (offers) => sentenceOf({ type: "cascade.WorkerSearchExhausted.v1", data: { offers, reason: "deadline" } });
  assert.equal(given(0), "No worker could be found: the time is up");
  assert.equal(given(2), "No worker could be found after 2 offers: the time is up");
});

test("a reason that is not known is shown as it came", () => {
  assert.equal(sentenceOf({ type: "cascade.OrderCancelled.v1", data: { reason: "act_of_god" } }), "The order is cancelled: act of god");
});

test("an event that others publish is told by its type, also without a time", () => {
  const event = { type: "loyalty.PointsAwarded.v1", source: "/loyalty" };
  assert.equal(sentenceOf(event), "Points Awarded");
  assert.equal(sinceStart(Date.parse(event.time)), "");
});

test("amounts, times and ids read as people write them", () => {
  assert.equal(money({ amount_minor: 5, currency: "EUR" }), "0.05 EUR");
  assert.equal(money({ amount_minor: 123456, currency: "EUR" }), "1234.56 EUR");
  assert.equal(sinceStart(1_240), "+1.24 s");
  assert.equal(duration(125_000), "2:05 min");
  assert.equal(duration(99_999), "1:40 min");
  assert.equal(shortId("01890a5d-ac96-774b-bcce-b302099a8057"), "099a 8057");
  assert.match(clock("2026-01-31T12:00:07.042Z"), /^\d\d:\d\d:07\.042$/);
  assert.equal(clock("noon"), "");
  assert.equal(capital("the shop does not answer"), "The shop does not answer");
});

test("a moment of today is told by the hour, an older one with its day", () => {
  const noon = new Date(2026, 0, 31, 12, 5);
  assert.equal(moment(noon.toISOString(), new Date(2026, 0, 31, 23, 0)), "12:05");
  assert.equal(moment(noon.toISOString(), new Date(2026, 1, 1, 0, 1)), "31 Jan, 12:05");
  assert.equal(moment("", noon), "");
});
