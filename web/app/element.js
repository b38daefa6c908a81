// Making elements.

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Changes a text only if it is another one: whoever has selected it keeps the selection. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A product's picture. It says nothing that its name does not say. */
export function picture(url, size) {
  const image = element("img");
  image.src = url;
  image.alt = "";
  image.width = size;
  image.height = (size * 3) / 4;
  return image;
}
