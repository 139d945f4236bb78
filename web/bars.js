// A bar for each kind of block, a cell for each block: what of the file lies there, or what of it matched.
import { el } from "./dom.js";
import { t } from "./words.js";

/**
 * @typedef {{name: string, cells: [number, number, number][]}} Blocks a kind, and (block, matched, modules) of it
 */

/**
 * @param {Blocks[]} blocks
 * @param {boolean} compared whether a model has been asked; else the cells only say that something is there
 */
export function bars(blocks, compared) {
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
