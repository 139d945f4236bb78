// A row of the stack loader: its switch, its file and its strength in a line, under which its card unfolds.
import { app } from "./comfy.mjs";
import { button, el, toggle } from "./dom.mjs";
import { followFile } from "./file_card.mjs";
import { NONE } from "./node.mjs";
import { match } from "./parts.mjs";
import { strengthField } from "./strength.mjs";
import { record, setValue, widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";
import { isLinked, known } from "./would_run.mjs";

/** @typedef {import("./parts.mjs").Match} Match */

const END = 8; // letters

export class Row {
  /**
   * @param {import("./node.mjs").GraphNode} node
   * @param {string} adapter name of the widget that chooses the file; the others of its row go by it
   * @param {() => void} more opens the row's menu
   * @param {() => void} changed what shows is more or less than before
   */
  constructor(node, adapter, more, changed) {
    this.node = node;
    this.names = [adapter, adapter.replace("adapter", "strength"), adapter.replace("adapter", "on")];
    /** @type {Match | null} */
    this.found = null;
    /** @type {boolean | null} what a person chose; null where the card opens by itself */
    this.unfolded = null;
    this.broken = false;
    const [, strength, on] = this.names;
    this.switch = toggle(t("switch"), (state) => this.change(on, state));
    this.fold = button("lyco-unfold", "", t("details"), () => {
      this.unfolded = !this.open;
      changed();
    });
    this.choice = button("lyco-choice", "", "", () => this.choose());
    this.badge = el("span", "lyco-badge");
    this.badge.role = "img";
    this.strength = strengthField(t("strength"), (value) => setValue(node, strength, value), record);
    this.more = button("lyco-more", "⋮", t("more_of_row"), more);
    this.more.title = `${t("more_of_row")}; ${t("move_row")}`;
    /** @type {[HTMLElement, string][]} what there is of each row, and what it does */
    this.controls = [
      [this.switch, t("switch")],
      [this.fold, t("details")],
      [this.strength.field, t("strength")],
      [this.more, t("more_of_row")],
    ];
    this.file = el("div");
    this.match = el("div");
    this.card = el("div", "lyco-row-card", this.file, this.match);
    const line = [this.switch, this.fold, this.choice, this.badge, this.strength.root, this.more];
    this.root = el("div", "lyco-row", el("div", "lyco-row-line", ...line), this.card);
    this.follow = followFile(this.file, (card) => {
      this.broken = card?.classList.contains("lyco-error") ?? false;
      this.update();
    });
  }

  /** @returns {[unknown, unknown, unknown]} file, strength and switch, as they would run; undefined is not known */
  get values() {
    return /** @type {any} */ (this.names.map((name) => known(this.node, name)));
  }

  /** Those of its names that have links. */
  get links() {
    return new Set(this.names.filter((name) => isLinked(this.node, name)));
  }

  get linked() {
    return this.links.size > 0;
  }

  /** Whether it holds a file, be it one that is not known yet. */
  get used() {
    return isLinked(this.node, this.names[0]) || (widgetOf(this.node, this.names[0])?.value ?? NONE) !== NONE;
  }

  get partly() {
    return Boolean(this.found?.left_out_count);
  }

  get open() {
    return this.unfolded ?? (this.broken || this.partly);
  }

  /** @param {boolean} [again] also where the same file is chosen */
  look(again) {
    this.update();
    void this.follow(String(this.values[0] ?? ""), again);
  }

  /** @param {Match | null} found */
  show(found) {
    this.found = found;
    const named = isLinked(this.node, this.names[0]);
    this.match.replaceChildren(...(found ? [match(found, named)] : []));
    this.card.classList.toggle("lyco-ran", found !== null);
    this.update();
  }

  /**
   * @param {string} name
   * @param {unknown} value
   */
  change(name, value) {
    setValue(this.node, name, value);
    record();
  }

  /** Choose from the list that ComfyUI's own widgets open. */
  choose() {
    const { values } = widgetOf(this.node, this.names[0]).options;
    menuBelow(this.choice, typeof values === "function" ? values() : values, (name) => this.change(this.names[0], name));
  }

  update() {
    const { used, open, broken, found } = this;
    const [file, strength, on] = this.values;
    const links = this.names.map((name) => isLinked(this.node, name));
    this.root.classList.toggle("lyco-empty", !used);
    this.root.classList.toggle("lyco-off", used && on === false);
    this.switch.show(on !== false, links[2]);
    this.strength.show(strength, links[1]);
    this.card.hidden = !used || !open;
    this.fold.ariaExpanded = String(open);
    const name = !used ? `+ ${t("choose")}` : file === undefined ? t("linked") : String(file).replace(/\.safetensors$/, "");
    this.choice.ariaLabel = links[0] ? `⇠ ${name}` : name;
    this.choice.replaceChildren(...ends(this.choice.ariaLabel));
    this.choice.title = links[0] ? `${file ?? ""}\n${t("linked")}`.trim() : used ? String(file) : "";
    this.choice.disabled = links[0];
    this.badge.className = `lyco-badge ${broken || !found ? "" : this.partly ? "lyco-partly" : "lyco-matched"}`;
    this.badge.classList.toggle("lyco-broken", broken);
    const [, number] = /** @type {RegExpMatchArray} */ (this.names[0].match(/(\d+)$/));
    for (const [control, what] of this.controls) control.ariaLabel = `${what}: ${number}. ${used ? name : t("choose")}`;
    this.badge.ariaLabel = this.badge.title = broken ? this.file.innerText : found ? t("matched", found.matched, found.modules) : "";
  }
}

/**
 * Files of one training have names that differ at their end, so that is never cut off.
 * @param {string} name
 */
function ends(name) {
  const letters = [...name];
  const parts = letters.length > 2 * END ? [letters.slice(0, -END), letters.slice(-END)] : [letters];
  return parts.map((part) => el("span", "", part.join("")));
}

/**
 * A menu of ComfyUI's below an element; of more than four entries it has a filter.
 * @param {HTMLElement} element
 * @param {string[]} entries
 * @param {(entry: string) => void} chosen
 */
export function menuBelow(element, entries, chosen) {
  const { left, bottom } = element.getBoundingClientRect();
  const event = new PointerEvent("pointerdown", { clientX: left, clientY: bottom });
  const scale = Math.max(1, app.canvas.ds.scale);
  LiteGraph.LGraphCanvas.active_canvas ??= app.canvas; // its filter asks for it, which the canvas' own clicks set
  new LiteGraph.ContextMenu(entries, { event, scale, className: "dark", callback: chosen });
}
