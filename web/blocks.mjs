// The part of a file's card that unfolds into its blocks. What they change is measured only where somebody asks for it.
import { api } from "./comfy.mjs";
import { button, el } from "./dom.mjs";
import { wrong } from "./wrong.mjs";
import { widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";

/** @type {Map<string, Set<string>>} id of a node -> files whose blocks it has unfolded: an undo makes each node anew */
const unfolded = new Map();

export class BlocksFold {
  /**
   * @param {import("./node.mjs").GraphNode} node
   * @param {string} input that chooses the adapter
   */
  constructor(node, input) {
    this.node = node;
    this.input = input;
    this.file = "";
    this.shown = ""; // what the server answered
    /** @type {AbortController | null} of what is being asked */
    this.asking = null;
    /** @type {import("./block_panel.mjs").BlockPanel | null} */
    this.panel = null;
    /** @type {import("./save_blocks.mjs").SaveBlocks | null} */
    this.saving = null;
    this.button = button("lyco-unfold-blocks", "", "", () => this.turn());
    this.body = el("div", "lyco-blocks");
    this.end = el("div");
    this.root = el("div", "lyco-blocks-fold", this.button, this.body, this.end);
    this.root.hidden = true;
  }

  get open() {
    return unfolded.get(String(this.node.id))?.has(this.file) ?? false;
  }

  /**
   * @param {string} file
   * @param {HTMLElement | null} card of it; one of an adapter has bars
   */
  show(file, card) {
    this.root.hidden = !card?.querySelector(".lyco-bar");
    if (file !== this.file) this.clear();
    if (this.open) unfolded.get(String(this.node.id))?.add(file);
    this.file = file;
    if (this.root.hidden) this.clear();
    else if (this.open) void this.load();
    this.update();
  }

  /** The node's values may be others. */
  update() {
    const { open } = this;
    const turned = !open && String(widgetOf(this.node, "block_strengths")?.value ?? "").trim();
    this.button.replaceChildren(`${open ? "▾" : "▸"} ${t("blocks")}`, ...(turned ? [el("span", "lyco-chip", t("turned"))] : []));
    this.button.ariaExpanded = String(open);
    this.panel?.update();
    this.saving?.update();
  }

  turn() {
    const id = String(this.node.id);
    if (this.open) {
      unfolded.delete(id);
      this.clear();
    } else {
      unfolded.set(id, (unfolded.get(id) ?? new Set()).add(this.file));
      void this.load();
    }
    this.update();
  }

  clear() {
    this.asking?.abort();
    this.panel?.against.stop();
    this.panel = this.saving = null;
    this.shown = "";
    this.body.replaceChildren();
    this.end.replaceChildren();
  }

  async load() {
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    if (!this.shown) this.body.replaceChildren(el("div", "lyco-hint", t("measuring")));
    const [text, error] = await ask(this.file, signal);
    if (signal.aborted || (text && text === this.shown)) return;
    if (error) {
      this.panel = null;
      this.shown = "";
      return this.body.replaceChildren(error);
    }
    const [{ BlockPanel }, { SaveBlocks }] = await Promise.all([import("./block_panel.mjs"), import("./save_blocks.mjs")]);
    if (signal.aborted) return;
    this.shown = text;
    this.panel = new BlockPanel(this.node, this.file, JSON.parse(text));
    this.body.replaceChildren(this.panel.root);
    if (this.panel.turns && !this.saving) {
      this.saving = new SaveBlocks(this.node, this.input);
      this.end.replaceChildren(this.saving.root);
    }
    this.update();
  }
}

/**
 * @param {string} file
 * @param {AbortSignal} signal
 * @returns {Promise<[string, HTMLElement | null]>} the answer, or why there is none
 */
async function ask(file, signal) {
  try {
    const answer = await api.fetchApi(`/lyco/blocks?adapter=${encodeURIComponent(file)}`, { signal });
    const text = await answer.text();
    return answer.ok ? [text, null] : ["", await wrong(JSON.parse(text).error)];
  } catch {
    return ["", el("div", "lyco-error", t("unreachable"))];
  }
}
