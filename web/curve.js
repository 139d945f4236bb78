// Draws a loss curve: the range of the losses of each pixel, the smoothed loss, validation, and the learning rate.
import { range } from "./series.js";

/**
 * @param {HTMLCanvasElement} canvas its size on the page is taken; its colours are lyco.css's
 * @param {import("./series.js").Series} series
 * @param {number} total steps of the whole training
 * @param {number} smoothing
 */
export function draw(canvas, series, total, smoothing) {
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
  const end = Math.max(total, series.last.step);
  const columns = series.columns(width, first, end, smoothing);
  if (!columns.length) return;
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
    context.moveTo(column.x + 0.5, y(column.low) + 0.5);
    context.lineTo(column.x + 0.5, y(column.high) - 0.5);
  }
  context.stroke();
  context.lineWidth = 1.6;
  pen("loss");
  line(context, columns, (column) => column.x, (column) => y(column.smooth));
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
 * @param {import("./series.js").Series} series
 * @param {number} height
 * @returns {(step: import("./series.js").Step) => number}
 */
function rateY(series, height) {
  const highest = series.steps.reduce((most, { learning_rate }) => Math.max(most, learning_rate ?? 0), 0) || 1;
  return ({ learning_rate }) => height - 1 - ((learning_rate ?? 0) / highest) * (height - 4);
}

/**
 * About `count` of the steps, evenly, and the last one.
 * @param {import("./series.js").Step[]} steps
 * @param {number} count
 */
function thin(steps, count) {
  const every = Math.ceil(steps.length / count);
  return steps.filter((_, index) => index % every === 0 || index === steps.length - 1);
}
