// What an error advises, as buttons that do it. The advice is the server's, in English: `nodes/host/advice.py`.
import { el } from "./dom.mjs";
import { app } from "./comfy.mjs";
import { t } from "./words.mjs";

/**
 * @typedef {import("./node.mjs").GraphNode} GraphNode
 * @typedef {NonNullable<GraphNode["widgets"]>[number]} Widget
 * @typedef {object} Remedy an input of a node, and what to set it to
 * @property {Widget} widget
 * @property {Widget["value"]} value
 * @property {string} text of its button
 */

const SET = /\bset (\w+) to (as it is|[\w.-]+(?: or [\w.-]+)*)/g;
const MODE = /\bthe (mode) '([^']+)'/g;
const SWITCH = /\bswitch (\w+) (on|off)\b/g;
const EXCLUDE = /\bby this line in (exclude): (.+)$/g;

/**
 * @param {GraphNode} node
 * @param {string} advice
 * @returns {Remedy[]} what of it the node's own inputs can do
 */
function remedies(node, advice) {
  /** @type {Remedy[]} */
  const found = [];
  const add = (/** @type {string} */ name, /** @type {(widget: Widget) => Omit<Remedy, "widget">[]} */ remedy) => {
    const widget = node.widgets?.find((one) => one.name === name);
    if (!widget || linked(node, name)) return;
    found.push(...remedy(widget).map((one) => ({ widget, ...one })));
  };
  for (const [, name, named] of [...advice.matchAll(SET), ...advice.matchAll(MODE)]) {
    add(name, (widget) => (isSwitch(widget) ? [switched(widget, true)] : choices(widget, named.split(" or "))));
  }
  for (const [, name, to] of advice.matchAll(SWITCH)) add(name, (widget) => [switched(widget, to === "on")]);
  for (const [, name, line] of advice.matchAll(EXCLUDE)) {
    add(name, (widget) => [{ value: [...lines(widget), line].join("\n"), text: t("leave_out") }]);
  }
  return found;
}

/** @param {Widget} widget */
function isSwitch(widget) {
  return typeof widget.value === "boolean";
}

/**
 * @param {Widget} widget
 * @param {boolean} value
 */
function switched(widget, value) {
  return { value, text: t(value ? "switch_on" : "switch_off", labelOf(widget)) };
}

/**
 * @param {Widget} widget
 * @param {string[]} named
 */
function choices(widget, named) {
  const { values } = /** @type {{values?: unknown}} */ (widget.options ?? {});
  const taken = named.filter((value) => Array.isArray(values) && values.includes(value));
  return taken.map((value) => ({ value, text: textOf(widget, value) }));
}

/**
 * @param {Widget} widget
 * @param {string} value
 */
function textOf(widget, value) {
  return widget.name === "on_partial_match" ? t("load_rest") : t("set", labelOf(widget), value);
}

/** @param {Widget} widget */
function labelOf(widget) {
  return widget.label || widget.name;
}

/** @param {Widget} widget */
function lines(widget) {
  return String(widget.value ?? "").split("\n").map((line) => line.trim()).filter(Boolean);
}

/**
 * @param {GraphNode} node
 * @param {string} name
 */
function linked(node, name) {
  const input = (node.inputs ?? []).findIndex((one) => one.name === name);
  return input >= 0 && node.isInputConnected(input);
}

/**
 * @param {GraphNode} node
 * @param {string} advice
 * @returns {HTMLElement[]}
 */
export function buttons(node, advice) {
  return remedies(node, advice).map(({ widget, value, text }) => {
    const button = el("button", "", text);
    button.addEventListener("pointerdown", (event) => event.stopPropagation());
    button.addEventListener("click", () => set(node, widget, value));
    return button;
  });
}

/**
 * As a person sets it, so that it can be undone.
 * @param {GraphNode} node
 * @param {Widget} widget
 * @param {Widget["value"]} value
 */
function set(node, widget, value) {
  app.canvas.emitBeforeChange();
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
  app.canvas.emitAfterChange();
  node.setDirtyCanvas(true, true);
}
