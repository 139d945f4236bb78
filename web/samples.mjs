// The samples of a training: a row a prompt, the last of them side by side, the newest at the right.
import { api } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { t } from "./words.mjs";

const SHOWN = 4;

/**
 * @typedef {object} Sample a picture as ComfyUI's pages name it, and what it was made of
 * @property {string} filename
 * @property {string} subfolder
 * @property {string} type
 * @property {number} step
 * @property {number} number of its prompt
 * @property {string} prompt
 * @property {number} seed
 *
 * @typedef {{step: number, why: string}} Unsampled
 */

export class Samples {
  constructor() {
    /** @type {Map<string, Sample>} */
    this.all = new Map();
    this.element = el("div", "lyco-samples");
    this.wrong = el("div", "lyco-error");
  }

  /**
   * @param {Sample[]} samples new ones; one of the same step and prompt is replaced
   * @param {Unsampled | null} unsampled why the last ones could not be made
   */
  add(samples, unsampled) {
    this.wrong.textContent = unsampled ? t("unsampled", unsampled.step, unsampled.why) : "";
    this.wrong.hidden = !unsampled;
    for (const sample of samples) this.all.set(`${sample.number} ${sample.step}`, sample);
    if (samples.length) this.element.replaceChildren(...this.rows());
  }

  /** @param {number} step is forgotten, and all after it, except what was made before the first */
  cut(step) {
    for (const [key, sample] of this.all) if (sample.step >= step) this.all.delete(key);
    this.element.replaceChildren(...this.rows());
  }

  *rows() {
    /** @type {Map<number, Sample[]>} */
    const rows = new Map();
    for (const sample of this.all.values()) rows.set(sample.number, [...(rows.get(sample.number) ?? []), sample]);
    for (const row of rows.values()) {
      yield el("div", "lyco-sample-row", ...row.sort((a, b) => a.step - b.step).slice(-SHOWN).map(figure));
    }
  }
}

/** @param {Sample} sample */
function figure({ filename, subfolder, type, step, prompt, seed }) {
  const query = new URLSearchParams({ filename, subfolder, type });
  const address = api.apiURL(`/view?${query}`);
  const [link, picture] = [el("a"), el("img")];
  const caption = `${t("step")} ${step}`;
  Object.assign(picture, { src: address, alt: `${caption}: ${prompt}`, loading: "lazy" });
  Object.assign(link, { href: address, target: "_blank", title: `${prompt} (${seed})` });
  link.append(picture);
  return el("figure", "", link, el("figcaption", "", caption));
}
