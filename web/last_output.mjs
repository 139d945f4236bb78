// What a node gave when it last ran as it would run now: also under another id, as after converting it to a subgraph.
import { after, api } from "./comfy.mjs";
import { everyNode } from "./node.mjs";
import { pathsTo, same, signature } from "./would_run.mjs";

/**
 * @typedef {import("./node.mjs").GraphNode} GraphNode
 * @typedef {object} Card what shows the output of a node's run
 * @property {(output: any) => void} show null where nothing is known to be true
 * @property {() => void} look what the node takes is perhaps no more what it was
 * @typedef {{output?: any, failure?: string}} Ended
 */

/** @type {Promise<any[]> | null} */
let asked = null;

/** The server's last prompts, the newest first; nodes of one workflow ask once. */
function runs() {
  asked ??= api
    .fetchApi("/history?max_items=20")
    .then(async (answer) => Object.values(await answer.json()).reverse())
    .catch(() => []);
  return asked;
}

/**
 * What the last run of this node, and of all that leads into it, as they are now, ended in; if there is one.
 * @param {GraphNode} node
 * @returns {Promise<Ended>}
 */
async function lastRun(node) {
  const [first = {}, ...others] = await Promise.all(pathsTo(node).map(runAt));
  // A node of a subgraph that is there twice is one node, with one card.
  return others.every((other) => JSON.stringify(other) === JSON.stringify(first)) ? first : {};
}

/**
 * @param {GraphNode} node
 * @returns {Promise<any>} null if it gave none, or is not known to have run so
 */
export async function lastOutput(node) {
  return (await lastRun(node)).output ?? null;
}

/** @param {GraphNode} node */
export async function lastFailure(node) {
  return (await lastRun(node)).failure;
}

/**
 * @param {import("./would_run.mjs").Path} path
 * @returns {Promise<Ended>}
 */
async function runAt(path) {
  const kind = path.at(-1).comfyClass;
  for (const { prompt, outputs, status } of await runs()) {
    const error = status?.messages?.find((/** @type {any[]} */ [name]) => name === "execution_error")?.[1];
    for (const [id, ran] of Object.entries(prompt?.[2] ?? {})) {
      const failed = id === error?.node_id;
      if (ran.class_type !== kind || !(id in outputs || failed)) continue;
      if (await same(path, id, prompt[2])) return failed ? { failure: error.exception_message } : { output: outputs[id] };
    }
  }
  return {};
}

/** @type {WeakMap<object, Follower>} */
const followers = new WeakMap();

/**
 * @param {GraphNode} node
 * @returns {string} all that its result hangs on
 */
export function nowOf(node) {
  return JSON.stringify(pathsTo(node).map((path) => signature(path)));
}

/**
 * A node failed: of what its card shows, nothing is known to be true.
 * @param {GraphNode} node
 */
export function forget(node) {
  followers.get(node)?.failed();
}

class Follower {
  /**
   * @param {GraphNode} node
   * @param {Card} card
   */
  constructor(node, card) {
    this.node = node;
    this.card = card;
    this.queued = "";
    this.mixed = false; // what is queued are runs of more than one kind: whose output comes, nobody tells
    this.seen = "";
    this.turn = 0;
    this.empty = true;
  }

  /** @param {any} output or null */
  show(output) {
    this.empty = output === null;
    this.card.show(output);
  }

  /** All that the node's result hangs on. */
  now() {
    return nowOf(this.node);
  }

  /** @param {boolean} others whether more is queued than that */
  queue(others) {
    const now = this.now();
    this.mixed = others && (this.mixed || this.queued !== now);
    this.queued = now;
  }

  /** @param {any} output of what was queued, which need not be what would run now */
  executed(output) {
    this.turn++;
    this.seen = this.mixed ? "" : this.queued || this.now();
    this.show(output);
    this.lookAgain();
  }

  /** The run of what would run now failed. */
  failed() {
    this.turn++;
    this.show(null);
  }

  /** @param {boolean} [again] also if the same would run */
  async lookAgain(again = false) {
    const now = this.now();
    if (now === this.seen && !again) return;
    if (now !== this.seen) this.show(null);
    this.seen = now;
    const turn = ++this.turn;
    this.card.look();
    const output = await lastOutput(this.node);
    if (output && turn === this.turn) this.show(output);
  }
}

/**
 * Have a card show what its node gave when it last ran as it would run now.
 * @param {GraphNode} node
 * @param {Card} card
 */
export function followRuns(node, card) {
  const follower = new Follower(node, card);
  followers.set(node, follower);
  after(node, "onExecuted", (output) => follower.executed(output ?? null));
  for (const change of ["onConfigure", "onConnectionsChange"]) after(node, change, lookSoon);
  for (const widget of node.widgets ?? []) after(widget, "callback", lookSoon);
  lookSoon();
}

/** @returns {Follower[]} of the whole workflow */
function everyFollower() {
  const nodes = new Set([...everyNode()].map(([node]) => node));
  return [...nodes].flatMap((node) => followers.get(node) ?? []);
}

let soon = false;

/** Look at every card again, once what goes on now is done. */
export function lookSoon() {
  if (soon) return;
  soon = true;
  setTimeout(() => {
    soon = false;
    for (const follower of everyFollower()) void follower.lookAgain();
  });
}

/** Follow what the page and the server tell; once, when the page is set up. */
export function listenForRuns() {
  api.addEventListener("graphChanged", lookSoon);
  let busy = false;
  let remaining = 0;
  api.addEventListener("promptQueued", (/** @type {any} */ { detail }) => {
    busy = true;
    const others = remaining > (detail?.batchCount ?? 1);
    for (const follower of everyFollower()) follower.queue(others);
  });
  api.addEventListener("execution_start", () => {
    if (remaining > 1) return;
    for (const follower of everyFollower()) follower.mixed = false; // the last one that was queued
  });
  // Of the server's queue: a run's end is told before the server remembers it.
  api.addEventListener("status", (/** @type {any} */ { detail }) => {
    asked = null;
    remaining = detail?.exec_info?.queue_remaining ?? 0;
    if (!busy || remaining) return;
    busy = false;
    for (const follower of everyFollower()) if (follower.empty) void follower.lookAgain(true);
  });
  // A node whose result ComfyUI still has does not run, and says nothing: what it said before counts.
  api.addEventListener("execution_cached", () => {
    for (const follower of everyFollower()) void follower.lookAgain(true);
  });
}
