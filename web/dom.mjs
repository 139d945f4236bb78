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
