// A live feed: a WebSocket that comes back by itself, from the last position it saw. No event twice, none left out.

/** The subprotocol: each text frame is one CloudEvent in JSON. */
export const SUBPROTOCOL = "cloudevents.json";

const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 4_000;
/** A connection that lives this long is a good one: the next loss starts with the shortest pause again. */
const STABLE_MS = 2_000;
/** The close code for a position that the log does not have, e.g. after a start in another folder. */
const RESET = 4410;
/** How long a connection may take to open. */
const OPEN_MS_MAX = 8_000;

/** The longest pause before the given attempt (1, 2, 3, …), in milliseconds. */
export function pauseMax(attempt) {
  return Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(attempt - 1, 10));
}

/**
 * Opens the feed. `connect(after)` opens a socket for events after a position; `onEvent(event)` gets each event once, in order;
 * `onState({ name, attempt })` says "connecting", "live", "reconnecting" or "closed". Time and chance are passed in for tests.
 */
export function openFeed({ connect, onEvent, onState, after = 0, setTimer = setTimeout, clearTimer = clearTimeout, random = Math.random }) {
  let socket = null;
  let position = after;
  let attempt = 0;
  let timers = [];
  let isClosed = false;

  const later = (action, ms) => timers.push(setTimer(action, ms));
  const forgetTimers = () => {
    timers.forEach((timer) => clearTimer(timer));
    timers = [];
  };

  function open() {
    forgetTimers();
    onState({ name: attempt === 0 ? "connecting" : "reconnecting", attempt });
    const current = connect(position);
    socket = current;
    // Every handler asks whether its socket is still the current one: a late frame of an old connection must not count.
    const isCurrent = () => socket === current && !isClosed;
    later(() => isCurrent() && lose(current), OPEN_MS_MAX);
    current.onopen = () => {
      if (!isCurrent()) return;
      forgetTimers();
      onState({ name: "live", attempt });
      later(() => { attempt = 0; }, STABLE_MS);
    };
    current.onmessage = (message) => isCurrent() && take(message.data);
    current.onclose = (close) => {
      if (!isCurrent()) return;
      if (close?.code === RESET) position = 0;
      lose(current);
    };
    current.onerror = () => {}; // A close follows, and says the same.
  }

  function take(text) {
    const event = parse(text);
    const place = Number(event?.position);
    if (!Number.isSafeInteger(place) || place <= position) return;
    position = place;
    onEvent(event);
  }

  function lose(old) {
    socket = null;
    forgetTimers();
    old.close();
    attempt += 1;
    onState({ name: "reconnecting", attempt });
    // Never at once and never all pages at the same moment.
    later(open, BACKOFF_MS_MIN / 2 + random() * pauseMax(attempt));
  }

  open();
  return {
    /** Tries now instead of after the pause, e.g. because the machine is online again. */
    hurry() {
      if (!isClosed && socket === null) open();
    },
    close() {
      isClosed = true;
      forgetTimers();
      socket?.close();
      onState({ name: "closed", attempt });
    },
    get position() {
      return position;
    },
  };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
