// Amounts, times and ids as people read them.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** 2490 minor units of EUR: "24.90 EUR". */
export function money(amount) {
  if (!amount) return "";
  const minor = String(amount.amount_minor).padStart(3, "0");
  return `${minor.slice(0, -2)}.${minor.slice(-2)} ${amount.currency}`;
}

/** Milliseconds since the first event: "+1.24 s", "+2:05 min" from a hundred seconds on. */
export function sinceStart(ms) {
  // An event need not say when it was.
  return Number.isNaN(ms) ? "" : `+${duration(ms)}`;
}

/** Milliseconds as a length of time. */
export function duration(ms) {
  const positive = Math.max(0, ms);
  if (positive < 99_995) return `${(positive / 1000).toFixed(2)} s`;
  const seconds = Math.round(positive / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} min`;
}

/** The clock on the reader's wall, with milliseconds: "14:03:07.123". */
export function clock(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  const ms = String(time.getMilliseconds()).padStart(3, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${ms}`;
}

/** When something was, as one says it later: "14:03", with the day if that was not today. */
export function moment(iso, now = new Date()) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  const hour = `${two(time.getHours())}:${two(time.getMinutes())}`;
  return time.toDateString() === now.toDateString() ? hour : `${time.getDate()} ${MONTHS[time.getMonth()]}, ${hour}`;
}

/** The end of an order's id: enough to tell orders apart on a screen. */
export function shortId(orderId) {
  const digits = String(orderId).replaceAll("-", "").slice(-8);
  return `${digits.slice(0, 4)} ${digits.slice(4)}`.trim();
}

/** "1 search", "3 searches". */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** A text as the beginning of a sentence. */
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
