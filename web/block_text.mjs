// The strengths of blocks as the text of `block_strengths`, and back: a line for all blocks of a kind that have one
// strength, such as `double_blocks\.(\d|1[0-8])\..*=0.5`. What is written selects exactly those.

/**
 * @typedef {object} Kind blocks of one kind
 * @property {string} name
 * @property {[string, string] | null} pattern what a regular expression for them has before and after their numbers
 * @property {[number, number, number | null][]} cells number, modules and norm of each block
 *
 * @typedef {Map<number, number>[]} Strengths by number, of each kind in their order; 1 where there is none
 */

const LINE = /^(.+)=([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)$/i;
const ALL = "\\d+";
const DIGIT = /\\d|\d|\[[\d-]+\]/g;
const NUMBERS = /^(?:\\d|\d|\[(?:\d(?:-\d)?)+\]){1,3}$/;
const BACKWARDS = /9-[0-8]|8-[0-7]|7-[0-6]|6-[0-5]|5-[0-4]|4-[0-3]|3-[0-2]|2-[01]|1-0/; // which is no set

/**
 * @param {Kind[]} kinds
 * @param {Strengths} strengths
 */
export function write(kinds, strengths) {
  return kinds.flatMap((kind, index) => linesOf(kind, strengths[index])).join("\n");
}

/**
 * @param {Kind} kind
 * @param {Map<number, number>} strengths
 */
function linesOf({ pattern, cells }, strengths) {
  if (!pattern) return [];
  /** @type {Map<number, number[]>} */
  const alike = new Map();
  for (const [number] of cells) {
    const strength = strengths.get(number) ?? 1;
    if (strength !== 1) alike.set(strength, [...(alike.get(strength) ?? []), number]);
  }
  const [before, after] = pattern;
  return [...alike].map(([strength, numbers]) => {
    const every = numbers.length === cells.length && cells.length > 1;
    return `${before}${every ? ALL : choice(numbers)}${after}=${strength}`;
  });
}

/** @param {number[]} numbers */
function choice(numbers) {
  const parts = [1, 2, 3].flatMap((length) => folded(numbers.map(String).filter((text) => text.length === length)));
  return parts.length === 1 ? parts[0] : `(${parts.join("|")})`;
}

/**
 * Alternatives that match these texts of digits, all of one length, and no others: those that go on alike share theirs.
 * @param {string[]} texts
 * @returns {string[]}
 */
function folded(texts) {
  if (!texts.length) return [];
  if (!texts[0]) return [""];
  /** @type {Map<string, Set<string>>} */
  const first = new Map();
  for (const digit of new Set(texts.map((text) => text[0]))) {
    for (const rest of folded(texts.filter((text) => text[0] === digit).map((text) => text.slice(1)))) {
      first.set(rest, (first.get(rest) ?? new Set()).add(digit));
    }
  }
  return [...first].map(([rest, digits]) => oneOf([...digits].map(Number)) + rest);
}

/** @param {number[]} digits in ascending order */
function oneOf(digits) {
  if (digits.length === 10) return "\\d";
  if (digits.length === 1) return String(digits[0]);
  /** @type {number[][]} */
  const runs = [];
  for (const digit of digits) {
    const run = runs.at(-1);
    if (run && run[1] === digit - 1) run[1] = digit;
    else runs.push([digit, digit]);
  }
  return `[${runs.map(([from, to]) => (from === to ? from : `${from}${to > from + 1 ? "-" : ""}${to}`)).join("")}]`;
}

/**
 * What a text says of the blocks, as far as it is of the form that is written here, by whomever.
 * @param {Kind[]} kinds
 * @param {string} text
 * @returns {Strengths | null} null for any other text: also for a line that no block of these is of
 */
export function read(kinds, text) {
  const strengths = kinds.map(() => new Map());
  for (const line of text.split(/\r?\n/).map((one) => one.trim()).filter(Boolean)) {
    const [, pattern = "", strength] = line.match(LINE) ?? [];
    const found = kinds.map((kind) => matched(kind, pattern));
    const index = found.findIndex((numbers) => numbers.length);
    if (index < 0 || !Number.isFinite(Math.fround(Number(strength)))) return null; // the server takes no larger one
    for (const number of found[index]) strengths[index].set(number, Number(strength));
  }
  return strengths;
}

/**
 * @param {Kind} kind
 * @param {string} text
 * @returns {number[]} the blocks of it that a pattern names
 */
function matched({ pattern, cells }, text) {
  const [before, after] = pattern ?? ["", ""];
  if (!pattern || !text.startsWith(before) || !text.endsWith(after)) return [];
  const middle = text.slice(before.length, text.length - after.length);
  const parts = middle.startsWith("(") && middle.endsWith(")") ? middle.slice(1, -1).split("|") : [middle];
  if (middle !== ALL && !parts.every((part) => NUMBERS.test(part) && !BACKWARDS.test(part))) return [];
  const numbers = cells.map(([number]) => number);
  return numbers.filter((number) => middle === ALL || parts.some((part) => takes(part, String(number))));
}

/**
 * @param {string} part digits, or sets of them, one after the other
 * @param {string} number
 */
function takes(part, number) {
  const digits = part.match(DIGIT) ?? [];
  return digits.length === number.length && digits.every((one, index) => new RegExp(`^${one}$`).test(number[index]));
}
