// What a node last gave out, for pages that were loaded afterwards: ComfyUI keeps it, with the prompt that it was for.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

/** @type {Promise<Record<string, any>> | null} */
let asked = null;

/** The server's last prompts; nodes of one workflow ask once. */
function history() {
  asked ??= api.fetchApi("/history?max_items=20").then((answer) => answer.json());
  setTimeout(() => (asked = null), 1000);
  return asked;
}

/**
 * The output of the last run of this very node with the values that it has now, if there is one.
 * @param {import("./widget.js").GraphNode} node
 * @returns {Promise<any>}
 */
export async function lastOutput(node) {
  const id = executionId(node);
  if (id === null) return null;
  const entries = Object.values(await history().catch(() => ({}))).reverse();
  for (const { prompt, outputs } of entries) {
    if (outputs?.[id] && same(id, prompt?.[2] ?? {}, new Set())) return outputs[id];
  }
  return null;
}

/**
 * Whether a node, and all that leads into it, is what ran: another model gives another match.
 * @param {string} id
 * @param {Record<string, {class_type: string, inputs: Record<string, any>}>} prompt
 * @param {Set<string>} seen
 * @returns {boolean}
 */
function same(id, prompt, seen) {
  if (seen.has(id)) return true;
  seen.add(id);
  const [node, ran] = [nodeOf(id), prompt[id]];
  if (!node || ran?.class_type !== node.comfyClass || !sameValues(node, ran.inputs)) return false;
  return Object.values(ran.inputs)
    .filter(Array.isArray)
    .every(([from]) => same(String(from), prompt, seen));
}

/**
 * @param {import("./widget.js").GraphNode} node
 * @param {Record<string, unknown>} inputs
 */
function sameValues(node, inputs) {
  const values = (node.widgets ?? []).filter(({ name }) => name in inputs && !Array.isArray(inputs[name]));
  return values.every(({ name, value }) => inputs[name] === value);
}

/**
 * What the server calls the node: its id, after those of the subgraphs that it lies in ("5:12").
 * @param {import("./widget.js").GraphNode} node
 * @param {any} [graph]
 * @returns {string | null}
 */
export function executionId(node, graph = app.rootGraph ?? app.graph) {
  for (const other of graph?.nodes ?? []) {
    if (other === node) return String(other.id);
    const inner = other.subgraph ? executionId(node, other.subgraph) : null;
    if (inner !== null) return `${other.id}:${inner}`;
  }
  return null;
}

/**
 * @param {string} id as the server calls the node
 * @returns {import("./widget.js").GraphNode | null}
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
