import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import test from "node:test";

import { add, inWords, LINES_MAX, lineTotal, parseBasket, pieces, PIECES_MAX, quantityOf, setQuantity, subtract, total } from "../lib/basket.js";
import { pictureOf } from "../lib/pictures.js";

const euro = (amount_minor) => ({ amount_minor, currency: "EUR" });
const PRODUCTS = new Map([
  ["mug", { name: "Mug", price: euro(1490) }],
  ["canoe", { name: "Canoe", price: euro(189_000) }],
]);
const line = (product_id, quantity) => ({ product_id, quantity });

test("pieces of one product share a line, and the last piece taken out takes the line along", () => {
  const basket = add(add(add([], "mug"), "canoe"), "mug");
  assert.deepEqual(basket, [line("mug", 2), line("canoe", 1)]);
  assert.equal(pieces(basket), 3);
  assert.deepEqual(setQuantity(basket, "mug", 0), [line("canoe", 1)]);
  assert.equal(quantityOf(setQuantity(basket, "mug", 0), "mug"), 0);
});

test("a basket holds no more than an order may", () => {
  assert.equal(quantityOf(setQuantity([], "mug", PIECES_MAX + 5), "mug"), PIECES_MAX);
  const full = Array.from({ length: LINES_MAX }, (_, index) => line(`p-${index}`, 1));
  assert.deepEqual(add(full, "one-more"), full);
  assert.equal(quantityOf(add(full, "p-3"), "p-3"), 2);
});

test("what was bought leaves the basket, and what was put in meanwhile stays", () => {
  const bought = [line("mug", 2), line("canoe", 1)];
  assert.deepEqual(subtract([line("mug", 3), line("canoe", 1), line("soap", 1)], bought), [line("mug", 1), line("soap", 1)]);
  assert.deepEqual(subtract([], bought), []);
});

test("the sum is exact, and a product that is not sold costs nothing yet", () => {
  assert.deepEqual(total([line("mug", 3), line("canoe", 1)], PRODUCTS), euro(193_470));
  assert.deepEqual(total([line("mug", 1), line("ghost", 9)], PRODUCTS), euro(1490));
  assert.equal(total([], PRODUCTS), null);
  assert.equal(lineTotal(line("ghost", 1), PRODUCTS), null);
});

test("a basket comes back as it was kept, and nothing else does", () => {
  const basket = [line("mug", 2), line("canoe", 1)];
  assert.deepEqual(parseBasket(JSON.stringify(basket)), basket);
  for (const text of [null, "", "{", "7", "{}", "[null]", '[{"product_id":"mug"}]', '[{"product_id":"mug","quantity":-1}]', '[{"product_id":7,"quantity":1}]', '[{"product_id":"mug","quantity":1.5}]']) {
    assert.deepEqual(parseBasket(text), [], text);
  }
  assert.deepEqual(parseBasket('[{"product_id":"mug","quantity":1,"price":1},{"product_id":"mug","quantity":1}]'), [line("mug", 2)]);
});

test("a basket in words names its products, or their ids while the names are not known", () => {
  const names = new Map([["mug", "Mug"]]);
  assert.equal(inWords([line("mug", 2), line("canoe", 1)], names), "2 × Mug, 1 × canoe");
  assert.equal(inWords([], names), "");
});

test("every product has a picture of its own if somebody drew it, else a parcel", () => {
  const folder = new URL("../app/products/", import.meta.url);
  const drawn = readdirSync(folder).filter((file) => file !== "generic.svg");
  for (const file of drawn) assert.equal(pictureOf(file.replace(".svg", "")), `/assets/app/products/${file}`);
  assert.equal(drawn.length, 8);
  assert.equal(pictureOf("submarine"), "/assets/app/products/generic.svg");
  assert.equal(pictureOf("../style.css"), "/assets/app/products/generic.svg");
  assert.ok(existsSync(new URL("generic.svg", folder)));
});
