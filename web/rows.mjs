// Load Adapters shows the rows in use and one more.
import { after } from "./node.mjs";

const NONE = "none";

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {string[]} adapters names of the widgets that choose the files, one a row
 */
export function foldRows(node, adapters) {
  const named = (/** @type {string} */ name) => node.widgets?.find((widget) => widget.name === name);

  function fold() {
    const linked = (/** @type {string} */ name) => node.inputs?.some((input) => input.name === name && input.link != null);
    const used = adapters.map((name) => (named(name)?.value ?? NONE) !== NONE || linked(name)).lastIndexOf(true);
    const before = node.computeSize()[1];
    adapters.forEach((name, row) => {
      for (const widget of [name, name.replace("adapter", "strength"), name.replace("adapter", "on")].map(named)) {
        if (widget) widget.hidden = widget.options.hidden = row > used + 1;
      }
    });
    const change = node.computeSize()[1] - before;
    if (change) node.setSize([node.size[0], node.size[1] + change]);
  }

  for (const name of adapters) after(named(name) ?? {}, "callback", fold);
  after(node, "onConnectionsChange", () => queueMicrotask(fold));
  after(node, "onConfigure", () => queueMicrotask(fold));
  fold();
}
