// "Your orders": one line each, and below it, for those that happened while the page was open, their notifications as they come.

import { inWords } from "../lib/basket.js";
import { explanation, HEADLINES, steps } from "../lib/cascade.js";
import { count, moment, money, sinceStart } from "../lib/format.js";
import { createdAt, hasEnded, isWhole, linesOf, statusOf, totalOf } from "../lib/orders.js";
import { pictureOf } from "../lib/pictures.js";
import { sentenceOf, serviceOf } from "../lib/sentences.js";
import { element, picture, setText } from "./element.js";

/** How many of the latest notifications an order shows. The rest is on its own page. */
const NOTES_MAX = 6;
const AWAY = "The shop does not answer. The order waits, and nothing is lost.";

export function createOrdersCard(root) {
  const part = (id) => root.querySelector(`#${id}`);
  const list = part("purchases");
  const items = new Map();

  function createItem(entry) {
    const item = element("li", "purchase");
    item.id = `order-${entry.id}`;
    item.tabIndex = -1;
    const head = element("div", "purchase-head");
    const link = element("a", "what");
    link.href = `/orders/${encodeURIComponent(entry.id)}`;
    const title = element("h3");
    title.append(link);
    const status = element("p", "pill");
    const thumb = element("span", "thumb");
    const sub = element("p", "sub");
    head.append(thumb, title, status, sub);
    item.append(head);
    return { item, link, status, sub, thumb, live: null };
  }

  function createLive(entry) {
    const root = element("div", "purchase-live");
    const track = element("ol", "track");
    track.setAttribute("aria-hidden", "true");
    track.append(...Array.from({ length: 5 }, () => element("li")));
    const [explain, notes] = [element("p", "explain"), element("ol", "notes")];
    notes.setAttribute("aria-label", "The latest notifications, newest first");
    const all = element("a", "all-events", "See every event on the order’s page");
    all.href = `/orders/${encodeURIComponent(entry.id)}`;
    const story = element("div", "story");
    story.append(explain, notes);
    root.append(track, story, all);
    return { root, track, explain, notes };
  }

  function show(entry, { isOpen, isAway, names }) {
    const known = items.get(entry.id) ?? createItem(entry);
    items.set(entry.id, known);
    const status = statusOf(entry);
    const lines = linesOf(entry);
    known.item.dataset.status = status;
    setText(known.link, inWords(lines, names) || "An order");
    setText(known.status, HEADLINES[status] ?? status);
    // Of an order under way the time is plain, and its status takes the room.
    setText(known.sub, [money(totalOf(entry)), hasEnded(entry) ? moment(createdAt(entry)) : ""].filter(Boolean).join(" · "));
    if (lines.length > 0 && known.thumb.children.length === 0) known.thumb.append(picture(pictureOf(lines[0].product_id), 52));
    if (isOpen && !known.live) {
      known.live = createLive(entry);
      known.item.append(known.live.root);
    } else if (!isOpen && known.live) {
      known.live.root.remove();
      known.live = null;
    }
    if (known.live) showLive(known.live, entry, isAway && !hasEnded(entry));
    return known.item;
  }

  function showLive({ track, explain, notes }, entry, isAway) {
    steps(entry.state).forEach(({ progress }, index) => { track.children[index].dataset.progress = progress; });
    setText(explain, isAway ? AWAY : isWhole(entry) ? explanation(entry.state) : "Waiting for the first event.");
    explain.classList.toggle("away", isAway);
    const latest = entry.events.slice(-NOTES_MAX).reverse();
    const rows = new Map([...notes.children].map((row) => [row.dataset.id, row]));
    notes.replaceChildren(...latest.map((event) => rows.get(event.id) ?? createNote(event, entry.state.startedAt ?? Date.parse(event.time))));
  }

  return {
    /** Shows `entries`, newest first. `isOpen(entry)` says which show their notifications. */
    show(entries, { isOpen, isAway, isLoaded, names }) {
      const shown = entries.map((entry) => show(entry, { isOpen: isOpen(entry), isAway, names }));
      for (const [id, { item }] of items) {
        if (shown.includes(item)) continue;
        item.remove();
        items.delete(id);
      }
      // Only what is elsewhere moves: a node that is moved loses its focus.
      shown.forEach((item, index) => list.children[index] === item || list.insertBefore(item, list.children[index] ?? null));
      const underWay = entries.filter((entry) => !hasEnded(entry)).length;
      setText(part("orders-count"), underWay > 0 ? `${underWay} under way` : "");
      part("orders-empty").hidden = entries.length > 0;
      setText(part("orders-empty"), isLoaded ? "None yet. What you buy is followed here, step by step." : "Looking…");
    },

    /** Takes the reader to an order, by eye and by keyboard. */
    reveal(orderId) {
      const item = items.get(orderId)?.item;
      item?.focus({ preventScroll: true });
      item?.scrollIntoView({ block: "nearest" });
    },

    /** Whether the order's notifications can be seen just now. */
    isInView(orderId) {
      const box = items.get(orderId)?.live?.root.getBoundingClientRect();
      return Boolean(box) && box.bottom - box.height / 2 < window.innerHeight && box.top + box.height / 2 > 0;
    },

    titleOf: (entry, names) => inWords(linesOf(entry).slice(0, 1), names) || count(1, "order"),
    older: part("older"),
  };
}

function createNote(event, startedAt) {
  const row = element("li", "note");
  row.dataset.id = event.id;
  row.dataset.service = serviceOf(event);
  const time = element("time", "", sinceStart(Date.parse(event.time) - startedAt));
  time.dateTime = event.time;
  row.append(element("span", "dot"), element("span", "sentence", sentenceOf(event)), time);
  return row;
}
