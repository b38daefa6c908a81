// One press of Buy: one key, one text, sent again until the shop has answered. So it makes one order, whatever breaks on the way.

import { pauseMax } from "./feed.js";

/**
 * `send(body, key)` orders and gives the order, or throws a problem; `keep(press)` remembers the press across a reload, until it is
 * called with null. `onState({ name, … })` says "sending", "retrying" (with `message`), "done" (with `order` and `lines`) or "refused".
 */
export function createPurchase({ send, keep, newKey, onState, setTimer = setTimeout, clearTimer = clearTimeout }) {
  let isBusy = false;
  let wake = null;

  async function run(press) {
    isBusy = true;
    keep(press);
    onState({ name: "sending" });
    for (let attempt = 1; ; attempt += 1) {
      let order;
      try {
        order = await send(press.body, press.key);
      } catch (problem) {
        if (!problem.isPassing) return end({ name: "refused", message: problem.message });
        onState({ name: "retrying", message: problem.message });
        await pause(Math.max(problem.retryAfterMs, pauseMax(attempt)));
        continue;
      }
      return end({ name: "done", order, lines: press.lines });
    }
  }

  function end(state) {
    isBusy = false;
    keep(null);
    onState(state);
  }

  function pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimer(resolve, ms);
      wake = () => {
        clearTimer(timer);
        resolve();
      };
    });
  }

  return {
    /** Orders `lines`. While one press is under way, another one is the same press. */
    async press(lines) {
      if (isBusy || lines.length === 0) return;
      await run({ key: newKey(), body: JSON.stringify({ lines }), lines });
    },

    /** Goes on with a press that a reload has interrupted, if there was one. */
    async resume(text) {
      const press = parsePress(text);
      if (press && !isBusy) await run(press);
    },

    /** Tries now instead of after the pause, because the shop is back. */
    hurry() {
      wake?.();
    },
  };
}

function parsePress(text) {
  try {
    const press = JSON.parse(text ?? "null");
    return typeof press?.key === "string" && typeof press.body === "string" && Array.isArray(press.lines) ? press : null;
  } catch {
    return null;
  }
}
