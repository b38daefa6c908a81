import assert from "node:assert/strict";
import test from "node:test";

import { openFeed, pauseMax } from "../lib/feed.js";
import { liveUrl, readAddress } from "../lib/api.js";
import { LONG_WAY } from "./recorded.js";

/** A feed on sockets and timers that the test moves by hand. */
function rig(options = {}) {
  const rig = { sockets: [], events: [], states: [], resets: [], timers: new Map() };
  let nextTimer = 1;
  rig.feed = openFeed({
    connect: (after) => {
      const socket = { after, closed: false, close() { this.closed = true; } };
      rig.sockets.push(socket);
      return socket;
    },
    onEvent: (event) => rig.events.push(event.id),
    onState: (state) => rig.states.push(state.name),
    onReset: (reset) => rig.resets.push(reset),
    setTimer: (action, ms) => { rig.timers.set(nextTimer, { action, ms }); return nextTimer++; },
    clearTimer: (timer) => rig.timers.delete(timer),
    random: () => 1,
    ...options,
  });
  rig.fire = () => {
    const [timer, { action, ms }] = [...rig.timers][0];
    rig.timers.delete(timer);
    action();
    return ms;
  };
  rig.last = () => rig.sockets.at(-1);
  rig.send = (...events) => events.forEach((event) => rig.last().onmessage({ data: JSON.stringify(event) }));
  return rig;
}

test("each event arrives once, and a lost connection goes on after the last one", () => {
  const { feed, sockets, events, states, fire, last, send } = rig();
  last().onopen();
  send(...LONG_WAY.slice(0, 3));
  last().onclose();
  assert.equal(feed.position, 9);
  fire();
  assert.equal(sockets[1].after, 9);
  last().onopen();
  send(...LONG_WAY.slice(1, 5));
  assert.deepEqual(events, ["e1", "e2", "e3", "e4", "e5"]);
  assert.deepEqual(states, ["connecting", "live", "reconnecting", "reconnecting", "live"]);
});

test("pauses grow up to a limit while the shop is away, and are short again after a good connection", () => {
  const { fire, last } = rig();
  const pauses = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    last().onclose();
    pauses.push(fire());
  }
  assert.deepEqual(pauses, [375, 625, 1125, 2125, 4125, 4125, 4125, 4125]);
  last().onopen();
  fire(); // it has lived long enough
  last().onclose();
  assert.equal(fire(), 375);
});

test("a connection that is lost at once does not shorten the pauses", () => {
  const { fire, last } = rig();
  last().onclose();
  fire();
  last().onopen();
  last().onclose();
  assert.equal(fire(), 625);
});

test("late frames of an old connection do not count", () => {
  const { sockets, events, fire, last } = rig();
  last().onopen();
  last().onclose();
  fire();
  sockets[0].onmessage({ data: JSON.stringify(LONG_WAY[0]) });
  sockets[0].onclose();
  assert.deepEqual(events, []);
  assert.equal(sockets.length, 2);
});

test("a connection that does not open in time is given up", () => {
  const { sockets, fire, states } = rig();
  fire();
  assert.ok(sockets[0].closed);
  fire();
  assert.equal(sockets.length, 2);
  assert.equal(states.at(-1), "reconnecting");
});

/** What the shop says beside events. */
const notice = (name, data) => ({ specversion: "1.0", id: "n", source: "/broker", type: `cascade.live.${name}.v1`, data });

test("a feed that the shop cannot go on from is told so, and goes on from where the shop says", () => {
  const { feed, sockets, events, resets, fire, last, send } = rig();
  last().onopen();
  send(...LONG_WAY.slice(0, 3));
  last().onclose();
  fire();
  assert.equal(sockets[1].after, 9);
  last().onopen();
  send(notice("welcome", { after: "0", heartbeat_ms: 20_000 }));
  assert.deepEqual(resets, []);
  send(notice("reset", { reason: "unknown", asked: "9", after: "0" }), LONG_WAY[0]);
  assert.deepEqual(resets, [{ reason: "unknown", after: 0 }]);
  assert.deepEqual(events, ["e1", "e2", "e3", "e1"]);
  assert.equal(feed.position, 3);
});

test("a cursor that was not yet gone on from is kept until the shop says what becomes of it", () => {
  const { sockets, fire, last, send } = rig({ after: 9 });
  send(notice("welcome", { after: "0", heartbeat_ms: 20_000 }));
  last().onclose();
  fire();
  assert.equal(sockets[1].after, 9);
});

test("a feed that is lost before its first event leaves nothing out", () => {
  const { sockets, fire, last, send } = rig();
  send(notice("welcome", { after: "41", heartbeat_ms: 20_000 }));
  last().onclose();
  fire();
  assert.equal(sockets[1].after, 41);
});

test("a heartbeat carries the feed past the events of others, and is no event", () => {
  const { feed, sockets, events, fire, last, send } = rig();
  send(LONG_WAY[0], notice("heartbeat", { after: "500" }), notice("heartbeat", { after: "400" }), notice("heartbeat", {}));
  assert.deepEqual(events, ["e1"]);
  assert.equal(feed.position, 3);
  send(notice("end", { reason: "session_check", after: "600" }));
  last().onclose({ code: 4401 });
  fire();
  assert.equal(sockets[1].after, 600);
});

test("an event of the shop's own words is an event when it has a position", () => {
  const { events, send } = rig();
  send({ ...notice("reset", { after: "0" }), id: "forged", position: "4" });
  assert.deepEqual(events, ["forged"]);
});

test("a connection that falls silent is given up after some heartbeats", () => {
  const { sockets, states, timers, last, send } = rig();
  last().onopen();
  const silences = () => [...timers.values()].filter(({ ms }) => ms === 50_000);
  assert.equal(silences().length, 0);
  send(notice("welcome", { after: "0", heartbeat_ms: 20_000 }));
  send(notice("heartbeat", { after: "0" }), LONG_WAY[0]);
  assert.equal(silences().length, 1);
  silences()[0].action();
  assert.ok(sockets[0].closed);
  assert.equal(states.at(-1), "reconnecting");
  assert.equal(silences().length, 0);
});

test("frames that are no events are passed over", () => {
  const { events, last, send } = rig();
  last().onopen();
  last().onmessage({ data: "not json" });
  send({ type: "hello" }, { ...LONG_WAY[0], position: "x" }, null, LONG_WAY[0]);
  assert.deepEqual(events, ["e1"]);
});

test("a hurried feed tries at once, a closed one never again", () => {
  const { feed, sockets, last, timers } = rig();
  last().onclose();
  feed.hurry();
  assert.equal(sockets.length, 2);
  feed.hurry();
  assert.equal(sockets.length, 2);
  feed.close();
  sockets[1].onclose?.();
  feed.hurry();
  assert.equal(sockets.length, 2);
  assert.equal(timers.size, 0);
});

test("the longest pause is bounded for any attempt", () => {
  assert.equal(pauseMax(10_000), 4_000);
});

test("addresses say what the page is to show", () => {
  assert.deepEqual(readAddress("http://localhost:4000/scenario/3?run=o-1"), { scenario: "3", orderId: "o-1", share: null });
  assert.deepEqual(readAddress("http://localhost:4000/scenario/3"), { scenario: "3", orderId: null, share: null });
  assert.deepEqual(readAddress("http://localhost:4000/orders/o-1?share=t"), { scenario: null, orderId: "o-1", share: "t" });
  assert.equal(liveUrl("https://shop.example/orders/o-1", "o-1", 7, "t&"), "wss://shop.example/api/live?subject=o-1&after=7&share=t%26");
  assert.equal(liveUrl("http://localhost:4000/", null, 0, null), "ws://localhost:4000/api/live");
  assert.equal(liveUrl("http://localhost:4000/", null, 7, null), "ws://localhost:4000/api/live?after=7");
});
