// The few things that the page asks of the document. Every text goes in as text: there is no way here to write markup.

const SVG = "http://www.w3.org/2000/svg";

// A line break and a tab do no harm.
const UNSEEN = /(?![\n\t])[\p{C}\p{Zl}\p{Zp}]/gu;

/** What is not seen, or moves what is seen (right to left), stands as its code: a name may be a stranger's. */
const visible = (text) => String(text).replace(UNSEEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);

export const byId = (id) => document.getElementById(id);

/** Make an element. `properties` are attributes, but for `text` and `on`, a mapping of event listeners. */
export function make(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function draw(tag, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), properties, children);
}

function furnish(element, { text, on, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  for (const [event, listener] of Object.entries(on ?? {})) element.addEventListener(event, listener);
  if (text !== undefined) element.textContent = visible(text);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Change a text only where it differs: nothing is laid out, selected text stays selected, screen readers stay quiet. */
export function setText(element, text) {
  const wanted = visible(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Likewise for an attribute; null and false take it away, true is the empty string. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const wanted = value === true ? "" : String(value);
  if (element.getAttribute(name) !== wanted) element.setAttribute(name, wanted);
}

/** Make the children of `parent` those of `items`, in their order; what stays keeps its element, focus and state. */
export function keyed(parent, items, keyOf, create, update) {
  const known = (parent.keyedChildren ??= new Map());
  const seen = new Set();
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) continue;
    seen.add(key);
    let element = known.get(key);
    if (element === undefined) {
      element = create(item);
      known.set(key, element);
    }
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
    update(element, item);
  }
  for (const [key, element] of known) {
    if (!seen.has(key)) {
      element.remove();
      known.delete(key);
    }
  }
}

/** Say something to who can't see it change. */
export function announce(text) {
  setText(byId("announcer"), text);
}
