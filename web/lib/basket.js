// The basket: which products and how many. Never prices: those are the server's, and only looked up to show a sum. Pure.

/** What one order may hold at most, as the API has it. */
export const LINES_MAX = 50;
export const PIECES_MAX = 1_000;

/** The basket that `text` was kept as; whatever is no line of a basket is left out. */
export function parseBasket(text) {
  let lines;
  try {
    lines = JSON.parse(text ?? "[]");
  } catch {
    return [];
  }
  if (!Array.isArray(lines)) return [];
  return lines.filter(isLine).reduce((basket, line) => add(basket, line.product_id, line.quantity), []);
}

/** One piece more of a product, or `pieces`. A full basket stays as it is. */
export function add(basket, productId, pieces = 1) {
  return setQuantity(basket, productId, quantityOf(basket, productId) + pieces);
}

/** The basket with `quantity` pieces of a product; with none the line is gone. */
export function setQuantity(basket, productId, quantity) {
  const pieces = Math.min(quantity, PIECES_MAX);
  if (pieces <= 0) return basket.filter((line) => line.product_id !== productId);
  const line = { product_id: productId, quantity: pieces };
  if (basket.some((each) => each.product_id === productId)) return basket.map((each) => (each.product_id === productId ? line : each));
  return basket.length < LINES_MAX ? [...basket, line] : basket;
}

/** What is left when `bought` has been ordered: more may have been put in meanwhile, also in another tab. */
export function subtract(basket, bought) {
  return bought.reduce((left, line) => setQuantity(left, line.product_id, quantityOf(left, line.product_id) - line.quantity), basket);
}

export function quantityOf(basket, productId) {
  return basket.find((line) => line.product_id === productId)?.quantity ?? 0;
}

export function pieces(lines) {
  return lines.reduce((sum, line) => sum + line.quantity, 0);
}

/** What a line costs at the given products' prices; none if the product is not sold. */
export function lineTotal(line, products) {
  const price = products.get(line.product_id)?.price;
  return price ? { ...price, amount_minor: price.amount_minor * line.quantity } : null;
}

/** What all costs; none for an empty basket. The order itself says what is really to be paid. */
export function total(basket, products) {
  const amounts = basket.map((line) => lineTotal(line, products)).filter(Boolean);
  if (amounts.length === 0) return null;
  return { ...amounts[0], amount_minor: amounts.reduce((sum, amount) => sum + amount.amount_minor, 0) };
}

/** "2 × Trout socks, 1 × Cedar canoe". */
export function inWords(lines, names) {
  return lines.map((line) => `${line.quantity} × ${names.get(line.product_id) ?? line.product_id}`).join(", ");
}

function isLine(line) {
  return typeof line?.product_id === "string" && line.product_id !== "" && Number.isSafeInteger(line.quantity) && line.quantity > 0;
}
