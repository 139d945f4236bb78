// What an error advises, as buttons that do it. The advice is the server's, in English: `nodes/host/advice.py`.
import { button } from "./dom.mjs";
import { record, setValue, widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";
import { isLinked } from "./would_run.mjs";

/**
 * @typedef {import("./node.mjs").GraphNode} GraphNode
 * @typedef {NonNullable<GraphNode["widgets"]>[number]} Widget
 * @typedef {object} Remedy an input of a node, and what to set it to
 * @property {string} name
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
  const add = (/** @type {string} */ name, /** @type {(widget: Widget) => Omit<Remedy, "name">[]} */ remedy) => {
    const widget = widgetOf(node, name);
    if (widget && !isLinked(node, name)) found.push(...remedy(widget).map((one) => ({ name, ...one })));
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
 * @param {string} advice
 * @returns {HTMLElement[]}
 */
export function buttons(node, advice) {
  return remedies(node, advice).map(({ name, value, text }) =>
    button("", text, "", () => {
      setValue(node, name, value);
      record();
    }),
  );
}
