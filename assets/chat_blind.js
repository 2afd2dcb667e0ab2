"use strict";
/* Blind rounds: whose answer stands where, votes, and their tally (ui/chat/tally.py counts). */
window.amalgamChatBlind = (() => {
  const {strength} = window.amalgamChatExport;
  const LETTERS = "ABCD";

  /* The models in an order of chance, anew for every question. */
  const shuffled = (models) => {
    const order = [...models];
    for (let place = order.length - 1; place > 0; place--) {
      const other = crypto.getRandomValues(new Uint32Array(1))[0] % (place + 1);
      [order[place], order[other]] = [order[other], order[place]];
    }
    return order;
  };
  const isHidden = (row) => Boolean(row.order && !row.vote);

  /* The columns of a row, as it may show them: letters until it was voted on. */
  const columnsOf = (row, columns) => {
    if (!row.order) return columns;
    const there = row.order.filter((name) => columns.some((column) => column.name === name));
    const ordered = there.map((name) => columns.find((column) => column.name === name));
    if (isHidden(row))
      return ordered.map((column, place) => ({...column, label: `Answer ${LETTERS[place]}`, tone: 0, hidden: true}));
    return [...ordered, ...columns.filter(({name}) => !row.order.includes(name))];
  };

  /* What a vote is on: [words, choice]. */
  const choices = (row, columns) => {
    const shown = columnsOf(row, columns), two = shown.length === 2;
    return [
      ...shown.map(({name}, place) => [`${LETTERS[place]} is ${two ? "better" : "best"}`, name]),
      ["Tie", "tie"],
      [two ? "Both bad" : "All bad", "bad"],
    ];
  };
  const outcome = (row, columns) => {
    const {choice} = row.vote;
    if (choice === "tie") return "You called it a tie.";
    if (choice === "bad") return "You found all of them bad.";
    const place = row.order.indexOf(choice);
    return `You chose ${LETTERS[place]}: ${columns.find(({name}) => name === choice)?.label ?? choice}.`;
  };

  const vote = (row, choice, models) => {
    const runs = models.map((name) => row.cells.get(name)).map((cell) => cell?.runs[cell.shown]);
    return {
      id: row.id,
      question: row.question.slice(0, 200),
      models,
      fingerprints: runs.map((run) => run?.fingerprint ?? ""),
      seeds: runs.map((run) => run?.settings.seed ?? 0),
      choice,
    };
  };

  /* Votes as the server counts them: a model of the same name with other tensors is another one. */
  const players = (votes) => {
    const prints = new Map();
    for (const {models, fingerprints} of votes)
      models.forEach((name, place) => prints.set(name, (prints.get(name) ?? new Set()).add(fingerprints[place])));
    const called = (name, print) =>
      prints.get(name).size > 1 ? `${name} (${print.split(":").pop().slice(0, 8) || "unknown"})` : name;
    return votes.map(({models, fingerprints, choice}) => {
      const names = models.map((name, place) => called(name, fingerprints[place]));
      return {models: names, winner: names[models.indexOf(choice)] ?? ""};
    });
  };

  const percent = (share) => `${Math.round(share * 100)} %`;
  const table = (caption, heads, rows) => {
    const node = document.createElement("table");
    node.createCaption().textContent = caption;
    const line = node.createTHead().insertRow();
    for (const words of heads) {
      const head = document.createElement("th");
      head.scope = "col";
      head.textContent = words;
      line.append(head);
    }
    const body = node.createTBody();
    for (const cells of rows) {
      const row = body.insertRow();
      for (const words of cells) row.insertCell().textContent = words;
    }
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.append(node);
    return scroll;
  };

  const draw = (section, tally, forget) => {
    section.hidden = !tally?.votes;
    if (section.hidden) return;
    const {make, button} = window.amalgamChatBoard;
    const head = make("header", "tally-head");
    head.append(make("h3", "", "Votes"), button("Forget the votes", "", forget));
    const status = make("p", "verdict", tally.verdict);
    status.setAttribute("role", "status");
    const standings = tally.standings.map((one) => [
      one.model, one.votes, one.wins, one.ties,
      strength(tally, one),
    ]);
    const duels = tally.early ? [] : tally.duels.map((one) => [
      `${one.first} over ${one.second}`, percent(one.share), `${percent(one.low)} to ${percent(one.high)}`,
      one.clear ? "clear" : "not clear",
    ]);
    const parts = [head, status, table("Standings", ["Model", "Votes", "Won", "Ties", "Strength (95 %)"], standings)];
    if (duels.length) parts.push(table("Preferred in a new vote", ["Models", "Probability", "95 %", ""], duels));
    parts.push(make("p", "quiet", "Bradley-Terry strengths (natural logarithm, 0 on average); ties and “all bad” count half a win each, every two models begin with one draw; intervals from 400 resamples of the questions. Kept in this browser, up to 300 votes."));
    section.replaceChildren(...parts);
  };

  return {shuffled, isHidden, columnsOf, choices, outcome, vote, players, draw};
})();
