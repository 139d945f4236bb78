// The card of nodes that take an adapter: what the file is as soon as it is chosen, and after a run what matched.
import { BlocksFold } from "./blocks.mjs";
import { after, api } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { addFailure } from "./failure.mjs";
import { followRuns } from "./last_output.mjs";
import { NONE, addCard, everyNode } from "./node.mjs";
import { about, match } from "./parts.mjs";
import { widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";
import { isLinked, known } from "./would_run.mjs";

const LORA = "lora"; // the input that comes instead of a file: nodes/host/model/lora_model.py

/** @type {WeakMap<object, () => void>} */
const refreshers = new WeakMap();

/** @type {Set<() => void>} what asks again for a file of which the server did not answer */
const unanswered = new Set();

/** Ask again when the server tells of itself, as it does first of all; once, when the page is set up. */
export function listenForAnswers() {
  api.addEventListener("status", (/** @type {any} */ { detail }) => {
    if (!detail) return; // the page found it away
    const again = [...unanswered];
    unanswered.clear();
    for (const ask of again) ask();
  });
}

/** The lists of files were read again, and so are the files. */
export function refreshCards() {
  for (const [node] of everyNode()) refreshers.get(node)?.();
}

/**
 * @param {object} node
 * @param {() => void} refresh
 */
export function onRefresh(node, refresh) {
  refreshers.set(node, refresh);
}

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {string} input that chooses the adapter
 */
export function addFileCard(node, input) {
  const top = el("div");
  const bottom = el("div");
  const card = addCard(node);
  const hint = el("div", "lyco-hint", t("lora_instead"));
  const blocks = new BlocksFold(node, input);
  card.append(hint, top, blocks.root, bottom);
  const name = () => (isLinked(node, LORA) ? "" : String(known(node, input) ?? ""));
  const file = followFile(top, (shown) => blocks.show(name(), shown));
  /** @param {boolean} [again] also where the same file is chosen: it may have been replaced */
  function look(again) {
    hint.hidden = !isLinked(node, LORA);
    blocks.update();
    void file(name(), again);
  }

  /** @param {{lyco_match?: import("./parts.mjs").Match[], text?: string[]} | null} output */
  function show(output) {
    const chosen = isLinked(node, LORA) ? LORA : known(node, input);
    const matches = (output?.lyco_match ?? []).filter(
      (found) => chosen === undefined || found.file === chosen || widgetOf(node, "files"), // which tries others too
    );
    card.classList.toggle("lyco-ran", matches.length > 0);
    bottom.replaceChildren(...matches.map((found) => match(found, found.file !== chosen || chosen === LORA || isLinked(node, input))));
    for (const text of output?.text ?? []) bottom.append(report(text, matches.length === 0));
  }

  const widget = node.widgets?.find(({ name }) => name === input);
  after(widget ?? {}, "callback", () => look(true));
  followRuns(node, { look, show });
  addFailure(node, card);
  onRefresh(node, () => look(true));
}

/**
 * What a file is, in a place of the page; the same file is asked for once.
 * @param {HTMLElement} place
 * @param {(card: HTMLElement | null) => void} [told] what is there now
 * @returns {(name: string, again?: boolean) => Promise<void>}
 */
export function followFile(place, told = () => {}) {
  let shown = "";
  let turn = 0;

  /** @type {(name: string, again?: boolean) => Promise<void>} */
  async function follow(name, again = false) {
    if (name === shown && !again) return;
    shown = name;
    const mine = ++turn;
    const card = name && name !== NONE ? await about(name) : null;
    if (mine !== turn) return; // asked again meanwhile
    place.replaceChildren(...(card ? [card] : []));
    told(card);
    if (card?.classList.contains("lyco-unanswered")) unanswered.add(() => void (mine === turn && follow(name, true)));
  }

  return follow;
}

/**
 * @param {string} text
 * @param {boolean} open
 */
export function report(text, open) {
  const details = /** @type {HTMLDetailsElement} */ (el("details", "lyco-report", el("summary", "", t("report"))));
  details.append(el("pre", "", text));
  details.open = open;
  return details;
}
