// The products: picture, name, price, and a button that puts a piece into the basket.

import { quantityOf } from "../lib/basket.js";
import { money } from "../lib/format.js";
import { pictureOf } from "../lib/pictures.js";
import { element, picture, setText } from "./element.js";

export function createShopWindow(list, { onAdd }) {
  const marks = new Map();

  function createProduct(product) {
    const item = element("li", "product");
    const tile = element("span", "tile");
    tile.append(picture(pictureOf(product.product_id), 240));
    const name = element("h2", "product-name", product.name);
    const buy = element("div", "product-buy");
    const button = element("button", "button add", "Add");
    button.type = "button";
    button.setAttribute("aria-label", `Add ${product.name} to the basket`);
    button.addEventListener("click", () => onAdd(product));
    const mark = element("span", "in-basket");
    marks.set(product.product_id, mark);
    buy.append(element("p", "price", money(product.price)), button);
    tile.append(mark);
    item.append(tile, name, buy);
    return item;
  }

  return {
    /** Shows what is for sale instead of the empty places. */
    fill(products) {
      list.replaceChildren(...products.map(createProduct));
      list.removeAttribute("aria-busy");
    },

    /** Marks how many pieces of each are in the basket. */
    mark(basket) {
      for (const [productId, mark] of marks) {
        const quantity = quantityOf(basket, productId);
        setText(mark, quantity > 0 ? String(quantity) : "");
        mark.title = quantity > 0 ? `${quantity} in the basket` : "";
      }
    },
  };
}
