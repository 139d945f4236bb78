// What matched when the node ran: the lower part of a card.
import { bars } from "./bars.js";
import { el } from "./dom.js";
import { t } from "./words.js";

/**
 * @typedef {object} Match what a node's `lyco_match` output holds for each file
 * @property {string} file
 * @property {string | null} architecture
 * @property {number} matched
 * @property {number} modules
 * @property {number} stock
 * @property {import("./bars.js").Blocks[]} blocks
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
  title.append(t("matched", found.matched, found.modules), el("span", "lyco-chip", found.applied));
  const parts = named ? [el("div", "lyco-title", found.file)] : [];
  parts.push(title, bars(found.blocks, true));
  if (found.stock) parts.push(el("div", "", t("stock", found.stock)));
  if (!whole) parts.push(leftOut(found));
  return el("div", "lyco-match", ...parts);
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
