// The card of nodes that take an adapter: what the file is as soon as it is chosen, and after a run what matched.
import { api } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { addFailure } from "./failure.mjs";
import { NONE, addCard, after, everyNode, lastOutput, nodeOf } from "./node.mjs";
import { about, match } from "./parts.mjs";
import { t } from "./words.mjs";

/** @type {WeakMap<object, () => Promise<void>>} */
const restorers = new WeakMap();

/** @type {WeakMap<object, () => Promise<void>>} */
const refreshers = new WeakMap();

/** The lists of files were read again, and so are the files. */
export function refreshCards() {
  for (const [node] of everyNode()) void refreshers.get(node)?.();
}

/** A node whose result ComfyUI still has does not run, and says nothing: what it said before counts. */
export function listenForCached() {
  api.addEventListener("execution_cached", ({ detail }) => {
    for (const id of detail.nodes) void restorers.get(nodeOf(String(id)) ?? {})?.();
  });
}

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {string[]} inputs names of the widgets that hold adapters
 */
export function addFileCard(node, inputs) {
  const top = el("div");
  const bottom = el("div");
  const card = addCard(node);
  card.append(top, bottom);
  let shown = "";
  let asked = 0;

  const linked = (/** @type {string} */ name) =>
    node.inputs?.some((input) => input.name === name && input.link != null) ?? false;
  const widgets = () => (node.widgets ?? []).filter((widget) => inputs.includes(widget.name));
  // What a link brings is known once it ran.
  const chosen = () =>
    widgets()
      .filter(({ name }) => !linked(name))
      .map((widget) => String(widget.value ?? ""))
      .filter((name) => name && name !== NONE);

  /** @param {boolean} [again] also where the same files are chosen: they may have been replaced */
  async function refresh(again = false) {
    const names = chosen();
    const key = JSON.stringify(names);
    if (key === shown && !again) return;
    if (key !== shown) clear();
    shown = key;
    const turn = ++asked;
    const cards = await Promise.all(names.map((name) => about(name)));
    if (turn !== asked) return; // asked again meanwhile
    if (names.length > 1) cards.forEach((card, index) => card.prepend(el("div", "lyco-title", names[index])));
    top.replaceChildren(...cards);
  }

  function clear() {
    bottom.replaceChildren();
    card.classList.remove("lyco-ran");
  }

  /** Show what the last run gave, if that was with the values that the node has now. */
  async function restore() {
    const output = bottom.hasChildNodes() ? null : await lastOutput(node);
    if (output && !bottom.hasChildNodes()) executed(output);
  }

  /** @param {{lyco_match?: import("./parts.mjs").Match[], text?: string[]}} output */
  function executed(output) {
    const matches = output.lyco_match ?? [];
    card.classList.toggle("lyco-ran", matches.length > 0);
    const named = matches.length > 1 || inputs.some(linked);
    bottom.replaceChildren(...matches.map((found) => match(found, named)));
    for (const text of output.text ?? []) bottom.append(report(text, matches.length === 0));
  }

  for (const widget of widgets()) after(widget, "callback", () => void refresh(true));
  after(node, "onConnectionsChange", () => queueMicrotask(() => void refresh()));
  after(node, "onConfigure", () => {
    queueMicrotask(async () => {
      await refresh();
      await restore();
    });
  });
  after(node, "onExecuted", executed);
  addFailure(node, card, clear);
  restorers.set(node, restore);
  refreshers.set(node, () => refresh(true));
  queueMicrotask(() => void refresh());
}

/**
 * @param {string} text
 * @param {boolean} open
 */
function report(text, open) {
  const details = /** @type {HTMLDetailsElement} */ (el("details", "lyco-report", el("summary", "", t("report"))));
  details.append(el("pre", "", text));
  details.open = open;
  return details;
}
