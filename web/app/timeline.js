// The events as they arrive: one row each, joined to its cause, with the raw event behind it.

import { clock, duration, sinceStart } from "../lib/format.js";
import { nameOf, sentenceOf, serviceOf, turnOf } from "../lib/sentences.js";
import { element } from "./element.js";
import { createGraph } from "./graph.js";

/** A reader who sees the end, or as much as this below it, is taken along; one who scrolled up is left in peace. */
const FOLLOW_PX = 90;

export function createTimeline(list) {
  const graph = createGraph(list);
  const rows = new Map();
  const pending = element("li", "row pending");
  pending.append(element("span", "time"), element("span", "dot"), element("p", "sentence"));
  list.append(pending);
  let startedAt = null;
  let isFollowing = true;

  // Only what the reader does counts: the page's own scrolling must not end the following that causes it.
  const end = () => (pending.hidden ? pending.previousElementSibling ?? pending : pending).getBoundingClientRect().bottom;
  const notice = () => setTimeout(() => { isFollowing = end() < window.innerHeight + FOLLOW_PX; }, 120);
  for (const what of ["wheel", "touchend", "keyup", "pointerup"]) window.addEventListener(what, notice, { passive: true });

  function follow() {
    const below = end() + 24 - window.innerHeight;
    if (isFollowing && below > 0) window.scrollBy({ top: below });
  }

  function add(event, isFresh) {
    startedAt ??= Date.parse(event.time);
    const cause = rows.get(event.causationid);
    const row = createRow(event, cause, startedAt);
    if (isFresh) row.classList.add("fresh");
    rows.set(event.id, row);
    list.insertBefore(row, pending);
    if (cause) graph.join(cause, row);
    for (const [on, off] of [["mouseenter", "mouseleave"], ["focusin", "focusout"]]) {
      row.addEventListener(on, () => graph.light(event.id, true));
      row.addEventListener(off, () => graph.light(event.id, false));
    }
    if (isFresh) follow();
  }

  function mark(text) {
    const note = element("li", "gap");
    note.textContent = text;
    list.insertBefore(note, pending);
    follow();
  }

  return {
    add,

    /** Shows what the order waits for, after the last event; nothing once it is final. */
    wait(waiting, isAway = false) {
      pending.hidden = waiting === null;
      if (waiting === null) return;
      pending.classList.toggle("away", isAway);
      pending.dataset.service = waiting.service;
      pending.querySelector(".sentence").textContent = waiting.text;
    },

    /** Marks a time without connection. */
    gap: (ms, position) => mark(`Away for ${duration(ms)}. Nothing is lost: going on after position ${position}.`),

    /** Marks a place where events are missing. */
    lost: (why) => mark(`${why}: some are missing here. How the order stands is up to date.`),
  };
}

function createRow(event, cause, startedAt) {
  const name = nameOf(event);
  const row = element("li", "row");
  row.id = `event-${event.id}`;
  row.dataset.id = event.id;
  row.dataset.service = serviceOf(event);
  row.dataset.name = name;

  const summary = element("summary", "line-of-row");
  const time = element("time", "time", sinceStart(Date.parse(event.time) - startedAt));
  if (event.time) time.dateTime = event.time;
  const text = element("span", "text");
  const meta = element("span", "meta");
  meta.append(element("span", "service", serviceOf(event)), element("span", "name", name));
  if (cause) meta.append(element("span", "because", `because of ${cause.dataset.name}`));
  text.append(element("span", "sentence", sentenceOf(event)), meta);
  summary.append(time, element("span", "dot"), text);
  const turn = turnOf(event);
  if (turn) summary.append(element("span", isAgain(turn, name) ? "turn again" : "turn", turn));

  const details = element("details", "");
  details.append(summary);
  // Built when it is opened: most rows never are.
  details.addEventListener("toggle", () => details.children.length === 1 && details.append(createFacts(event, cause)), { once: true });
  row.append(details);
  return row;
}

/** Whether a loop goes round: the second search and every later one, the second attempt and every later one. */
function isAgain(turn, name) {
  return ["WorkerSearchStarted", "DeliveryStarted"].includes(name) && !turn.endsWith(" 1");
}

function createFacts(event, cause) {
  const facts = element("div", "facts-of-row");
  const line = element("p", "when");
  // Only the shop's own services must count what they say.
  const place = event.sequence ? `number ${event.sequence} of ${event.source}` : `from ${event.source}`;
  line.append([clock(event.time), `position ${event.position}`, place].filter(Boolean).join(" · "));
  if (cause) {
    const link = element("a", "", cause.dataset.name);
    link.href = `#${cause.id}`;
    link.addEventListener("click", (click) => {
      click.preventDefault();
      cause.querySelector("summary").focus();
      cause.scrollIntoView({ block: "center" });
    });
    line.append(" · because of ", link);
  }
  const raw = element("pre", "");
  raw.tabIndex = 0;
  raw.append(element("code", "", JSON.stringify(event, null, 2)));
  facts.append(line, raw);
  return facts;
}
