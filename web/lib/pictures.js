// Which picture belongs to a product.

const DRAWN = new Set([
  "waterfall-mug",
  "river-stone-soap",
  "moss-notebook",
  "spring-water-carafe",
  "drizzle-umbrella",
  "mill-wheel-clock",
  "trout-socks",
  "canoe",
]);

/** The file of a product's picture; a parcel for a product that nobody has drawn yet. */
export function pictureOf(productId) {
  return `/assets/app/products/${DRAWN.has(productId) ? productId : "generic"}.svg`;
}
