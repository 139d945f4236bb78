// What went wrong in a run, on the card of the node where it did: what to do, then why, until the next run begins. The
// page itself shows the beginning of the message, or nothing of it.
import { after, api } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { forget, lastFailure, nowOf, queueOf } from "./last_output.mjs";
import { everyNode, nodeOf } from "./node.mjs";
import { t } from "./words.mjs";

/**
 * @typedef {import("./node.mjs").GraphNode} GraphNode
 * @typedef {object} Failing
 * @property {HTMLElement} place where the error stands
 * @property {number} turn counts what was to be shown or hidden, and runs
 * @property {string} ran what failed; empty is not known
 * @property {boolean} changed whether something else would run now
 */

/** @type {WeakMap<object, Failing>} */
const failing = new WeakMap();

/** @type {Set<GraphNode>} */
const failed = new Set();

/**
 * @param {GraphNode} node
 * @param {HTMLElement} content of its card
 */
export function addFailure(node, content) {
  const place = el("div", "lyco-failure");
  place.role = "alert";
  place.hidden = true;
  content.before(place);
  /** @type {Failing} */
  const found = { place, turn: 0, ran: "", changed: false };
  failing.set(node, found);
  queueOf(node);
  // ComfyUI's own outline is missing inside subgraphs, and after the page was loaded again.
  const outline = () => (failed.has(node) && !found.changed ? OUTLINE : undefined);
  Object.assign(node.strokeStyles ?? {}, { lyco: outline }); // litegraph's own, which need not stay
  after(node, "onConfigure", () => queueMicrotask(() => restore(node)));
}

const OUTLINE = { color: "#e00", lineWidth: 3 };

/** @param {GraphNode} node */
async function restore(node) {
  const turn = failing.get(node)?.turn;
  const message = await lastFailure(node);
  if (message && turn === failing.get(node)?.turn) await show(node, message.trim(), nowOf(node));
}

/**
 * @param {GraphNode} node
 * @param {string} message
 * @param {string} ran what failed
 */
async function show(node, message, ran) {
  const found = failing.get(node);
  if (!found) return;
  const turn = ++found.turn;
  failed.add(node);
  found.ran = ran;
  forget(node);
  const parts = await inParts(node, message).catch(() => [el("div", "lyco-why", message)]); // the server may have gone
  if (turn !== found.turn) return; // the next run began meanwhile
  found.place.replaceChildren(...parts);
  found.place.hidden = false;
  mark(node);
}

/**
 * @param {GraphNode} node
 * @param {string} message
 */
async function inParts(node, message) {
  const [{ inWords }, { buttons }] = await Promise.all([import("./messages.mjs"), import("./remedies.mjs")]);
  const { todo, why, advice } = await inWords(message);
  const parts = todo ? [el("div", "lyco-todo", todo)] : [];
  parts.push(el("div", "lyco-remedies", ...buttons(node, advice)), el("div", "lyco-changed", t("changed")));
  return [...parts, el("div", "lyco-why", why)];
}

/** @param {GraphNode} node */
function hide(node) {
  const found = failing.get(node);
  if (!found) return;
  found.turn++;
  if (!failed.delete(node)) return;
  found.place.hidden = true;
  node.setDirtyCanvas(true, true);
}

/**
 * Red for as long as what failed is what would run.
 * @param {GraphNode} node
 */
function mark(node) {
  const found = /** @type {Failing} */ (failing.get(node));
  found.changed = found.ran !== "" && found.ran !== nowOf(node);
  found.place.classList.toggle("lyco-done", found.changed);
  node.setDirtyCanvas(true, true);
}

/** Follow the server's errors; once, when the page is set up. */
export function listenForFailures() {
  api.addEventListener("execution_start", () => {
    failed.forEach(hide);
    for (const [node] of everyNode()) hide(node); // those of which it is yet being asked too
  });
  api.addEventListener("execution_error", (/** @type {any} */ { detail }) => {
    const node = nodeOf(String(detail.node_id ?? ""));
    if (node) void show(node, String(detail.exception_message ?? "").trim(), queueOf(node).runs);
  });
  api.addEventListener("graphChanged", () => failed.forEach(mark));
}
