// The inputs that a schema calls advanced. Vue's nodes fold them; the classic renderer shows all, and here folds those that
// nobody has set. `advanced` of a widget and `showAdvanced` of a node are ComfyUI's own: the workflow keeps the latter for
// both renderers, no prompt knows of it, and folded or not every value is kept and sent.
import { after, app } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { fit } from "./size.mjs";
import { t } from "./words.mjs";

/**
 * @param {import("./node.mjs").GraphNode} node
 * @returns {HTMLElement} the line that folds and unfolds, for the node's card
 */
export function addFold(node) {
  const line = el("button", "lyco-fold");
  /** @type {any[]} the published types know of no such option, and of no element */
  const rare = (node.widgets ?? []).filter((/** @type {any} */ { options }) => options?.advanced);
  const usual = new Map(rare.map((widget) => [widget.name, widget.value]));
  /** @type {any[]} */
  let folded = [];

  const linked = (/** @type {string} */ name) =>
    node.inputs?.some((input, index) => input.widget?.name === name && node.isInputConnected(index)) ?? false;
  const unset = (/** @type {any} */ { name, value }) => value === usual.get(name) && !linked(name);

  function fold() {
    const always = app.extensionManager?.setting?.get("Comfy.Node.AlwaysShowAdvancedWidgets");
    folded = always ? [] : rare.filter(unset);
    for (const widget of rare) widget.advanced = folded.includes(widget);
    line.hidden = !folded.length;
    line.textContent = node.showAdvanced ? `▾ ${t("fewer_inputs")}` : `▸ ${t("more_inputs", folded.length)}`;
    fit(node);
  }

  // ComfyUI itself leaves room for what it hides by `advanced`.
  const every = node.getLayoutWidgets;
  node.getLayoutWidgets = () => {
    if (node.showAdvanced) return every.call(node);
    const card = node.widgets?.find((/** @type {any} */ { element }) => element?.contains(line));
    for (const widget of folded) widget.y = card?.y ?? 0; // a link that is drawn to one of them ends at the line
    return every.call(node).filter((widget) => !folded.includes(widget));
  };

  // What was set, by whomever, shows; what is set back folds with the next fold.
  for (const widget of rare) after(widget, "callback", () => folded.includes(widget) && !unset(widget) && fold());
  const relinked = (/** @type {any} */ widget) => folded.includes(widget) === linked(widget.name);
  after(node, "onConnectionsChange", () => rare.some(relinked) && fold());
  after(node, "toggleAdvanced", fold); // the menu's too
  after(node, "onConfigure", fold);
  line.addEventListener("click", () => {
    app.canvas.emitBeforeChange();
    node.toggleAdvanced();
    app.canvas.emitAfterChange();
  });
  fold();
  return line;
}
