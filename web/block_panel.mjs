// How much a file changes of each block and kind of module, and how strongly each block takes part: what the node's
// `block_strengths` says, where it is of the form that is written here.
import { Against, percentOf } from "./against.mjs";
import { read, write } from "./block_text.mjs";
import { button, el } from "./dom.mjs";
import { Strip } from "./strips.mjs";
import { strengthField } from "./strength.mjs";
import { record, setValue, widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";
import { isLinked, known } from "./would_run.mjs";

/**
 * @typedef {import("./block_text.mjs").Kind} Kind
 * @typedef {object} Found what `/lyco/blocks` answers
 * @property {number} norm
 * @property {number} unmeasured
 * @property {Kind[]} blocks
 * @property {[string, number, number][]} kinds
 */

const INPUT = "block_strengths";
const COLUMN = 8; // pixels, of which a strip wants so many for each block
const LEAST = 96;

export class BlockPanel {
  /**
   * @param {import("./node.mjs").GraphNode} node
   * @param {string} file
   * @param {Found} found
   */
  constructor(node, file, found) {
    this.node = node;
    this.found = found;
    this.turns = Boolean(widgetOf(node, INPUT));
    /** @type {import("./block_text.mjs").Strengths | null} null: the text is one of another form */
    this.strengths = null;
    /** @type {unknown} the text that they were read from, or written into */
    this.text = undefined;
    /** @type {{index: number, number: number} | null} the block that the pointer or the keyboard is at */
    this.pointed = null;
    const highest = Math.max(...found.blocks.flatMap(({ cells }) => cells.map(([, , norm]) => norm ?? 0)));
    this.parts = found.blocks.map((kind, index) => this.part(kind, index, highest));
    this.hint = el("div", "lyco-hint");
    this.remains = el("span");
    this.reset = button("lyco-chip", t("reset"), "", () => this.resetAll());
    this.reset.title = t("reset_all");
    this.foot = el("div", "lyco-blocks-foot", this.remains, this.reset);
    /** @type {import("./against.mjs").Shares | null} */
    this.shares = null;
    this.kinds = el("div", "lyco-kinds");
    this.against = new Against(node, file, (shares) => {
      this.shares = shares;
      this.showKinds();
      this.show();
    });
    const unmeasured = found.unmeasured ? [el("div", "lyco-hint", t("unmeasured", found.unmeasured))] : [];
    const strips = el("div", "lyco-strips", ...this.parts.map(({ root }) => root));
    this.root = el("div", "lyco-block-panel", strips, this.hint, this.foot, ...unmeasured, this.against.root, this.kinds);
    this.showKinds();
    this.update();
  }

  /**
   * @param {Kind} kind
   * @param {number} index
   * @param {number} highest
   */
  part(kind, index, highest) {
    const turns = this.turns && kind.pattern !== null;
    const name = kind.name === "other" ? t("other") : kind.name;
    const said = el("span", "lyco-said");
    const label = el("b", "lyco-name", name);
    label.title = name;
    const field = strengthField(`${t("strength")}: ${name}`, (value) => this.set(index, this.numbers(index), value), () => this.write());
    const strip = new Strip(kind, highest, turns ? {
      set: (numbers, strength) => this.set(index, numbers, strength),
      done: () => this.write(),
      point: (number) => {
        this.pointed = number === null ? null : { index, number };
        said.replaceChildren(this.say(index, number));
      },
    } : null);
    const head = el("div", "lyco-strip-head", label, said, ...(turns ? [field.root] : []));
    const root = el("div", "lyco-strip-of", head, strip.root);
    root.style.flexBasis = `${Math.max(LEAST, kind.cells.length * COLUMN)}px`;
    root.style.flexGrow = String(kind.cells.length);
    return { root, strip, field, said };
  }

  /** @param {number} index */
  numbers(index) {
    return this.found.blocks[index].cells.map(([number]) => number);
  }

  /**
   * @param {number} index of a kind
   * @param {number | null} number of a block, or all of the kind
   */
  say(index, number) {
    const { cells } = this.found.blocks[index];
    const norms = cells.filter(([one]) => number === null || one === number).map(([, , norm]) => norm ?? 0);
    const share = percent(Math.hypot(...norms) / (this.found.norm || 1), 2);
    if (number === null) return share;
    const strength = this.strengths?.[index].get(number) ?? 1;
    const weights = this.shares?.blocks[index]?.[cells.findIndex(([one]) => one === number)];
    const beside = typeof weights === "number" ? ` (${t("of_weights", percentOf(weights))})` : "";
    return `${number}: ${share}${beside}${strength === 1 ? "" : ` × ${strength}`}`;
  }

  /** What the node's text says now. */
  update() {
    this.against.update();
    const text = this.turns ? known(this.node, INPUT) : "";
    if (text !== this.text || !this.strengths) { // what is being drawn stays
      this.text = text;
      this.strengths = text === undefined ? null : read(this.found.blocks, String(text ?? ""));
    }
    this.show();
  }

  show() {
    const { node, strengths, parts } = this;
    const linked = this.turns && isLinked(node, INPUT);
    const locked = linked || !strengths;
    for (const [index, { strip, field, said }] of parts.entries()) {
      const of = strengths?.[index] ?? new Map();
      strip.show(of, locked, (number) => this.say(index, number));
      strip.root.classList.toggle("lyco-unknown", !strengths);
      const [first, ...others] = this.numbers(index).map((number) => of.get(number) ?? 1);
      field.root.hidden = !strengths;
      field.show(others.every((one) => one === first) ? first : undefined, locked, "…");
      said.replaceChildren(this.say(index, this.pointed?.index === index ? this.pointed.number : null));
    }
    this.hint.textContent = linked ? t("blocks_linked") : strengths ? "" : t("blocks_custom");
    const turned = strengths?.some((of) => [...of.values()].some((strength) => strength !== 1)) ?? false;
    const whole = ["include", "exclude"].every((name) => !widgetOf(node, name) || known(node, name) === "");
    this.remains.textContent = turned && whole ? t("remains", percent(this.remaining() / (this.found.norm || 1), 1)) : "";
    this.foot.hidden = locked || !turned;
  }

  /** The norm of what the strengths leave. */
  remaining() {
    const norms = this.found.blocks.flatMap(({ cells }, index) =>
      cells.map(([number, , norm]) => (norm ?? 0) * (this.strengths?.[index].get(number) ?? 1)),
    );
    return Math.hypot(...norms);
  }

  /**
   * @param {number} index of a kind
   * @param {number[]} numbers
   * @param {number} strength
   */
  set(index, numbers, strength) {
    for (const number of numbers) this.strengths?.[index].set(number, strength);
    this.show();
  }

  resetAll() {
    this.strengths?.forEach((of) => of.clear());
    this.show();
    this.write();
  }

  /** Into the node's text, which is what counts. */
  write() {
    if (!this.strengths) return;
    this.text = write(this.found.blocks, this.strengths);
    setValue(this.node, INPUT, this.text);
    record();
  }

  showKinds() {
    const { found: { kinds, norm }, shares } = this;
    const rows = kinds.flatMap(([name, count, of], index) => {
      const label = el("span", "lyco-name lyco-kind", el("bdi", "", name));
      label.title = t("kind_of", name, count);
      const bar = el("i", "lyco-amount");
      bar.style.width = `${(100 * of) / (kinds[0][2] || 1)}%`;
      const row = [label, el("span", "lyco-amount-of", bar), el("span", "lyco-said", percent(of / (norm || 1), 2))];
      if (!shares) return row;
      const share = shares.kinds[index];
      return [...row, el("span", "lyco-said", share === null ? "–" : t("of_weights", percentOf(share)))];
    });
    this.kinds.classList.toggle("lyco-beside-model", shares !== null);
    this.kinds.replaceChildren(...rows);
  }
}

/**
 * @param {number} part of a norm
 * @param {number} power 2 for a share of the squared norm, which add up to the whole
 */
function percent(part, power) {
  const value = 100 * part ** power;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toPrecision(2)} %`;
}
