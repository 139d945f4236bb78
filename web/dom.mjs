// Elements from texts. Whatever a file says is only ever set as text, never as markup.

/**
 * @param {string} tag
 * @param {string} [className]
 * @param {...(string | Node)} children texts and elements
 */
export function el(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/**
 * @param {string} className
 * @param {string} text
 * @param {string} label what it does
 * @param {() => void} pressed
 */
export function button(className, text, label, pressed) {
  const made = /** @type {HTMLButtonElement} */ (el("button", className, text));
  made.type = "button";
  made.title = label;
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", pressed);
  return made;
}

/**
 * A switch.
 * @param {string} label
 * @param {(state: boolean) => void} set
 * @returns {HTMLButtonElement & {show: (state: boolean, locked: boolean) => void}}
 */
export function toggle(label, set) {
  const made = button("lyco-switch", "", label, () => set(made.ariaChecked !== "true"));
  made.setAttribute("role", "switch");
  return Object.assign(made, {
    show(/** @type {boolean} */ state, /** @type {boolean} */ locked) {
      made.ariaChecked = String(state);
      made.disabled = locked;
    },
  });
}

/**
 * A button that copies a text.
 * @param {string} text
 * @param {string} label
 * @param {string} done what it says afterwards
 */
export function copyButton(text, label, done) {
  const made = button("lyco-copy lyco-chip", label, "", async () => {
    const copied = (await navigator.clipboard?.writeText(text).then(() => true, () => false)) || copyFromField(text);
    if (!copied) return;
    made.textContent = done;
    setTimeout(() => (made.textContent = label), 1500);
  });
  return made;
}

/**
 * A page that came over plain http reaches the clipboard through a field alone.
 * @param {string} text
 */
function copyFromField(text) {
  const field = /** @type {HTMLTextAreaElement} */ (el("textarea", "lyco-clipboard"));
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied;
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${bytes.toFixed(bytes < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

/**
 * Hours, minutes and seconds.
 * @param {number} seconds
 */
export function clock(seconds) {
  const whole = Math.round(seconds);
  const pad = (/** @type {number} */ part) => String(part).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** The stylesheet of the cards, once. */
export function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./lyco.css", import.meta.url).href;
  document.head.append(link);
}
