// What the frontend does not give: a card as a node's last widget in both renderers, and which node is which.
import { app } from "./comfy.mjs";
import { el } from "./dom.mjs";

/**
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyExtension} Extension
 * @typedef {import("@comfyorg/comfyui-frontend-types").DOMWidgetOptions<string>} CardOptions
 * @typedef {object} Added what the frontend adds to litegraph's nodes; its published types lack it
 * @property {boolean} [hideOutputImages]
 * @property {(name: string, type: string, root: HTMLElement, options: CardOptions) => {serialize?: boolean}} addDOMWidget
 * @typedef {Parameters<NonNullable<Extension["nodeCreated"]>>[0] & Added} GraphNode
 */

/** What a list of files offers for no file: `NONE` in nodes/host/files.py. */
export const NONE = "none";

const WIDTH = 320;
const LOW = 60;
const MARGIN = 4;
let cards = 0;

/**
 * @param {GraphNode} node
 * @returns {HTMLElement} what the card's content goes into
 */
export function addCard(node) {
  const inner = el("div");
  const content = el("div", "lyco-card", inner);
  const root = el("div", "lyco-root", content);
  let height = 2 * MARGIN;
  // Of a node and a name that come again, as after an undo, 1.58's Vue nodes go on showing the element from before.
  const widget = node.addDOMWidget(`lyco_card_${++cards}`, "LYCO_CARD", root, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => height,
    getMaxHeight: () => height,
  });
  widget.serialize = false; // the option keeps it out of the prompt, this out of the saved workflow
  new ResizeObserver(() => {
    if (!content.isConnected || !content.getClientRects().length) return; // ComfyUI hides what is off screen
    const now = Math.ceil(content.offsetHeight) + 2 * MARGIN;
    if (Math.abs(now - height) < 2) return;
    const before = node.computeSize()[1];
    height = now;
    if (!LiteGraph.vueNodesMode) fit(node, before); // Vue's nodes grow by themselves
  }).observe(content);
  after(node, "onConfigure", (/** @type {{size?: ArrayLike<number>}} */ { size }) => {
    if (size) saved.set(node, [size[0], size[1]]); // an object with 0 and 1 in some files
  });
  // Vue's nodes grow to what is in them, while litegraph makes room for the advanced inputs too, which Vue hides.
  node.setSize([Math.max(node.size[0], WIDTH), LiteGraph.vueNodesMode ? LOW : node.computeSize()[1]]);
  return inner;
}

/** @type {WeakMap<object, ArrayLike<number>>} */
const saved = new WeakMap();

/**
 * Loading a workflow makes every node as high as all of its inputs. In Vue's nodes the size that was saved counts.
 * @param {object} node
 */
export function restoreSize(node) {
  const size = saved.get(node);
  if (size && LiteGraph.vueNodesMode) /** @type {GraphNode} */ (node).setSize([size[0], size[1]]);
}

/**
 * Make the node as high as its content; one that somebody has made higher stays so.
 * @param {GraphNode} node
 * @param {number} before how high it had to be until now
 */
function fit(node, before) {
  const needed = node.computeSize()[1];
  const stretched = node.size[1] > before + 4;
  node.setSize([Math.max(node.size[0], WIDTH), stretched ? Math.max(node.size[1], needed) : needed]);
  node.setDirtyCanvas(true, true);
}

/**
 * The same for rows that were shown or hidden. Vue's nodes grow by themselves, but never below the size that was saved.
 * @param {GraphNode} node
 * @param {number} before
 */
export function fitRows(node, before) {
  const change = node.computeSize()[1] - before;
  if (!LiteGraph.vueNodesMode && change) fit(node, before);
  if (LiteGraph.vueNodesMode && change < 0) node.setSize([node.size[0], LOW]);
}

/**
 * Call `added` after what is there.
 * @param {Record<string, any>} object
 * @param {string} name of a method
 * @param {(...values: any[]) => void} added
 */
export function after(object, name, added) {
  const existing = object[name];
  object[name] = function (/** @type {any[]} */ ...values) {
    const result = existing?.apply(this, values);
    added(...values);
    return result;
  };
}

/**
 * Every node of the workflow, what the server calls it: its id, after those of the subgraphs that it lies in ("5:12"), and
 * these nodes themselves.
 * @param {any} [graph]
 * @param {any[]} [outside] the subgraphs' nodes
 * @returns {Generator<[GraphNode, string, any[]]>}
 */
export function* everyNode(graph = app.rootGraph ?? app.graph, outside = []) {
  for (const node of graph?.nodes ?? []) {
    const path = [...outside, node];
    yield [node, path.map(({ id }) => id).join(":"), path];
    if (node.subgraph) yield* everyNode(node.subgraph, path);
  }
}

/**
 * @param {GraphNode} node
 * @returns {string | null} what the server calls it
 */
export function executionId(node) {
  for (const [other, id] of everyNode()) if (other === node) return id;
  return null;
}

/**
 * @param {string} id as the server calls the node
 * @returns {GraphNode | null}
 */
export function nodeOf(id) {
  /** @type {any} */
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of id.split(":")) {
    node = graph?.getNodeById(Number(part)) ?? null;
    graph = node?.subgraph;
  }
  return node;
}
