// The card of a node that makes a dataset: what is in its folder, before anything of it is encoded.
import { after, api } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { addFailure } from "./failure.mjs";
import { onRefresh, report } from "./file_card.mjs";
import { followRuns } from "./last_output.mjs";
import { NONE, addCard } from "./node.mjs";
import { t } from "./words.mjs";
import { wrong } from "./wrong.mjs";
import { known } from "./would_run.mjs";

/**
 * @typedef {object} Survey what `/lyco/dataset` answers
 * @property {number} images
 * @property {number} videos
 * @property {number} short videos of which nothing is taken
 * @property {number} items
 * @property {number} repeats
 * @property {[number, number, number, number][]} buckets width, height, frames or 0, items
 * @property {number} bucket_count
 */

const SOON = 250; // ms: a number that is typed is not asked for digit by digit

/** @param {import("./node.mjs").GraphNode} node */
export function addDatasetCard(node) {
  const names = (node.widgets ?? []).map(({ name }) => name);
  const top = el("div");
  const bottom = el("div");
  const card = addCard(node);
  card.append(top, bottom);
  let [asked, turn, timer] = ["", 0, 0];

  /** @param {boolean} [again] also for the same values: the files may be others */
  async function look(again = false) {
    const inputs = Object.fromEntries(names.map((name) => [name, known(node, name)]));
    const text = JSON.stringify(inputs);
    if (text === asked && !again) return;
    asked = text;
    const mine = ++turn;
    const nothing = Object.values(inputs).includes(undefined) || (inputs.folder === NONE && !inputs.path);
    const shown = nothing ? el("div", "lyco-hint", t("choose_folder")) : await about(text);
    if (mine === turn) top.replaceChildren(shown);
  }

  function lookSoon() {
    clearTimeout(timer);
    timer = window.setTimeout(look, SOON);
  }

  /** @param {{text?: string[]} | null} output */
  const show = (output) => bottom.replaceChildren(...(output?.text ?? []).map((text) => report(text, false)));

  for (const widget of node.widgets ?? []) after(widget, "callback", lookSoon);
  followRuns(node, { look: lookSoon, show });
  addFailure(node, card);
  onRefresh(node, () => void look(true));
  after(node, "onExecuted", () => void look(true));
}

/** @param {string} inputs as JSON */
async function about(inputs) {
  try {
    const answer = await api.fetchApi(`/lyco/dataset?inputs=${encodeURIComponent(inputs)}`);
    const found = await answer.json();
    return answer.ok ? facts(found) : await wrong(found.error);
  } catch {
    return el("div", "lyco-error", t("unreachable"));
  }
}

/** @param {Survey} found */
function facts(found) {
  const counts = [];
  if (found.images) counts.push(t("images", found.images));
  if (found.videos) counts.push(t("videos", found.videos));
  const head = el("div", "lyco-head", el("b", "", counts.join(", ")));
  head.append(el("span", "lyco-chip", t("all_captioned")));
  if (found.repeats > 1) head.append(el("span", "lyco-chip", `× ${found.repeats}`));
  const parts = [head, buckets(found)];
  const rest = found.bucket_count - found.buckets.length;
  if (rest > 0) parts.push(el("div", "", t("more", rest)));
  if (found.short) parts.push(el("div", "lyco-left", t("too_short", found.short)));
  return el("div", "lyco-file lyco-dataset", ...parts);
}

/** @param {Survey} found */
function buckets(found) {
  const most = Math.max(...found.buckets.map(([, , , count]) => count), 1);
  const rows = found.buckets.map(([width, height, frames, count]) => {
    const size = frames ? t("size_of_video", width, height, frames) : `${width} × ${height}`;
    const bar = el("i", "lyco-there");
    bar.style.flex = `0 0 ${Math.max(2, (count / most) * 80)}%`;
    const cells = el("div", "lyco-cells", bar, el("span", "lyco-count", String(count)));
    return el("div", "lyco-bar", el("span", "lyco-name", size), cells);
  });
  return el("div", "lyco-bars", ...rows);
}
