// How a training ended: what was saved, and the offer to go on from it.
import { el } from "./dom.mjs";
import { deciding, setValue } from "./node.mjs";
import { copyable } from "./parts.mjs";
import { t } from "./words.mjs";

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
  const list = el("dl", "", el("dt", "", t("file")), el("dd", "", copyable(adapter)));
  if (state) list.append(el("dt", "", t("state")), el("dd", "", copyable(state)));
  if (folder) list.append(el("dt", "", t("folder")), el("dd", "", copyable(folder)));
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
  if (deciding(node, RESUME)?.value === state) return [el("div", "", t("resume_set")), ...more];
  const button = el("button", "lyco-button", t("go_on", step));
  button.addEventListener("click", async () => {
    if (!(await setValue(node, RESUME, state))) button.replaceWith(t("resume_linked", state));
  });
  return [button, ...more];
}

/**
 * What must grow before there is anything left to do.
 * @param {import("./node.mjs").GraphNode} node
 * @param {{steps_per_epoch: number}} training
 * @param {number} step
 */
function* furtherFirst(node, { steps_per_epoch }, step) {
  const value = (/** @type {string} */ name) => Number(deciding(node, name)?.value ?? NaN);
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
  const deciders = (node.widgets ?? []).map(({ name }) => /** @type {const} */ ([name, deciding(node, name)]));
  return Object.fromEntries(deciders.filter(([, widget]) => widget).map(([name, widget]) => [name, widget?.value]));
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
