// The customer's orders: each with what the API says of it and with its events, as far as they are known. Pure.

import { beginning, fold, isFinal } from "./cascade.js";
import { nameOf } from "./sentences.js";

/** An order of which nothing is known yet. */
export function newEntry(orderId) {
  return { id: orderId, view: null, events: [], state: beginning() };
}

/** The order with what the API says of it now; an answer that was overtaken by a newer one changes nothing. */
export function addView(entry, view) {
  return entry.view && entry.view.version > view.version ? entry : { ...entry, view };
}

/** The order with some more of its events, from the feed or the API, in any order, also known ones. */
export function addEvents(entry, events) {
  const byPosition = new Map([...entry.events, ...events].map((event) => [event.position, event]));
  if (byPosition.size === entry.events.length) return entry;
  const all = [...byPosition.values()].sort((left, right) => Number(left.position) - Number(right.position));
  return { ...entry, events: all, state: nameOf(all[0]) === "OrderCreated" ? fold(all) : beginning() };
}

/** The order without its events: some are missing, and nobody knows which. What the API says of it stays. */
export function forgetEvents(entry) {
  return { ...newEntry(entry.id), view: entry.view };
}

/** Whether its events are known from the first one on, so that they tell where it stands. */
export function isWhole(entry) {
  return entry.state.events > 0;
}

export function statusOf(entry) {
  return isWhole(entry) ? entry.state.status : entry.view?.status ?? "starting";
}

export function hasEnded(entry) {
  return isFinal({ status: statusOf(entry) });
}

/** Whether its events must be read to show it truly: it is under way, or some are known but not the first. */
export function lacksEvents(entry) {
  return !hasEnded(entry) || (entry.events.length > 0 && !isWhole(entry));
}

export function linesOf(entry) {
  return entry.view?.lines ?? entry.state.lines;
}

export function totalOf(entry) {
  return entry.view?.total ?? entry.state.total;
}

export function createdAt(entry) {
  return entry.view?.created_at ?? (isWhole(entry) ? entry.events[0].time : "");
}

/** Newest first: ids rise with time. */
export function newestFirst(entries) {
  return [...entries].sort((left, right) => (left.id < right.id ? 1 : -1));
}
