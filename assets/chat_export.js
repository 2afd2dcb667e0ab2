"use strict";
/* The conversation as a file: JSON with everything, Markdown to read. Texts of models stand in fences
   longer than any of theirs, so that no answer becomes a heading or markup. */
window.amalgamChatExport = (() => {
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

  const content = (state, columns, tally, time) => ({
    format: "amalgam-chat",
    version: 1,
    exported: time,
    columns: columns.map(({name, label}) => ({name, label})),
    settings: state.settings,
    questions: state.rows.map((row) => ({
      question: row.question,
      blind: row.order ? {order: row.order, vote: row.vote?.choice ?? null} : null,
      answers: [...row.cells].flatMap(([model, cell]) =>
        cell.runs.map(({id, rate, reading, isOpen, ...run}, place) => ({model, shown: place === cell.shown, ...run}))),
    })),
    votes: state.votes,
    tally: tally?.votes ? tally : null,
  });

  const fenced = (text) => {
    const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([ticks]) => ticks.length));
    const fence = "`".repeat(longest + 1);
    return `${fence}text\n${text}\n${fence}`;
  };
  const how = ({temperature, top_p, longest, seed}) =>
    `temperature ${temperature}, top-p ${top_p}, at most ${plural(longest, "token")}, seed ${seed}`;

  const answer = (one) => {
    const facts = [one.note, how(one.settings), one.fingerprint && `\`${one.fingerprint}\``];
    return `### ${one.model}${one.shown ? "" : " (an answer not shown)"}\n\n${facts.filter(Boolean).join(" · ")}\n\n${fenced(one.text)}`;
  };
  const systems = (questions) => {
    const all = new Set(questions.flatMap(({answers}) => answers.map(({settings}) => settings.system)));
    return [...all].filter(Boolean).map((text) => `System prompt:\n\n${fenced(text)}`);
  };
  const voted = ({blind}) => {
    if (!blind?.vote) return [];
    const words = {tie: "a tie", bad: "all bad"}[blind.vote] ?? blind.vote;
    return [`Blind vote between ${blind.order.join(", ")}: ${words}`];
  };
  const strength = (tally, {strength, low, high}) =>
    tally.early ? "too early" : `${strength.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
  const standings = (tally) => {
    if (!tally) return [];
    const rows = tally.standings.map((one) =>
      `| ${one.model} | ${one.votes} | ${one.wins} | ${one.ties} | ${strength(tally, one)} |`);
    return ["## Votes", tally.verdict,
      ["| Model | Votes | Won | Ties | Strength (95 %) |", "|---|---|---|---|---|", ...rows].join("\n")];
  };

  const markdown = (whole) =>
    [
      `# Chat of ${whole.exported.slice(0, 10)}`,
      `Models: ${whole.columns.map(({name}) => name).join(", ")}`,
      ...systems(whole.questions),
      ...whole.questions.flatMap((one, place) =>
        [`## Question ${place + 1}`, fenced(one.question), ...voted(one), ...one.answers.map(answer)]),
      ...standings(whole.tally),
    ].join("\n\n") + "\n";

  const save = (text, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const download = (kind, state, columns, tally) => {
    const time = new Date().toISOString(), whole = content(state, columns, tally, time);
    const name = `amalgam-chat-${time.slice(0, 19).replaceAll(":", "-")}`;
    if (kind === "json") save(JSON.stringify(whole, null, 2), "application/json", `${name}.json`);
    else save(markdown(whole), "text/markdown", `${name}.md`);
  };

  return {content, markdown, download, strength};
})();
