// What went wrong in a run, on the card of the node where it did: the page shows its beginning at most, since 1.58 nothing.
import { api } from "./comfy.mjs";
import { el } from "./dom.mjs";

/** @typedef {{place: HTMLElement, clear: () => void}} Failing */

/** @type {WeakMap<object, Failing>} */
const failing = new WeakMap();

/** @type {Set<HTMLElement>} */
const shown = new Set();

/**
 * @param {object} node
 * @returns {HTMLElement} where its error will stand
 */
export function placeOfFailure(node) {
  const place = el("pre", "lyco-failure");
  place.hidden = true;
  failing.set(node, { place, clear: () => {} });
  return place;
}

/**
 * @param {object} node
 * @param {() => void} clear takes away what an earlier run said
 */
export function beforeFailure(node, clear) {
  const found = failing.get(node);
  if (found) found.clear = clear;
}

/**
 * Follow the server's errors; once, when the page is set up.
 * @param {(id: string) => object | null} nodeOf
 */
export function listenForFailures(nodeOf) {
  api.addEventListener("execution_start", () => {
    for (const place of shown) place.hidden = true;
    shown.clear();
  });
  api.addEventListener("execution_error", (/** @type {any} */ { detail }) => {
    const found = failing.get(nodeOf(String(detail.node_id ?? "")) ?? {});
    if (!found) return;
    found.clear();
    found.place.textContent = String(detail.exception_message ?? "").trim();
    found.place.hidden = false;
    shown.add(found.place);
  });
}
