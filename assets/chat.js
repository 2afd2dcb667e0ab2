"use strict";
/* One column of the chat. The server sends plain values; all text enters the page as text, never
   as markup. A column is redrawn turn by turn, so that a long conversation costs nothing. */
window.amalgamChat = (() => {
  const columns = new Map(); // column number -> {element, turns}
  let showsDifferences = false;

  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };

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

  const fillAnswer = (node, turn, reference) => {
    if (!showsDifferences || reference === undefined || turn.state === "running") {
      if (node.textContent !== turn.answer || node.childElementCount) node.textContent = turn.answer;
      return;
    }
    node.replaceChildren(...different(turn.answer, reference).map(([word, differs]) =>
      differs ? make("mark", "differs", word) : document.createTextNode(word)));
  };

  const drawTurn = (box, turn, reference) => {
    if (!box.firstChild) {
      box.append(make("p", "question"), make("p", "answer"), make("p", "note"));
    }
    box.className = `turn is-${turn.state}`;
    const [question, answer, note] = box.children;
    if (question.textContent !== turn.question) question.textContent = turn.question;
    fillAnswer(answer, turn, reference);
    answer.hidden = !turn.answer && turn.state !== "running";
    note.textContent = turn.note;
  };

  /* The first column on the page: what the others are compared with. */
  const leader = () => {
    const here = [...columns.keys()].sort().filter((number) => columns.get(number).element.isConnected);
    return {first: columns.get(here[0]), place: here[0]};
  };

  const draw = (number) => {
    const column = columns.get(number);
    if (!column || !column.value) return;
    const {element, value} = column;
    const {first, place} = leader();
    const log = element.querySelector(".turns");
    const name = element.querySelector(".name");
    name.textContent = value.label;
    name.title = value.name;
    name.setAttribute("aria-label", value.name);
    element.querySelector(".tag").textContent = value.tag;
    element.querySelector(".rate").textContent = value.rate;
    element.querySelector(".dot").className = `dot tone-${value.tone}`;
    element.querySelector(".talk").classList.toggle("is-merged", value.kind === "merged");
    const running = value.turns.some((turn) => turn.state === "running" || turn.state === "waiting");
    const stop = element.querySelector(".stop");
    stop.hidden = !running;
    stop.setAttribute("aria-label", `Stop ${value.name}`);
    log.setAttribute("aria-busy", String(running));
    log.setAttribute("aria-label", `Conversation with ${value.name}`);
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    while (log.children.length > value.turns.length) log.lastChild.remove();
    value.turns.forEach((turn, index) => {
      if (!log.children[index]) log.append(make("div", "turn"));
      const theirs = place !== number && first?.value?.turns.find(({mark}) => mark && mark === turn.mark);
      drawTurn(log.children[index], turn, theirs ? theirs.answer : undefined);
    });
    element.querySelector(".hint").hidden = value.turns.length > 0;
    element.querySelector(".hint").textContent = value.hint;
    if (atEnd) log.scrollTop = log.scrollHeight;
  };

  return {
    mount(element, number, props, watch, stop) {
      const update = () => {
        columns.set(number, {element, value: props.value});
        draw(number);
        const {place} = leader();
        if (number === place && showsDifferences) columns.forEach((_, other) => other !== place && draw(other));
      };
      element.querySelector(".stop").addEventListener("click", stop);
      watch("value", update);
      update();
    },
    /* Takes the question out of its box at once, so that the next one can be typed meanwhile. */
    take(question) {
      const box = document.querySelector("#chat-prompt textarea");
      const typed = box ? box.value : question;
      if (box) {
        box.value = "";
        box.dispatchEvent(new Event("input", {bubbles: true}));
      }
      return typed;
    },
    differences(on) {
      showsDifferences = on;
      columns.forEach((_, number) => draw(number));
    },
  };
})();
