// The steps of a training, and what is drawn of them.

/**
 * @typedef {{step: number, loss: number, learning_rate: number | null, validation: number | null}} Step
 * @typedef {{x: number, low: number, high: number, smooth: number}} Column all steps that share a pixel
 */

/** Steps in their order; each once. */
export class Series {
  constructor() {
    /** @type {Step[]} */
    this.steps = [];
  }

  /** @param {Step[]} steps later ones than those that are there; others are passed over */
  add(steps) {
    for (const step of steps) if (step.step > (this.last?.step ?? -1)) this.steps.push(step);
  }

  /** @param {number} step is forgotten, and all after it */
  cut(step) {
    this.steps = this.steps.filter((known) => known.step < step);
  }

  get last() {
    return this.steps[this.steps.length - 1];
  }

  /** @param {number} smoothing 0 to below 1: the weight of what was, as TensorBoard's, without its bias to zero */
  *smoothed(smoothing) {
    let average = 0;
    let weight = 0;
    for (const { loss } of this.steps) {
      if (Number.isFinite(loss)) {
        average = smoothing * average + (1 - smoothing) * loss;
        weight = smoothing * weight + 1 - smoothing;
      }
      yield weight ? average / weight : NaN;
    }
  }

  /**
   * At most one entry a pixel, however many steps there are.
   * @param {number} width in pixels
   * @param {number} first step at the left
   * @param {number} last step at the right
   * @param {number} smoothing
   */
  columns(width, first, last, smoothing) {
    /** @type {Column[]} */
    const columns = [];
    const scale = (width - 1) / Math.max(1, last - first);
    const smooth = this.smoothed(smoothing);
    for (const { step, loss } of this.steps) {
      const average = /** @type {number} */ (smooth.next().value);
      if (!Number.isFinite(loss)) continue;
      const x = Math.round((step - first) * scale);
      const column = columns[columns.length - 1];
      if (column?.x === x) {
        column.low = Math.min(column.low, loss);
        column.high = Math.max(column.high, loss);
        column.smooth = average;
      } else columns.push({ x, low: loss, high: loss, smooth: average });
    }
    return columns;
  }

  /** Steps that were validated. */
  get validations() {
    return this.steps.filter(({ validation }) => validation !== null && Number.isFinite(validation));
  }
}

/**
 * The range of losses that is shown: all but the highest two percent, so that one peak does not flatten the rest.
 * @param {Column[]} columns
 * @param {number[]} others that must be in it
 * @returns {[number, number]}
 */
export function range(columns, others) {
  const highs = columns.map(({ high }) => high).sort((a, b) => a - b);
  const high = Math.max(highs[Math.floor((highs.length - 1) * 0.98)] ?? 1, ...others);
  const low = Math.min(...columns.map(({ low }) => low), ...others);
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
}
