// What the browser keeps across a reload; nothing where it is told to keep nothing.

export function recall(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
}

/** Keeps `value` as JSON; null forgets it. */
export function remember(storage, key, value) {
  try {
    if (value === null) window[storage].removeItem(key);
    else window[storage].setItem(key, JSON.stringify(value));
  } catch {
    // Then a reload forgets it.
  }
}
