/** Pieces of the page: made from its templates, found by their part's name. */

/**
 * Return a fresh copy of what a template holds.
 * @param {string} id - Of the template.
 * @returns {HTMLElement}
 */
export function copyOf(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/**
 * Return the parts of an element by the names that its `data-part` attributes give them.
 * @param {Element} root
 * @returns {Object<string, HTMLElement>}
 */
export function partsOf(root) {
  const found = root.querySelectorAll("[data-part]");
  return Object.fromEntries([...found].map((part) => [part.dataset.part, part]));
}

/**
 * Say words in an element, and show it only where there are any.
 * @param {HTMLElement} element
 * @param {string} words
 */
export function say(element, words) {
  element.textContent = words;
  element.hidden = words === "";
}

/**
 * Give a frame the proportions of what it will hold, so that nothing moves when that arrives.
 * @param {HTMLElement} frame
 * @param {{width: number, height: number}} size - In pixels of the picture.
 */
export function shape(frame, { width, height }) {
  frame.style.setProperty("--ratio", String(width / height));
  // Small crops are shown larger than they are, but not as large as photographs.
  frame.style.setProperty("--most", `${Math.max(width, 288)}px`);
}
