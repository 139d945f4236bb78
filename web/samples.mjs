// The samples of a training: a row a prompt, the last of them side by side, the newest at the right. Of a prompt that
// makes layers each sample has a row of its own, the newest at the top.
import { api } from "./comfy.mjs";
import { el } from "./dom.mjs";
import { t } from "./words.mjs";

const SHOWN = 4;

/**
 * @typedef {object} Sample a picture or a sound as ComfyUI's pages name it, and what it was made of
 * @property {string} filename
 * @property {string} subfolder
 * @property {string} type
 * @property {number} step
 * @property {number} number of its prompt
 * @property {number} layer of the picture that it is a part of
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
   * @param {Sample[]} samples new ones; one of the same step, prompt and layer is replaced
   * @param {Unsampled | null} unsampled why the last ones could not be made
   */
  add(samples, unsampled) {
    this.wrong.textContent = unsampled ? t("unsampled", unsampled.step, unsampled.why) : "";
    this.wrong.hidden = !unsampled;
    for (const sample of samples) this.all.set(`${sample.number} ${sample.step} ${sample.layer}`, sample);
    if (samples.length) this.element.replaceChildren(...this.rows());
  }

  /** @param {number} step is forgotten, and all after it, except what was made before the first */
  cut(step) {
    for (const [key, sample] of this.all) if (sample.step >= step) this.all.delete(key);
    this.element.replaceChildren(...this.rows());
  }

  *rows() {
    for (const ofPrompt of groups(this.all.values(), "number")) {
      const steps = groups(ofPrompt, "step").slice(-SHOWN);
      const rows = steps.some((layers) => layers.length > 1) ? steps.reverse() : [steps.flat()];
      yield* rows.map((row) => el("div", "lyco-sample-row", ...row.map(figure)));
    }
  }
}

/**
 * @param {Iterable<Sample>} samples
 * @param {"number" | "step"} by
 * @returns {Sample[][]} those that have it in common, in its order
 */
function groups(samples, by) {
  /** @type {Map<number, Sample[]>} */
  const found = new Map();
  for (const sample of samples) found.set(sample[by], [...(found.get(sample[by]) ?? []), sample]);
  return [...found].sort(([a], [b]) => a - b).map(([, some]) => some);
}

/** @param {Sample} sample */
function figure({ filename, subfolder, type, step, prompt, seed }) {
  const query = new URLSearchParams({ filename, subfolder, type });
  const address = api.apiURL(`/view?${query}`);
  const caption = `${t("step")} ${step}`;
  if (filename.endsWith(".flac")) {
    const player = Object.assign(el("audio"), { src: address, controls: true, preload: "none", title: `${prompt} (${seed})` });
    return el("figure", "lyco-heard", player, el("figcaption", "", caption));
  }
  const [link, picture] = [el("a"), el("img")];
  Object.assign(picture, { src: address, alt: `${caption}: ${prompt}`, loading: "lazy" });
  Object.assign(link, { href: address, target: "_blank", title: `${prompt} (${seed})` });
  link.append(picture);
  return el("figure", "", link, el("figcaption", "", caption));
}
