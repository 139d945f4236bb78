// An error's message in the person's language: what to do, then why. Comes when something went wrong, not with the page.
import { locale } from "./words.mjs";

/**
 * @typedef {object} Said
 * @property {string} todo what to do, if the message says so
 * @property {string} why the rest
 * @property {string} advice what to do, in the words of the server
 * @typedef {object} Template a text of the source with gaps between its pieces
 * @property {string[]} pieces
 * @property {string} text
 * @property {number} said how much of it is words
 * @property {Record<string, string>} words in each language; of a message, what to do on the first of two lines
 * @typedef {{template: Template, values: string[]}} Found
 * @typedef {{advice: Template[], messages: Template[]}} Catalogue
 */

const GAP = /\{\d+\}/;

/** @type {Promise<Catalogue> | null} */
let asked = null;

/** What `python tools/messages.py` found in the source, and people translated. */
function catalogue() {
  asked ??= fetch(new URL("./messages.json", import.meta.url))
    .then((answer) => answer.json())
    .then(({ advice, messages }) => ({ advice: templates(advice), messages: templates(messages) }));
  asked.catch(() => (asked = null));
  return asked;
}

/**
 * @param {Record<string, Record<string, string>>} read
 * @returns {Template[]}
 */
function templates(read) {
  return Object.entries(read).map(([text, words]) => {
    const pieces = text.split(GAP);
    return { text, words, pieces, said: pieces.join("").length };
  });
}

/**
 * @param {string} message
 * @returns {Promise<Said>}
 */
export async function inWords(message) {
  const known = await catalogue().catch(() => null);
  return known ? split(message, known) : { todo: "", why: message, advice: "" };
}

/**
 * What went wrong, and what to do about it, which is the last part: a template of its own, or the end of one.
 * @param {string} message
 * @param {Catalogue} catalogue
 * @returns {Said}
 */
function split(message, { advice, messages }) {
  const found = within(message, messages);
  for (const at of places(message, "; ")) {
    const [before, todo] = [message.slice(0, at - 2), message.slice(at)];
    const advised = whole(todo, advice);
    // A text that is one whole says more than such a beginning and such an end do.
    const more = (found?.template.said ?? 0) - (within(before, messages)?.template.said ?? 0);
    if (!advised || advised.template.said <= more) continue;
    return { todo: sentence(filled(advised, messages)), why: told(before, messages).why, advice: todo };
  }
  const { todo, why } = told(message, messages);
  return { todo: sentence(todo), why, advice: found ? put(parts(found.template.text)[1], found.values) : "" };
}

/** @param {string} text */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * In the person's language, what is in no template as it is. A message of several parts says what to do in one of them.
 * @param {string} message
 * @param {Template[]} known
 * @returns {{todo: string, why: string}}
 */
function told(message, known) {
  const found = within(message, known);
  if (found) {
    const [why, todo = ""] = filled(found, known).split("\n").reverse();
    return { todo, why: found.before + why };
  }
  const [cut] = places(message, "; ");
  if (!cut) return { todo: "", why: message };
  const [first, rest] = [told(message.slice(0, cut - 2), known), told(message.slice(cut), known)];
  return { todo: first.todo || rest.todo, why: `${first.why}; ${rest.why}` };
}

/**
 * The same as one line.
 * @param {string} message
 * @param {Template[]} known
 */
function line(message, known) {
  const { todo, why } = told(message, known);
  return todo ? `${why}; ${todo}` : why;
}

/**
 * A template's text in the person's language, what to do on a line of its own before the rest.
 * @param {Found} found
 * @param {Template[]} known what its values may be again
 */
function filled({ template: { text, words }, values }, known) {
  const told = words[locale()];
  if (told) return put(told, values.map((value) => (whole(value, known) ? line(value, known) : value)));
  const advises = Object.values(words).some((word) => word.includes("\n"));
  return put(advises ? parts(text).reverse().join("\n") : text, values);
}

/**
 * @param {string} text of a template that says what to do
 * @returns {[string, string]} what is wrong, and what to do
 */
function parts(text) {
  const at = text.lastIndexOf("; ");
  return at < 0 ? ["", text] : [text.slice(0, at), text.slice(at + 2)];
}

/**
 * @param {string} text
 * @param {string[]} values
 */
function put(text, values) {
  return text.replace(/\{(\d+)\}/g, (_, index) => values[Number(index)]);
}

/**
 * The template that a message is of, behind the names of the file and of the module that it is about.
 * @param {string} message
 * @param {Template[]} known
 * @returns {Found & {before: string} | null}
 */
function within(message, known) {
  let best = null;
  for (const at of [0, ...places(message, ": ").slice(0, 8)]) {
    const found = whole(message.slice(at), known);
    // Of equals the last: a name before it is no value of the template.
    if (found && (!best || found.template.said >= best.template.said)) best = { ...found, before: message.slice(0, at) };
  }
  return best;
}

/**
 * Of the templates that a text is of, the one that says most.
 * @param {string} text
 * @param {Template[]} known
 * @returns {Found | null}
 */
function whole(text, known) {
  let best = null;
  for (const template of known) {
    const values = valuesIn(text, template.pieces);
    if (values && (!best || template.said > best.template.said)) best = { template, values };
  }
  return best;
}

/**
 * What stands between the pieces; in one go, whatever the text is.
 * @param {string} text
 * @param {string[]} pieces
 * @returns {string[] | null}
 */
function valuesIn(text, pieces) {
  const [first, ...rest] = pieces;
  if (!text.startsWith(first)) return null;
  const values = [];
  let at = first.length;
  for (const [index, piece] of rest.entries()) {
    const last = index === rest.length - 1;
    const next = last ? (text.endsWith(piece) ? text.length - piece.length : -1) : text.indexOf(piece, at);
    if (next < at) return null;
    values.push(text.slice(at, next));
    at = next + piece.length;
  }
  return at === text.length ? values : null;
}

/**
 * @param {string} text
 * @param {string} mark
 * @returns {number[]} where a part begins, behind each mark
 */
function places(text, mark) {
  const found = [];
  for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + 1)) found.push(at + mark.length);
  return found;
}
