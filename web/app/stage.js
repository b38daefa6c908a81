// The services as stations on the broker's spine. A station lights up when it emits; a pulse runs down its wire, along the spine, and
// up to whoever reacts.

import { REACTIONS, stations } from "../lib/cascade.js";
import { count } from "../lib/format.js";
import { nameOf, serviceOf } from "../lib/sentences.js";

/** How long a pulse is on its way along the spine, in milliseconds; the style sheet knows the same pace. */
const SPINE_MS = 420;
const GLOW_MS = 1_400;

export function createStage(root) {
  const station = Object.fromEntries([...root.querySelectorAll(".station")].map((element) => [element.dataset.service, element]));
  const spine = root.querySelector(".spine");
  const spineText = root.querySelector("#spine-text");

  /** Plays an animation class from its start, also when it is still playing. */
  function play(element, name, ms) {
    element.classList.remove(name);
    void element.offsetWidth;
    element.classList.add(name);
    element.stop?.[name] && clearTimeout(element.stop[name]);
    element.stop = { ...element.stop, [name]: setTimeout(() => element.classList.remove(name), ms) };
  }

  return {
    /** Shows an event on its way. */
    show(event) {
      const emitter = station[serviceOf(event)];
      if (!emitter) return;
      play(emitter, "emits", GLOW_MS);
      spine.style.setProperty("--signal", `var(--${serviceOf(event)})`);
      play(spine, "carries", GLOW_MS);
      const takers = [...(REACTIONS[nameOf(event)] ?? []), "storefront"];
      setTimeout(() => takers.forEach((service) => {
        station[service].style.setProperty("--signal", `var(--${serviceOf(event)})`);
        play(station[service], "takes", GLOW_MS);
      }), SPINE_MS);
    },

    /** Says where each service stands; `waiting` is what the order waits for, `isAway` that the shop does not answer. */
    update(state, { waiting, position, isAway }) {
      root.classList.toggle("away", isAway);
      for (const [service, text] of Object.entries(stations(state))) {
        station[service].querySelector(".station-text").textContent = text;
      }
      station.storefront.querySelector(".station-text").textContent = isAway ? "not connected" : "shows it here";
      for (const [service, element] of Object.entries(station)) {
        element.classList.toggle("busy", !isAway && waiting?.service === service);
      }
      spineText.textContent = state.events === 0 ? "no event yet" : `${count(state.events, "event")} kept · ${isAway ? "not connected" : `log position ${position}`}`;
    },
  };
}
