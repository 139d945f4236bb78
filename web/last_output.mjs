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
      if (same(path, id, prompt[2])) return failed ? { failure: error.exception_message } : { output: outputs[id] };
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

/** What of a node is in the server's queue, as far as the page sent it. */
class Queue {
  /** @param {GraphNode} node */
  constructor(node) {
    this.node = node;
    this.last = "";
    this.mixed = false; // of several kinds: which of them runs, nobody tells, since one may pass another or be taken out
  }

  /** @param {boolean} others whether more is queued than what the node is now */
  add(others) {
    const now = nowOf(this.node);
    this.mixed = others && (this.mixed || this.last !== now);
    this.last = now;
  }

  /** What runs, or has just run; empty where the page cannot tell. */
  get runs() {
    return this.mixed ? "" : this.last;
  }
}

/** @type {WeakMap<object, Queue>} */
const queues = new WeakMap();

/** @param {GraphNode} node that is to be told what it ran as */
export function queueOf(node) {
  const queue = queues.get(node) ?? new Queue(node);
  queues.set(node, queue);
  return queue;
}

class Follower {
  /**
   * @param {GraphNode} node
   * @param {Card} card
   */
  constructor(node, card) {
    this.node = node;
    this.card = card;
    this.queue = queueOf(node);
    this.seen = "";
    this.turn = 0;
    this.empty = true;
  }

  /** @param {any} output or null */
  show(output) {
    this.empty = output === null;
    this.card.show(output);
  }

  /** @param {any} output of what was queued, which need not be what would run now */
  executed(output) {
    this.turn++;
    this.seen = this.queue.runs;
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
    const now = nowOf(this.node);
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

/**
 * @template T
 * @param {WeakMap<object, T>} kept
 * @returns {T[]} of the nodes of the whole workflow
 */
function every(kept) {
  const nodes = new Set([...everyNode()].map(([node]) => node));
  return [...nodes].flatMap((node) => kept.get(node) ?? []);
}

let soon = false;

/** Look at every card again, once what goes on now is done. */
export function lookSoon() {
  if (soon) return;
  soon = true;
  setTimeout(() => {
    soon = false;
    for (const follower of every(followers)) void follower.lookAgain();
  });
}

/** Follow what the page and the server tell; once, when the page is set up. */
export function listenForRuns() {
  api.addEventListener("graphChanged", lookSoon);
  let remaining = 0;
  let sending = false;
  const add = (/** @type {boolean} */ others) => every(queues).forEach((queue) => queue.add(others));
  // What is sent may change meanwhile: a seed after each of a batch, or what a person does between two clicks.
  api.addEventListener("promptQueueing", () => {
    add(sending || remaining > 0);
    sending = true;
  });
  api.addEventListener("promptQueued", () => {
    add(true);
    sending = false;
  });
  // Of the server's queue: a run's end is told before the server remembers it.
  api.addEventListener("status", (/** @type {any} */ { detail }) => {
    asked = null;
    const before = remaining;
    remaining = detail?.exec_info?.queue_remaining ?? 0;
    if (remaining || !before) return;
    for (const follower of every(followers)) if (follower.empty) void follower.lookAgain(true);
  });
  // A node whose result ComfyUI still has does not run, and says nothing: what it said before counts.
  api.addEventListener("execution_cached", () => {
    for (const follower of every(followers)) void follower.lookAgain(true);
  });
}
