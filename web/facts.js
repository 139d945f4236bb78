// What a file is, from its header: the upper part of a card.
import { api } from "../../scripts/api.js";
import { bars } from "./bars.js";
import { el, size } from "./dom.js";
import { t } from "./words.js";

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
 * @property {import("./bars.js").Blocks[]} blocks
 * @property {Record<string, string>} facts
 * @property {string[]} tags
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
    return answer.ok ? facts(name, found, api.apiURL(`/lyco/picture?${query}`)) : el("div", "lyco-error", found.error);
  } catch {
    return el("div", "lyco-error", t("unreachable")); // the node itself works without a card
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
    [t("trigger"), trigger],
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
  if (found.unrecognised) parts.push(el("div", "lyco-left", t("unrecognised", found.unrecognised)));
  return el("div", "lyco-file", ...parts);
}

/** @param {string} address */
function preview(address) {
  const image = /** @type {HTMLImageElement} */ (el("img", "lyco-picture"));
  image.alt = "";
  image.onerror = () => image.remove(); // most files have none
  image.src = address;
  return image;
}
