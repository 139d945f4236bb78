// How high a node is: as its content asks, or higher where a person pulled it. The latter alone goes into the workflow:
// what the content asks depends on the renderer, on what is folded, and on the card, which comes late and on its own. A
// card that the workflow knew of would be a change for ComfyUI, and undo would take back that instead of what a person did.
import { after, app } from "./comfy.mjs";

/** @typedef {import("./node.mjs").GraphNode} GraphNode */

const WIDTH = 320;
const LOW = 60; // less than any content
const SLACK = 24; // less than a row is no pull; and a grid that nodes snap to adds some
const PULLED = "lyco_height"; // the property of a node that a person made higher

/** @type {WeakSet<object>} ours */
const kept = new WeakSet();

/** @type {WeakMap<object, number>} the widths that were read from a workflow */
const widths = new WeakMap();

/** @type {WeakMap<object, number>} the least heights that Vue's nodes had when they were last looked at */
const least = new WeakMap();

/** @param {GraphNode} node */
export function keepSize(node) {
  kept.add(node);
  after(node, "onResize", () => {
    if (LiteGraph.vueNodesMode) return;
    const height = node.size[1];
    // Whoever makes it lower than it was pulled, as the menu's "Resize", wants that.
    if (app.canvas.resizing_node === node || height + SLACK < pulled(node)) pull(node, height, node.computeSize()[1]);
  });
  after(node, "onSerialize", (/** @type {{size: number[], properties?: Record<string, any>}} */ data) => {
    look(node);
    data.size = [data.size[0], lowest(node)];
    const { [PULLED]: _, ...others } = data.properties ?? {};
    data.properties = pulled(node) ? { ...others, [PULLED]: pulled(node) } : others;
  });
  after(node, "onConfigure", (/** @type {{size?: ArrayLike<number>}} */ { size }) => {
    widths.set(node, Math.max(size?.[0] ?? 0, WIDTH)); // an object with 0 and 1 in some files
    restoreSize(node);
    queueMicrotask(() => fit(node)); // where no whole workflow is loaded: pasted, or put into a subgraph
  });
  // Vue's nodes grow to what is in them.
  node.setSize([Math.max(node.size[0], WIDTH), LiteGraph.vueNodesMode ? LOW : node.computeSize()[1]]);
}

/**
 * Loading a workflow makes every node as high as all of its inputs, also those that Vue folds.
 * @param {object} node one of ours, or any
 */
export function restoreSize(node) {
  const width = widths.get(node);
  if (width) /** @type {GraphNode} */ (node).setSize([width, lowest(/** @type {GraphNode} */ (node))]);
}

/**
 * Make a node of the classic renderer as high as its content. Vue's grow by themselves.
 * @param {GraphNode} node
 */
export function fit(node) {
  if (LiteGraph.vueNodesMode) return;
  node.setSize([Math.max(node.size[0], WIDTH), Math.max(lowest(node), node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

/**
 * The same for rows that were shown or hidden; Vue's nodes do not get lower by themselves.
 * @param {GraphNode} node
 * @param {number} before how high it had to be until now
 */
export function fitRows(node, before) {
  const change = node.computeSize()[1] - before;
  if (change) fit(node);
  if (LiteGraph.vueNodesMode && change < 0) {
    look(node);
    node.setSize([node.size[0], lowest(node)]);
  }
}

/**
 * The other renderer draws from now on.
 * @param {GraphNode} node one of ours, or any
 * @param {boolean} vue
 */
export function turn(node, vue) {
  if (!kept.has(node)) return;
  if (vue) node.setSize([node.size[0], lowest(node)]);
  else requestAnimationFrame(() => fit(node));
}

/** @param {GraphNode} node */
const pulled = (node) => Number(node.properties[PULLED]) || 0;

/** @param {GraphNode} node */
const lowest = (node) => pulled(node) || LOW;

/**
 * @param {GraphNode} node
 * @param {number} height that it was given
 * @param {number} needed
 */
function pull(node, height, needed) {
  if (height > needed + SLACK) node.properties[PULLED] = Math.round(height);
  else delete node.properties[PULLED];
}

/**
 * Nobody tells of a Vue node that was pulled; its least height does. That is what ComfyUI sets when one pulls at any side.
 * @param {GraphNode} node
 */
function look(node) {
  if (!LiteGraph.vueNodesMode || node.graph !== app.canvas.graph) return;
  const element = /** @type {HTMLElement | null} */ (document.querySelector(`.lg-node[data-node-id="${node.id}"]`));
  const height = parseFloat(element?.style.getPropertyValue("--node-height") ?? "") - LiteGraph.NODE_TITLE_HEIGHT;
  if (!element || Number.isNaN(height) || height === least.get(node)) return;
  least.set(node, height);
  const style = element.getAttribute("style") ?? "";
  element.style.setProperty("--node-height", "0px");
  const needed = element.offsetHeight - LiteGraph.NODE_TITLE_HEIGHT;
  element.setAttribute("style", style);
  pull(node, height, needed);
}
