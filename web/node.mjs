// What the frontend does not give: a card as a node's last widget in both renderers, and which node is which.
import { app } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { addFold } from "./fold.mjs";
import { fit, keepSize, turn } from "./size.mjs";

/**
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyExtension} Extension
 * @typedef {import("@comfyorg/comfyui-frontend-types").DOMWidgetOptions<string> & {hideInPanel?: boolean}} CardOptions
 * @typedef {object} Added what the frontend adds to litegraph's nodes; its published types lack it
 * @property {boolean} [hideOutputImages]
 * @property {(name: string, type: string, root: HTMLElement, options: CardOptions) => {serialize?: boolean}} addDOMWidget
 * @typedef {Parameters<NonNullable<Extension["nodeCreated"]>>[0] & Added} GraphNode
 */

/** What a list of files offers for no file: `NONE` in nodes/host/files.py. */
export const NONE = "none";

const MARGIN = 4;
let cards = 0;

/**
 * @param {GraphNode} node
 * @returns {HTMLElement} what the card's content goes into
 */
export function addCard(node) {
  addFold(node);
  const inner = el("div");
  const content = el("div", "lyco-card", inner);
  const root = el("div", "lyco-root", content);
  // A press on a control moves no node.
  root.addEventListener("pointerdown", (event) => {
    if (/** @type {HTMLElement} */ (event.target).closest("button, input")) event.stopPropagation();
  });
  let height = 2 * MARGIN;
  // Of a node and a name that come again, as after an undo, 1.58's Vue nodes go on showing the element from before.
  const widget = node.addDOMWidget(`lyco_card_${++cards}`, "LYCO_CARD", root, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true, // the side panel lists parameters, and would show an empty one
    margin: MARGIN,
    getMinHeight: () => height,
    getMaxHeight: () => height,
  });
  widget.serialize = false; // the option keeps it out of the prompt, this out of the saved workflow
  new ResizeObserver(() => {
    if (!content.isConnected || !content.getClientRects().length) return; // ComfyUI hides what is off screen
    const now = Math.ceil(content.offsetHeight) + 2 * MARGIN;
    if (Math.abs(now - height) < 2) return;
    height = now;
    fit(node);
  }).observe(content);
  keepSize(node);
  return inner;
}

/** A renderer that is chosen draws the nodes that are there. */
export function listenForRenderer() {
  app.ui.settings?.addEventListener?.("Comfy.VueNodes.Enabled.change", (/** @type {any} */ { detail }) => {
    for (const [node] of everyNode()) turn(node, detail.value);
  });
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
