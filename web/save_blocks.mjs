// A button that saves a file as the node's selection leaves it: the same change at the same strength, for every loader.
import { api, app } from "./comfy.mjs";
import { button, el } from "./dom.mjs";
import { wrong } from "./wrong.mjs";
import { record, setValue, widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";
import { isLinked, known } from "./would_run.mjs";

const TEXTS = ["include", "exclude", "block_strengths"];
/** @type {[string, string][]} inputs that bring in other files -> where they bring none */
const OTHERS = [["more_adapters", ""], ["files", "this file"]];
const SCALE = "scale"; // a scale of the node's own would count instead of what is written into the file's

export class SaveBlocks {
  /**
   * @param {import("./node.mjs").GraphNode} node
   * @param {string} input that chooses the adapter
   */
  constructor(node, input) {
    this.node = node;
    this.input = input;
    this.saved = ""; // what it was saved by
    this.button = button("lyco-chip", t("save_blocks"), "", () => void this.save());
    this.button.title = t("save_blocks_tip");
    this.told = el("div", "lyco-hint");
    this.root = el("div", "lyco-save-blocks", this.button, this.told);
  }

  /** @returns {Record<string, string> | null} what it would be saved by; null where there is nothing to save, or to know */
  get asked() {
    const values = [this.input, ...TEXTS].map((name) => known(this.node, name));
    const scale = widgetOf(this.node, SCALE) ? known(this.node, SCALE) : 0;
    if (values.some((value) => typeof value !== "string") || scale !== 0) return null;
    const [adapter, include, exclude, block_strengths] = /** @type {string[]} */ (values);
    return [include, exclude, block_strengths].some((text) => text.trim())
      ? { adapter, include, exclude, block_strengths }
      : null;
  }

  update() {
    const asked = JSON.stringify(this.asked);
    if (asked !== this.saved) this.told.replaceChildren();
    this.button.hidden = asked === "null";
    this.root.hidden = this.button.hidden && !this.told.hasChildNodes();
  }

  async save() {
    const body = JSON.stringify(this.asked);
    this.button.disabled = true;
    this.told.replaceChildren(t("saving"));
    let made = false;
    try {
      const headers = { "Content-Type": "application/json" };
      const answer = await api.fetchApi("/lyco/save_blocks", { method: "POST", headers, body });
      const { adapter, error } = await answer.json();
      this.saved = body;
      this.told.replaceChildren(...(error ? [await wrong(error)] : this.done(adapter)));
      made = !error;
    } catch {
      this.told.replaceChildren(t("unreachable"));
    } finally {
      this.button.disabled = false;
    }
    if (made) await app.refreshComboInNodes(); // so that the lists have it
  }

  /** Whether the texts count for the one file, and for none that the node adds or tries beside it. */
  get alone() {
    return OTHERS.every(([input, none]) => !widgetOf(this.node, input) || known(this.node, input) === none);
  }

  /** @param {string} name */
  done(name) {
    const use = button("lyco-chip", t("use_file"), "", () => {
      setValue(this.node, this.input, name);
      for (const text of TEXTS) setValue(this.node, text, "");
      record();
    });
    use.title = t("use_file_tip");
    const free = [this.input, ...TEXTS].every((input) => widgetOf(this.node, input) && !isLinked(this.node, input));
    return [t("saved_as", name), ...(free && this.alone ? [" ", use] : [])];
  }
}
