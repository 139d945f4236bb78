// What went wrong in a run, on the card of the node where it did: what to do, then why, until the next run begins. The
// page itself shows the beginning of the message, or nothing of it.
import { after, api } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { forget, lastFailure, nowOf } from "./last_output.mjs";
import { everyNode, nodeOf } from "./node.mjs";
import { t } from "./words.mjs";

/**
 * @typedef {import("./node.mjs").GraphNode} GraphNode
 * @typedef {object} Failing
 * @property {HTMLElement} place where the error stands
 * @property {number} turn counts what was to be shown or hidden
 * @property {string} queued what was last queued
 * @property {string} ran what failed
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
  const found = { place, turn: 0, queued: "", ran: "", changed: false };
  failing.set(node, found);
  // ComfyUI's own outline is missing inside subgraphs, and after the page was loaded again.
  const outline = () => (failed.has(node) && !found.changed ? OUTLINE : undefined);
  Object.assign(node.strokeStyles ?? {}, { lyco: outline }); // litegraph's own, which need not stay
  after(node, "onConfigure", () => queueMicrotask(() => restore(node)));
}

const OUTLINE = { color: "#e00", lineWidth: 3 };

/** @param {GraphNode} node */
async function restore(node) {
  const message = await lastFailure(node);
  if (message && !failed.has(node)) await show(node, message.trim(), nowOf(node));
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
  const [{ inWords }, { buttons }] = await Promise.all([import("./messages.mjs"), import("./remedies.mjs")]);
  const { todo, why, advice } = await inWords(message);
  if (turn !== found.turn) return; // the next run began meanwhile
  const parts = [el("div", "lyco-why", why)];
  if (todo) parts.unshift(el("div", "lyco-todo", todo));
  parts.splice(-1, 0, el("div", "lyco-remedies", ...buttons(node, advice)), el("div", "lyco-changed", t("changed")));
  found.place.replaceChildren(...parts);
  found.place.hidden = false;
  mark(node);
}

/** @param {GraphNode} node */
function hide(node) {
  const found = /** @type {Failing} */ (failing.get(node));
  found.turn++;
  found.place.hidden = true;
  failed.delete(node);
  node.setDirtyCanvas(true, true);
}

/**
 * Red for as long as what failed is what would run.
 * @param {GraphNode} node
 */
function mark(node) {
  const found = /** @type {Failing} */ (failing.get(node));
  found.changed = found.ran !== nowOf(node);
  found.place.classList.toggle("lyco-done", found.changed);
  node.setDirtyCanvas(true, true);
}

/** Follow the server's errors; once, when the page is set up. */
export function listenForFailures() {
  api.addEventListener("execution_start", () => failed.forEach(hide));
  api.addEventListener("execution_error", (/** @type {any} */ { detail }) => {
    const node = nodeOf(String(detail.node_id ?? ""));
    if (node) void show(node, String(detail.exception_message ?? "").trim(), failing.get(node)?.queued || nowOf(node));
  });
  api.addEventListener("graphChanged", () => failed.forEach(mark));
  api.addEventListener("promptQueued", () => {
    for (const [node] of everyNode()) {
      const found = failing.get(node);
      if (found) found.queued = nowOf(node); // a training goes on while its node is changed
    }
  });
}
