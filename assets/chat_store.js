"use strict";
/* What the browser keeps of the chat: this page's own for a reload, and the latest page's for the
   next page. What is read is data of unknown origin: whatever is not of the right form is left out. */
window.amalgamChatStore = (() => {
  const KEY = "amalgam-chat";
  const MOST = 1_000_000; // characters; the oldest questions go first
  const MOST_ROWS = 500, MOST_RUNS = 20, MOST_COLUMNS = 4, MOST_VOTES = 300;
  const STATES = ["over", "failed"], ENDS = ["", "end", "length", "stopped"];

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const text = (value, most = 400_000) => (typeof value === "string" ? value.slice(0, most) : "");
  const number = (value, least = 0, most = Number.MAX_SAFE_INTEGER, first = 0) =>
    Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : first;
  const list = (value, most, read) =>
    Array.isArray(value) ? value.slice(-most).map(read).filter((one) => one !== null) : [];
  /* A plain object under names that came from outside, which must not reach a prototype. */
  const table = (value, read) => {
    const entries = isObject(value) ? Object.entries(value) : [];
    const read_ = entries.map(([name, one]) => [name.slice(0, 512), read(one)]);
    return new Map(read_.filter(([, one]) => one !== null));
  };

  const names = (value) => [...new Set(list(value, MOST_COLUMNS, (name) => text(name, 512) || null))];

  const readSettings = (value) => {
    const given = isObject(value) ? value : {};
    return {
      temperature: number(given.temperature, 0, 2, 0),
      top_p: number(given.top_p, 0.05, 1, 1),
      longest: Math.round(number(given.longest, 1, 1024, 128)),
      seed: Math.round(number(given.seed, 0, 2 ** 31 - 1, 0)),
      system: text(given.system, 8000),
    };
  };

  /* An answer that was being written when the page went is over as far as it came. */
  const readRun = (value) => {
    if (!isObject(value) || !text(value.id, 64)) return null;
    const ended = STATES.includes(value.state);
    return {
      id: text(value.id, 64),
      text: text(value.text),
      note: ended ? text(value.note, 2000) : "cut off when the page was left",
      state: ended ? value.state : "over",
      rate: text(value.rate, 40),
      tokens: number(value.tokens),
      seconds: number(value.seconds),
      finish: !ended ? "stopped" : ENDS.includes(value.finish) ? value.finish : "",
      settings: readSettings(value.settings),
      fingerprint: text(value.fingerprint, 80),
    };
  };

  const readCell = (value) => {
    const runs = isObject(value) ? list(value.runs, MOST_RUNS, readRun) : [];
    if (!runs.length) return null;
    return {runs, shown: Math.round(number(value.shown, 0, runs.length - 1, runs.length - 1))};
  };

  const readRow = (value) => {
    if (!isObject(value) || !text(value.id, 64) || !text(value.question, 8000)) return null;
    const order = names(value.order);
    return {
      id: text(value.id, 64),
      question: text(value.question, 8000),
      cells: table(value.cells, readCell),
      order: order.length > 1 ? order : null,
      vote: order.length > 1 ? readChoice(value.vote, order) : null,
    };
  };

  const readRows = (value) =>
    [...new Map(list(value, MOST_ROWS, readRow).map((row) => [row.id, row])).values()];

  /* A vote names a model of `models`, or says "tie" or "bad". */
  const readChoice = (value, models) => {
    const choice = isObject(value) ? text(value.choice, 512) : "";
    return ["tie", "bad", ...models].includes(choice) ? {choice} : null;
  };
  const readVote = (value) => {
    const models = names(isObject(value) ? value.models : null);
    const choice = readChoice(value, models)?.choice;
    if (models.length < 2 || !choice || !text(value.id, 64)) return null;
    const prints = list(value.fingerprints, MOST_COLUMNS, (print) => text(print, 80));
    return {
      id: text(value.id, 64),
      question: text(value.question, 200),
      models,
      fingerprints: models.map((_, place) => prints[place] ?? ""),
      seeds: models.map((_, place) => number(Array.isArray(value.seeds) ? value.seeds[place] : 0)),
      choice,
    };
  };

  const readVotes = (value) => list(value, MOST_VOTES, readVote);
  const readUndo = (value) =>
    isObject(value) && Array.isArray(value.rows)
      ? {words: text(value.words, 200), rows: readRows(value.rows), votes: readVotes(value.votes)}
      : null;

  const read = (value) => {
    const given = isObject(value) ? value : {};
    const chosen = names(given.chosen);
    return {
      rows: readRows(given.rows),
      undo: readUndo(given.undo),
      chosen: chosen.length ? chosen : null,
      reference: text(given.reference, 512),
      settings: readSettings(given.settings),
      hasSettings: isObject(given.settings),
      isBlind: given.isBlind === true,
      votes: readVotes(given.votes),
    };
  };

  const parsed = (stored) => {
    try {
      return stored ? JSON.parse(stored) : null;
    } catch {
      return null;
    }
  };

  /* Storage that is switched off, full or broken is no storage. */
  const guarded = (action) => {
    try {
      return action();
    } catch {
      return null;
    }
  };
  const load = () =>
    read(parsed(guarded(() => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY))));

  /* Tokens can be asked for again and take much room; `reading` and `isOpen` are of this page. */
  const LEFT_OUT = new Set(["written", "reading", "isOpen"]);
  const plain = (name, value) =>
    LEFT_OUT.has(name) ? undefined : value instanceof Map ? Object.fromEntries(value) : value;

  /* What is kept: all of it, or as much of it as fits, the latest questions first. */
  const packed = (state, most = MOST) => {
    let kept = state;
    for (;;) {
      const written = JSON.stringify(kept, plain);
      if (written.length <= most) return {written, dropped: state.rows.length - kept.rows.length};
      if (kept.undo) kept = {...kept, undo: null};
      else if (kept.rows.length) kept = {...kept, rows: kept.rows.slice(Math.ceil(kept.rows.length / 8))};
      else return {written: "{}", dropped: state.rows.length};
    }
  };

  /* Returns how many questions were not kept, all of them where there is no storage. */
  const save = (state) => {
    const {written, dropped} = packed(state);
    const own = guarded(() => (sessionStorage.setItem(KEY, written), true));
    const next = guarded(() => (localStorage.setItem(KEY, written), true));
    return own || next ? dropped : state.rows.length;
  };

  return {read, load, save, packed, readSettings, MOST, MOST_VOTES};
})();
