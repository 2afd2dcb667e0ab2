"use strict";
/* Draws the chat: a row per question, a cell per model. All text enters the page as text, never as
   markup. Nodes stay as long as what they stand for, so that focus and open parts stay too. */
window.amalgamChatBoard = (() => {
  const {different, split} = window.amalgamChatText;
  const {isHidden, columnsOf, choices, outcome} = window.amalgamChatBlind;

  const make = (tag, name = "", text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const setText = (node, text) => {
    if (node.textContent !== text || node.childElementCount) node.textContent = text;
  };
  const button = (words, label, action, name = "") => {
    const node = make("button", `plain ${name}`.trim(), words);
    node.type = "button";
    if (label) node.setAttribute("aria-label", label);
    node.addEventListener("click", action);
    return node;
  };
  /* Children of `box` by key, in order: kept where they are there, made where not, else removed. */
  const arranged = (box, keys, build) => {
    const there = new Map([...box.children].map((node) => [node.dataset.key, node]));
    const nodes = keys.map((key) => {
      const node = there.get(key) ?? build(key);
      node.dataset.key = key;
      there.delete(key);
      return node;
    });
    for (const node of there.values()) node.remove();
    nodes.forEach((node, place) => {
      if (box.children[place] !== node) box.insertBefore(node, box.children[place] ?? null);
    });
    return nodes;
  };

  const isActive = (run) => run && (run.state === "running" || run.state === "waiting");

  const drawAnswer = (node, run, reference) => {
    const {thought, said, open} = split(run.text);
    let fold = node.querySelector("details"), body = node.querySelector(".said");
    if (!body) node.append((body = make("p", "said")));
    if (thought && !fold) {
      node.prepend((fold = make("details", "thinking")));
      fold.append(make("summary"), make("p"));
    } else if (!thought && fold) {
      fold.remove();
    }
    if (thought) {
      setText(fold.firstChild, open && isActive(run) ? "Thinking…" : "Thinking");
      setText(fold.lastChild, thought);
    }
    const tokens = node.querySelector(".tokens");
    body.hidden = Boolean(run.isOpen && run.written);
    if (tokens && !body.hidden) tokens.remove();
    if (body.hidden) {
      if (!tokens || tokens.dataset.run !== run.id) {
        tokens?.remove();
        const list = window.amalgamChatTokens.build(run.written);
        list.dataset.run = run.id;
        node.append(list);
      }
      return;
    }
    const words = said || (run.finish !== "stopped" && run.state === "over" && !thought ? "(no answer)" : "");
    if (reference === undefined || isActive(run)) {
      delete body.dataset.compared;
      return setText(body, words);
    }
    const compared = JSON.stringify([words, reference]); // again only where one of them changed
    if (body.dataset.compared === compared) return;
    body.dataset.compared = compared;
    const marks = different(words, split(reference).said);
    body.replaceChildren(...marks.map(([word, differs]) =>
      differs ? make("mark", "differs", word) : document.createTextNode(word)));
  };

  const buildCell = (model, row, actions) => {
    const cell = make("article", "cell");
    cell.dataset.model = model;
    const head = make("header");
    head.append(make("i", "dot"), Object.assign(make("h4", "name"), { ariaLevel: "3" }));
    const foot = make("div", "foot");
    const tools = make("div", "cell-tools");
    const runs = make("span", "runs");
    runs.append(
      button("‹", "Earlier answer", () => actions.turn(row, model, -1)),
      make("span", "place"),
      button("›", "Later answer", () => actions.turn(row, model, 1)),
    );
    tools.append(
      runs,
      button("Copy", "", (event) => actions.copy(row, model, event.currentTarget), "copy"),
      button("Ask again", "", () => actions.again(row, [model]), "again"),
      button("Tokens", "", () => actions.tokens(row, model), "show-tokens"),
      button("Ask", "", () => actions.earlier([model], row), "missing"),
      button("Stop", "", () => actions.stop(model), "halt"),
    );
    foot.append(make("p", "note"), tools);
    cell.append(head, make("div", "answer"), foot);
    return cell;
  };

  const drawDot = (dot, column) => {
    dot.className = `dot tone-${column.tone}`;
    dot.style.setProperty("--own", column.colour ?? "");
  };

  const drawCell = (cell, row, column, reference) => {
    const entry = row.cells.get(column.name);
    const run = entry?.runs[entry.shown];
    const active = isActive(run);
    cell.className = `cell is-${run ? run.state : "missing"}`;
    cell.setAttribute("aria-label", `${column.label} answers`);
    cell.setAttribute("aria-busy", String(Boolean(active)));
    drawDot(cell.querySelector(".dot"), column);
    setText(cell.querySelector(".name"), column.label);
    const answer = cell.querySelector(".answer");
    answer.hidden = !run || (!run.text && run.state !== "running" && run.state !== "over");
    if (run) drawAnswer(answer, run, reference);
    const note = column.hidden && run && !active ? "ready" : run ? run.note : "not asked";
    setText(cell.querySelector(".note"), column.hidden && run?.state === "running" ? "writing" : note);
    const one = (name) => cell.querySelector(`.cell-tools .${name}`);
    one("runs").hidden = column.hidden || !entry || entry.runs.length < 2;
    if (entry) setText(one("place"), `${entry.shown + 1} of ${entry.runs.length}`);
    one("copy").hidden = !run?.text || active;
    one("again").hidden = column.hidden || !run || active;
    const reads = isActive(run?.reading), tokens = one("show-tokens");
    tokens.hidden = column.hidden || !run?.text || run.state !== "over" || active;
    tokens.setAttribute("aria-pressed", String(Boolean(run?.isOpen && run.written)));
    tokens.disabled = reads;
    setText(tokens, reads ? "Reading…" : run?.isOpen && run.written ? "Text" : "Tokens");
    one("missing").hidden = Boolean(run);
    one("halt").hidden = !active;
    const labels = {copy: "Copy the answer of", again: "Ask again:", missing: "Ask", halt: "Stop", "show-tokens": "Tokens of"};
    for (const [name, words] of Object.entries(labels)) one(name).setAttribute("aria-label", `${words} ${column.label}`);
  };

  const buildRow = (row, actions) => {
    const section = make("section", "chat-row");
    const bar = make("header", "asked");
    const tools = make("div", "row-tools");
    tools.append(
      button("Ask again", "", () => actions.again(row), "again"),
      button("Edit", "", () => edit(section, row, actions), "edit"),
    );
    bar.append(Object.assign(make("p", "question"), { role: "heading", ariaLevel: "2" }), tools);
    section.append(bar, make("div", "cells"), make("div", "vote"));
    return section;
  };

  /* The question in a box: Enter asks it again, Escape leaves it as it is. */
  const edit = (section, row, actions) => {
    const bar = section.querySelector(".asked");
    if (bar.querySelector("textarea")) return;
    const form = make("form", "editing"), box = make("textarea");
    box.value = row.question;
    box.rows = Math.min(6, row.question.split("\n").length + 1);
    box.setAttribute("aria-label", "Edit the question");
    const close = () => {
      form.remove();
      bar.classList.remove("is-edited");
      section.querySelector(".edit").focus();
    };
    const send = () => {
      if (actions.edited(row, box.value)) close();
    };
    const submit = button("Ask", "", send, "strong");
    form.append(box, submit, button("Cancel", "", close));
    form.addEventListener("submit", (event) => event.preventDefault());
    box.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") close();
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        send();
      }
    });
    bar.classList.add("is-edited");
    bar.append(form);
    box.focus();
  };

  /* The vote of a blind row: buttons once all have answered, then what was chosen. */
  const drawVote = (box, row, place, all, actions) => {
    box.hidden = !row.order;
    if (box.hidden) return;
    const runs = columnsOf(row, all).map(({name}) => row.cells.get(name));
    const waits = runs.some((cell) => !cell || isActive(cell.runs[cell.shown]));
    const words = row.vote ? outcome(row, all) : waits ? "Vote once all have answered." : runs.length === 2 ? "Which answer is better?" : "Which answer is best?";
    const form = `${words}${runs.length}`;
    if (box.dataset.form === form) return;
    box.dataset.form = form;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Vote on question ${place + 1}`);
    box.replaceChildren(make("span", "", words));
    if (!row.vote && !waits && runs.length > 1)
      box.append(...choices(row, all).map(([name, choice]) => button(name, "", () => actions.vote(row, choice), "strong")));
  };

  const drawRow = (section, row, place, all, reference, actions) => {
    const columns = columnsOf(row, all), hidden = isHidden(row);
    section.classList.toggle("is-lettered", Boolean(row.order));
    section.querySelector(".row-tools").hidden = hidden;
    drawVote(section.querySelector(".vote"), row, place, all, actions);
    section.setAttribute("aria-label", `Question ${place + 1}`);
    setText(section.querySelector(".question"), row.question);
    const labels = {again: "Ask all again: question", edit: "Edit question"};
    for (const [name, words] of Object.entries(labels))
      section.querySelector(`.row-tools .${name}`).setAttribute("aria-label", `${words} ${place + 1}`);
    const cells = arranged(section.querySelector(".cells"), columns.map(({name}) => name),
      (model) => buildCell(model, row, actions));
    const entry = row.cells.get(reference), theirs = entry?.runs[entry.shown];
    cells.forEach((cell, index) => {
      const other = theirs && !hidden && columns[index].name !== reference && !isActive(theirs);
      drawCell(cell, row, columns[index], other ? theirs.text : undefined);
    });
  };

  const buildHead = (model, actions) => {
    const head = make("header", "chat-head");
    head.append(make("i", "dot"), Object.assign(make("h3", "name"), { ariaLevel: "2" }), make("span", "tag"), make("span", "rate"),
      button("Ask earlier questions", "", () => actions.earlier([model]), "earlier"),
      button("Stop", "", () => actions.stop(model), "stop"));
    return head;
  };

  const drawHead = (head, column, rows) => {
    const runs = rows.map((row) => row.cells.get(column.name)).map((cell) => cell?.runs[cell.shown]);
    const active = runs.some(isActive), missing = runs.filter((run) => !run).length;
    head.classList.toggle("is-merged", column.kind === "merged");
    drawDot(head.querySelector(".dot"), column);
    const name = head.querySelector(".name");
    setText(name, column.label);
    name.title = column.name;
    name.setAttribute("aria-label", column.name);
    setText(head.querySelector(".tag"), column.tag);
    setText(head.querySelector(".rate"), runs.findLast((run) => run?.rate)?.rate ?? "");
    const stop = head.querySelector(".stop"), earlier = head.querySelector(".earlier");
    stop.hidden = !active;
    stop.setAttribute("aria-label", `Stop ${column.name}`);
    earlier.hidden = active || !missing;
    setText(earlier, `Ask ${missing} earlier question${missing === 1 ? "" : "s"}`);
    earlier.setAttribute("aria-label", `${earlier.textContent}: ${column.label}`);
  };

  const buildTools = (box, actions) => {
    const label = make("label", "reference"), select = make("select");
    label.append(make("span", "", "Show differences from"), select);
    select.addEventListener("change", () => actions.reference(select.value));
    const kept = make("span", "kept quiet");
    const blind = make("label", "blind"), check = make("input");
    check.type = "checkbox";
    check.addEventListener("change", () => actions.blind(check.checked));
    blind.append(check, make("span", "", "Blind round"));
    blind.title = "New questions show their answers shuffled and without names until you have voted";
    box.append(label, blind, kept,
      button("Save as Markdown", "", () => actions.save("markdown"), "save"),
      button("Save as JSON", "", () => actions.save("json"), "save"),
      button("Stop all", "", () => actions.stop(), "stop-all"),
      button("Clear the conversation", "", actions.clear, "clear"));
  };

  const drawTools = (box, state, columns, actions) => {
    if (!box.firstChild) buildTools(box, actions);
    const select = box.querySelector("select");
    const options = [["", "none"], ...columns.map(({name, label}) => [name, label])];
    const drawn = [...select.options].map(({value, text}) => `${value}\n${text}`).join();
    if (drawn !== options.map((one) => one.join("\n")).join())
      select.replaceChildren(...options.map(([value, words]) => new Option(words, value)));
    select.value = columns.some(({name}) => name === state.reference) ? state.reference : "";
    const all = state.rows.flatMap(({cells}) => [...cells.values()].flatMap(({runs}) => runs));
    box.querySelector(".stop-all").hidden = !all.some((run) => isActive(run) || isActive(run.reading));
    box.querySelector(".clear").disabled = !state.rows.length;
    for (const node of box.querySelectorAll(".save")) node.disabled = !state.rows.length;
    box.querySelector(".blind input").checked = state.isBlind;
  };

  const drawUndo = (box, undo, actions) => {
    box.hidden = !undo;
    if (undo && box.dataset.words !== undo.words)
      box.replaceChildren(make("span", "", `${undo.words} `), button("Undo", "", actions.undo));
    box.dataset.words = undo ? undo.words : "";
  };

  /* Everything: `columns` are those of the models chosen now, `state` is chat.js's. Of the rows only
     `some`, where that is a set: while answers are written, a long conversation costs nothing. */
  const draw = (element, state, columns, actions, some = null) => {
    const part = (name) => element.querySelector(`.chat-${name}`);
    element.firstElementChild.style.setProperty("--columns", Math.max(columns.length, 1));
    element.firstElementChild.classList.toggle("is-empty", !state.rows.length);
    element.firstElementChild.classList.toggle("is-blind", state.rows.some(isHidden));
    drawTools(part("tools"), state, columns, actions);
    drawUndo(part("undo"), state.undo, actions);
    arranged(part("heads"), columns.map(({name}) => name), (model) => buildHead(model, actions))
      .forEach((head, place) => drawHead(head, columns[place], state.rows));
    const rows = new Map(state.rows.map((row) => [row.id, row]));
    arranged(part("rows"), [...rows.keys()], (id) => buildRow(rows.get(id), actions))
      .forEach((section, place) => {
        const row = state.rows[place];
        if (!some || some.has(row)) drawRow(section, row, place, columns, state.reference, actions);
      });
    if (!state.rows.length && columns.length) part("rows").append(make("p", "hint", "No question yet."));
  };

  return {draw, make, button, isActive};
})();
