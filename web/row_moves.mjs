// Rows that change places: by their menu, dragged by its button, or by Alt and an arrow key. Values move, widgets stay; a
// row with a link keeps its place, and others pass it by.
import { record, setValue, widgetOf } from "./widgets.mjs";

/** @typedef {import("./row.mjs").Row} Row */

const STILL = 3; // so many pixels are a click yet
const KEYS = /** @type {Record<string, number>} */ ({ ArrowUp: -1, ArrowDown: 1 });

/**
 * @param {Row[]} rows
 * @returns {Row[]} those that can change places
 */
export function free(rows) {
  return rows.filter(({ used, linked }) => used && !linked);
}

/**
 * Give each row what another one holds.
 * @param {Row[]} rows
 * @param {Row[]} others the same ones, in another order
 */
export function arrange(rows, others) {
  const held = others.map(({ node, names, unfolded }) => ({ values: names.map((name) => widgetOf(node, name).value), unfolded }));
  rows.forEach((row, at) => {
    row.unfolded = held[at].unfolded;
    row.names.forEach((name, index) => setValue(row.node, name, held[at].values[index]));
  });
  for (const row of rows) row.update();
}

/**
 * Put a row at another's place among those that are free; the ones between move up or down.
 * @param {Row[]} rows
 * @param {Row} row
 * @param {number} to
 */
export function move(rows, row, to) {
  const all = free(rows);
  const order = all.filter((other) => other !== row);
  order.splice(to, 0, row);
  arrange(all, order);
}

/** @param {Row[]} rows */
export function listenForMoves(rows) {
  for (const row of rows) {
    row.root.addEventListener("keydown", (event) => byKey(rows, row, event));
    row.more.addEventListener("pointerdown", (event) => drag(rows, row, event));
    row.more.setAttribute("aria-keyshortcuts", "Alt+ArrowUp Alt+ArrowDown");
  }
}

/**
 * @param {Row[]} rows
 * @param {Row} row
 * @param {KeyboardEvent} event
 */
function byKey(rows, row, event) {
  if (!event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  const all = free(rows);
  const to = all.indexOf(row) + KEYS[event.key];
  if (!all.includes(row) || !all[to]) return;
  const control = row.controls.findIndex(([element]) => element === document.activeElement);
  move(rows, row, to);
  record();
  (all[to].controls[control]?.[0] ?? all[to].choice).focus();
}

/**
 * @param {Row[]} rows
 * @param {Row} row
 * @param {PointerEvent} event
 */
function drag(rows, row, event) {
  const all = free(rows);
  const from = all.indexOf(row);
  if (event.button || from < 0) return;
  const others = all.filter((other) => other !== row);
  const ending = new AbortController();
  const heard = { signal: ending.signal };
  let [to, dragged] = [from, false];
  const end = () => {
    mark(others, from, from);
    row.root.classList.remove("lyco-dragged");
    if (to !== from) move(rows, row, to), record();
    setTimeout(() => ending.abort()); // after the click that ends it
  };
  row.more.setPointerCapture(event.pointerId);
  row.more.addEventListener("pointermove", ({ clientY }) => {
    dragged ||= Math.abs(clientY - event.clientY) >= STILL;
    if (!dragged) return;
    row.root.classList.add("lyco-dragged");
    to = others.filter((other) => middle(other) < clientY).length;
    mark(others, from, to);
  }, heard);
  row.more.addEventListener("click", (click) => dragged && click.stopImmediatePropagation(), { ...heard, capture: true });
  row.more.addEventListener("pointercancel", () => (to = from), heard);
  row.more.addEventListener("lostpointercapture", end, { ...heard, once: true });
  document.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    to = from;
    row.more.releasePointerCapture(event.pointerId);
  }, { ...heard, capture: true });
}

/** @param {Row} row */
function middle({ root }) {
  const { top, height } = root.getBoundingClientRect();
  return top + height / 2;
}

/**
 * Draw a line where a row would go.
 * @param {Row[]} others
 * @param {number} from its place now, where it needs none
 * @param {number} to
 */
function mark(others, from, to) {
  others.forEach(({ root }, at) => {
    root.classList.toggle("lyco-drop-above", to !== from && at === to);
    root.classList.toggle("lyco-drop-below", to !== from && to === others.length && at === to - 1);
  });
}
