// The order itself: what it is, where it stands, how it ended.

import { canCancel, explanation, HEADLINES, moneyText, steps } from "../lib/cascade.js";
import { duration, money, shortId } from "../lib/format.js";
import { setText } from "./element.js";

const CONFETTI = 36;
const AWAY = "The shop does not answer. The order waits, and nothing is lost.";

export function createOrderCard(root) {
  const part = (id) => root.querySelector(`#${id}`);
  const steplist = part("steps");
  let names = new Map();
  let state = null;

  function tick() {
    if (!state?.startedAt) return;
    // The machine that serves and the one that watches may tell different times; an ended order tells its own.
    const end = state.endedAt ?? Math.max(Date.now(), state.startedAt);
    part("timer").textContent = duration(end - state.startedAt);
  }
  setInterval(tick, 90);

  function show(next, view, isAway) {
    state = next;
    const status = next.events === 0 && view ? view.status : next.status;
    setText(part("headline"), HEADLINES[status] ?? status);
    // While the customer waits to get out, the order itself says best for what.
    const waits = ["cancelling", "reversing"].includes(status) && view?.status === status && view.waiting_for;
    setText(part("explanation"), isAway ? AWAY : waits ? `Waiting for ${view.waiting_for}.` : explanation(next));
    root.dataset.status = status;
    const lines = next.lines.length > 0 ? next.lines : view?.lines ?? [];
    setText(part("product"), lines.map((line) => `${line.quantity} × ${names.get(line.product_id) ?? line.product_id}`).join(", ") || "···");
    setText(part("total"), money(next.total ?? view?.total) || "···");
    setText(part("money"), moneyText(next));
    showSteps();
    tick();
  }

  function showSteps() {
    const all = steps(state);
    while (steplist.children.length < all.length) steplist.append(createStep());
    all.forEach(({ label, turn, progress }, index) => {
      const item = steplist.children[index];
      item.dataset.progress = progress;
      setText(item.querySelector(".label"), label);
      setText(item.querySelector(".step-turn"), turn);
      if (progress === "now") item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
  }

  return {
    show,
    celebrate: () => celebrate(root),
    setId: (orderId) => setText(part("order-number"), shortId(orderId)),
    setNames(map) {
      names = map;
    },
    canCancel: () => state !== null && canCancel(state),
    notice: (text) => setText(part("notice"), text),
    again: part("again"),
    cancel: part("cancel"),
    share: part("share"),
  };
}

function createStep() {
  const item = document.createElement("li");
  for (const name of ["bead", "label", "step-turn"]) {
    const span = document.createElement("span");
    span.className = name;
    item.append(span);
  }
  return item;
}

/** A short shower in the colours of the services that did it. */
function celebrate(root) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const shower = document.createElement("div");
  shower.className = "confetti";
  shower.setAttribute("aria-hidden", "true");
  const colours = ["order", "payment", "delivery", "storefront"];
  for (let index = 0; index < CONFETTI; index += 1) {
    const piece = document.createElement("i");
    const set = (name, value) => piece.style.setProperty(name, value);
    set("--x", `${(Math.random() - 0.5) * 340}px`);
    set("--y", `${-60 - Math.random() * 120}px`);
    set("--turn", `${(Math.random() - 0.5) * 900}deg`);
    set("--delay", `${Math.random() * 180}ms`);
    set("--piece", `var(--${colours[index % colours.length]})`);
    shower.append(piece);
  }
  root.append(shower);
  setTimeout(() => shower.remove(), 2_600);
}
