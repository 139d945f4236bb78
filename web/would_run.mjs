// What the page would send of a node if it ran now: its values, and the nodes that lead into it, as ComfyUI finds them
// through subgraphs, reroutes and bypassed nodes.
import { app } from "./comfy.mjs";
import { everyNode } from "./node.mjs";

/**
 * @typedef {import("./node.mjs").GraphNode} GraphNode
 * @typedef {any[]} Path a node, after the nodes of the subgraphs that it lies in; litegraph's types lack much of them
 * @typedef {{value?: unknown, from?: undefined} | {value?: undefined, from: Path, slot: number}} Source a value, or another node's output
 */

const [MUTED, BYPASSED] = [2, 4];
export const SUBGRAPH_INPUT = "-10";
const PRIMITIVE = /^Primitive(Int|Float|Boolean|String|StringMultiline)$/; // ComfyUI's nodes that give out their value
const FARTHEST = 200; // a workflow may hold a circle

/**
 * Where a node stands; a subgraph that is there twice has each of its nodes twice.
 * @param {GraphNode} node
 * @returns {Path[]}
 */
export function pathsTo(node) {
  if (node.graph && node.graph === (app.rootGraph ?? app.graph)) return [[node]]; // most are, and it is asked often
  return [...everyNode()].filter(([other]) => other === node).map(([, , path]) => path);
}

/**
 * @param {GraphNode} node
 * @param {string} name of an input
 */
export function isLinked(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  return slot >= 0 && node.graph !== null && node.isInputConnected(slot);
}

/**
 * @param {GraphNode} node
 * @param {string} name of an input
 * @returns {unknown} the value that it would run with; undefined if the page cannot know it, as another node's output
 */
export function known(node, name) {
  const paths = pathsTo(node);
  const [first, ...others] = (paths.length ? paths : [[node]]).map((path) => {
    const source = sourceOf(path, name);
    const constant = source?.from && PRIMITIVE.test(source.from.at(-1).comfyClass);
    return constant ? sourceOf(source.from, "value")?.value : source?.value;
  });
  return others.every((value) => value === first) ? first : undefined;
}

/**
 * @param {any} node
 * @param {number} slot
 */
export function linkInto(node, slot) {
  if (!node.graph) return null; // it is being made
  // A subgraph's own answer is about its outputs.
  return node.subgraph ? LiteGraph.LGraphNode.prototype.getInputLink.call(node, slot) : node.getInputLink(slot);
}

/**
 * @param {Path} path
 * @param {string} name of an input, or of a widget without one
 * @returns {Source | undefined} what it gets; undefined is nothing, or what the page cannot know
 */
export function sourceOf(path, name) {
  const node = path.at(-1);
  const slot = node.inputs.findIndex((/** @type {{name: string}} */ input) => input.name === name);
  if (slot >= 0) return ofInput(path, slot, 0);
  return ofWidget(node.widgets?.find((/** @type {{name: string}} */ widget) => widget.name === name));
}

/** @param {any} widget @returns {Source | undefined} */
function ofWidget(widget) {
  return widget && { value: widget.value };
}

/**
 * @param {Path} path
 * @param {number} slot
 * @param {number} far how many links away
 * @returns {Source | undefined}
 */
function ofInput(path, slot, far) {
  const [outside, node] = [path.slice(0, -1), path.at(-1)];
  const link = far < FARTHEST && linkInto(node, slot);
  if (!link) return link === false ? undefined : ofWidget(node.getWidgetFromSlot?.(node.inputs[slot]));
  if (String(link.origin_id) === SUBGRAPH_INPUT) return outside.length ? ofInput(outside, link.origin_slot, far + 1) : undefined;
  const origin = node.graph.getNodeById(link.origin_id);
  return origin && ofOutput([...outside, origin], link.origin_slot, node.inputs[slot].type, far + 1);
}

/**
 * @param {Path} path
 * @param {number} slot
 * @param {unknown} type of the input that it leads to
 * @param {number} far
 * @returns {Source | undefined}
 */
function ofOutput(path, slot, type, far) {
  const [outside, node] = [path.slice(0, -1), path.at(-1)];
  if (node.mode === MUTED) return undefined;
  if (node.mode === BYPASSED) {
    const through = bypass(node, slot, type);
    return through < 0 ? undefined : ofInput(path, through, far + 1);
  }
  if (node.subgraph) {
    const inner = node.resolveSubgraphOutputLink(slot);
    if (inner?.outputNode) return ofOutput([...path, inner.outputNode], inner.link.origin_slot, type, far + 1);
    return inner?.link ? ofInput(path, inner.link.origin_slot, far + 1) : undefined;
  }
  if (!node.isVirtualNode) return { from: path, slot };
  if (node.type === "PrimitiveNode") return ofWidget(node.widgets?.[0]);
  const elsewhere = node.resolveVirtualOutput?.(slot); // as the Get of other packs
  if (elsewhere) return ofOutput([...outside, elsewhere.node], elsewhere.slot, type, far + 1);
  const link = node.getInputLink(slot);
  const target = link && node.graph.getNodeById(link.target_id);
  return target ? ofInput([...outside, target], link.target_slot, far + 1) : undefined;
}

/**
 * Which input a bypassed node gives on: the one beside the output if that fits, else the first that does.
 * @param {any} node
 * @param {number} slot
 * @param {any} type
 * @returns {number}
 */
function bypass(node, slot, type) {
  const fits = (/** @type {any} */ input) =>
    LiteGraph.isValidConnection(input.type, node.outputs[slot].type) && LiteGraph.isValidConnection(input.type, type);
  if (node.inputs[slot] && fits(node.inputs[slot])) return slot;
  const exact = node.inputs.findIndex((/** @type {any} */ input) => input.type === type);
  return exact >= 0 ? exact : node.inputs.findIndex(fits);
}

/**
 * All that a node's result hangs on, as a text that changes with it.
 * @param {Path} path
 * @param {Map<any, number>} [seen] nodes that it has told already
 * @returns {unknown}
 */
export function signature(path, seen = new Map()) {
  const node = path.at(-1);
  if (seen.has(node)) return seen.get(node);
  seen.set(node, seen.size);
  const told = (/** @type {Source | undefined} */ source) =>
    source?.from ? [signature(source.from, seen), source.slot] : { value: source?.value };
  const inputs = node.inputs.map((/** @type {any} */ input, /** @type {number} */ slot) => [
    input.name,
    told(ofInput(path, slot, 0)),
  ]);
  const values = (node.widgets ?? [])
    .filter((/** @type {any} */ { serialize }) => serialize !== false)
    .map((/** @type {any} */ { name, value }) => [name, value]);
  return [node.comfyClass, inputs, values];
}

/**
 * Whether a node, and all that leads into it, would run as it did: another model gives another match.
 * @param {Path} path
 * @param {string} id what it was then called
 * @param {Record<string, {class_type: string, inputs: Record<string, any>}>} prompt
 * @param {Map<any, string>} [seen]
 * @returns {boolean}
 */
export function same(path, id, prompt, seen = new Map()) {
  const [node, ran] = [path.at(-1), prompt[id]];
  if (seen.has(node)) return seen.get(node) === id;
  seen.set(node, id);
  if (ran?.class_type !== node.comfyClass) return false;
  for (const [name, value] of Object.entries(ran.inputs)) {
    const source = sourceOf(path, name);
    if (!source) return false;
    if (source.from) {
      if (!Array.isArray(value) || source.slot !== value[1]) return false;
      if (!same(source.from, String(value[0]), prompt, seen)) return false;
    } else if (Array.isArray(value) || !equal(source.value, value)) return false;
  }
  return node.inputs.every(
    (/** @type {any} */ { name }, /** @type {number} */ slot) => name in ran.inputs || !ofInput(path, slot, 0)?.from,
  );
}

/**
 * @param {unknown} one a widget's value. What a widget's `serializeValue` makes of it is not asked: that may take a picture.
 * @param {any} other as it was sent
 */
function equal(one, other) {
  return JSON.stringify(one) === JSON.stringify(other?.__value__ ?? other);
}
