import assert from "node:assert/strict";
import test from "node:test";

import { addEvents, addView, createdAt, forgetEvents, hasEnded, isWhole, lacksEvents, linesOf, newEntry, newestFirst, statusOf, totalOf } from "../lib/orders.js";
import { CALLED_OFF, LONG_WAY } from "./recorded.js";

const ID = LONG_WAY[0].subject;
const VIEW = { order_id: ID, status: "pending", version: 1, lines: LONG_WAY[0].data.lines, total: LONG_WAY[0].data.total, created_at: LONG_WAY[0].time };

test("an order that another tab has bought is known from its events alone", () => {
  const entry = addEvents(newEntry(ID), LONG_WAY.slice(0, 12));
  assert.equal(statusOf(entry), "in_delivery");
  assert.deepEqual([linesOf(entry), totalOf(entry), createdAt(entry)], [VIEW.lines, VIEW.total, VIEW.created_at]);
});

test("events may come twice and in any order, from the feed and from the API", () => {
  const whole = addEvents(newEntry(ID), LONG_WAY);
  let entry = newEntry(ID);
  for (const event of [...LONG_WAY.slice(9), ...LONG_WAY].reverse()) entry = addEvents(entry, [event]);
  assert.deepEqual(entry, whole);
  assert.equal(addEvents(whole, LONG_WAY.slice(3, 5)), whole, "what is known changes nothing");
});

test("events without their beginning do not tell where the order stands", () => {
  const entry = addEvents(addView(newEntry(ID), { ...VIEW, status: "confirmed" }), LONG_WAY.slice(2, 5));
  assert.deepEqual([isWhole(entry), statusOf(entry), lacksEvents(entry)], [false, "confirmed", true]);
  const whole = addEvents(entry, LONG_WAY.slice(0, 5));
  assert.deepEqual([isWhole(whole), statusOf(whole)], [true, "confirmed"]);
});

test("an older answer of the API does not overtake a newer one", () => {
  const entry = addView(addView(newEntry(ID), { ...VIEW, status: "completed", version: 4 }), VIEW);
  assert.equal(statusOf(entry), "completed");
});

test("an order that has ended needs no events, one under way does", () => {
  assert.equal(lacksEvents(addView(newEntry(ID), { ...VIEW, status: "completed" })), false);
  assert.equal(lacksEvents(addView(newEntry(ID), VIEW)), true);
  assert.equal(lacksEvents(addEvents(newEntry(ID), CALLED_OFF)), false);
  assert.equal(hasEnded(addEvents(newEntry(ID), CALLED_OFF)), true);
  assert.equal(statusOf(newEntry(ID)), "starting");
});

test("the newest order comes first", () => {
  const ids = ["01a2-1", "01a2-3", "01a2-2"].map(newEntry);
  assert.deepEqual(newestFirst(ids).map((entry) => entry.id), ["01a2-3", "01a2-2", "01a2-1"]);
});

test("an order whose events are forgotten stands where the API says until all of them are known again", () => {
  const entry = forgetEvents(addView(addEvents(newEntry(ID), LONG_WAY.slice(0, 12)), { ...VIEW, status: "completed", version: 9 }));
  assert.deepEqual([statusOf(entry), isWhole(entry), entry.events.length], ["completed", false, 0]);
  assert.equal(statusOf(addEvents(entry, LONG_WAY.slice(5, 12))), "completed", "what is known from the middle on tells nothing");
  assert.equal(statusOf(addEvents(entry, LONG_WAY.slice(0, 12))), "in_delivery");
});
