"use strict";
/* Fills the other live figures, and tells every live figure as a table. */
(() => {
  const planner = () => globalThis.amalgamPlan; // scripts load in any order
  const drawing = () => globalThis.amalgamMap;
  const histograms = () => globalThis.amalgamHistogram;
  const percent = (share) => drawing().percent(share);
  const css = (colour) => drawing().css(colour);
  const kept = ({ family, plan, exact }, measure, of) => planner().share(family, plan, exact, measure, of);
  const ENOUGH = 20; // sampled changes from which on a share of a cell is told
  const tall = (family) => Math.min(520, Math.max(240, family.layers.length * 46 + 40));

  /* What a cell has, per layer and module: [row][column], null where the model has no such module. */
  function matrix(family, of) {
    const z = family.layers.map(() => family.modules.map(() => null));
    family.row_of.forEach((row, cell) => {
      if (row >= 0) z[row][family.column_of[cell]] = of(cell);
    });
    return z;
  }

  const survives = (state) => matrix(state.family, (cell) => kept(state, state.measure, { expert: state.expert, cells: [cell] }));
  /* The share that clashes, of a cell of which enough was sampled to say. */
  const opposed = ({ family, clash }) =>
    matrix(family, (cell) => (clash && clash[0][cell] >= ENOUGH ? clash[1][cell] / clash[0][cell] : null));

  /* The least and the largest share that is drawn; null where none is. */
  function ends(z) {
    const shares = z.flat().filter((share) => share !== null);
    return shares.length ? [Math.min(...shares), Math.max(...shares)] : null;
  }
  const span = (range) => (range ? `${percent(range[0])} to ${percent(range[1])}` : "");

  /* A heat map of cells, coloured over the range of what it shows. */
  function cells(figure, { family }, z, colours, width, say) {
    const { mix } = drawing(), soft = { color: css(colours.soft), tickcolor: css(colours.line) };
    const [least, most] = ends(z) ?? [0, 1], deep = colours.dark ? [36, 104, 176] : [86, 154, 222];
    const steps = [0.1, 0.55, 1].map((part, at) => [at / 2, css(mix(colours.card, deep, part))]); // ink stays legible on all
    const heat = {
      ...figure.data[0], x: family.modules, y: family.layers.map((_, index) => index), z,
      zmin: least, zmax: Math.max(most, least + 0.02), colorscale: steps,
      customdata: z.map((row, layer) => row.map((share, module) =>
        `layer ${family.layers[layer]}, ${family.modules[module]}: ${share === null ? "not enough is kept to say" : say(share, layer, module)}`)),
    };
    const room = (width - 52) / family.modules.length, high = (tall(family) - 38) / family.layers.length;
    if (high >= 11 && room >= 22) {
      heat.text = z.map((row) => row.map((share) => (share === null ? "" : `${Math.round(100 * share)}${room > 34 ? "%" : ""}`)));
      Object.assign(heat, { texttemplate: "%{text}", textfont: { size: Math.min(12, high - 1, room > 44 ? 12 : 9), color: css(colours.ink) } });
    }
    const every = Math.max(1, Math.ceil(family.layers.length / 16));
    const ticked = heat.y.filter((index) => index % every === 0);
    const layout = { ...figure.layout, width, height: tall(family) };
    layout.xaxis = { ...layout.xaxis, ...soft, type: "category", tickangle: room < 30 ? -90 : 0, automargin: true, tickfont: { size: room < 44 ? 11 : 12 } };
    layout.yaxis = {
      ...layout.yaxis, ...soft, range: [family.layers.length - 0.5, -0.5], tickvals: ticked,
      ticktext: ticked.map((index) => String(family.layers[index])),
    };
    return { data: [heat], layout };
  }

  const retention = (figure, state, colours, width) =>
    cells(figure, state, survives(state), colours, width, (share) => `${percent(share)} kept`);

  /* Half of what 19 of 20 samples may be off, of a share read off so many entries. */
  const margin = (share, count) => 1.96 * Math.sqrt((share * (1 - share)) / count);

  function clash(figure, state, colours, width) {
    const { family } = state;
    const at = (layer, module) => family.row_of.findIndex((row, cell) => row === layer && family.column_of[cell] === module);
    return cells(figure, state, opposed(state), colours, width, (share, layer, module) =>
      `${percent(share)} \u00b1 ${percent(margin(share, state.clash[0][at(layer, module)]))} of what is kept clashes`);
  }

  /* How far the merge moves each layer; pale while the controls ask for another. */
  function drift(figure, { arrival, arrived }, colours, width) {
    const { mix } = drawing(), grid = css(mix(colours.card, colours.line, 0.7));
    const axis = { color: css(colours.soft), gridcolor: grid, linecolor: css(colours.line) };
    const rows = arrival?.rows ?? [], colour = css(arrived ? mix(colours.card, colours.ink, 0.75) : mix(colours.card, colours.ink, 0.3));
    const bar = {
      ...figure.data[0], x: rows, y: arrival?.drift ?? [], marker: { color: colour },
      error_y: { ...figure.data[0].error_y, array: arrival?.error.map((error) => error ?? 0) ?? [], color: css(colours.soft) },
      customdata: rows.map((row, at) => `layer ${row}: ${percent(arrival.drift[at])}${off(arrival.error[at])}`),
    };
    const layout = { ...figure.layout, width, height: 260 };
    layout.xaxis = { ...layout.xaxis, ...axis };
    const top = Math.max(...rows.map((_, at) => arrival.drift[at] + (arrival.error[at] ?? 0)), 1e-4);
    layout.yaxis = { ...layout.yaxis, ...axis, range: [0, top * 1.08], showticklabels: rows.length > 0 };
    return { data: [bar], layout };
  }
  const off = (error) => (error === null ? " (too little was sampled)" : ` \u00b1 ${percent(error)}`);

  const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "cross", "star", "triangle-down", "pentagon"];
  const RATES = [...Array.from({ length: 48 }, (_, i) => i / 50), 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 1];

  /* Energy at each rate; it does not depend on the rate chosen, so it is kept with the family.
     Partitions matter only where the factor on one is 0. */
  function curves(family, settings) {
    const none = settings.order === "all", whole = { partitions: 1, factors: [1] };
    const asked = none ? { ...settings, ...whole, order: "largest" } : { ...settings };
    if (asked.factors.every((factor) => factor !== 0)) Object.assign(asked, whole);
    const key = JSON.stringify({ ...asked, density: 0, densities: 0, weights: 0, dense: 0 });
    if (family.curveKey !== key) {
      family.curves = planner().curve(family, asked, RATES);
      family.curveKey = key;
    }
    return family.curves;
  }

  /* What the slider's line says: of all experts that take part, together. */
  function told(settings, { l2, amplified }, together) {
    if (settings.order === "all") return "nothing is pruned";
    const more = Math.abs(amplified - l2) > 0.0005 ? `,<br>${percent(amplified)} amplified` : "";
    return `${(1 - settings.density).toFixed(2)} keeps ${percent(l2)}${together ? "<br>of all together" : ""}${more}`;
  }

  function energy(figure, state, colours, width) {
    const { family, plan } = state, { settings } = plan, lines = curves(family, settings);
    const marked = (expert) => RATES.map((_, at) => (at % 12 === (3 * expert) % 12 ? 7 : 0)); // where lines coincide both are seen
    const data = figure.data.map((trace) => {
      const { expert } = trace.meta;
      return { ...trace, mode: "lines+markers", x: RATES, y: lines[expert], marker: { symbol: SYMBOLS[expert % SYMBOLS.length], size: marked(expert), line: { width: 0 } } };
    });
    const rate = 1 - settings.density, right = rate < 0.5;
    const ink = css(colours.ink), grid = css(drawing().mix(colours.card, colours.line, 0.7));
    const axis = { color: css(colours.soft), gridcolor: grid, linecolor: css(colours.line) };
    const layout = { ...figure.layout, width, height: tall(family) };
    layout.xaxis = { ...layout.xaxis, ...axis };
    layout.yaxis = { ...layout.yaxis, ...axis };
    layout.legend = { ...layout.legend, font: { color: ink }, bgcolor: "rgba(0,0,0,0)" };
    layout.shapes = [{ type: "line", x0: rate, x1: rate, y0: 0, y1: 1, line: { color: ink, width: 1.6 } }];
    layout.annotations = [{
      x: rate, y: 1, yanchor: "top", xanchor: right ? "left" : "right", xshift: right ? 6 : -6,
      yshift: right ? -22 : width < 420 ? -36 : -64, align: right ? "left" : "right", text: told(settings, state.totals, family.experts > 1),
      showarrow: false, bgcolor: css(colours.card), font: { color: ink },
    }];
    return { data, layout };
  }

  /* A figure that only follows the page's width and colours. */
  function fixed(figure, _state, colours, width) {
    const { xaxis, yaxis } = figure.layout;
    const layout = {
      ...figure.layout, width, xaxis: { ...xaxis, color: css(colours.soft) },
      yaxis: { ...yaxis, color: css(colours.ink) },
    };
    return { data: figure.data, layout };
  }

  function mapTable(state) {
    const { family, plan } = state, rows = drawing().mapRows(family, state.detail);
    const text = (cut) => (cut === Infinity ? "above all" : cut > 0 ? drawing().magnitude(cut, 3) : "none");
    const other = globalThis.amalgamBeside?.planned(state); // the other side, where it is drawn
    const cut = ({ experts }, cells, expert) => {
      const cuts = cells.map((cell) => planner().lowest(experts[expert][cell])).sort((a, b) => a - b);
      return [...new Set([cuts[0], cuts.at(-1)].map(text))].join(" to ");
    };
    const one = (cells, expert) => [
      cut(plan, cells, expert), percent(kept(state, "entries", { expert, cells })),
      ...(other ? (other.has[expert] ? [cut(other, cells, expert), percent(planner().share(family, other, null, "entries", { expert, cells }))] : ["", ""]) : []),
    ];
    const heads = ({ name }) => [`${name}: cut`, "kept", ...(other ? [`${name}: ${other.side}\u2019s cut`, `${other.side} keeps`] : [])];
    return {
      head: [rows.title || "module", ...family.looks.flatMap(heads)],
      rows: rows.cells.map((cells, index) =>
        [rows.labels[index], ...family.looks.flatMap((_, expert) => one(cells, expert))]),
    };
  }

  function cellsTable({ family }, z) {
    const row = (shares, index) =>
      [String(family.layers[index]), ...shares.map((share) => (share === null ? "" : percent(share)))];
    return { head: ["layer", ...family.modules], rows: z.map(row) };
  }

  const driftTable = ({ arrival }) => ({
    head: ["layer", "moves by", "may be off by"],
    rows: (arrival?.rows ?? []).map((row, at) =>
      [row, percent(arrival.drift[at]), arrival.error[at] === null ? "" : percent(arrival.error[at])]),
  });

  function energyTable(state) {
    const { family, plan } = state, lines = curves(family, plan.settings);
    const tenth = (rate) => Math.abs(rate * 10 - Math.round(rate * 10)) < 1e-9 || rate > 0.965;
    const rows = RATES.map((rate, index) => [String(rate), ...lines.map((curve) => percent(curve[index]))]);
    return {
      head: ["rate", ...family.looks.map((look) => look.name)],
      rows: rows.filter((_, index) => tenth(RATES[index])),
    };
  }

  globalThis.amalgamFigures = {
    draw: {
      map: (...given) => drawing().map(...given), histogram: (...given) => histograms().histogram(...given),
      retention, clash, drift, energy, static: fixed,
    },
    tables: {
      map: mapTable, histogram: (state) => histograms().table(state),
      retention: (state) => cellsTable(state, survives(state)), clash: (state) => cellsTable(state, opposed(state)),
      drift: driftTable, energy: energyTable,
    },
    summaries: {
      histogram: (state) => histograms().summary(state),
      retention: (state) => `From ${span(ends(survives(state)))}.`, clash: (state) => `From ${span(ends(opposed(state)))}.`,
      drift: ({ arrival }) => (arrival ? `From ${span(ends([arrival.drift]))}.` : ""),
    },
    legends: { map: (state) => globalThis.amalgamBeside?.legend(state) ?? "" },
    ranges: { retention: (state) => span(ends(survives(state))), clash: (state) => span(ends(opposed(state))) },
    palette: () => drawing().palette(), percent,
  };
})();
