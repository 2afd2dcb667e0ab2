"use strict";
/* Texts of the chat: where two differ, what of an answer is thinking, whole conversations. Pure. */
window.amalgamChatText = (() => {
  /* Words of `text` that are not in order in `other` (longest common subsequence). */
  const different = (text, other) => {
    const a = text.split(/(\s+)/), b = other.split(/(\s+)/);
    if (a.length * b.length > 4e6) return [[text, false]];
    const table = Array.from({length: a.length + 1}, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    const marks = [];
    for (let i = 0, j = 0; i < a.length;) {
      if (j < b.length && a[i] === b[j]) {
        marks.push([a[i++], false]);
        j++;
      } else if (j < b.length && table[i][j + 1] >= table[i + 1][j]) {
        j++;
      } else {
        marks.push([a[i], a[i++].trim() !== ""]);
      }
    }
    return marks;
  };

  const TAGS = "think|thinking|thought|reasoning|reflection";
  const BEGIN = new RegExp(`^\\s*<(${TAGS})>`, "i");
  const END = new RegExp(`</(${TAGS})>`, "i");

  /* {thought, said, open}: a template may begin the thought, so that only its end is written. */
  const split = (answer) => {
    const begin = BEGIN.exec(answer), end = END.exec(answer);
    if (!begin && !end) return {thought: "", said: answer, open: false};
    const start = begin ? begin[0].length : 0;
    if (!end) return {thought: answer.slice(start).trim(), said: "", open: true};
    return {
      thought: answer.slice(start, Math.max(start, end.index)).trim(),
      said: answer.slice(end.index + end[0].length).trim(),
      open: false,
    };
  };

  return {different, split};
})();
