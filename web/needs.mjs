// How much memory a step of a training takes, told before the first one.
import { t } from "./words.mjs";

/**
 * @typedef {object} Needs the memory of a device that a step takes, in bytes, by what takes it
 * @property {number} total
 * @property {number} weights
 * @property {number} activations
 * @property {number} free 0: unknown
 * @property {number} swapped how many of the model's `blocks` wait in the computer's memory
 * @property {number} blocks
 * @property {boolean} [waiting] whether of two models only the one that computes is on the device
 */

/**
 * @param {HTMLElement} line
 * @param {Needs} needs
 */
export function tellNeeds(line, { total, weights, activations, free, swapped, blocks, waiting }) {
  const [all, ofModel, kept, rest] = [total, weights, activations, total - weights - activations].map(gigabytes);
  const parts = [t("needs", all, ofModel, kept, rest)];
  if (free) parts.push(t("free", gigabytes(free)));
  if (swapped) parts.push(t("swapped", swapped, blocks));
  if (waiting) parts.push(t("waits"));
  line.textContent = parts.join(" · ");
  line.classList.toggle("lyco-too-much", free > 0 && total > free);
}

/** @param {number} size in bytes, as ComfyUI counts a card's memory */
function gigabytes(size) {
  return (size / 2 ** 30).toFixed(size >= 2 ** 30 / 10 ? 1 : 2);
}
