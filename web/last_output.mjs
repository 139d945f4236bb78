// What a node gave when it last ran as it would run now: also under another id, as after converting it to a subgraph.
import { api } from "./comfy.mjs";
import { beforeFailure } from "./failure.mjs";
import { after, everyNode } from "./node.mjs";
import { pathsTo, same, signature } from "./would_run.mjs";

/**
 * @typedef {import("./node.mjs").GraphNode} GraphNode
 * @typedef {object} Card what shows the output of a node's run
 * @property {(output: any) => void} show null where nothing is known to be true
 * @property {() => void} look what the node takes is perhaps no more what it was
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
 * The output of the last run of this node, and of all that leads into it, as they are now; if there is one.
 * @param {GraphNode} node
 * @returns {Promise<any>}
 */
export async function lastOutput(node) {
  const [first = null, ...others] = await Promise.all(pathsTo(node).map(outputAt));
  // A node of a subgraph that is there twice is one node, with one card.
  return others.every((output) => JSON.stringify(output) === JSON.stringify(first)) ? first : null;
}

/** @param {import("./would_run.mjs").Path} path */
async function outputAt(path) {
  const kind = path.at(-1).comfyClass;
  for (const { prompt, outputs, status } of await runs()) {
    const failed = status?.messages?.find((/** @type {any[]} */ [name]) => name === "execution_error")?.[1].node_id;
    for (const [id, ran] of Object.entries(prompt?.[2] ?? {})) {
      if (ran.class_type !== kind || !(id in outputs || id === failed)) continue;
      if (await same(path, id, prompt[2])) return id === failed ? null : outputs[id];
    }
  }
  return null;
}

/** @type {WeakMap<object, Follower>} */
const followers = new WeakMap();

class Follower {
  /**
   * @param {GraphNode} node
   * @param {Card} card
   */
  constructor(node, card) {
    this.node = node;
    this.card = card;
    this.queued = "";
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
    return JSON.stringify(pathsTo(this.node).map((path) => signature(path)));
  }

  /** @param {any} output of what was queued, which need not be what would run now */
  executed(output) {
    this.turn++;
    this.seen = this.queued || this.now();
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
  beforeFailure(node, () => follower.failed());
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
  api.addEventListener("promptQueued", () => {
    busy = true;
    for (const follower of everyFollower()) follower.queued = follower.now();
  });
  // Of the server's queue: a run's end is told before the server remembers it.
  api.addEventListener("status", (/** @type {any} */ { detail }) => {
    asked = null;
    if (!busy || detail?.exec_info?.queue_remaining) return;
    busy = false;
    for (const follower of everyFollower()) if (follower.empty) void follower.lookAgain(true);
  });
  // A node whose result ComfyUI still has does not run, and says nothing: what it said before counts.
  api.addEventListener("execution_cached", () => {
    for (const follower of everyFollower()) void follower.lookAgain(true);
  });
}
