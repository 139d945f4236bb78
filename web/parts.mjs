// The two halves of a file's card: what it is, from its header, and what of it matched when the node ran.
import { api } from "./comfy.mjs";
import { copyButton, el, size } from "./dom.mjs";
import { stockCopy } from "./stock_copy.mjs";
import { t } from "./words.mjs";
import { wrong } from "./wrong.mjs";

/**
 * @typedef {object} About what `/lyco/inspect` answers
 * @property {number} bytes
 * @property {string} format
 * @property {string | null} architecture
 * @property {number} modules
 * @property {Record<string, number>} algorithms
 * @property {number[]} ranks
 * @property {number[]} alphas
 * @property {number} unrecognised
 * @property {string[]} left_out what counts for nothing, and why
 * @property {Blocks[]} blocks
 * @property {Record<string, string>} facts
 * @property {string[]} tags
 * @property {import("./stock_copy.mjs").StockCopy | null} copy for ComfyUI's own loaders, where they need one
 */

/**
 * @param {string} name of a file in models/loras
 * @returns {Promise<HTMLElement>}
 */
export async function about(name) {
  const query = `adapter=${encodeURIComponent(name)}`;
  try {
    const answer = await api.fetchApi(`/lyco/inspect?${query}`);
    const found = await answer.json();
    return answer.ok ? facts(name, found, api.apiURL(`/lyco/picture?${query}`)) : await wrong(found.error);
  } catch {
    return el("div", "lyco-error lyco-unanswered", t("unreachable")); // the node itself works without a card
  }
}

/**
 * @param {string} name
 * @param {About} found
 * @param {string} picture its address
 */
function facts(name, found, picture) {
  const { title, author, description, resolution, date, steps, epochs, trigger } = found.facts;
  const head = el("div", "lyco-head", el("b", "", Object.keys(found.algorithms).join(", ") || t("no_adapter")));
  for (const chip of [found.architecture ?? t("unknown_model"), found.format]) head.append(el("span", "lyco-chip", chip));
  const rows = [
    [t("rank"), found.modules ? found.ranks.join(", ") || t("full") : ""],
    [t("alpha"), found.alphas.map((alpha) => Number(alpha.toPrecision(4))).join(", ")],
    [t("modules"), found.modules ? String(found.modules) : ""],
    [t("size"), size(found.bytes)],
    [t("trigger"), trigger && toCopy(trigger)],
    [t("tags"), trigger ? "" : found.tags.join(", ")],
    [t("steps"), [steps, epochs && `${epochs} ${t("epochs")}`].filter(Boolean).join(", ")],
    [t("resolution"), resolution],
    [t("author"), author],
    [t("date"), date],
  ].filter(([, value]) => value);
  const list = el("dl", "", ...rows.flatMap(([key, value]) => [el("dt", "", key), el("dd", "", value)]));
  const words = el("div", "lyco-words", head);
  if (title && !name.includes(title)) words.append(el("div", "lyco-title", title));
  words.append(list);
  if (description) words.append(el("div", "lyco-description", description));
  const card = el("div", "lyco-about", words, preview(picture));
  const parts = [card, bars(found.blocks, false)];
  for (const line of found.left_out) parts.push(el("div", "lyco-left", t("set_aside", line)));
  if (found.unrecognised) parts.push(el("div", "lyco-left", t("unrecognised", found.unrecognised)));
  if (found.copy) parts.push(stockCopy(name, found.copy));
  return el("div", "lyco-file", ...parts);
}

/** @param {string} words */
function toCopy(words) {
  return el("span", "lyco-trigger", el("span", "", words), copyButton(words, t("copy"), t("copied")));
}

/** @param {string} address */
function preview(address) {
  const image = /** @type {HTMLImageElement} */ (el("img", "lyco-picture"));
  image.alt = "";
  image.onerror = () => image.remove(); // most files have none
  image.src = address;
  return image;
}

/**
 * @typedef {object} Match what a node's `lyco_match` output holds for each file
 * @property {string} file
 * @property {string | null} architecture
 * @property {number} matched
 * @property {number} modules
 * @property {number} stock
 * @property {Blocks[]} blocks
 * @property {{name: string, why: string, expected?: string, found?: string}[]} left_out
 * @property {number} left_out_count
 * @property {string} applied
 */

/**
 * @param {Match} found
 * @param {boolean} named whether to say which file it is
 */
export function match(found, named) {
  const whole = found.left_out_count === 0;
  const title = el("div", whole ? "lyco-matched" : "lyco-matched lyco-partly");
  title.append(t("matched", found.matched, found.modules), el("span", "lyco-chip", how(found.applied)));
  const parts = named ? [el("div", "lyco-title", found.file)] : [];
  parts.push(title, bars(found.blocks, true));
  if (found.stock) parts.push(el("div", "", t("stock", found.stock)));
  if (!whole) parts.push(leftOut(found));
  return el("div", "lyco-match", ...parts);
}

/** What the server says of how a file was applied, besides its strength. */
const HOW = {
  compared: "compared",
  merged: "merged",
  "nothing is applied": "nothing_applied",
  "while sampling": "while_sampling",
};

/** @param {string} applied */
function how(applied) {
  return applied.split(", ").map((part) => {
    const [, strength] = part.match(/^strength (\S+)$/) ?? [];
    const word = HOW[/** @type {keyof typeof HOW} */ (part)];
    return strength ? `${t("strength")} ${strength}` : word ? t(word) : part;
  }).join(", ");
}

/** @param {Match} found */
function leftOut(found) {
  const lines = found.left_out.map(({ name, why, expected = "", found: shape = "" }) =>
    el("li", "", el("code", "", name), ` ${t(why, expected, shape)}`),
  );
  const rest = found.left_out_count - lines.length;
  if (rest > 0) lines.push(el("li", "", t("more", rest)));
  return el("div", "lyco-left", t("left_out", found.left_out_count), el("ul", "", ...lines));
}

/**
 * @typedef {{name: string, cells: [number, number, number][]}} Blocks a kind, and (block, matched, modules) of it
 */

/**
 * @param {Blocks[]} blocks
 * @param {boolean} compared whether a model has been asked; else the cells only say that something is there
 */
function bars(blocks, compared) {
  const rows = blocks.map(({ name, cells }) => {
    const bar = el("div", "lyco-cells");
    for (const [number, matched, modules] of cells) {
      const state = !compared ? "there" : matched === modules ? "all" : matched ? "some" : "none";
      const cell = el("i", `lyco-${state}`);
      cell.title = t("cell", name, cells.length > 1 ? number : "", matched, modules);
      bar.append(cell);
    }
    const label = el("span", "lyco-name", name === "other" ? t("other") : name);
    label.title = name;
    return el("div", "lyco-bar", label, bar);
  });
  return el("div", "lyco-bars", ...rows);
}
