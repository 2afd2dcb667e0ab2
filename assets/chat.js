"use strict";
/* The chat of this page: its rows, what is asked next over which channel, and what is kept. A channel
   (ui/chat/layout.py) brings one answer at a time; a model answers its questions in their order. */
window.amalgamChat = (() => {
  const {load, save, readSettings, MOST_VOTES} = window.amalgamChatStore;
  const {isActive} = window.amalgamChatBoard;
  const blind = window.amalgamChatBlind;
  const SAVE_MS = 500;
  let state = load();
  let board = null; // {element, props}: the columns are props.value.columns
  let complain = () => {};
  let tally = null; // {props, count}
  let saving = 0;
  const channels = []; // {trigger, job}
  const waiting = []; // jobs: {row, model, run}

  const columns = () => board?.props.value?.columns ?? [];
  const models = () => columns().map(({name}) => name);
  const fresh = () => crypto.getRandomValues(new Uint32Array(2)).join("-");

  /* -- keeping and drawing */
  const keep = () => {
    clearTimeout(saving);
    saving = 0;
    const lost = save(state);
    const words = board?.element.querySelector(".kept");
    const kept = state.rows.length ? "Kept in this browser" : "";
    if (words) words.textContent = lost ? `${lost} older question${lost === 1 ? " is" : "s are"} not kept over a reload` : kept;
  };
  let drawing = 0;
  let stale = new Set(); // rows to be drawn; null where all are
  const draw = () => {
    clearTimeout(drawing);
    drawing = 0;
    if (board) window.amalgamChatBoard.draw(board.element, state, columns(), actions, stale);
    stale = new Set();
  };
  const changed = (row = null) => {
    if (!row) stale = null;
    stale?.add(row);
    saving ||= setTimeout(keep, SAVE_MS);
    drawing ||= setTimeout(draw);
  };
  const redraw = () => {
    stale = null;
    draw();
  };
  addEventListener("pagehide", keep);

  const announce = (job) => {
    const log = board?.element.querySelector("[role=log]");
    if (!log) return;
    const shown = blind.columnsOf(job.row, columns());
    const {label, hidden} = shown.find(({name}) => name === job.model) ?? {label: job.model};
    const line = document.createElement("p");
    line.textContent = `${label}: ${job.run.text.slice(0, 400)}${hidden ? "" : ` (${job.run.note})`}`;
    log.append(line);
    while (log.children.length > 8) log.firstChild.remove();
  };

  /* -- asking */
  /* The conversation up to a row's question; a question without an answer would break its order. */
  const messages = ({row, model, run}) => {
    const said = run.settings.system.trim() ? [{role: "system", content: run.settings.system}] : [];
    for (const other of state.rows) {
      if (other === row) break;
      const cell = other.cells.get(model), one = cell?.runs[cell.shown];
      if (one?.state === "over" && one.text)
        said.push({role: "user", content: other.question}, {role: "assistant", content: one.text});
    }
    return [...said, {role: "user", content: row.question}];
  };
  const next = () => {
    for (const channel of channels) {
      if (channel.job) continue;
      const busy = new Set(channels.map(({job}) => job?.model));
      const place = waiting.findIndex(({model}) => !busy.has(model));
      if (place < 0) return;
      channel.job = waiting.splice(place, 1)[0];
      const {run, model} = channel.job;
      const tokens = Boolean(channel.job.target);
      channel.trigger("ask", {run: run.id, model, messages: messages(channel.job), settings: run.settings, tokens});
    }
  };
  const unwritten = (settings) => ({
    id: fresh(), text: "", note: "waiting", state: "waiting", rate: "", tokens: 0, seconds: 0,
    finish: "", fingerprint: "", settings,
  });
  const begin = (row, model, settings) => {
    const cell = row.cells.get(model) ?? {runs: [], shown: 0};
    const run = unwritten(settings);
    cell.runs.push(run);
    cell.shown = cell.runs.length - 1;
    row.cells.set(model, cell);
    waiting.push({row, model, run});
  };
  const end = (run) => {
    if (isActive(run)) Object.assign(run, {state: "over", note: "stopped", finish: "stopped"});
  };
  const stop = (unwanted) => {
    for (let place = waiting.length; place--;)
      if (unwanted(waiting[place])) end(waiting.splice(place, 1)[0].run);
    for (const channel of channels) {
      if (!channel.job || !unwanted(channel.job)) continue;
      channel.trigger("stop", {run: channel.job.run.id});
      end(channel.job.run); // at once: its stream may still wait for a model
      channel.job = null;
    }
    next();
    changed();
  };
  /* The same answer, written again with its tokens: what they tell holds for the very same words. */
  const retold = ({run, target, model}, {written}) => {
    if (run.state === "failed") return complain(`${model}: ${run.note}`);
    if (run.finish === "stopped") return;
    if (run.text !== target.text || !written.length)
      return complain(`${model} would now answer otherwise, because the conversation before it or the model has changed; ask again to see that answer's tokens.`);
    target.written = written;
    target.isOpen = true;
  };
  const received = (channel, answer) => {
    const {job} = channel;
    if (!job || answer?.run !== job.run.id) return; // of an answer that was stopped
    const {text, note, state: now, rate, tokens, seconds, finish, fingerprint} = answer;
    Object.assign(job.run, {text, note, state: now, rate, tokens, seconds, finish, fingerprint});
    if (!isActive(job.run)) {
      channel.job = null;
      if (job.target) retold(job, answer);
      else announce(job);
      next();
    }
    changed(job.row);
  };

  const problem = (question) => {
    const most = board.props.value.most;
    if (!question) return "Write a question first.";
    if (question.length > most) return `The question has ${question.length} characters; ${most} are the most.`;
    return models().length ? "" : "Choose at least one model.";
  };
  /* Puts a question to every chosen model; false where it cannot be put. */
  const ask = (question) => {
    const words = problem(question.trim());
    complain(words);
    if (words) return false;
    const isBlind = state.isBlind && models().length > 1;
    const order = isBlind ? blind.shuffled(models()) : null;
    const row = {id: fresh(), question: question.trim(), cells: new Map(), order, vote: null};
    state.rows.push(row);
    state.undo = null;
    for (const model of models()) begin(row, model, state.settings);
    next();
    changed();
    draw();
    board.element.querySelector(".chat-row:last-child")?.scrollIntoView({block: "nearest"});
    return true;
  };

  const copied = async (text, node) => {
    try {
      await navigator.clipboard.writeText(text);
      node.textContent = "Copied";
    } catch {
      node.textContent = "Not allowed";
    }
    setTimeout(() => (node.textContent = "Copy"), 1500);
  };

  const actions = {
    stop: (model) => stop((job) => model === undefined || job.model === model),
    /* Another seed; where nothing is drawn by chance, the answer is the same one. */
    again(row, names = models()) {
      const runs = [...row.cells.values()].flatMap((cell) => cell.runs);
      const seed = Math.max(state.settings.seed - 1, ...runs.map((run) => run.settings.seed)) + 1;
      stop((job) => job.row === row && names.includes(job.model));
      for (const model of names) begin(row, model, {...state.settings, seed: seed % 2 ** 31});
      complain(state.settings.temperature ? "" : "At temperature 0 every seed gives the same answer; raise it for another one.");
      next();
      changed();
    },
    /* The question anew; what was asked after it goes, and comes back with Undo. */
    edited(row, question) {
      const words = problem(question.trim());
      complain(words);
      if (words) return false;
      const place = state.rows.indexOf(row), before = state.rows;
      stop((job) => state.rows.indexOf(job.row) >= place);
      state.rows = before.slice(0, place);
      ask(question);
      const later = before.length - place - 1;
      const gone = later ? `, ${later} later question${later === 1 ? "" : "s"} removed` : "";
      state.undo = {words: `Question ${place + 1} edited${gone}.`, rows: before, votes: state.votes};
      changed();
      return true;
    },
    earlier(names, only) {
      for (const row of state.rows)
        for (const model of names)
          if ((!only || only === row) && !row.cells.has(model)) begin(row, model, state.settings);
      next();
      changed();
    },
    turn(row, model, by) {
      const cell = row.cells.get(model);
      cell.shown = Math.min(cell.runs.length - 1, Math.max(0, cell.shown + by));
      changed();
    },
    tokens(row, model) {
      const cell = row.cells.get(model), target = cell.runs[cell.shown];
      if (target.written) {
        target.isOpen = !target.isOpen;
        return changed();
      }
      complain("");
      // what was stopped is written as far as it came
      const longest = target.finish === "stopped" ? Math.max(1, target.tokens) : target.settings.longest;
      target.reading = unwritten({...target.settings, longest});
      waiting.push({row, model, run: target.reading, target});
      next();
      changed();
    },
    copy(row, model, node) {
      const cell = row.cells.get(model);
      copied(cell.runs[cell.shown].text, node);
    },
    blind(on) {
      state.isBlind = on;
      complain(on && models().length < 2 ? "A blind round needs two models or more." : "");
      changed();
    },
    vote(row, choice) {
      const there = blind.columnsOf(row, columns()).map(({name}) => name);
      row.order = there; // a model that was taken away was not voted on
      row.vote = {choice};
      state.votes = [...state.votes, blind.vote(row, choice, there)].slice(-MOST_VOTES);
      changed();
      count();
    },
    save: (kind) => window.amalgamChatExport.download(kind, state, columns(), tally?.props.value),
    reference(model) {
      state.reference = model;
      changed();
    },
    clear() {
      if (!state.rows.length) return;
      stop(() => true);
      state.undo = {words: "The conversation was cleared.", rows: state.rows, votes: state.votes};
      state.rows = [];
      complain("");
      changed();
    },
    undo() {
      stop(() => true);
      state.rows = state.undo.rows;
      state.votes = state.undo.votes;
      state.undo = null;
      changed();
      count();
    },
  };

  /* Votes are counted by the server, which keeps none. */
  const count = () => tally?.trigger("count", {votes: blind.players(state.votes)});
  const forget = () => {
    state.undo = {words: "The votes were forgotten.", rows: state.rows, votes: state.votes};
    state.votes = [];
    changed();
    count();
  };

  const box = () => document.querySelector("#chat-prompt textarea");
  const fill = (text) => {
    if (!box()) return;
    box().value = text;
    box().dispatchEvent(new Event("input", {bubbles: true}));
  };

  return {
    board(element, props, watch) {
      board = {element, props};
      const shown = () => {
        const now = models();
        state.chosen = now;
        stop((job) => !now.includes(job.model)); // who left answers nobody
        redraw();
        keep();
      };
      watch("value", shown);
      if (!state.chosen || state.chosen.join() === models().join()) shown();
      else redraw(); // what was kept is on its way from the server
    },
    channel(element, props, watch, trigger) {
      const channel = {trigger, job: null};
      channels.push(channel);
      watch("value", () => received(channel, props.value));
      next();
    },
    examples(element, props, watch) {
      const group = element.querySelector(".suggestions"), alert = element.querySelector("#chat-problem");
      complain = (words) => (alert.textContent = words);
      const {button} = window.amalgamChatBoard;
      const show = () =>
        group.replaceChildren(...(props.value?.examples ?? []).map((text) => button(text, "", () => ask(text), "example")));
      watch("value", show);
      show();
    },
    tally(element, props, watch, trigger) {
      tally = {props, trigger};
      watch("value", () => blind.draw(element.querySelector(".tally"), props.value, forget));
      if (state.votes.length) count();
    },
    /* What was typed is taken out of its box at once, so that the next one can be typed. */
    ask(question, settings) {
      const typed = box()?.value ?? question ?? "";
      this.settings(settings);
      if (ask(typed)) fill("");
    },
    settings([temperature, top_p, longest, seed, system]) {
      state.settings = readSettings({temperature, top_p, longest, seed, system});
      state.hasSettings = true;
      changed();
    },
    within: (name, value) => readSettings({[name]: value})[name],
    stored: () => ({chosen: state.chosen, settings: state.hasSettings ? state.settings : null}),
  };
})();
