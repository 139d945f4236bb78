// A number that is dragged, typed, or stepped with arrows, as ComfyUI's own are.
import { el } from "./dom.mjs";

const STEP = 0.05;
const PER_PIXEL = 0.01;
const STILL = 3; // so many pixels are a click yet

/**
 * @param {string} label for those who cannot see it
 * @param {(value: number) => void} set
 * @param {() => void} done after the last of some changes
 * @returns {{root: HTMLElement, field: HTMLElement, show: (value: unknown, locked: boolean, unknown?: string) => void}}
 */
export function strengthField(label, set, done) {
  const field = /** @type {HTMLInputElement} */ (el("input"));
  field.setAttribute("aria-label", label);
  field.inputMode = "decimal";
  let shown = 1;
  let said = "";
  let unsure = false; // whether it stands for several numbers

  /** @param {number} by */
  const step = (by) => {
    if (unsure) return;
    set(Math.round((shown + by) * 100) / 100);
    done();
  };
  const arrow = (/** @type {string} */ sign, /** @type {number} */ by) => {
    const button = /** @type {HTMLButtonElement} */ (el("button", "", sign));
    button.tabIndex = -1; // the field itself takes the arrow keys
    button.ariaHidden = "true";
    button.addEventListener("click", () => step(by));
    return button;
  };
  const arrows = [arrow("‹", -STEP), arrow("›", STEP)];

  field.addEventListener("change", () => {
    const typed = Number(field.value.replace(",", "."));
    if (field.value.trim() && Number.isFinite(typed)) set(typed);
    if (!unsure) field.value = text(shown);
    done();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") field.value = unsure ? said : text(shown);
    if (event.key === "Escape" || event.key === "Enter") field.blur();
    if (event.altKey || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    event.preventDefault();
    step(event.key === "ArrowUp" ? STEP : -STEP);
  });
  field.addEventListener("pointerdown", (event) => {
    if (field.disabled || event.button || document.activeElement === field) return;
    event.preventDefault(); // a click that turns out to be no drag focuses it
    field.setPointerCapture(event.pointerId);
    const [from, begun] = [event.clientX, shown];
    let dragged = false;
    const move = (/** @type {PointerEvent} */ { clientX }) => {
      dragged ||= Math.abs(clientX - from) >= STILL;
      if (dragged && !unsure) set(Math.round((begun + (clientX - from) * PER_PIXEL) * 100) / 100);
    };
    field.addEventListener("pointermove", move);
    field.addEventListener("lostpointercapture", () => {
      field.removeEventListener("pointermove", move);
      if (dragged) return done();
      field.focus();
      field.select();
    }, { once: true });
  });

  return {
    root: el("span", "lyco-strength", arrows[0], field, arrows[1]),
    field,
    show(value, locked, unknown = "⇠") {
      const changed = typeof value === "number" ? unsure || value !== shown : !unsure;
      unsure = typeof value !== "number";
      said = unknown;
      // What is being typed stays.
      if (changed || document.activeElement !== field) field.value = typeof value === "number" ? text(value) : unknown;
      if (typeof value === "number") shown = value;
      for (const control of [field, ...arrows]) /** @type {HTMLInputElement} */ (control).disabled = locked;
    },
  };
}

/** @param {number} value two decimals, or as many as it has */
function text(value) {
  return Number(value.toFixed(2)) === value ? value.toFixed(2) : String(Number(value.toFixed(4)));
}
