// A live feed: a WebSocket that comes back by itself, from the last position it saw. No event twice, none left out.

/** The subprotocol: each text frame is one CloudEvent in JSON. */
export const SUBPROTOCOL = "cloudevents.json";

const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 4_000;
/** A connection that lives this long is a good one: the next loss starts with the shortest pause again. */
const STABLE_MS = 2_000;
/** What the types of the shop's own words begin with. They are no events of an order: they have no position. */
const NOTICE = "cascade.live.";
/** A connection that is silent for so many heartbeats is dead, whatever the browser believes. */
const HEARTBEATS_MISSED_MAX = 2.5;
/** How long a connection may take to open. */
const OPEN_MS_MAX = 8_000;

/** The longest pause before the given attempt (1, 2, 3, …), in milliseconds. */
export function pauseMax(attempt) {
  return Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(attempt - 1, 10));
}

/**
 * Opens the feed. `connect(after)` opens a socket for events after a position; `onEvent(event)` gets each event once, in order;
 * `onState({ name, attempt })` says "connecting", "live", "reconnecting" or "closed"; `onReset({ reason, after })` says that the shop
 * cannot go on from what was seen, and shows what comes after another position. Time and chance are passed in for tests.
 */
export function openFeed({
  connect,
  onEvent,
  onState,
  onReset = () => {},
  after = 0,
  setTimer = setTimeout,
  clearTimer = clearTimeout,
  random = Math.random,
}) {
  let socket = null;
  // Where to come back; and the last event, behind which the shop may have passed others' events.
  let cursor = after;
  let position = after;
  let silenceMsMax = null;
  let watchdog = null;
  let attempt = 0;
  let timers = [];
  let isClosed = false;

  const later = (action, ms) => timers.push(setTimer(action, ms));
  const forgetTimers = () => {
    timers.forEach((timer) => clearTimer(timer));
    timers = [];
    if (watchdog !== null) clearTimer(watchdog);
    watchdog = null;
  };
  const watch = (current) => {
    if (watchdog !== null) clearTimer(watchdog);
    watchdog = silenceMsMax === null ? null : setTimer(() => socket === current && lose(current), silenceMsMax);
  };

  function open() {
    forgetTimers();
    onState({ name: attempt === 0 ? "connecting" : "reconnecting", attempt });
    const current = connect(cursor);
    silenceMsMax = null;
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
    current.onmessage = (message) => {
      if (!isCurrent()) return;
      take(message.data);
      // The feed may have been closed by what came.
      if (isCurrent()) watch(current);
    };
    current.onclose = () => isCurrent() && lose(current);
    current.onerror = () => {}; // A close follows, and says the same.
  }

  function take(text) {
    const message = parse(text);
    if (message?.position === undefined && String(message?.type).startsWith(NOTICE)) return heed(message);
    const place = Number(message?.position);
    if (!Number.isSafeInteger(place) || place <= cursor) return;
    cursor = place;
    position = place;
    onEvent(message);
  }

  function heed({ type, data }) {
    const place = Number(data?.after);
    if (!Number.isSafeInteger(place)) return;
    switch (type.slice(NOTICE.length).split(".")[0]) {
      case "welcome":
        if (data.heartbeat_ms > 0) silenceMsMax = data.heartbeat_ms * HEARTBEATS_MISSED_MAX;
        // A feed that has seen nothing begins here, also if it is lost before the first event.
        if (cursor === 0) cursor = place;
        break;
      case "reset":
        cursor = place;
        position = place;
        onReset({ reason: data.reason, after: place });
        break;
      case "heartbeat":
      case "end":
        cursor = Math.max(cursor, place);
        break;
    }
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
    /** The position of the last event. */
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
