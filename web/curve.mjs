// The steps of a training, and the drawing of them: the range of the losses of each pixel, their mean over the last steps,
// validation, and the learning rate.

/**
 * @typedef {{step: number, loss: number, learning_rate: number | null, validation: number | null}} Step
 * @typedef {{x: number, low: number, high: number, mean: number}} Column all steps that share a pixel
 */

/** Over how many of the last steps the mean of the loss is taken: `SPAN` in nodes/host/training/means.py. */
export const SPAN = 100;

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

  /**
   * The mean of the last losses after each step: the formula of `means` in nodes/host/training/means.py. Of a long training
   * not every step is here; the mean is then that of those that are.
   * @param {number} span how many steps
   */
  *means(span) {
    let sum = 0;
    let from = 0;
    for (const [index, { step, loss }] of this.steps.entries()) {
      sum += loss;
      while (this.steps[from].step <= step - span) sum -= this.steps[from++].loss;
      yield sum / (index - from + 1);
    }
  }

  /**
   * At most one entry a pixel, however many steps there are.
   * @param {number} width in pixels
   * @param {number} first step at the left
   * @param {number} last step at the right
   * @param {number} span see `means`
   */
  columns(width, first, last, span) {
    /** @type {Column[]} */
    const columns = [];
    const scale = (width - 1) / Math.max(1, last - first);
    const means = this.means(span);
    for (const { step, loss } of this.steps) {
      const mean = /** @type {number} */ (means.next().value);
      const x = Math.round((step - first) * scale);
      const column = columns[columns.length - 1];
      if (column?.x === x) {
        column.low = Math.min(column.low, loss);
        column.high = Math.max(column.high, loss);
        column.mean = mean;
      } else columns.push({ x, low: loss, high: loss, mean });
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
function range(columns, others) {
  const highs = columns.map(({ high }) => high).sort((a, b) => a - b);
  const high = Math.max(highs[Math.floor((highs.length - 1) * 0.98)] ?? 1, ...others);
  const low = Math.min(...columns.map(({ low }) => low), ...others);
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
}

/**
 * @param {HTMLCanvasElement} canvas its size on the page is taken; its colours are lyco.css's
 * @param {Series} series
 * @param {number} span see `Series.means`
 */
export function draw(canvas, series, span) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  if (!width || !series.last) return;
  const density = window.devicePixelRatio || 1;
  // Setting the size clears the canvas; it is done for every drawing.
  [canvas.width, canvas.height] = [Math.round(width * density), Math.round(height * density)];
  context.scale(density, density);
  const style = getComputedStyle(canvas);
  /** @param {string} name of a variable of lyco.css, or `text` */
  function pen(name, opacity = 1) {
    context.globalAlpha = opacity;
    context.strokeStyle = context.fillStyle = name === "text" ? style.color : style.getPropertyValue(`--lyco-${name}`);
  }

  const first = series.steps[0].step;
  const end = series.last.step;
  const columns = series.columns(width, first, end, span);
  const validations = series.validations;
  const [low, high] = range(columns, validations.map(({ validation }) => validation ?? 0));
  const x = (/** @type {number} */ step) => ((step - first) * (width - 1)) / Math.max(1, end - first);
  const y = (/** @type {number} */ loss) => height - ((loss - low) / (high - low)) * height;

  context.lineWidth = 1;
  pen("text", 0.35);
  line(context, thin(series.steps, width), ({ step }) => x(step), rateY(series, height));
  pen("loss", 0.35);
  context.beginPath();
  for (const column of columns) {
    context.lineTo(column.x + 0.5, y(column.low));
    context.lineTo(column.x + 0.5, y(column.high));
  }
  context.stroke();
  context.lineWidth = 1.6;
  pen("loss");
  line(context, columns, (column) => column.x, (column) => y(column.mean));
  pen("validation");
  line(context, validations, ({ step }) => x(step), ({ validation }) => y(validation ?? 0));
  for (const { step, validation } of validations) context.fillRect(x(step) - 1.5, y(validation ?? 0) - 1.5, 3, 3);
  pen("text", 0.65);
  context.font = "10px sans-serif";
  context.fillText(high.toPrecision(3), 3, 11);
  context.fillText(low.toPrecision(3), 3, height - 4);
}

/**
 * @template T
 * @param {CanvasRenderingContext2D} context
 * @param {T[]} points
 * @param {(point: T) => number} x
 * @param {(point: T) => number} y
 */
function line(context, points, x, y) {
  context.beginPath();
  for (const point of points) context.lineTo(x(point), y(point));
  context.stroke();
}

/**
 * The learning rate from nothing at the bottom to its highest below the top.
 * @param {Series} series
 * @param {number} height
 * @returns {(step: Step) => number}
 */
function rateY(series, height) {
  const highest = series.steps.reduce((most, { learning_rate }) => Math.max(most, learning_rate ?? 0), 0) || 1;
  return ({ learning_rate }) => height - 1 - ((learning_rate ?? 0) / highest) * (height - 4);
}

/**
 * About `count` of the steps, evenly, and the last one.
 * @param {Step[]} steps
 * @param {number} count
 */
function thin(steps, count) {
  const every = Math.ceil(steps.length / count);
  return steps.filter((_, index) => index % every === 0 || index === steps.length - 1);
}
