"use strict";
/* Fills the other live figures, and tells every live figure as a table. */
(() => {
  const planner = () => globalThis.amalgamPlan; // scripts load in any order
  const drawing = () => globalThis.amalgamMap;
  const histograms = () => globalThis.amalgamHistogram;
  const percent = (share) => drawing().percent(share);
  const css = (colour) => drawing().css(colour);
  const kept = ({ family, plan, exact }, measure, of) => planner().share(family, plan, exact, measure, of);
  const tall = (family) => Math.min(520, Math.max(240, family.layers.length * 46 + 40));

  /* Shares kept per layer and module: [row][column], null where the model has no such module. */
  function matrix(state) {
    const { family, measure, expert } = state;
    const z = family.layers.map(() => family.modules.map(() => null));
    family.row_of.forEach((row, cell) => {
      if (row >= 0) z[row][family.column_of[cell]] = kept(state, measure, { expert, cells: [cell] });
    });
    return z;
  }

  function retention(figure, state, colours, width) {
    const { family } = state, z = matrix(state);
    const soft = { color: css(colours.soft), tickcolor: css(colours.line) };
    const heat = {
      ...figure.data[0], x: family.modules, y: family.layers.map((_, index) => index), z,
      customdata: z.map((row, layer) => row.map((share, module) =>
        `layer ${family.layers[layer]}, ${family.modules[module]}: ${percent(share ?? 0)} kept`)),
    };
    heat.colorbar = { ...heat.colorbar, tickfont: { color: soft.color } };
    if (family.layers.length <= 14 && width / family.modules.length > 34) {
      heat.text = z.map((row) => row.map((share) => (share === null ? "" : `${Math.round(100 * share)}%`)));
      const narrow = width / family.modules.length < 60; // "100%" has to fit between its neighbours
      Object.assign(heat, { texttemplate: "%{text}", textfont: { size: narrow ? 9 : 12 } });
    }
    const every = Math.max(1, Math.ceil(family.layers.length / 16));
    const ticked = heat.y.filter((index) => index % every === 0);
    const layout = { ...figure.layout, width, height: tall(family) };
    layout.xaxis = { ...layout.xaxis, ...soft, type: "category" };
    layout.yaxis = {
      ...layout.yaxis, ...soft, range: [family.layers.length - 0.5, -0.5], tickvals: ticked,
      ticktext: ticked.map((index) => String(family.layers[index])),
    };
    return { data: [heat], layout };
  }

  const RATES = [...Array.from({ length: 48 }, (_, i) => i / 50), 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 1];

  /* Energy at each rate; it does not depend on the rate chosen, so it is kept with the family.
     Partitions matter only where the factor on one is 0. */
  function curves(family, settings) {
    const none = settings.order === "all", whole = { partitions: 1, factors: [1] };
    const asked = none ? { ...settings, ...whole, order: "largest" } : { ...settings };
    if (asked.factors.every((factor) => factor !== 0)) Object.assign(asked, whole);
    const key = JSON.stringify({ ...asked, density: 0, weights: 0, dense: 0 });
    if (family.curveKey !== key) {
      family.curves = planner().curve(family, asked, RATES);
      family.curveKey = key;
    }
    return family.curves;
  }

  /* What the slider's line says: of all experts that take part, together. */
  function told(settings, { l2, amplified }, together) {
    if (settings.order === "all") return "nothing is pruned";
    const more = Math.abs(amplified - l2) > 0.0005 ? `,<br>${percent(amplified)} after amplification` : "";
    return `${(1 - settings.density).toFixed(2)} keeps ${percent(l2)}${together ? " of all together" : ""}${more}`;
  }

  function energy(figure, state, colours, width) {
    const { family, plan } = state, { settings } = plan, lines = curves(family, settings);
    const data = figure.data.map((trace) => ({ ...trace, x: RATES, y: lines[trace.meta.expert] }));
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
      yshift: right ? -22 : width < 420 ? -46 : -64, align: right ? "left" : "right", text: told(settings, state.totals, family.experts > 1),
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
    const one = (cells, expert) => {
      const cuts = cells.map((cell) => planner().lowest(plan.experts[expert][cell])).sort((a, b) => a - b);
      const ends = [...new Set([cuts[0], cuts.at(-1)].map(text))];
      return [ends.join(" to "), percent(kept(state, "entries", { expert, cells }))];
    };
    return {
      head: [rows.title || "module", ...family.looks.flatMap((look) => [`${look.name}: cut`, "kept"])],
      rows: rows.cells.map((cells, index) =>
        [rows.labels[index], ...family.looks.flatMap((_, expert) => one(cells, expert))]),
    };
  }

  function retentionTable(state) {
    const { family } = state;
    const row = (shares, index) =>
      [String(family.layers[index]), ...shares.map((share) => (share === null ? "" : percent(share)))];
    return { head: ["layer", ...family.modules], rows: matrix(state).map(row) };
  }

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
      retention, energy, static: fixed,
    },
    tables: { map: mapTable, histogram: (state) => histograms().table(state), retention: retentionTable, energy: energyTable },
    summaries: { histogram: (state) => histograms().summary(state) },
    palette: () => drawing().palette(), percent,
  };
})();
