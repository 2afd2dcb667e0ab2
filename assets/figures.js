"use strict";
/* Fills the other live figures, and tells every live figure as a table. */
(() => {
  const planner = () => globalThis.amalgamPlan; // scripts load in any order
  const drawing = () => globalThis.amalgamMap;
  const percent = (share) => drawing().percent(share);
  const css = (colour) => drawing().css(colour);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const tall = (family) => Math.min(520, Math.max(240, family.layers.length * 46 + 40));

  /* Shares kept per layer and module: [row][column], null where the model has no such module. */
  function matrix(state) {
    const { family, plan, measure, expert, exact } = state;
    const z = family.layers.map(() => family.modules.map(() => null));
    family.row_of.forEach((row, cell) => {
      if (row < 0) return;
      const shares = plan.experts.map((cells, index) =>
        exact ? exact[measure][index][cell] : sum(cells[cell][measure]));
      z[row][family.column_of[cell]] = expert < 0 ? sum(shares) / shares.length : shares[expert];
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
      Object.assign(heat, { texttemplate: "%{text}", textfont: { size: 12 } });
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

  /* Energy at each rate; it does not depend on the rate chosen, so it is kept with the family. */
  function curves(family, settings) {
    const key = JSON.stringify([settings.prune, settings.scope, settings.shift]);
    if (family.curveKey !== key) {
      const asked = settings.prune === "none" ? { ...settings, prune: "magnitude" } : settings;
      family.curves = planner().curve(family, asked, RATES);
      family.curveKey = key;
    }
    return family.curves;
  }

  function told(settings, totals) {
    if (settings.prune === "none") return "nothing is pruned";
    const amplified = Math.abs(totals.amplified - totals.l2) > 0.0005;
    const more = amplified ? `,<br>${percent(totals.amplified)} after amplification` : "";
    return `${(1 - settings.density).toFixed(2)} keeps ${percent(totals.l2)}${more}`;
  }

  function energy(figure, state, colours, width) {
    const { family, plan, exact } = state, { settings } = plan;
    const totals = exact ? { ...state.totals, l2: exact.whole.l2 } : state.totals;
    const kept = curves(family, settings);
    const data = figure.data.map((trace) => ({ ...trace, x: RATES, y: kept[trace.meta.expert] }));
    const rate = settings.prune === "none" ? 0 : 1 - settings.density, right = rate < 0.5;
    const ink = css(colours.ink), grid = css(drawing().mix(colours.card, colours.line, 0.7));
    const axis = { color: css(colours.soft), gridcolor: grid, linecolor: css(colours.line) };
    const layout = { ...figure.layout, width, height: tall(family) };
    layout.xaxis = { ...layout.xaxis, ...axis };
    layout.yaxis = { ...layout.yaxis, ...axis };
    layout.legend = { ...layout.legend, font: { color: ink }, bgcolor: "rgba(0,0,0,0)" };
    layout.shapes = [{ type: "line", x0: rate, x1: rate, y0: 0, y1: 1, line: { color: ink, width: 1.6 } }];
    layout.annotations = [{
      x: rate, y: 1, yanchor: "top", xanchor: right ? "left" : "right", xshift: right ? 6 : -6,
      yshift: right ? -22 : width < 420 ? -46 : -64, align: right ? "left" : "right", text: told(settings, totals),
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
    const one = (cells, expert) => {
      const kept = sum(cells.map((cell) => sum(plan.experts[expert][cell].entries) * family.numel[cell]));
      const cut = planner().pooledCuts(family, plan, expert, cells).at(-1);
      const text = cut === Infinity ? "above all" : cut > 0 ? cut.toPrecision(3) : "none";
      return [text, percent(kept / sum(cells.map((cell) => family.numel[cell])))];
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
    const { family, plan } = state, kept = curves(family, plan.settings);
    const tenth = (rate) => Math.abs(rate * 10 - Math.round(rate * 10)) < 1e-9 || rate > 0.965;
    const rows = RATES.map((rate, index) => [String(rate), ...kept.map((curve) => percent(curve[index]))]);
    return {
      head: ["rate", ...family.looks.map((look) => look.name)],
      rows: rows.filter((_, index) => tenth(RATES[index])),
    };
  }

  globalThis.amalgamFigures = {
    draw: { map: (...given) => drawing().map(...given), retention, energy, static: fixed },
    tables: { map: mapTable, retention: retentionTable, energy: energyTable },
    palette: () => drawing().palette(), percent,
  };
})();
