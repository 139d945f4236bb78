// A strip of blocks: a bar each, as high as the block changes the model, and the strength that it is turned to as a line
// across, which is drawn with the pointer as on an equalizer. Each block is a range input too, for the keyboard.
import { el } from "./dom.mjs";

const MOST = 2; // 1 is in the middle, where the line meets the top of the highest bar
const STEP = 0.05;
const NEAR = 0.08; // of 1, which is what one wants to hit

/**
 * @typedef {import("./block_text.mjs").Kind} Kind
 * @typedef {object} Uses
 * @property {(numbers: number[], strength: number) => void} set blocks to a strength
 * @property {() => void} done after the last of some changes
 * @property {(number: number | null) => void} point at a block, or at none
 */

export class Strip {
  /**
   * @param {Kind} kind
   * @param {number} highest norm of a block
   * @param {Uses | null} uses null where nothing of it can be turned
   */
  constructor({ name, cells }, highest, uses) {
    this.numbers = cells.map(([number]) => number);
    this.locked = false;
    this.columns = cells.map(([number, , norm]) => {
      const input = /** @type {HTMLInputElement} */ (el("input"));
      Object.assign(input, { type: "range", min: "0", max: String(MOST), step: String(STEP), tabIndex: -1 });
      input.ariaLabel = cells.length > 1 ? `${name} ${number}` : name;
      input.ariaOrientation = "vertical";
      const column = el("span", "lyco-column", el("i", "lyco-whole"), el("i", "lyco-part"));
      if (uses) column.append(el("i", "lyco-line-at"), input);
      column.style.setProperty("--norm", String((norm ?? 0) / (highest || 1)));
      return { column, input };
    });
    this.root = el("div", "lyco-strip", ...this.columns.map(({ column }) => column));
    this.root.classList.toggle("lyco-plain", !uses);
    if (uses) this.listen(uses);
    this.root.addEventListener("pointermove", (event) => uses?.point(this.numbers[this.columnAt(event)]));
    this.root.addEventListener("pointerleave", () => uses?.point(null));
  }

  /**
   * @param {Map<number, number>} strengths
   * @param {boolean} locked
   * @param {(number: number) => string} said of a block, for those who cannot see it
   */
  show(strengths, locked, said) {
    this.locked = locked;
    this.root.classList.toggle("lyco-locked", locked);
    for (const [index, { column, input }] of this.columns.entries()) {
      const strength = strengths.get(this.numbers[index]) ?? 1;
      column.style.setProperty("--strength", String(strength));
      column.classList.toggle("lyco-turned", strength !== 1);
      input.value = String(strength);
      input.disabled = locked;
      input.setAttribute("aria-valuetext", said(this.numbers[index]));
    }
    if (!this.columns.some(({ input }) => input.tabIndex === 0)) this.columns[0].input.tabIndex = 0; // one stop of Tab
  }

  /** @param {Uses} uses */
  listen({ set, done, point }) {
    const { root, columns, numbers } = this;
    for (const [index, { input }] of columns.entries()) {
      input.addEventListener("input", () => set([numbers[index]], Number(input.value)));
      input.addEventListener("change", done);
      input.addEventListener("focus", () => {
        for (const other of columns) other.input.tabIndex = other.input === input ? 0 : -1;
        point(numbers[index]);
      });
      input.addEventListener("blur", () => point(null));
      input.addEventListener("keydown", (event) => {
        const beside = columns[index + (event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0)];
        if (beside?.input === input) return;
        event.preventDefault();
        beside?.input.focus();
      });
    }
    root.addEventListener("pointerdown", (event) => {
      event.stopPropagation(); // a press here moves no node
      if (event.button || this.locked) return;
      event.preventDefault();
      root.setPointerCapture(event.pointerId);
      let last = this.columnAt(event);
      const draw = (/** @type {PointerEvent} */ moved) => {
        const now = this.columnAt(moved);
        const passed = numbers.slice(Math.min(last, now), Math.max(last, now) + 1);
        last = now;
        set(passed, this.strengthAt(moved));
      };
      draw(event);
      root.addEventListener("pointermove", draw);
      root.addEventListener("lostpointercapture", () => {
        root.removeEventListener("pointermove", draw);
        done();
      }, { once: true });
    });
    root.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      if (this.locked) return;
      set([numbers[this.columnAt(event)]], 1);
      done();
    });
  }

  /** @param {MouseEvent} event */
  columnAt({ clientX }) {
    const edges = this.columns.map(({ column }) => column.getBoundingClientRect().right);
    const index = edges.findIndex((right) => clientX < right);
    return index < 0 ? edges.length - 1 : index;
  }

  /** @param {MouseEvent} event */
  strengthAt({ clientY }) {
    const { bottom, height } = this.root.getBoundingClientRect();
    const strength = Math.min(MOST, Math.max(0, ((bottom - clientY) / height) * MOST));
    return Math.abs(strength - 1) < NEAR ? 1 : Number((Math.round(strength / STEP) * STEP).toFixed(2));
  }
}
