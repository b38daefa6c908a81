import assert from "node:assert/strict";
import test from "node:test";

import { createPurchase } from "../lib/purchase.js";

const LINES = [{ product_id: "canoe", quantity: 1 }];
const ORDER = { order_id: "o-1", status: "pending" };
const passing = (retryAfterMs = 0) => Object.assign(new Error("the shop does not answer"), { isPassing: true, retryAfterMs });
const refusal = Object.assign(new Error("there is no product `canoe`"), { isPassing: false, retryAfterMs: 0 });

/** A purchase at a shop that gives one answer after the other; pauses end at once unless `holds`. */
function rig(answers, { holds = false } = {}) {
  const rig = { sent: [], kept: [], states: [], pauses: [], keys: 0 };
  rig.purchase = createPurchase({
    send: async (body, key) => {
      rig.sent.push([key, body]);
      const answer = answers[Math.min(rig.sent.length, answers.length) - 1];
      if (answer instanceof Error) throw answer;
      return answer;
    },
    keep: (press) => rig.kept.push(press && JSON.stringify(press)),
    newKey: () => `key-${(rig.keys += 1)}`,
    onState: (state) => rig.states.push(state),
    setTimer: (action, ms) => {
      rig.pauses.push(ms);
      if (!holds) queueMicrotask(action);
    },
    clearTimer: () => {},
  });
  rig.names = () => rig.states.map((state) => state.name);
  return rig;
}

test("one press makes one order, with products and quantities and no price", async () => {
  const { purchase, sent, states, kept, names } = rig([ORDER]);
  await purchase.press(LINES);
  assert.deepEqual(sent, [["key-1", '{"lines":[{"product_id":"canoe","quantity":1}]}']]);
  assert.deepEqual(names(), ["sending", "done"]);
  assert.deepEqual(states.at(-1), { name: "done", order: ORDER, lines: LINES });
  assert.equal(kept.at(-1), null);
});

test("while the shop does not answer, the same key and text are sent again, with growing pauses", async () => {
  const { purchase, sent, names, pauses, states } = rig([passing(), passing(3_000), passing(), ORDER]);
  await purchase.press(LINES);
  assert.equal(sent.length, 4);
  assert.equal(new Set(sent.map(String)).size, 1);
  assert.deepEqual(pauses, [250, 3_000, 1_000]);
  assert.deepEqual(names(), ["sending", "retrying", "retrying", "retrying", "done"]);
  assert.equal(states[1].message, "the shop does not answer");
});

test("the next press is another order", async () => {
  const { purchase, sent } = rig([ORDER]);
  await purchase.press(LINES);
  await purchase.press(LINES);
  assert.deepEqual(sent.map(([key]) => key), ["key-1", "key-2"]);
});

test("a press while one is under way is the same press, and an empty basket orders nothing", async () => {
  const { purchase, sent } = rig([ORDER]);
  await Promise.all([purchase.press(LINES), purchase.press(LINES)]);
  await purchase.press([]);
  assert.equal(sent.length, 1);
});

test("a refusal ends the press and says why", async () => {
  const { purchase, states, kept, sent } = rig([refusal]);
  await purchase.press(LINES);
  assert.deepEqual(states.at(-1), { name: "refused", message: "there is no product `canoe`" });
  assert.deepEqual([kept.at(-1), sent.length], [null, 1]);
});

test("a reload in the middle goes on with the same press", async () => {
  const before = rig([passing()], { holds: true });
  before.purchase.press(LINES);
  await new Promise((resolve) => setImmediate(resolve));
  const after = rig([ORDER]);
  await after.purchase.resume(before.kept.at(-1));
  assert.deepEqual(after.sent, before.sent);
  assert.deepEqual(after.states.at(-1).lines, LINES);
});

test("what is no press is not resumed", async () => {
  const { purchase, sent } = rig([ORDER]);
  for (const text of [null, "null", "{", "7", '{"key":1,"body":"","lines":[]}', '{"key":"k"}']) await purchase.resume(text);
  assert.deepEqual(sent, []);
});

test("a hurried press is sent at once", async () => {
  const { purchase, names } = rig([passing(), ORDER], { holds: true });
  const pressed = purchase.press(LINES);
  await new Promise((resolve) => setImmediate(resolve));
  purchase.hurry();
  await pressed;
  assert.deepEqual(names(), ["sending", "retrying", "done"]);
});
