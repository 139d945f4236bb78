// How a training ended: what was saved, and the offer to go on from it.
import { app } from "./comfy.mjs";
import { button, copyButton, el } from "./dom.mjs";
import { record, setValue, widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";
import { SUBGRAPH_INPUT, isLinked, known, linkInto, pathsTo } from "./would_run.mjs";

/** The input that goes on from a state, and those that say how far: what a training that goes on may have changed. */
const RESUME = "resume";
export const FURTHER = new Set([RESUME, "max_train_steps", "max_train_epochs"]);

/**
 * @typedef {object} Saved the last files; `folder` only where that is not output/loras
 * @property {number} step
 * @property {string} adapter
 * @property {string | null} state
 * @property {string | null} folder
 *
 * @typedef {object} End
 * @property {"finished" | "stopped" | "failed"} end
 * @property {number} total
 * @property {number} steps_per_epoch
 * @property {Saved | null} saved
 */

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {End} news
 * @param {number} step the last one
 */
export function ending(node, { end, saved, ...training }, step) {
  const block = el("div", `lyco-end lyco-${end}`, el("div", "lyco-title", t(end, step, training.total)));
  if (!saved) block.append(el("div", "", t("nothing_saved")));
  else block.append(files(saved, step), ...goingOn(node, training, saved));
  return block;
}

/**
 * @param {Saved} saved
 * @param {number} step
 */
function files({ adapter, state, folder, ...saved }, step) {
  const list = el("dl");
  for (const [name, text] of Object.entries({ file: adapter, state, folder })) {
    if (!text) continue;
    const copied = copyButton(text, text, t("copied"));
    copied.title = t("copy");
    list.append(el("dt", "", t(name)), el("dd", "", copied));
  }
  if (saved.step !== step) list.append(el("dt", "", t("saved_at")), el("dd", "", String(saved.step)));
  return list;
}

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {{total: number, steps_per_epoch: number}} training
 * @param {Saved} saved
 */
function goingOn(node, training, { state, folder, step }) {
  if (!state || folder) return [];
  const more = [...furtherFirst(node, training, step)];
  if (known(node, RESUME) === state) return [el("div", "", t("resume_set")), ...more];
  const chosen = chooser(pathsTo(node)[0] ?? [node], RESUME);
  if (!chosen) return [el("div", "", t("resume_linked", state)), ...more];
  const offer = button("lyco-go-on", t("go_on", step), "", () => {
    setValue(...chosen, state);
    record();
    void app.refreshComboInNodes(); // the state is newer than the lists of files
  });
  return [offer, ...more];
}

/**
 * Where a person chooses the value of an input: on the node, or on a subgraph around it.
 * @param {import("./would_run.mjs").Path} path
 * @param {string} name
 * @returns {[import("./node.mjs").GraphNode, string] | null} null where another node gives it
 */
function chooser(path, name) {
  const [outside, node] = [path.slice(0, -1), path.at(-1)];
  if (!isLinked(node, name)) return widgetOf(node, name) ? [node, name] : null;
  const link = linkInto(node, node.inputs.findIndex((/** @type {{name: string}} */ input) => input.name === name));
  if (String(link?.origin_id) !== SUBGRAPH_INPUT || !outside.length) return null;
  return chooser(outside, outside.at(-1).inputs[link.origin_slot].name);
}

/**
 * What must grow before there is anything left to do.
 * @param {import("./node.mjs").GraphNode} node
 * @param {{steps_per_epoch: number}} training
 * @param {number} step
 */
function* furtherFirst(node, { steps_per_epoch }, step) {
  const value = (/** @type {string} */ name) => Number(known(node, name) ?? NaN);
  const [steps, epochs] = [value("max_train_steps"), value("max_train_epochs")];
  if (epochs > 0) {
    if (epochs * steps_per_epoch <= step) yield el("div", "", t("raise", "max_train_epochs", Math.floor(step / steps_per_epoch)));
  } else if (steps <= step) yield el("div", "", t("raise", "max_train_steps", step));
}

/**
 * @param {import("./node.mjs").GraphNode} node
 * @returns {Record<string, unknown>} what a run would take for its inputs, of those that no node gives
 */
export function values(node) {
  const found = (node.widgets ?? []).map(({ name }) => [name, known(node, name)]);
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {Record<string, unknown>} ran the inputs that the training had
 * @returns {string[]} what the person calls those that are other ones by now
 */
export function changed(node, ran) {
  const now = values(node);
  return (node.widgets ?? [])
    .filter(({ name }) => name in now && name in ran && !FURTHER.has(name) && now[name] !== ran[name])
    .map(({ name, label }) => label ?? name);
}
