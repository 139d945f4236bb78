// The inputs that a schema calls advanced. Vue's nodes fold them; the classic renderer shows all, and here folds those that
// nobody has set. `advanced` of a widget and `showAdvanced` of a node are ComfyUI's own: the workflow keeps the latter for
// both renderers, no prompt knows of it, and folded or not every value is kept and sent.
import { after, app } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { fit } from "./size.mjs";
import { t } from "./words.mjs";

const HEIGHT = 24;

/** @param {import("./node.mjs").GraphNode} node with all of its inputs, and no card yet */
export function addFold(node) {
  /** @type {any[]} the published types know of no such option */
  const rare = (node.widgets ?? []).filter((/** @type {any} */ { options }) => options?.advanced);
  if (!rare.length) return;
  const usual = new Map(rare.map((widget) => [widget.name, widget.value]));
  /** @type {any[]} */
  let folded = [];

  const button = el("button", "lyco-more-inputs");
  /** @type {any} the line between what always shows and what folds */
  const line = node.addDOMWidget("lyco_fold", "LYCO_FOLD", el("div", "lyco-root", button), {
    serialize: false,
    canvasOnly: true,
    hideOnZoom: false,
    margin: 4,
    getMinHeight: () => HEIGHT,
    getMaxHeight: () => HEIGHT,
  });
  line.serialize = false;

  const linked = (/** @type {string} */ name) =>
    node.inputs?.some((input, index) => input.widget?.name === name && node.isInputConnected(index)) ?? false;
  const unset = (/** @type {any} */ { name, value }) => value === usual.get(name) && !linked(name);

  function fold() {
    const always = app.extensionManager?.setting?.get("Comfy.Node.AlwaysShowAdvancedWidgets");
    folded = always ? [] : rare.filter(unset);
    for (const widget of rare) widget.advanced = folded.includes(widget);
    line.hidden = !folded.length;
    name();
    fit(node);
  }

  function name() {
    const more = t(folded.length === 1 ? "more_input" : "more_inputs", folded.length);
    const text = node.showAdvanced ? `▾ ${t("fewer_inputs")}` : `▸ ${more}`;
    if (button.textContent === text) return;
    button.ariaExpanded = String(Boolean(node.showAdvanced));
    button.textContent = text;
  }

  // ComfyUI itself leaves room for what it hides by `advanced`. What is set stands above the line, which stays in its place.
  const every = node.getLayoutWidgets;
  node.getLayoutWidgets = () => {
    name(); // Vue's own button unfolds without a word
    const end = node.widgets?.indexOf(line) ?? 0;
    const part = (/** @type {any} */ widget) =>
      widget === line ? 1 : folded.includes(widget) ? 2 : (node.widgets?.indexOf(widget) ?? 0) > end ? 3 : 0;
    for (const widget of folded) widget.y = line.y; // a link that is drawn to one that is hidden ends at the line
    const shown = every.call(node).filter((widget) => node.showAdvanced || !folded.includes(widget));
    return shown.sort((one, other) => part(one) - part(other));
  };

  // What was set, by whomever, shows; what is set back folds with the next fold.
  for (const widget of rare) after(widget, "callback", () => folded.includes(widget) && !unset(widget) && fold());
  const relinked = (/** @type {any} */ widget) => folded.includes(widget) === linked(widget.name);
  after(node, "onConnectionsChange", () => rare.some(relinked) && fold());
  after(node, "toggleAdvanced", fold); // the menu's too
  after(node, "onConfigure", fold);
  button.addEventListener("click", () => {
    app.canvas.emitBeforeChange();
    node.toggleAdvanced();
    app.canvas.emitAfterChange();
  });
  fold();
}
