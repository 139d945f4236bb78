// Load Adapters shows the rows in use and one more.
import { NONE, after, fitRows } from "./node.mjs";

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {string[]} adapters names of the widgets that choose the files, one a row
 */
export function foldRows(node, adapters) {
  const named = (/** @type {string} */ name) => node.widgets?.find((widget) => widget.name === name);

  function fold() {
    const linked = (/** @type {string} */ name) => node.inputs?.some((input) => input.name === name && input.link != null);
    const used = adapters.map((name) => (named(name)?.value ?? NONE) !== NONE || linked(name)).lastIndexOf(true);
    adapters.forEach((name, row) => {
      for (const widget of [name, name.replace("adapter", "strength"), name.replace("adapter", "on")].map(named)) {
        if (widget) widget.hidden = widget.options.hidden = row > used + 1;
      }
    });
  }

  function refold() {
    const before = node.computeSize()[1];
    fold();
    fitRows(node, before);
  }

  for (const name of adapters) after(named(name) ?? {}, "callback", refold);
  after(node, "onConnectionsChange", refold);
  // At once: what is read from a file has the size of its rows, and ComfyUI makes room for all that shows by then.
  after(node, "onConfigure", fold);
  refold();
}
