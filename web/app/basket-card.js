// The basket: its lines with buttons for more and fewer, the sum, and Buy.

import { lineTotal, pieces, PIECES_MAX, total } from "../lib/basket.js";
import { capital, count, money } from "../lib/format.js";
import { pictureOf } from "../lib/pictures.js";
import { element, picture, setText } from "./element.js";

export function createBasketCard(root, { onQuantity, onBuy }) {
  const part = (id) => root.querySelector(`#${id}`);
  const [list, buy, notice] = [part("lines"), part("buy"), part("buy-notice")];
  const rows = new Map();
  let isBuying = false;
  let basket = [];
  let products = new Map();

  buy.addEventListener("click", () => isBuying || onBuy());

  function createRow(productId) {
    const row = element("li", "basket-line");
    const name = products.get(productId)?.name ?? productId;
    const step = (sign, words, change) => {
      const button = element("button", "step", sign);
      button.type = "button";
      button.setAttribute("aria-label", words);
      button.addEventListener("click", () => isBuying || onQuantity(productId, change));
      return button;
    };
    const [fewer, more] = [step("−", `One ${name} fewer`, -1), step("+", `One ${name} more`, 1)];
    const [quantity, amount] = [element("span", "quantity"), element("span", "amount")];
    const stepper = element("div", "stepper");
    stepper.append(fewer, quantity, more);
    row.append(picture(pictureOf(productId), 52), element("span", "line-name", name), amount, stepper);
    return { row, fewer, more, quantity, amount };
  }

  function showLines() {
    const kept = new Set(basket.map((line) => line.product_id));
    for (const [productId, { row }] of rows) {
      if (kept.has(productId)) continue;
      const hadFocus = row.contains(document.activeElement);
      const neighbour = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      rows.delete(productId);
      // Whoever works by keyboard goes on beside the line that is gone.
      if (hadFocus) (neighbour?.querySelector("button") ?? root).focus();
    }
    for (const line of basket) {
      const known = rows.get(line.product_id) ?? createRow(line.product_id);
      if (!rows.has(line.product_id)) {
        rows.set(line.product_id, known);
        list.append(known.row);
      }
      setText(known.quantity, String(line.quantity));
      setText(known.amount, money(lineTotal(line, products)));
      known.more.disabled = line.quantity >= PIECES_MAX;
    }
  }

  function show() {
    showLines();
    part("basket-empty").hidden = basket.length > 0;
    setText(part("basket-count"), basket.length > 0 ? count(pieces(basket), "piece") : "");
    setText(part("sum"), money(total(basket, products)) || "0.00 EUR");
    root.classList.toggle("buying", isBuying);
    buy.disabled = !isBuying && basket.length === 0;
    buy.setAttribute("aria-disabled", String(isBuying));
    setText(buy, isBuying ? "Ordering…" : "Buy");
  }

  function say(text, kind) {
    setText(notice, text);
    notice.dataset.kind = kind;
  }

  return {
    show(next, sold) {
      // A change of mind is an answer to whatever was said before.
      if (!isBuying && JSON.stringify(next) !== JSON.stringify(basket)) say("", "");
      [basket, products] = [next, sold];
      show();
    },

    /** Says where the press of Buy stands. */
    showPurchase({ name, message }) {
      isBuying = name === "sending" || name === "retrying";
      show();
      if (name === "retrying") say(`${capital(message)}. Your order is sent again until it is answered, and made once only.`, "wait");
      else if (name === "refused") say(`Not ordered: ${message}.`, "bad");
      else say("", "");
    },
  };
}
