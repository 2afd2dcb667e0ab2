"use strict";
/* The recipe's text as an editor: line numbers, colours, and signs where the check found something.
   The text stays in the text field of the page, on top, with its letters unseen; beneath it the same
   lines are drawn in colour, beside it their numbers. What was found stands in the list of checks,
   whose buttons [data-line] lead to their lines: the list says which lines are marked. */
(() => {
  const HEIGHT = 20; // pixels of a line, as in editor.css
  const LONGEST = 400; // characters of a line that is coloured
  const LOOKS = ["is-error", "is-warning"]; // the first counts more
  const SIGNS = { "is-error": "✕", "is-warning": "!" };

  const TOKEN = new RegExp([
    /(?<comment>(?:^|(?<=\s))#.*)/,
    /(?<text>"(?:\\.|[^"\\])*"|'(?:''|[^'])*')/,
    /(?<key>(?:(?<=^|[\s{,])[\w./<][\w.\-/<]*)(?=:(?:\s|$)))/,
    /(?<value>(?<=[\s[,:-])(?:[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[-+]?\d+)?|true|false|null|yes|no)(?=\s*(?:[,\]}]|\s#|$)))/,
    /(?<sign>^(?:---|\.\.\.)|(?:^|(?<=\s))-(?=\s|$)|[&*][\w-]+)/,
  ].map((part) => part.source).join("|"), "gi");

  /* One line as nodes, its tokens in their classes. */
  function coloured(line) {
    if (line.length > LONGEST) return [line];
    const parts = [];
    let at = 0;
    for (const match of line.matchAll(TOKEN)) {
      const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
      const token = document.createElement("span");
      token.className = `yaml-${kind}`;
      token.textContent = match[0];
      parts.push(line.slice(at, match.index), token);
      at = match.index + match[0].length;
    }
    return [...parts, line.slice(at)];
  }

  /* Draws the lines of a text field beneath and beside it. Returns what marks lines, and what goes
     to one. */
  function dressed(field) {
    const paper = document.createElement("div"), gutter = document.createElement("div");
    paper.className = "editor-paper";
    gutter.className = "editor-gutter";
    for (const layer of [paper, gutter]) {
      layer.ariaHidden = "true";
      layer.append(document.createElement("div"));
    }
    field.parentElement.classList.add("editor");
    field.before(paper);
    field.after(gutter);
    Object.assign(field, { wrap: "off", spellcheck: false, autocapitalize: "off" });
    const rows = paper.firstChild, numbers = gutter.firstChild;
    let lines = [];

    /* Only lines that changed are drawn again; a mark moves with its line. */
    function draw() {
      const next = field.value.split("\n");
      let top = 0, end = 0;
      while (top < Math.min(lines.length, next.length) && lines[top] === next[top]) top += 1;
      const most = Math.min(lines.length, next.length) - top;
      while (end < most && lines.at(-1 - end) === next.at(-1 - end)) end += 1;
      const fresh = next.slice(top, next.length - end).map((line, index) => {
        const row = rows.children[top + index];
        const drawn = document.createElement("div");
        if (index < lines.length - end - top) drawn.className = row.className;
        drawn.append(...coloured(line));
        return drawn;
      });
      for (let count = lines.length - end - top; count > 0; count -= 1) rows.children[top].remove();
      if (rows.children[top]) rows.children[top].before(...fresh);
      else rows.append(...fresh);
      lines = next;
      number();
    }

    /* The gutter: a number for every line, and the sign of one that is marked. */
    function number() {
      while (numbers.children.length > lines.length) numbers.lastChild.remove();
      while (numbers.children.length < lines.length) {
        const cell = document.createElement("div");
        cell.textContent = numbers.children.length + 1;
        numbers.append(cell);
      }
      field.parentElement.style.setProperty("--digits", Math.max(2, String(lines.length).length));
      [...rows.children].forEach((row, index) => {
        const cell = numbers.children[index];
        if (cell.className === row.className) return;
        cell.className = row.className;
        cell.dataset.sign = SIGNS[row.className] ?? "";
      });
    }

    function follow() {
      rows.style.transform = `translate(${-field.scrollLeft}px, ${-field.scrollTop}px)`;
      numbers.style.transform = `translateY(${-field.scrollTop}px)`;
    }

    /* Marks lines, by number, in one of LOOKS each. */
    function mark(looks) {
      [...rows.children].forEach((row, index) => {
        const look = looks.get(index + 1) ?? "";
        if (row.className !== look) row.className = look;
      });
      number();
    }

    /* Puts the cursor before the first word of a line. */
    function go(line) {
      const before = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
      const place = Math.min(before + (lines[line - 1] ?? "").search(/\S|$/), field.value.length);
      field.focus();
      field.setSelectionRange(place, place);
      field.scrollTo({ top: (line - 1) * HEIGHT - field.clientHeight / 3, left: 0 });
    }

    /* A new line begins below the first word of the last. */
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing) return;
      const [indent] = /^ *(?:- +)*/.exec(field.value.slice(0, field.selectionStart).split("\n").at(-1));
      if (!indent) return;
      event.preventDefault();
      document.execCommand("insertText", false, `\n${" ".repeat(indent.length)}`); // can be undone
    });
    field.addEventListener("input", draw);
    field.addEventListener("scroll", follow, { passive: true });
    told(field, draw);
    draw();
    return { mark, go };
  }

  /* Calls back when a script writes into a text field, too: the page does when a recipe arrives. */
  function told(field, callback) {
    const value = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value");
    Object.defineProperty(field, "value", {
      configurable: true,
      get: () => value.get.call(field),
      set: (text) => {
        value.set.call(field, text);
        callback();
      },
    });
  }

  /* The editor of the text field, whose checks the element lists. */
  function mount(element, watch, selector) {
    const field = document.querySelector(selector);
    if (!field) return setTimeout(() => mount(element, watch, selector), 50);
    const editor = dressed(field);
    const show = () => {
      const items = [...element.querySelectorAll("li:has([data-line])")];
      const looks = new Map();
      for (const look of LOOKS.toReversed()) {
        for (const item of items.filter((one) => one.classList.contains(look)))
          looks.set(Number(item.querySelector("[data-line]").dataset.line), look);
      }
      editor.mark(looks);
      const wrong = element.querySelector("li.is-error");
      if (wrong) wrong.id = "recipe-problem";
      field.ariaInvalid = wrong ? "true" : null;
      if (wrong) field.setAttribute("aria-describedby", wrong.id);
      else field.removeAttribute("aria-describedby");
    };
    element.addEventListener("click", ({ target }) => {
      const line = target.closest("[data-line]")?.dataset.line;
      if (line) editor.go(Number(line));
    });
    watch("value", show);
    show();
    return undefined;
  }

  globalThis.amalgamEditor = { mount };
})();
