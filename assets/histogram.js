"use strict";
/* The histogram: bars of one expert's changes over the logarithm of their size, kept parts coloured by
   their factor and pruned parts grey, and the other experts' as outlines.

   Bins differ in width, so a bar's height is its entries per doubling of the change: its area is
   what is counted. */
(() => {
  const planner = () => globalThis.amalgamPlan, drawing = () => globalThis.amalgamMap; // scripts load in any order
  const MARGIN = { l: 62, r: 14, t: 30, b: 42 };
  const HEIGHT = 264;

  /* The cells looked at: of one layer, of one module, of both, or all on the map. */
  function cells({ family, detail, module }) {
    if (module === null && detail !== null) return family.rows[detail];
    family.mapped ??= family.row_of.map((_, cell) => cell).filter((cell) => family.row_of[cell] >= 0);
    if (module === null) return family.mapped;
    return family.mapped.filter((cell) => family.column_of[cell] === module && (detail === null || family.row_of[cell] === detail));
  }

  /* What is looked at, in words: "Layer 2, q". */
  function place({ family, detail, module }) {
    const layer = detail === null ? "All layers" : `Layer ${family.layers[detail]}`;
    return `${layer}, ${module === null ? "all modules" : family.modules[module]}`;
  }

  const doublings = (family, bin) => Math.log2(family.edges[bin + 1] / family.edges[bin]);
  const whole = (state) => state.family.shown.map((edge) => Math.log10(edge));
  const range = (state) => state.zoom ?? whole(state);

  /* The range shown after zooming by a factor about its middle; null where all is shown again. */
  function zoomed(state, factor) {
    const [low, high] = range(state), all = whole(state), half = Math.min(factor * (high - low), all[1] - all[0]) / 2;
    if (half * 2 >= all[1] - all[0] - 1e-9) return null;
    const middle = Math.min(Math.max((low + high) / 2, all[0] + half), all[1] - half);
    return [middle - Math.max(half, 0.05), middle + Math.max(half, 0.05)];
  }

  /* Heights of one expert: what is kept, what is pruned, and the factor, by bin from 1 on. */
  function bars(state, expert) {
    const { family, plan, unit } = state, over = cells(state);
    const row = planner().row(family, plan, expert, over);
    const numel = unit === "count" ? over.reduce((total, cell) => total + family.numel[cell], 0) : 1;
    return family.edges.slice(1, -1).map((edge, at) => {
      const bin = at + 1, height = (row.share[bin] * numel) / doublings(family, bin);
      return { bin, height, kept: height * row.kept[bin], share: row.share[bin], part: row.kept[bin], gain: row.gain[bin] };
    });
  }

  /* An expert's whole histogram as a stair; it does not depend on the sliders. */
  function stair(state, expert) {
    const { family, unit } = state, over = cells(state), sums = globalThis.amalgamPools.sumsOf(family, expert, over);
    const scale = unit === "count" ? 1 : 1 / sums.numel, x = [], y = [];
    for (let bin = 1; bin < family.bins; bin++) {
      x.push(Math.log10(family.edges[bin]));
      y.push((scale * (sums.tied[bin] + sums.loose[bin])) / doublings(family, bin));
    }
    return { x: [...x, Math.log10(family.edges.at(-1))], y: [...y, 0] };
  }

  const told = (state, { bin, share, part }) => {
    const { percent, magnitude } = drawing(), { edges } = state.family;
    return `|change| ${magnitude(edges[bin])} to ${magnitude(edges[bin + 1])}<br>${percent(share)} of entries, ${percent(part)} of them kept`;
  };

  function histogram(figure, state, colours, width) {
    const { family, plan, filled, height: kind } = state, { css, tone, depth, rgb, ticks } = drawing();
    const own = rgb(family.looks[filled].colour), rows = bars(state, filled);
    const x = rows.map(({ bin }) => (Math.log10(family.edges[bin]) + Math.log10(family.edges[bin + 1])) / 2);
    const wide = rows.map(({ bin }) => Math.log10(family.edges[bin + 1] / family.edges[bin]));
    const random = plan.settings.order === "random";
    const shared = { type: "bar", x, width: wide, hovertemplate: "%{customdata}<extra></extra>", customdata: state.exact ? rows.map((row) => told(state, row)) : [] };
    const line = { width: 0 };
    const data = [
      { ...shared, y: rows.map((row) => row.kept), name: `${family.looks[filled].glyph} ${family.looks[filled].name}`,
        marker: { line, color: rows.map((row) => css(tone(colours, own, random ? 1 : depth(row.gain)))) } },
      { ...shared, y: rows.map((row) => row.height - row.kept), showlegend: false, marker: { line, color: css(colours.grey) } },
    ];
    let top = Math.max(...rows.map((row) => row.height)), least = Infinity;
    for (const row of rows) if (row.height > 0) least = Math.min(least, row.height);
    family.looks.forEach((look, expert) => {
      if (expert === filled) return;
      const steps = stair(state, expert);
      top = Math.max(top, ...steps.y);
      data.push({
        type: "scatter", mode: "lines", ...steps, hoverinfo: "skip", name: `${look.glyph} ${look.name}`,
        line: { color: look.colour, dash: look.dash, width: 1.6, shape: "hv" },
      });
    });
    const [low, high] = range(state), coarse = matchMedia("(pointer: coarse)").matches;
    const { tickvals, ticktext } = ticks(10 ** low, 10 ** high, width - MARGIN.l - MARGIN.r);
    const axis = { color: css(colours.soft), gridcolor: css(drawing().mix(colours.card, colours.line, 0.7)), linecolor: css(colours.line) };
    const share = state.unit === "share", logs = [Math.log10(Math.max(least, top * 1e-5)), Math.log10(top * 1.3)];
    const layout = {
      ...figure.layout, width, height: HEIGHT, margin: MARGIN, barmode: "stack", bargap: 0, uirevision: false,
      dragmode: coarse ? (state.zoom ? "pan" : false) : "zoom",
      showlegend: family.experts > 1,
      legend: { x: 0.01, xanchor: "left", y: 1, yanchor: "top", font: { color: css(colours.ink), size: 12 }, itemclick: false, itemdoubleclick: false, bgcolor: "rgba(0,0,0,0)" },
    };
    layout.xaxis = { ...figure.layout.xaxis, ...axis, showgrid: false, range: [low, high], tickvals: tickvals.map(Math.log10), ticktext };
    layout.yaxis = {
      ...figure.layout.yaxis, ...axis, type: kind, range: kind === "log" ? logs : [0, top * 1.06], nticks: 5,
      tickformat: share ? (kind === "log" ? "~p" : ".0%") : "~s", exponentformat: "SI",
      title: { text: share ? "share per doubling" : "entries per doubling", standoff: 6, font: { size: 12 } },
    };
    return { data, layout };
  }

  /* The cut of what is looked at; null where nothing is cut by size. */
  function cut(state) {
    const { family, plan, filled } = state, over = cells(state), last = planner().lastRing(plan.settings.factors);
    if (plan.settings.order !== "largest" || last < 0 || !over.some((cell) => plan.pruned[cell])) return null;
    return planner().pooledCuts(family, plan, filled, over)[last];
  }

  function summary(state) {
    const { family, plan, exact, filled } = state, { percent, magnitude } = drawing(), over = cells(state);
    const sums = globalThis.amalgamPools.sumsOf(family, filled, over), at = cut(state);
    const kept = (measure) => percent(planner().share(family, plan, exact, measure, { expert: filled, cells: over }));
    const where = at === null ? "" : at === Infinity ? " Nothing is kept." : at === 0 ? " Nothing is cut." : ` Cut at ${magnitude(at)}.`;
    return `${place(state)} of ${family.looks[filled].name}: ${sums.numel.toLocaleString("en")} entries, ` +
      `${percent(1 - sums.n[0] / sums.numel)} equal the base.${where} Kept: ${kept("entries")} of the entries, ${kept("l2")} of the energy.`;
  }

  function table(state) {
    const { family } = state, { percent, magnitude } = drawing();
    const numel = cells(state).reduce((total, cell) => total + family.numel[cell], 0);
    const rows = bars(state, state.filled).filter(({ share }) => share > 0);
    return {
      head: ["|change| from", "to", "entries", "share", "kept", "factor"],
      rows: rows.map(({ bin, share, part, gain }) => [
        magnitude(family.edges[bin], 3), magnitude(family.edges[bin + 1], 3), Math.round(share * numel).toLocaleString("en"),
        percent(share), percent(part), part > 0 ? gain.toFixed(2) : "",
      ]),
    };
  }

  globalThis.amalgamHistogram = { MARGIN, HEIGHT, cells, place, range, whole, zoomed, histogram, summary, table, cut };
})();
