// Notifications at the edge of the screen, for whoever looks at something else. Each leads to its order.

import { element } from "./element.js";

const STAYS_MS = 5_000;
const TOASTS_MAX = 3;

export function createToasts(root) {
  return {
    clear: () => root.replaceChildren(),

    show({ title, text, service, orderId }) {
      const toast = element("a", "toast");
      toast.href = `#order-${orderId}`;
      toast.dataset.service = service;
      toast.append(element("span", "dot"), element("b", "", title), element("span", "", text));
      root.append(toast);
      while (root.children.length > TOASTS_MAX) root.firstElementChild.remove();
      let timer = null;
      const start = () => { timer = setTimeout(() => toast.remove(), STAYS_MS); };
      // It does not vanish under a hand or a focus.
      for (const on of ["mouseenter", "focusin"]) toast.addEventListener(on, () => clearTimeout(timer));
      for (const off of ["mouseleave", "focusout"]) toast.addEventListener(off, start);
      toast.addEventListener("click", () => toast.remove());
      start();
    },
  };
}
